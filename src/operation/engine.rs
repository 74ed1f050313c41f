//! Accepts operations, runs them side by side (one at a time for a volume), lets others watch, and resumes after a
//! restart what an earlier daemon had accepted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::world::Cx;
use super::{World, again, cancellable, drive_any, recovery};
use crate::api::{Operation, OperationShown, Status};
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, clock_time, format_age, printable};
use crate::store::{Accepted, NewOperation, OperationRow};

/// What a running step waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// CloudStack has not answered since.
    Away(Timestamp),
    /// CloudStack refuses the key since.
    KeyRefused(Timestamp),
    /// In words.
    Text(String),
}

/// An operation as those who watch it see it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its row.
    pub row: OperationRow,
    /// What it waits for.
    pub note: Option<Note>,
    /// It takes longer than it should, and goes on: whoever waits is told.
    pub overdue: Option<Error>,
}

impl Shown {
    fn plain(row: OperationRow) -> Self {
        Self { row, note: None, overdue: None }
    }

    /// For people and programs; what it waits for is part of its step.
    pub fn operation(&self) -> Operation {
        let mut operation = self.row.shown();
        if let Some(note) = &self.note {
            let words = match note {
                Note::Away(since) => {
                    format!("CloudStack away for {}", format_age(since.duration_until(Timestamp::now())))
                }
                Note::KeyRefused(since) => format!("key refused since {}", clock_time(*since)),
                Note::Text(text) => text.clone(),
            };
            operation.step = format!("{} ({words})", operation.step);
        }
        operation
    }

    /// Whether there is nothing to wait for any more: ended, or for a human.
    pub fn settled(&self) -> bool {
        self.row.status.ended() || self.row.status == Status::Stuck
    }
}

struct Live {
    shown: Arc<watch::Sender<Shown>>,
    task: AbortHandle,
}

/// The engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    world: Arc<World>,
    live: Mutex<HashMap<OperationId, Live>>,
    /// Bumped whenever an operation ends: whoever stands in line looks whether it is its turn.
    ended: watch::Sender<u64>,
}

impl Engine {
    /// An engine over these worlds.
    pub fn new(world: Arc<World>) -> Self {
        Self(Arc::new(Inner { world, live: Mutex::default(), ended: watch::Sender::new(0) }))
    }

    /// The worlds.
    pub fn world(&self) -> &Arc<World> {
        &self.0.world
    }

    /// How many operations have not ended.
    pub fn unfinished(&self) -> usize {
        self.live().len()
    }

