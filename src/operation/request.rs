//! Requests: from what a caller asks to a journaled operation, and from its end to the answer.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::resolve::{self, Meaning};
use super::world::World;
use super::{
    Engine, Step, Story, attach, create, delete, detach, export, r#move, recover, resize, snapshot, to_json, unexport,
};
use crate::api::{
    Asker, Change, Changed, ExportCreate, ExportDelete, SnapshotCreate, SnapshotDelete, SnapshotRevert, VolumeAttach,
    VolumeCreate, VolumeDelete, VolumeDetach, VolumeMove, VolumeRecover, VolumeResize,
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
}

impl<S: Story> Draft<S> {
    pub fn of(story: S) -> Self {
        Self { story, subject: None, new_name: None, vm_id: None, supersedes: None, drain: Duration::ZERO }
    }
}

impl Engine {
    /// Accepts a request: it is resolved at CloudStack, refused for what can be seen before anything is sent, and
    /// journaled; of a dry run only its plan is made.
    pub async fn request(&self, request: &Request, change: &Change, asker: Asker) -> Result<Taken> {
        let world = self.world();
        let asked = Asked { request: to_json(request)?, change, asker };
        // Before its words are looked up again: they may mean nothing any more.
        if let Some(id) = &change.request_id
            && let Some(row) = world.store.operation_of_request(id, &asked.request)?
        {
            return self.taken_before(row, change);
        }
        world.refuse_while_draining()?;
        self.patiently(request, &asked).await
    }

    /// As [`Engine::request`], for what a drain itself asks for.
    pub(super) async fn request_of_drain(&self, request: &Request, asker: Asker) -> Result<Taken> {
        let change = &Change::default();
        self.patiently(request, &Asked { request: to_json(request)?, change, asker }).await
    }

    async fn patiently(&self, request: &Request, asked: &Asked<'_>) -> Result<Taken> {
        self.world().refuse_without_room()?;
        let mut pauses = PAUSES.into_iter();
        loop {
            match self.ask(request, asked).await {
                Err(error) if is_passing(&error) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                accepted => return accepted,
            }
        }
    }

    async fn ask(&self, request: &Request, asked: &Asked<'_>) -> Result<Taken> {
        let world = self.world();
        match request {
            Request::Create(params) => self.take(create::ask(world, params).await?, asked).await,
            Request::Attach(params) => self.take(attach::ask(world, params).await?, asked).await,
            Request::Detach(params) => self.take(detach::ask(world, params).await?, asked).await,
            Request::Move(params) => self.take(r#move::ask(world, params).await?, asked).await,
            Request::Delete(params) => self.take(delete::ask(world, params).await?, asked).await,
            Request::Recover(params) => self.take(recover::ask(world, params).await?, asked).await,
            Request::Resize(params) => self.take(resize::ask(world, params).await?, asked).await,
            Request::SnapshotCreate(params) => self.take(snapshot::ask_create(world, params).await?, asked).await,
            Request::SnapshotRevert(params) => self.take(snapshot::ask_revert(world, params).await?, asked).await,
            Request::SnapshotDelete(params) => self.take(snapshot::ask_delete(world, params).await?, asked).await,
            Request::Export(params) => self.take(export::ask(world, params).await?, asked).await,
            Request::Unexport(params) => self.take(unexport::ask(world, params).await?, asked).await,
        }
    }

    fn taken_before(&self, row: OperationRow, change: &Change) -> Result<Taken> {
        if !change.dry_run {
            return Ok(Taken::Operation(Box::new(row)));
        }
        let notes = vec![format!("the request id was used before: operation {}", row.id)];
        let told = Changed { plan: Some(Vec::new()), notes, ..self.world().untouched(row.volume_id)? };
        Ok(Taken::Plan(Box::new(told)))
    }

    async fn take<S: Story>(&self, draft: Draft<S>, asked: &Asked<'_>) -> Result<Taken> {
        let new = new_operation(&draft, asked)?;
        if asked.change.dry_run {
            return Ok(Taken::Plan(Box::new(self.dry_run(draft.story, new).await?)));
        }
        Ok(Taken::Operation(Box::new(self.accept(&new)?)))
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
