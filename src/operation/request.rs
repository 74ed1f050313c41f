//! Requests: from what a caller asks to a journaled operation, and from its end to the answer.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::place::Place;
use super::resolve::{self, Meaning};
use super::world::World;
use super::{
    Engine, Step, Story, attach, create, delete, detach, export, r#move, reclaim, recover, resize, snapshot, to_json,
    unexport,
};
use crate::api::{
    Asker, Change, Changed, ExportCreate, ExportDelete, SnapshotCreate, SnapshotDelete, SnapshotRevert, VolumeAttach,
    VolumeCreate, VolumeDelete, VolumeDetach, VolumeMove, VolumeReclaim, VolumeRecover, VolumeResize,
};
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, VmId, VolumeId, VolumeRecord, printable};
use crate::store::{NewOperation, OperationRow};

/// What has sent nothing by then never starts, unless the caller says otherwise.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// How often, and after which pauses, the looks before an operation are made again where CloudStack turned one away or
/// gave no usable answer.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// How long CloudStack may take to name a volume that the store can name too.
const NAMING: Duration = Duration::from_secs(5);

/// A change that is asked for.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Request {
    Create(VolumeCreate),
    Attach(VolumeAttach),
    Detach(VolumeDetach),
    Move(VolumeMove),
    Reclaim(VolumeReclaim),
    Delete(VolumeDelete),
    Recover(VolumeRecover),
    Resize(VolumeResize),
    SnapshotCreate(SnapshotCreate),
    SnapshotRevert(SnapshotRevert),
    SnapshotDelete(SnapshotDelete),
    Export(ExportCreate),
    Unexport(ExportDelete),
}

/// What a request has come to.
pub enum Taken {
    /// Its operation, which runs or waits in line.
    Operation(Box<OperationRow>),
    /// Of a dry run: what it would do.
    Plan(Box<Changed>),
}

/// What a request is before it is journaled.
pub(super) enum Drafted {
    /// It was made before: its operation.
    Before(Box<OperationRow>),
    /// A new operation.
    New {
        new: Box<NewOperation>,
        /// What it takes of its VM that is free now.
        takes: Option<Place>,
    },
    /// Of a dry run: what it would do.
    Plan(Box<Changed>),
}

/// Who asks for what, and how.
struct Asked<'a> {
    request: String,
    change: &'a Change,
    asker: Asker,
}

/// The volume that an operation is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subject {
    pub id: VolumeId,
    pub name: String,
}

impl Subject {
    pub fn of(volume: &VolumeRecord) -> Self {
        Self { id: volume.id, name: volume.name.clone() }
    }

    /// Name and id, as every message names a volume.
    pub fn label(&self) -> String {
        format!("{} ({})", printable(&self.name), self.id)
    }
}

/// An operation that could be asked for: all that can be refused has been.
pub(super) struct Draft<S> {
    pub story: S,
    pub subject: Option<Subject>,
    pub new_name: Option<String>,
    pub vm_id: Option<VmId>,
    pub supersedes: Option<(OperationId, String)>,
    /// How long clients may take to finish before anything is sent.
    pub drain: Duration,
    /// As what it attaches a volume that its VM does not have yet.
    pub takes: Option<Place>,
}

impl<S: Story> Draft<S> {
    pub fn of(story: S) -> Self {
        Self { story, subject: None, new_name: None, vm_id: None, supersedes: None, drain: Duration::ZERO, takes: None }
    }
}

impl Engine {
    /// Accepts a request: it is resolved at CloudStack, refused for what can be seen before anything is sent, and
    /// journaled; of a dry run only its plan is made.
    pub async fn request(&self, request: &Request, change: &Change, asker: Asker) -> Result<Taken> {
        let drafted = self.draft(request, change, asker).await?;
        self.take(drafted, change)
    }

    /// As [`Engine::request`], for what a drain itself asks for.
    pub(super) async fn request_of_drain(&self, request: &Request, asker: Asker) -> Result<Taken> {
        let change = &Change::default();
        let drafted = self.patiently(request, &Asked { request: to_json(request)?, change, asker }).await?;
        self.take(drafted, change)
    }

    /// Looks at a request as far as its operation could be journaled.
    pub(super) async fn draft(&self, request: &Request, change: &Change, asker: Asker) -> Result<Drafted> {
        let world = self.world();
        let asked = Asked { request: to_json(request)?, change, asker };
        // Before its words are looked up again: they may mean nothing any more.
        if let Some(id) = &change.request_id
            && let Some(row) = world.store.operation_of_request(id, &asked.request)?
        {
            return Ok(Drafted::Before(Box::new(row)));
        }
        world.refuse_while_draining()?;
        self.patiently(request, &asked).await
    }

    async fn patiently(&self, request: &Request, asked: &Asked<'_>) -> Result<Drafted> {
        self.world().refuse_without_room()?;
        let mut pauses = PAUSES.into_iter();
        loop {
            match self.ask(request, asked).await {
                Err(error) if is_passing(&error) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                drafted => return drafted,
            }
        }
    }

