//! `why`: what happened to a volume, from the history, the kernel and CloudStack's own books, as one timeline; and what
//! it is waiting for now.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Engine;
use super::engine::status_word;
use super::world::World;
use crate::api::{Asker, Cause, Event, EventKind, OperationKind, Source, Status, VolumeWhy, Why};
use crate::cloudstack::CloudEvent;
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, VolumeId, format_age, printable};
use crate::store::OperationRow;

/// How long CloudStack's part is waited for: the rest is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// CloudStack's clock counts whole seconds, and ours is not quite the same.
const SLACK: SignedDuration = SignedDuration::from_secs(3);

/// The volume that it is about, perhaps one of the past.
struct Subject {
    id: Option<VolumeId>,
    name: String,
}

impl Engine {
    /// The timeline of a volume, and how it stands.
    pub async fn why(&self, params: &VolumeWhy) -> Result<Why> {
        let world = self.world();
        let subject = world.subject(&params.volume).await?;
        let operations = world.store.operations_about(subject.id, &subject.name)?;
        let events = world.store.events_of(subject.id, &subject.name, params.since, params.until)?;
        let mut timeline = causes(&events, &operations);
        let mut notes = Vec::new();
        match world.told_by_cloudstack(subject.id).await {
            Ok(told) => {
                let offset = world.cloud.now().duration_since(Timestamp::now());
                let outside = told.iter().filter_map(|event| outside(event, offset, &operations));
                let wanted = |at: Timestamp| {
                    params.since.is_none_or(|since| at >= since) && params.until.is_none_or(|until| at <= until)
                };
                timeline.extend(outside.filter(|cause| wanted(cause.at)));
            }
            Err(error) => {
                notes.push(format!("what CloudStack has in its own books is missing here: {}", error.message))
            }
        }
        timeline.sort_by_key(|cause| (cause.at, cause.seq));
        let volume = subject.id.map(|id| world.volume_now(id)).transpose()?.flatten();
        let (summary, since, hint) = self.summary(&subject, &operations, &timeline, volume.as_ref());
        let (volume_id, volume_name) = (subject.id, subject.name);
        Ok(Why { volume_id, volume_name, volume, timeline, summary, since, hint, notes })
    }

    /// What it is waiting for, since when, and what can be done; or how it stands.
    fn summary(
        &self,
        subject: &Subject,
        operations: &[OperationRow],
        timeline: &[Cause],
        volume: Option<&crate::api::Volume>,
    ) -> (String, Option<Timestamp>, Option<String>) {
        if let Some(row) = operations.iter().rev().find(|row| !row.status.ended() && row.status != Status::Queued) {
            return self.under_way(row);
        }
        if let Some(row) = operations.iter().find(|row| !row.status.ended()) {
            return self.under_way(row);
        }
        let stands = stands(subject, volume);
        let outside = timeline.iter().rev().find(|cause| cause.source == Source::Outside);
        match (operations.last(), outside) {
            (Some(row), Some(outside)) if outside.at > row.updated_at => (
                format!("{stands} Nothing is under way. The last change came from outside: {}", outside.text),
                Some(outside.at),
                None,
            ),
            (Some(row), _) if row.status != Status::Succeeded => {
                let (why, hint) =
                    row.failure().map_or((String::new(), None), |error| (format!(": {}", error.message), error.hint));
                let what = label(row);
                (
                    format!("{stands} Nothing is under way. The last operation, {what}, {}{why}", ended_as(row.status)),
                    row.finished_at,
                    hint,
                )
            }
            (Some(row), _) => (
                format!("{stands} Nothing is under way. The last operation, {}, succeeded", label(row)),
                row.finished_at,
                None,
            ),
            (None, Some(outside)) => (
                format!("{stands} volctl has changed nothing. The last change came from outside: {}", outside.text),
                Some(outside.at),
                None,
            ),
            (None, None) => (format!("{stands} volctl has changed nothing, and nothing is under way"), None, None),
        }
    }

    fn under_way(&self, row: &OperationRow) -> (String, Option<Timestamp>, Option<String>) {
        let (what, id) = (label(row), row.id);
        if row.status == Status::Stuck {
            let error = row.failure();
            let why = error.as_ref().map_or_else(String::new, |error| format!(": {}", error.message));
            return (
                format!("{what} is stuck at \"{}\" and waits for a human{why}", row.step_words),
                Some(row.updated_at),
                error.and_then(|error| error.hint),
            );
        }
        let (step, overdue) = match self.watch(id) {
            Ok(watched) => {
                let shown = watched.borrow();
                (shown.operation().step, shown.overdue.clone())
            }
            Err(_) => (row.shown().step, None),
        };
        let late = overdue
            .as_ref()
            .map_or_else(String::new, |error| format!("; it takes longer than it should: {}", error.message));
        let undo = if row.status == Status::Unwinding { ", being undone" } else { "" };
        let hint = overdue.and_then(|error| error.hint).or_else(|| way_on(&step, id, row.volume_id));
        (format!("{what} is under way{undo}: {step}{late}"), Some(row.updated_at), hint)
    }
}

