//! Accepts operations, runs them side by side (one at a time for a volume), lets others watch, and resumes after a
//! restart what an earlier daemon had accepted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::world::Cx;
use super::{World, again, drive_any, lane, looking, recovery, turn_back, turn_of};
use crate::api::{Operation, OperationList, OperationShown, Status, Usual};
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, clock_time, format_age, printable};
use crate::store::{Accepted, InLine, NewOperation, OperationRow, Transition};

/// How many operations are listed where the caller does not say.
const DEFAULT_LIMIT: u32 = 100;

/// How long a store that cannot be read or written is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What a running step waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// CloudStack has not answered since.
    Away(Instant),
    /// CloudStack refuses the key since.
    KeyRefused(Timestamp),
    /// Its turn at CloudStack: `3rd in line for VM worker`.
    InLine(String),
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
    /// How long its step usually takes.
    pub usual: Option<Usual>,
}

impl Shown {
    /// Nothing is known but its row.
    pub(super) fn plain(row: OperationRow) -> Self {
        Self { row, note: None, overdue: None, usual: None }
    }

    /// For people and programs; what it waits for is part of its step.
    pub fn operation(&self) -> Operation {
        let mut operation = Operation { usual: self.usual.clone(), ..self.row.shown() };
        if let Some(note) = &self.note {
            let words = match note {
                Note::InLine(place) => return Operation { step: place.clone(), ..operation },
                Note::Away(since) => {
                    let age = SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::MAX);
                    format!("CloudStack away for {}", format_age(age))
                }
                Note::KeyRefused(since) => format!("key refused since {}", clock_time(*since)),
                Note::Text(text) => text.clone(),
            };
            operation.step = format!("{} ({words})", operation.step);
        }
        operation
    }

    /// Whether it reads otherwise from second to second although nothing happens.
    pub fn ages(&self) -> bool {
        matches!(self.note, Some(Note::Away(_)))
    }

    /// Whether there is nothing to wait for any more: ended, or for a human.
    pub fn settled(&self) -> bool {
        self.row.status.ended() || self.row.status == Status::Stuck
    }
}

struct Live {
    shown: Arc<watch::Sender<Shown>>,
    /// None while somebody has halted it to send it another way.
    task: Option<JoinHandle<()>>,
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

    /// Drives on what an earlier daemon had accepted, as far as its steps can be journaled.
    pub fn resume(&self) -> Result<()> {
        let store = &self.world().store;
        let mut plan = recovery::plan(store.unfinished()?);
        if let Err(error) = store.refuse_if_read_only() {
            tracing::warn!(operations = plan.len(), %error, "not resumed");
            return Ok(());
        }
        let mut live = self.live();
        // What may be with CloudStack already is in its lane before anything new enters.
        plan.sort_by_key(|row| turn_of(row).is_none());
        for row in plan {
            tracing::info!(operation = %row.id, kind = ?row.kind, step = row.step, "resumed");
            self.note(row.id, "resumed by a new volctld, which looks how far it got");
            live.insert(row.id, self.start(row, true));
        }
        Ok(())
    }

    /// Adds to a history, which is for people: nothing is given up for it.
    fn note(&self, id: OperationId, note: &str) {
        if let Err(error) = self.world().store.note(id, note) {
            tracing::warn!(operation = %id, %error, "not in its history: {note}");
        }
    }

    /// Leaves every operation at its step, for the next daemon.
    pub fn halt_all(&self) {
        self.live().values().filter_map(|live| live.task.as_ref()).for_each(JoinHandle::abort);
    }

    /// Journals an operation and starts it.
    pub(super) fn accept(&self, new: &NewOperation) -> Result<OperationRow> {
        // Held across the commit: whoever learns of the operation from the store finds it here too.
        let mut live = self.live();
        let row = match self.world().store.accept(new)? {
            Accepted::Same(row) => return Ok(row),
            Accepted::New(row) => row,
        };
        log_change(&row);
        live.insert(row.id, self.start(row.clone(), false));
        drop(live);
        if let Some((superseded, _)) = &new.supersedes {
            self.stop_superseded(*superseded);
        }
        Ok(row)
    }

    fn start(&self, row: OperationRow, resumed: bool) -> Live {
        let shown = Arc::new(watch::Sender::new(Shown::plain(row.clone())));
        self.start_shown(row, resumed, shown)
    }

    /// Starts an operation that others may watch already.
    fn start_shown(&self, row: OperationRow, resumed: bool, shown: Arc<watch::Sender<Shown>>) -> Live {
        shown.send_replace(Shown::plain(row.clone()));
        let (engine, watched, deadline) = (self.clone(), shown.clone(), Deadline::at(row.deadline));
        let pass = turn_of(&row).map(|turn| self.world().lanes.occupy(&turn, row.id));
        let task = tokio::spawn(async move {
            let id = row.id;
            if let Some(row) = engine.turn(row, deadline, &shown).await {
                let (world, shown) = (engine.world().clone(), shown.clone());
                drive_any(row.clone(), Cx { world, row, deadline, resumed, shown, pass }).await;
            }
            engine.leave(id, &shown);
        });
        Live { shown: watched, task: Some(task) }
    }