    /// Each story's futures are boxed: together they are more than a thread's stack holds.
    async fn ask(&self, request: &Request, asked: &Asked<'_>) -> Result<Drafted> {
        let world = self.world();
        match request {
            Request::Create(params) => self.drafted(Box::pin(create::ask(world, params)).await?, asked).await,
            Request::Attach(params) => self.drafted(Box::pin(attach::ask(world, params)).await?, asked).await,
            Request::Detach(params) => self.drafted(Box::pin(detach::ask(world, params)).await?, asked).await,
            Request::Move(params) => self.drafted(Box::pin(r#move::ask(world, params)).await?, asked).await,
            Request::Reclaim(params) => self.drafted(Box::pin(reclaim::ask(world, params)).await?, asked).await,
            Request::Delete(params) => self.drafted(Box::pin(delete::ask(world, params)).await?, asked).await,
            Request::Recover(params) => self.drafted(Box::pin(recover::ask(world, params)).await?, asked).await,
            Request::Resize(params) => self.drafted(Box::pin(resize::ask(world, params)).await?, asked).await,
            Request::SnapshotCreate(params) => {
                self.drafted(Box::pin(snapshot::ask_create(world, params)).await?, asked).await
            }
            Request::SnapshotRevert(params) => {
                self.drafted(Box::pin(snapshot::ask_revert(world, params)).await?, asked).await
            }
            Request::SnapshotDelete(params) => {
                self.drafted(Box::pin(snapshot::ask_delete(world, params)).await?, asked).await
            }
            Request::Export(params) => self.drafted(Box::pin(export::ask(world, params)).await?, asked).await,
            Request::Unexport(params) => self.drafted(Box::pin(unexport::ask(world, params)).await?, asked).await,
        }
    }

    async fn drafted<S: Story>(&self, draft: Draft<S>, asked: &Asked<'_>) -> Result<Drafted> {
        let (new, takes) = (new_operation(&draft, asked)?, draft.takes);
        if asked.change.dry_run {
            return Ok(Drafted::Plan(Box::new(Box::pin(self.dry_run(draft.story, new)).await?)));
        }
        Ok(Drafted::New { new: Box::new(new), takes })
    }

    fn take(&self, drafted: Drafted, change: &Change) -> Result<Taken> {
        match drafted {
            Drafted::New { new, .. } => Ok(Taken::Operation(Box::new(self.accept(&new)?))),
            Drafted::Plan(changed) => Ok(Taken::Plan(changed)),
            Drafted::Before(row) if change.dry_run => {
                let notes = vec![format!("the request id was used before: operation {}", row.id)];
                let told = Changed { plan: Some(Vec::new()), notes, ..self.world().untouched(row.volume_id)? };
                Ok(Taken::Plan(Box::new(told)))
            }
            Drafted::Before(row) => Ok(Taken::Operation(row)),
        }
    }

    /// What a change has come to, with what is true now.
    pub fn changed(&self, row: &OperationRow) -> Result<Changed> {
        let outcome = row.outcome.clone();
        let volume = row.volume_id.map(|id| self.world().volume_now(id)).transpose()?.flatten();
        Ok(Changed {
            changed: outcome.as_ref().map(|outcome| outcome.changed),
            operation: Some(self.operation(row.id)?),
            export: volume.as_ref().and_then(|volume| volume.export.clone()),
            volume,
            notes: outcome.as_ref().map(|outcome| outcome.notes.clone()).unwrap_or_default(),
            swapped_root: outcome.as_ref().and_then(|outcome| outcome.swapped_root.clone()),
            plan: None,
            snapshot: outcome.as_ref().and_then(|outcome| outcome.snapshot.clone()),
            existed: outcome.as_ref().filter(|outcome| outcome.existed).map(|_| true),
            departure: outcome.and_then(|outcome| outcome.departure),
        })
    }
}

fn new_operation<S: Story>(draft: &Draft<S>, asked: &Asked<'_>) -> Result<NewOperation> {
    let Asked { request, change, asker } = asked;
    let wait = change.timeout_seconds.map_or(DEFAULT_DEADLINE.saturating_add(draft.drain), Duration::from_secs);
    let first = S::STEPS[0];
    Ok(NewOperation {
        id: OperationId::random(),
        kind: S::KIND,
        step: (first.name().to_owned(), first.words().to_owned()),
        volume_id: draft.subject.as_ref().map(|subject| subject.id),
        volume_name: draft.subject.as_ref().map(|subject| subject.name.clone()).or(draft.new_name.clone()),
        new_name: draft.new_name.clone(),
        vm_id: draft.vm_id,
        root_of: draft.vm_id.filter(|_| draft.takes == Some(Place::Root)),
        request_id: change.request_id.clone(),
        request: request.clone(),
        asker: asker.clone(),
        story: to_json(&draft.story)?,
        deadline: Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX),
        queue: change.queue,
        supersedes: draft.supersedes.clone(),
    })
}

/// Whether the same look can succeed in a moment: too many calls, maintenance, an answer that was none.
fn is_passing(error: &Error) -> bool {
    let turned_away = error.cloudstack.as_ref().is_some_and(|fault| matches!(fault.code, 429 | 503));
    turned_away || error.kind == Kind::CloudstackUnreachable
}

impl World {
    /// A volume for a change that CloudStack has no part in. Where CloudStack is away, what it said last will do: the
    /// disk is proven by its serial.
    pub(super) async fn local_volume(&self, word: &str) -> Result<(VolumeRecord, Vec<String>)> {
        let error = match timeout(NAMING, resolve::volume(self, word, Meaning::Any)).await {
            Ok(Ok(volume)) => return Ok((volume, Vec::new())),
            Ok(Err(error)) => error,
            Err(_) => Error::new(
                Kind::CloudstackUnreachable,
                format!(
                    "looking up volume {}: CloudStack has not answered within {}s",
                    printable(word),
                    NAMING.as_secs()
                ),
            ),
        };
        if !matches!(error.kind, Kind::CloudstackUnreachable | Kind::CloudstackAuth) {
            return Err(error);
        }
        let known: Vec<VolumeRecord> = self.store.volumes()?.into_iter().map(|cached| cached.record).collect();
        let volume = resolve::pick(word, &known, Meaning::Any).map_err(|_| error)?;
        let note = format!("CloudStack does not answer: {} is the volume that it last named so", volume.label());
        Ok((volume, vec![note]))
    }
}
