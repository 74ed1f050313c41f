//! What a step sees: the outside worlds, and its own operation as others watch it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::deadline::Deadline;
use super::engine::{Note, Shown};
use super::kept::Kept;
use super::lane::{Lanes, Pass};
use super::synced::SyncLogged;
use super::tally::Tally;
use super::this_vm::ThisVm;
use super::{Step, Story, transition};
use crate::api::{EventKind, Status, Usual, Vms};
use crate::cloudstack::{CallError, CloudStack};
use crate::config::Config;
use crate::device::{Devices, HandsOff};
use crate::error::{Error, Kind, Result};
use crate::model::{JobId, SnapshotRecord, VolumeId, VolumeRecord};
use crate::nbd::Server;
use crate::store::{NewEvent, OperationRow, Store, Transition};

/// How long a step that only looks bears with a CloudStack that does not answer: long enough for a restart of a proxy,
/// short enough for an operator who waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

/// The four outside worlds and the configuration.
pub struct World {
    /// What was configured.
    pub config: Config,
    /// The journal.
    pub store: Store,
    /// The cloud.
    pub cloud: CloudStack,
    /// This kernel.
    pub devices: Devices,
    /// The exports.
    pub nbd: Server,
    pub(super) lanes: Lanes,
    pub(super) this_vm: ThisVm,
    pub(super) tally: Tally,
    pub(super) sync_log: SyncLogged,
    pub(super) hands_off: HandsOff,
    pub(super) vms: Kept<Vms>,
    pub(super) snapshots: Kept<Vec<SnapshotRecord>>,
    /// Held by whoever compares what CloudStack said with the store and keeps it: what differs is taken down once.
    keeping: Mutex<()>,
    /// Held by whoever decides what is exported: an operation, or whoever brings back what was wished for.
    pub(super) serving: tokio::sync::Mutex<()>,
    /// Held by whoever counts the free slots of a VM for several attachments, until they are journaled.
    pub(super) slots: tokio::sync::Mutex<()>,
}

impl World {
    /// Puts them together.
    pub fn new(config: Config, store: Store, cloud: CloudStack, devices: Devices, nbd: Server) -> Self {
        let hands_off = HandsOff::below(store.path().parent().unwrap_or(store.path()));
        let (lanes, this_vm, serving) = (Lanes::new(), ThisVm::default(), tokio::sync::Mutex::default());
        let (tally, sync_log, slots) = (Tally::default(), SyncLogged::default(), tokio::sync::Mutex::default());
        let (vms, snapshots, keeping) = Default::default();
        Self {
            config,
            store,
            cloud,
            devices,
            nbd,
            lanes,
            this_vm,
            tally,
            sync_log,
            hands_off,
            vms,
            snapshots,
            keeping,
            serving,
            slots,
        }
    }

    /// Looks a volume up at CloudStack, and keeps what it said.
    pub(super) async fn look_up(&self, id: VolumeId) -> Result<Option<VolumeRecord>, CallError> {
        let found = self.cloud.volume(id).await?;
        let _alone = self.keep();
        let kept = self.note_look(id, found.as_ref()).and_then(|()| match &found {
            Some(record) => self.store.put_volume(record, Timestamp::now()),
            None => self.store.forget_volume(id),
        });
        if let Err(error) = kept {
            tracing::warn!(volume = %id, %error, "what CloudStack said could not be kept");
        }
        Ok(found)
    }

    /// The right to compare what CloudStack said with the store, and to keep it.
    pub(super) fn keep(&self) -> MutexGuard<'_, ()> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a step of an operation works with.
pub(super) struct Cx {
    pub world: Arc<World>,
    pub row: OperationRow,
    pub deadline: Deadline,
    /// An earlier daemon may have done the step, or part of it.
    pub resumed: bool,
    pub shown: Arc<watch::Sender<Shown>>,
    /// Its right to have a job with CloudStack.
    pub pass: Option<Pass>,
}

impl Cx {
    pub fn past_deadline(&self) -> bool {
        self.deadline.left().is_none()
    }

    /// The end of an operation that changed nothing.
    pub fn nothing_was_sent(&self, why: &str) -> Error {
        Error::new(Kind::CloudstackUnreachable, format!("nothing was sent to CloudStack: {why}"))
            .hint("ask again if it is still wanted")
    }

    /// Takes down how a call to CloudStack that changes something, or its job, went.
    pub fn called(&self, job_id: Option<JobId>, text: impl Into<String>) {
        let (operation, volume_id) = (Some(self.row.id), self.row.volume_id);
        let event = NewEvent::new(EventKind::Call, text.into());
        self.world.store.record(NewEvent { operation, volume_id, job_id, ..event });
    }

    /// Shows what the step is waiting for; none when it goes on.
    pub fn note(&self, note: Option<Note>) {
        self.shown.send_if_modified(|shown| {
            let differs = shown.note != note;
            shown.note = note;
            differs
        });
    }

    /// Shows whether CloudStack answers as it should.
    pub fn outlook(&self, trouble: Option<&CallError>) {
        match trouble {
            Some(error) => self.trouble(error),
            None => self.note(None),
        }
    }

    /// Shows that CloudStack does not answer as it should.
    pub fn trouble(&self, error: &CallError) {
        tracing::warn!(operation = %self.row.id, error = %error, "CloudStack");
        let contact = self.world.cloud.contact();
        let note = match (contact.key_refused_since, contact.trouble) {
            (Some(since), _) => Note::KeyRefused(since),
            (None, Some(trouble)) => Note::Away(trouble.since),
            (None, None) => Note::Text(format!("CloudStack: {error}")),
        };
        self.note(Some(note));
    }