/// What can be done about something that is waited for.
fn way_on(step: &str, id: OperationId, volume: Option<VolumeId>) -> Option<String> {
    let volume = volume.map_or_else(String::new, |id| id.to_string());
    if step.contains("CloudStack away") || step.contains("key refused") {
        return Some("it goes on by itself when CloudStack answers; `volctl health` shows what it says".to_owned());
    }
    Some(match step {
        step if step.starts_with("waiting for device") => {
            format!("it goes on when the disk comes; `volctl detach {volume}` ends it")
        }
        step if step.starts_with("waiting for the guest") => {
            format!(
                "it goes on when nothing here uses the disk any more; `volctl ops retry {id}` then asks CloudStack again"
            )
        }
        step if step.starts_with("waiting in line") => format!("`volctl ops cancel {id}` gives its place up"),
        _ => format!("`volctl ops wait {id}` follows it"),
    })
}

fn ended_as(status: Status) -> String {
    match status {
        Status::Cancelled | Status::Abandoned => format!("was {}", status_word(status)),
        _ => status_word(status),
    }
}

/// How the volume stands, as a sentence.
fn stands(subject: &Subject, volume: Option<&crate::api::Volume>) -> String {
    let name = printable(&subject.name);
    let Some(volume) = volume else { return format!("{name} is no more.") };
    let place = match (&volume.vm_id, &volume.device) {
        (None, None) => "not attached".to_owned(),
        (None, Some(device)) => {
            format!("not attached for CloudStack, but here as {}", printable(&device.path.to_string_lossy()))
        }
        (Some(_), Some(device)) => format!("attached here as {}", printable(&device.path.to_string_lossy())),
        (Some(vm), None) => {
            format!(
                "attached to VM {}, without a disk here",
                volume.vm_name.as_deref().map_or_else(|| vm.to_string(), printable)
            )
        }
    };
    let export = volume.export.as_ref().map_or_else(String::new, |export| {
        let state = format!("{:?}", export.state).to_lowercase();
        format!(", exported as {} ({state}, clients: {})", printable(&export.name), export.clients.len())
    });
    let held = volume.hold.as_ref().map_or_else(String::new, |hold| {
        let age = format_age(hold.since.duration_until(Timestamp::now()));
        format!(" It is held by {} for {age}: \"{}\".", printable(&hold.holder), printable(&hold.note))
    });
    format!("{name} is {} and {place}{export}.{held}", printable(&volume.state))
}

fn label(row: &OperationRow) -> String {
    operation_label(row.kind, row.id)
}

fn operation_label(kind: OperationKind, id: OperationId) -> String {
    let id: String = id.to_string().chars().take(8).collect();
    format!("{} {id}", kind.words())
}

/// The events as causes and effects; the first of each operation says who asked.
fn causes(events: &[Event], operations: &[OperationRow]) -> Vec<Cause> {
    let mut askers: HashMap<OperationId, &OperationRow> = operations.iter().map(|row| (row.id, row)).collect();
    let mut undone = HashSet::new();
    let mut causes = Vec::new();
    for event in events {
        // The way back has one reason, whatever steps it goes through.
        if event.status == Some(Status::Unwinding)
            && event.kind == EventKind::Transition
            && !undone.insert(event.operation_id)
        {
            continue;
        }
        if event.kind == EventKind::Transition
            && let Some(row) = event.operation_id.and_then(|id| askers.remove(&id))
            && event.at <= row.created_at.saturating_add(SLACK).unwrap_or(Timestamp::MAX)
        {
            causes.push(cause(event, Source::Asked, format!("{} asked for {}", label(row), by(&row.asker))));
            if event.status == Some(Status::Running) {
                continue;
            }
        }
        causes.push(cause(event, source(event), words(event)));
    }
    causes
}

fn cause(event: &Event, source: Source, text: String) -> Cause {
    let Event { at, seq, operation_id, job_id, .. } = *event;
    Cause { at, source, text, seq: Some(seq), operation_id, job_id }
}

fn source(event: &Event) -> Source {
    match event.kind {
        EventKind::Transition => match event.status {
            Some(Status::Running | Status::Unwinding | Status::Queued) | None => Source::Step,
            Some(_) => Source::End,
        },
        EventKind::Held | EventKind::Released => Source::Asked,
        EventKind::Note => Source::Step,
        EventKind::Call => Source::Call,
        EventKind::DeviceArrived | EventKind::DeviceLeft => Source::Device,
        EventKind::ExportServed | EventKind::ExportFailed | EventKind::ExportEnded => Source::Export,
        EventKind::ClientConnected | EventKind::ClientRefused | EventKind::ClientDisconnected | EventKind::LeftOut => {
            Source::Client
        }
        EventKind::ChangedOutside => Source::Outside,
        EventKind::CloudstackAway | EventKind::CloudstackBack | EventKind::KeyRefused | EventKind::KeyAccepted => {
            Source::Cloudstack
        }
    }
}