    /// Changes whenever an operation ends.
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.0.ended.subscribe()
    }

    /// Drives on what an earlier daemon had accepted.
    pub fn resume(&self) -> Result<usize> {
        let rows = self.world().store.unfinished()?;
        let plan = recovery::plan(rows);
        let mut live = self.live();
        for row in &plan {
            tracing::info!(operation = %row.id, kind = ?row.kind, step = row.step, "resumed");
            self.world().store.note(row.id, "resumed by a new volctld, which looks how far it got")?;
            live.insert(row.id, self.start(row.clone(), true));
        }
        Ok(plan.len())
    }

    /// Journals an operation and starts it.
    pub(super) fn accept(&self, new: &NewOperation) -> Result<OperationRow> {
        // Held across the commit: whoever learns of the operation from the store finds it here too.
        let mut live = self.live();
        let row = match self.world().store.accept(new)? {
            Accepted::Same(row) => return Ok(row),
            Accepted::New(row) => row,
        };
        tracing::info!(operation = %row.id, kind = ?row.kind, volume = ?row.volume_id, uid = ?row.asker.uid, "accepted");
        live.insert(row.id, self.start(row.clone(), false));
        drop(live);
        if let Some((superseded, _)) = new.supersedes {
            self.stop_superseded(superseded);
        }
        Ok(row)
    }

    fn start(&self, row: OperationRow, resumed: bool) -> Live {
        let shown = Arc::new(watch::Sender::new(Shown::plain(row.clone())));
        let (engine, watched) = (self.clone(), shown.clone());
        let task = tokio::spawn(async move {
            let id = row.id;
            if let Some(row) = engine.turn(row, &shown).await {
                drive_any(row.clone(), Cx { world: engine.world().clone(), row, resumed, shown }).await;
            }
            engine.leave(id);
        });
        Live { shown: watched, task: task.abort_handle() }
    }

    /// Waits for the operation's turn; none where it ended in line.
    async fn turn(&self, row: OperationRow, shown: &watch::Sender<Shown>) -> Option<OperationRow> {
        let mut ended = self.ended();
        let mut row = row;
        while row.status == Status::Queued {
            ended.mark_unchanged();
            if self.world().store.start_queued(row.id).unwrap_or(false) {
                row = self.world().store.operation(row.id).ok()??;
                shown.send_replace(Shown::plain(row.clone()));
                break;
            }
            let left = row.deadline.duration_since(Timestamp::now());
            let Ok(left) = std::time::Duration::try_from(left) else {
                self.give_up_in_line(&row, shown);
                return None;
            };
            tokio::select! {
                _ = ended.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
        Some(row)
    }

    fn give_up_in_line(&self, row: &OperationRow, shown: &watch::Sender<Shown>) {
        let error =
            Error::new(Kind::Busy, "nothing was sent: the volume was busy with another operation for all that time")
                .hint("`volctl ops` shows with which");
        match self.world().store.end_early(row.id, &[], Status::Failed, &error) {
            Ok(Some(row)) => drop(shown.send_replace(Shown::plain(row))),
            Ok(None) => {}
            Err(error) => tracing::error!(operation = %row.id, %error, "cannot be ended"),
        }
    }

    fn leave(&self, id: OperationId) {
        self.live().remove(&id);
        self.0.ended.send_modify(|count| *count += 1);
    }

    fn stop_superseded(&self, id: OperationId) {
        if let Ok(Some(row)) = self.world().store.operation(id)
            && row.status.ended()
        {
            self.stop(row);
        }
    }

    /// Ends the task of an operation whose row has been ended.
    fn stop(&self, row: OperationRow) {
        let live = self.live().remove(&row.id);
        if let Some(live) = live {
            live.task.abort();
            live.shown.send_replace(Shown::plain(row));
        }
        self.0.ended.send_modify(|count| *count += 1);
    }

    /// Cancels an operation that has changed nothing yet.
    pub fn cancel(&self, id: OperationId, who: &str) -> Result<Operation> {
        let error = Error::new(Kind::Cancelled, format!("cancelled by {who}; nothing was changed"));
        let ended = self.end_early(id, Status::Cancelled, &error)?;
        ended.map(|row| row.shown()).ok_or_else(|| self.not_cancellable(id))
    }

    /// Ends an operation that has sent nothing in the time that its caller gave it.
    pub fn expire(&self, id: OperationId) -> Result<Option<OperationRow>> {
        let error =
            Error::new(Kind::Cancelled, "nothing was sent to CloudStack: the time given with --timeout is over")
                .hint("`volctl health` shows whether CloudStack answers, `volctl ops` what the volume is busy with");
        self.end_early(id, Status::Failed, &error)
    }

    fn end_early(&self, id: OperationId, status: Status, error: &Error) -> Result<Option<OperationRow>> {
        let kind = self.row(id)?.kind;
        let ended = self.world().store.end_early(id, &cancellable(kind), status, error)?;
        if let Some(row) = &ended {
            self.stop(row.clone());
        }
        Ok(ended)
    }

    /// Lets a stuck operation look again and go on from its step; sends a detach again that the guest did not follow.
    pub fn retry(&self, id: OperationId, who: &str) -> Result<Operation> {
        let store = &self.world().store;
        let row = match store.unstick(id)? {
            Some(row) => row,
            None => self.step_back(id)?,
        };
        store.note(id, &format!("retried by {who}"))?;
        let operation = row.shown();
        // What was chosen anew was never sent; what was stuck may have been.
        let resumed = operation.step == row.step_words && row.error.is_some();
        let mut live = self.live();
        let started = self.start(row, resumed);
        live.insert(id, started);
        Ok(operation)
    }

    /// Brings a running operation back to the step that a human wants repeated, where its story has one.
    fn step_back(&self, id: OperationId) -> Result<OperationRow> {
        let row = self.row(id)?;
        let Some(transition) = again(&row)? else {
            return Err(Error::new(
                Kind::Conflict,
                format!("operation {id} cannot be retried: it is {}, {}", status_word(row.status), row.step_words),
            )
            .hint("only what is stuck, or waits for a guest that did not let go, can be retried"));
        };
        self.halt(id);
        let saved = self.world().store.transition(id, &transition)?;
        saved.ok_or_else(|| Error::new(Kind::Conflict, format!("operation {id} has ended meanwhile")))
    }

    /// Ends an operation on a human's word: what it has come to is not known.
    pub fn abandon(&self, id: OperationId, who: &str, reason: &str) -> Result<Operation> {
        let row = self.row(id)?;
        let error = Error::new(
            Kind::Cancelled,
            format!("abandoned by {who} at \"{}\" ({}): its outcome is not known", row.step_words, printable(reason)),
        );
        self.halt(id);
        match self.world().store.abandon(id, &error)? {
            Some(row) => {
                let operation = row.shown();
                self.stop(row);
                Ok(operation)
            }
            None => Err(Error::new(
                Kind::Conflict,
                format!("operation {id} has ended already: {}", status_word(row.status)),
            )),
        }
    }

    /// Stops the task of an operation at the step at which it is.
    fn halt(&self, id: OperationId) {
        if let Some(live) = self.live().get(&id) {
            live.task.abort();
        }
    }

    /// What happened to an operation, and who asked for it.
    pub fn history(&self, id: OperationId) -> Result<OperationShown> {
        let asked_by = Some(self.row(id)?.asker);
        Ok(OperationShown { operation: self.operation(id)?, asked_by, history: self.world().store.history(id)? })
    }

    fn not_cancellable(&self, id: OperationId) -> Error {
        match self.row(id) {
            Ok(row) if row.status.ended() => {
                Error::new(Kind::Conflict, format!("operation {id} has ended already: {}", status_word(row.status)))
            }
            Ok(row) => Error::new(
                Kind::Conflict,
                format!(
                    "operation {id} cannot be cancelled any more: it is {}, and what was sent cannot be taken back",
                    row.step_words
                ),
            )
            .hint(format!("`volctl ops wait {id}` shows how it ends")),
            Err(error) => error,
        }
    }

    /// Lets the caller watch; an ended one shows its end.
    pub fn watch(&self, id: OperationId) -> Result<watch::Receiver<Shown>> {
        if let Some(live) = self.live().get(&id) {
            return Ok(live.shown.subscribe());
        }
        let (_, receiver) = watch::channel(Shown::plain(self.row(id)?));
        Ok(receiver)
    }

    /// As it stands.
    pub fn operation(&self, id: OperationId) -> Result<Operation> {
        Ok(self.watch(id)?.borrow().operation())
    }

    /// The newest, newest first, as they stand.
    pub fn operations(&self, limit: u32) -> Result<Vec<Operation>> {
        let rows = self.world().store.operations(limit)?;
        let live = self.live();
        let shown = |row: OperationRow| match live.get(&row.id) {
            Some(live) => live.shown.borrow().operation(),
            None => row.shown(),
        };
        Ok(rows.into_iter().map(shown).collect())
    }

    fn row(&self, id: OperationId) -> Result<OperationRow> {
        self.world().store.operation(id)?.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("there is no operation {id}")).hint("`volctl ops` lists them")
        })
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<OperationId, Live>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `succeeded`, `failed`, ...
pub(super) fn status_word(status: Status) -> String {
    format!("{status:?}").to_lowercase()
}