    /// Waits for the operation's turn; none where it ended in line.
    async fn turn(&self, row: OperationRow, deadline: Deadline, shown: &watch::Sender<Shown>) -> Option<OperationRow> {
        let mut ended = self.ended();
        let mut row = row;
        while row.status == Status::Queued {
            ended.mark_unchanged();
            let (left, store) = (deadline.left(), &self.world().store);
            let looked = match left {
                Some(_) => store.start_queued(row.id),
                None => store
                    .end_early(row.id, &[], Status::Failed, &never_its_turn())
                    .map(|ended| ended.map_or(InLine::Gone, |ended| InLine::Started(Box::new(ended)))),
            };
            match looked {
                Ok(InLine::Started(moved)) => {
                    row = *moved;
                    shown.send_replace(Shown::plain(row.clone()));
                }
                Ok(InLine::Behind(before)) => tokio::select! {
                    () = self.passed(before, &mut ended) => {}
                    () = tokio::time::sleep(left.unwrap_or_default()) => {}
                },
                Ok(InLine::Gone) => return None,
                Err(error) => {
                    tracing::error!(operation = %row.id, %error, "its place in line cannot be looked at; trying again");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
        (!row.status.ended()).then_some(row)
    }

    /// Waits until an operation has ended, or where nobody drives it, until any has: a crowd in line is not woken by each.
    async fn passed(&self, id: OperationId, any: &mut watch::Receiver<u64>) {
        let watched = self.live().get(&id).map(|live| live.shown.subscribe());
        match watched {
            Some(mut watched) => _ = watched.wait_for(|shown| shown.row.status.ended()).await,
            None => _ = any.changed().await,
        }
    }

    /// The task of an operation is done. What was stuck may be driven again already, by another one.
    fn leave(&self, id: OperationId, shown: &Arc<watch::Sender<Shown>>) {
        let mut live = self.live();
        if live.get(&id).is_some_and(|live| Arc::ptr_eq(&live.shown, shown)) {
            live.remove(&id);
        }
        drop(live);
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
            if let Some(task) = live.task {
                task.abort();
            }
            live.shown.send_replace(Shown::plain(row));
        }
        self.0.ended.send_modify(|count| *count += 1);
    }

    /// Cancels an operation whose effect was not sent yet; shows it as it then stands.
    pub async fn cancel(&self, id: OperationId, who: &str) -> Result<Operation> {
        let why = Error::new(Kind::Cancelled, format!("cancelled by {who}; nothing was sent to CloudStack"));
        match self.give_up(id, Status::Cancelled, &why).await? {
            true => self.operation(id),
            false => Err(self.not_cancellable(id)),
        }
    }

    /// Ends an operation that has sent nothing in the time that its caller gave it; says whether it has
    /// ended or is about to.
    pub async fn expire(&self, id: OperationId) -> Result<bool> {
        let row = self.row(id)?;
        let waits_for = self.watch(id)?.borrow().note.clone();
        let why = match (row.status, waits_for) {
            (Status::Queued, _) => never_its_turn(),
            (_, Some(Note::InLine(place))) => lane::too_long(&place),
            _ => nothing_was_sent(&row),
        };
        // It may also have ended by itself just now, before those who watch it were told.
        Ok(self.give_up(id, Status::Failed, &why).await? || self.row(id)?.status.ended())
    }

    /// Ends an operation that has changed nothing, or undoes what it has done here before CloudStack was asked.
    async fn give_up(&self, id: OperationId, status: Status, why: &Error) -> Result<bool> {
        let row = self.row(id)?;
        if let Some(ended) = self.world().store.end_early(id, &looking(row.kind), status, why)? {
            self.stop(ended);
            return Ok(true);
        }
        self.redirect(id, |row| turn_back(row, why)).await
    }

    /// Lets a stuck operation look again and go on from its step; sends a detach again that the guest did not follow.
    pub async fn retry(&self, id: OperationId, who: &str) -> Result<Operation> {
        let note = format!("retried by {who}");
        let row = self.row(id)?;
        if row.status == Status::Stuck {
            let chosen_anew = again(&row)?;
            let store = &self.world().store;
            let freed = match &chosen_anew {
                Some(transition) => store.transition(id, transition)?,
                None => store.unstick(id)?,
            };
            if let Some(row) = freed {
                self.note(id, &note);
                self.restart(row.clone(), chosen_anew.is_none(), Arc::new(watch::Sender::new(Shown::plain(row))));
            }
            return self.operation(id);
        }
        if self.redirect(id, again).await? {
            self.note(id, &note);
            return self.operation(id);
        }
        Err(Error::new(
            Kind::Conflict,
            format!("operation {id} cannot be retried: it is {}, {}", status_word(row.status), row.step_words),
        )
        .hint("only what is stuck, or waits for a guest that did not let go, can be retried"))
    }

    /// Sends a running operation another way, where its row allows it; says whether it did.
    async fn redirect(
        &self,
        id: OperationId,
        way: impl Fn(&OperationRow) -> Result<Option<Transition>>,
    ) -> Result<bool> {
        if way(&self.row(id)?)?.is_none() {
            return Ok(false);
        }
        let Some(shown) = self.halt(id).await else { return Ok(false) };
        let row = self.row(id)?;
        let redirected = match way(&row)? {
            Some(transition) => self.world().store.transition(id, &transition)?,
            None => None,
        };
        let done = redirected.is_some();
        self.restart(redirected.unwrap_or(row), !done, shown);
        Ok(done)
    }

    /// Stops the task of an operation where it is, and waits until it has stopped: only then is its row nobody else's.
    async fn halt(&self, id: OperationId) -> Option<Arc<watch::Sender<Shown>>> {
        let (task, shown) = {
            let mut live = self.live();
            let entry = live.get_mut(&id)?;
            (entry.task.take()?, entry.shown.clone())
        };
        task.abort();
        task.await.ok();
        Some(shown)
    }

    /// Drives an operation on that was halted; one that has ended meanwhile is only shown.
    fn restart(&self, row: OperationRow, resumed: bool, shown: Arc<watch::Sender<Shown>>) {
        if row.status.ended() {
            return self.stop(row);
        }
        let mut live = self.live();
        let id = row.id;
        let started = self.start_shown(row, resumed, shown);
        live.insert(id, started);
    }

    /// Ends an operation on a human's word: what it has come to is not known.
    pub async fn abandon(&self, id: OperationId, who: &str, reason: &str) -> Result<Operation> {
        let row = self.row(id)?;
        let why = Error::new(
            Kind::Cancelled,
            format!("abandoned by {who} at \"{}\" ({}): its outcome is not known", row.step_words, printable(reason)),
        );
        // Nothing of it goes on once it is said to have ended.
        let halted = self.halt(id).await;
        let abandoned = self.world().store.abandon(id, &why);
        if let Ok(Some(ended)) = abandoned {
            self.stop(ended);
            return self.operation(id);
        }
        let row = self.row(id)?;
        let ended = format!("operation {id} has ended already: {}", status_word(row.status));
        if let Some(shown) = halted {
            self.restart(row, true, shown);
        }
        abandoned.and(Err(Error::new(Kind::Conflict, ended)))
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

    /// The newest that a caller wants, newest first, as they stand.
    pub async fn operations(&self, wanted: &OperationList, caller: u32) -> Result<Vec<Operation>> {
        let vm = match &wanted.vm {
            Some(word) => Some(self.world().vm_meant(word).await?),
            None => None,
        };
        let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT);
        let filter = self.world().wanted(&wanted.filter, caller)?;
        let test = |row: &OperationRow| Ok(filter.is_all() || filter.has_operation(row)?);
        let rows = self.world().store.operations(wanted, vm, limit, test)?;
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

/// The end of an operation whose time was over before it could begin in earnest.
fn nothing_was_sent(row: &OperationRow) -> Error {
    let cause = if looking(row.kind).contains(&row.step.as_str()) { Kind::CloudstackUnreachable } else { Kind::InUse };
    Error::new(
        cause,
        format!("nothing was sent to CloudStack: the time given with --timeout ended while {}", row.step_words),
    )
    .hint("`volctl health` shows whether CloudStack answers, `volctl exports` which clients are connected")
}

/// The one line that each change has in the log, with a message id by which it is found (systemd.journal-fields(7)).
fn log_change(row: &OperationRow) {
    let (operation, asker) = (row.shown(), &row.asker);
    let kind = serde_json::to_value(row.kind).unwrap_or_default();
    let kind = kind.as_str().unwrap_or_default();
    let volume = operation.volume_name.as_deref().map(printable).unwrap_or_default();
    let uid = asker.uid.map_or_else(String::new, |uid| uid.to_string());
    let why = asker.reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    tracing::info!(
        operation = %row.id,
        volume = row.volume_id.map(|id| id.to_string()),
        login_uid = asker.login_uid,
        command = asker.command.as_deref().map(printable),
        message_id = "4d6a1b0c3f0e4c6c9a4f6c1d2b7e8a55",
        "{kind} of {volume} asked for by user {uid}{why}"
    );
}

fn never_its_turn() -> Error {
    Error::new(Kind::Busy, "nothing was sent: the volume was busy with another operation for all that time")
        .hint("`volctl ops` shows with which")
}

/// `succeeded`, `failed`, ...
pub(super) fn status_word(status: Status) -> String {
    format!("{status:?}").to_lowercase()
}