fn words(event: &Event) -> String {
    let text = event.text.as_deref().map(printable);
    let step = event.step.as_deref().map(printable).unwrap_or_default();
    let what = match (event.kind, event.status, text) {
        (EventKind::Transition, Some(Status::Running), _) => step,
        (EventKind::Transition, Some(Status::Queued), _) => "waiting in line".to_owned(),
        (EventKind::Transition, Some(Status::Unwinding), why) => {
            format!("undoing it, since: {}", why.unwrap_or_default())
        }
        (EventKind::Transition, Some(status), Some(why)) => format!("{}: {why}", status_word(status)),
        (EventKind::Transition, Some(status), None) => status_word(status),
        (_, _, text) => text.unwrap_or_default(),
    };
    let job = event.job_id.map_or_else(String::new, |job| format!(" (job {job})"));
    match (event.operation_kind, event.operation_id) {
        (Some(kind), Some(id)) => format!("{}: {what}{job}", operation_label(kind, id)),
        _ => what,
    }
}

fn by(asker: &Asker) -> String {
    let user = asker.uid.map_or_else(|| "by somebody unknown".to_owned(), |uid| format!("by user {uid}"));
    let login = asker.login_uid.filter(|login| Some(*login) != asker.uid);
    let login = login.map_or_else(String::new, |login| format!(" (logged in as {login})"));
    let command = asker.command.as_deref().map_or_else(String::new, |command| format!(": {}", printable(command)));
    let reason = asker.reason.as_deref().map_or_else(String::new, |reason| format!(" (reason: {})", printable(reason)));
    format!("{user}{login}{command}{reason}")
}

/// An entry of CloudStack's that no operation of ours explains.
fn outside(event: &CloudEvent, offset: SignedDuration, operations: &[OperationRow]) -> Option<Cause> {
    let at = event.created.checked_sub(offset).ok()?;
    let over = event.state == "Completed" || event.is_error || event.state.is_empty();
    let ours = operations.iter().any(|row| explains(row, &event.kind, at));
    if !over || ours {
        return None;
    }
    let who = event.username.as_deref().map_or_else(|| "somebody".to_owned(), printable);
    let account =
        event.account.as_deref().map_or_else(String::new, |account| format!(" (account {})", printable(account)));
    let how = if event.is_error { "failed" } else { "completed" };
    let text =
        format!("{who}{account}, not volctl: {} {how}: {}", printable(&event.kind), printable(&event.description));
    Some(Cause { at, source: Source::Outside, text, seq: None, operation_id: None, job_id: None })
}

/// Whether an operation of ours can have made an entry of this kind then.
fn explains(row: &OperationRow, kind: &str, at: Timestamp) -> bool {
    use OperationKind::{Attach, Create, Delete, Detach, Move, Reclaim, Recover, Resize};
    let can = match kind.rsplit('.').next().unwrap_or_default() {
        "CREATE" => matches!(row.kind, Create | Attach),
        "ATTACH" => matches!(row.kind, Attach | Create | Move | Reclaim),
        "DETACH" => matches!(row.kind, Detach | Move | Reclaim),
        "DESTROY" | "DELETE" | "EXPUNGE" => matches!(row.kind, Delete | Create),
        "RECOVER" => row.kind == Recover,
        "RESIZE" => row.kind == Resize,
        _ => false,
    };
    let begun = row.created_at.checked_sub(SLACK).unwrap_or(Timestamp::MIN);
    let ended = row.finished_at.map_or(Timestamp::MAX, |at| at.checked_add(SLACK).unwrap_or(Timestamp::MAX));
    can && (begun..=ended).contains(&at)
}

impl World {
    /// The volume that a word means: one that is there, one of the past, or one whose creation came to nothing.
    async fn subject(&self, word: &str) -> Result<Subject> {
        let missing = match self.known_volume(word).await {
            Ok(volume) => return Ok(Subject { id: Some(volume.id), name: volume.name }),
            Err(error) if matches!(error.kind, Kind::Ambiguous | Kind::Usage) => return Err(error),
            Err(error) => error,
        };
        match self.store.volumes_of_the_past(word)?.as_slice() {
            [(id, name)] => Ok(Subject { id: Some(*id), name: name.clone() }),
            [] if !self.store.operations_about(None, word)?.is_empty() => {
                Ok(Subject { id: None, name: word.to_owned() })
            }
            [] => Err(missing),
            many => {
                let list: Vec<String> = many.iter().map(|(id, name)| format!("{} ({id})", printable(name))).collect();
                let message = format!("{} was the name of several volumes: {}", printable(word), list.join(", "));
                Err(Error::new(Kind::Ambiguous, message).hint("name one by its id"))
            }
        }
    }

    async fn told_by_cloudstack(&self, volume: Option<VolumeId>) -> Result<Vec<CloudEvent>> {
        let Some(id) = volume else { return Ok(Vec::new()) };
        match tokio::time::timeout(PATIENCE, self.cloud.volume_events(id)).await {
            Ok(Ok(events)) => Ok(events),
            Ok(Err(error)) => Err(error.into_error("asking it for its events (listEvents)")),
            Err(_) => Err(Error::new(
                Kind::CloudstackUnreachable,
                format!("CloudStack has not answered within {}s", PATIENCE.as_secs()),
            )),
        }
    }
}