    /// Tells whoever waits that it takes longer than it should; the operation goes on.
    pub fn overdue(&self, error: Error) {
        self.shown.send_modify(|shown| shown.overdue = Some(error));
    }

    /// Asks CloudStack again and again until it answers, for a step that has sent nothing: gives up after a while.
    pub async fn patiently<T, F>(&self, doing: &str, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let until = Instant::now() + PATIENCE.min(self.deadline.left().unwrap_or_default());
        let mut backoff = Backoff::default();
        loop {
            let error = match timeout_at(until, ask()).await {
                Ok(Ok(answer)) => {
                    self.note(None);
                    return Ok(answer);
                }
                Ok(Err(error)) => error,
                Err(_) => return Err(silence(doing)),
            };
            let hopeless = matches!(error, CallError::Refused(_) | CallError::Auth { .. } | CallError::Project(_));
            if !hopeless {
                self.trouble(&error);
                if timeout_at(until, backoff.wait(error.retry_after())).await.is_ok() {
                    continue;
                }
            }
            return Err(error.into_error(&format!("{doing}; nothing was sent")));
        }
    }

    /// Asks as a step must that `sent` something, or has not yet.
    pub async fn asking<T, F>(&self, sent: bool, doing: &str, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        if sent { Ok(self.persistently(ask).await) } else { self.patiently(doing, ask).await }
    }

    /// Asks CloudStack until it answers, for a step whose effect may be under way: never gives up.
    pub async fn persistently<T, F>(&self, ask: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match ask().await {
                Ok(answer) => {
                    self.note(None);
                    return answer;
                }
                Err(error) => {
                    self.trouble(&error);
                    backoff.wait(error.retry_after()).await;
                }
            }
        }
    }

    /// Proves this VM before anything is sent: in a copy of the appliance the journal is another machine's. A daemon
    /// proves it once, so only a resumed operation may have to wait for it: without end where something was `sent`.
    pub async fn prove_this_vm(&self, sent: bool) -> Result<()> {
        let mut backoff = Backoff::default();
        loop {
            match self.world.prove_this_vm().await {
                Err(error) if error.retryable && (sent || !self.past_deadline()) => {
                    self.note(Some(Note::Text(error.message)));
                    backoff.wait(None).await;
                }
                proven => return proven.map(drop),
            }
        }
    }

    /// Writes to the store until it can be written: a full disk holds the operation where it is.
    pub async fn stored<T>(&self, write: impl Fn(&Store) -> Result<T>) -> T {
        let mut backoff = Backoff::default();
        loop {
            match write(&self.world.store) {
                Ok(value) => return value,
                Err(error) => {
                    tracing::error!(operation = %self.row.id, %error, "cannot be saved; trying again");
                    self.note(Some(Note::Text(error.message)));
                    backoff.wait(None).await;
                }
            }
        }
    }

    /// Commits where the story stands now; false where somebody else has ended it.
    pub async fn save<S: Story>(&mut self, story: &S, status: Status, step: S::Step, error: Option<&Error>) -> bool {
        match transition(story, status, step, error) {
            Ok(to) => self.commit(&to).await,
            Err(error) => {
                tracing::error!(operation = %self.row.id, step = step.name(), %error, "cannot be saved");
                false
            }
        }
    }

    async fn commit(&mut self, to: &Transition) -> bool {
        let Some(row) = self.stored(|store| store.transition(self.row.id, to)).await else { return false };
        tracing::debug!(operation = %row.id, status = ?row.status, step = row.step, "transition");
        if let Some(error) = row.error.as_ref().filter(|_| matches!(row.status, Status::Failed | Status::Stuck)) {
            tracing::warn!(operation = %row.id, volume = row.volume_id.map(|id| id.to_string()), "{:?}: {error}", row.status);
        }
        self.row = row.clone();
        let usual = self.usual_time_of(&row);
        self.shown.send_modify(|shown| *shown = Shown { row, note: None, overdue: None, usual });
        true
    }

    /// How long the step of an operation usually takes here; for people and for the pace of polls only.
    fn usual_time_of(&self, row: &OperationRow) -> Option<Usual> {
        if row.status != Status::Running {
            return None;
        }
        self.world.store.usual_time(row.kind, &row.step).unwrap_or_else(|error| {
            tracing::warn!(operation = %row.id, %error, "how long its step usually takes cannot be read");
            None
        })
    }

    /// A row that this version cannot read is for a human; it is never dropped.
    pub async fn mark_unreadable(&mut self, row: &OperationRow, error: Error) {
        tracing::error!(operation = %row.id, %error, "unreadable");
        let to = Transition {
            status: Status::Stuck,
            step: (row.step.clone(), row.step_words.clone()),
            story: row.story.clone(),
            volume_id: None,
            outcome: None,
            error: Some(error),
        };
        self.commit(&to).await;
    }
}

/// CloudStack took the question and said nothing.
fn silence(doing: &str) -> Error {
    Error::new(Kind::CloudstackUnreachable, format!("{doing}; nothing was sent: CloudStack has not answered in time"))
        .hint("`volctl health` shows whether it answers")
}

/// Waits that widen from 250 ms to 10 s.
#[derive(Default)]
pub(super) struct Backoff {
    step: u32,
}

impl Backoff {
    /// Waits for as long as the server asks for, or else a little longer than the last time.
    pub async fn wait(&mut self, asked: Option<Duration>) {
        let pause =
            asked.unwrap_or_else(|| Duration::from_millis(250 << self.step.min(5)).min(Duration::from_secs(10)));
        self.step += 1;
        tokio::time::sleep(pause).await;
    }
}
