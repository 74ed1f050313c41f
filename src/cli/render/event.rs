//! An event as a line: its number, when, what it is about, and what happened.

use console::{Alignment, pad_str};

use super::words::{short_id, word};
use super::{Screen, hanging};
use crate::api::{Event, EventKind, Status};
use crate::model::printable;

/// From this width on a terminal has room for dates in full and for the kind, as a pipe has.
const WIDE: u16 = 120;

/// The line.
pub fn line(event: &Event, screen: &Screen) -> String {
    let seq = event.seq;
    let volume = event.volume_name.as_deref().filter(|name| !name.is_empty()).map(printable);
    let volume = volume.or(event.volume_id.map(short_id)).unwrap_or_else(|| "-".to_owned());
    let (head, room) = match screen.width {
        Some(width) if width < WIDE => (format!("{seq:>5}  {}  ", event.at.strftime("%m-%d %H:%M:%S")), 12),
        _ => (format!("{seq:>7}  {}  {:<19}  ", event.at.strftime("%Y-%m-%dT%H:%M:%SZ"), word(event.kind)), 16),
    };
    let text = format!("{}  {}", pad_str(&volume, room, Alignment::Left, None), words(event));
    painted(event, &hanging(&head, &text, screen), screen.colour)
}

/// What happened, in words, without the volume.
pub fn words(event: &Event) -> String {
    let text = event.text.as_deref().map(printable);
    let job = event.job_id.map(|job| format!(" (job {job})")).unwrap_or_default();
    let what = match (event.kind, event.status) {
        (EventKind::Transition, Some(status)) => transition(event, status, text),
        _ => text.unwrap_or_default() + &job,
    };
    match (event.operation_kind, event.operation_id) {
        (Some(kind), Some(id)) => format!("{} {}: {what}", word(kind).replace('_', " "), short_id(id)),
        _ => what,
    }
}

fn transition(event: &Event, status: Status, why: Option<String>) -> String {
    let status_word = word(status);
    let step = event.step.as_deref().map(printable).unwrap_or_default();
    match (status, why) {
        (Status::Running, _) => step,
        (Status::Queued, _) => "waiting in line for its volume".to_owned(),
        (Status::Succeeded, _) => status_word,
        (Status::Unwinding, Some(why)) => format!("{status_word}, {step}: {why}"),
        (_, Some(why)) => format!("{status_word}: {why}"),
        (_, None) => format!("{status_word}, {step}"),
    }
}

fn painted(event: &Event, line: &str, colour: bool) -> String {
    let code = match (event.kind, event.status) {
        _ if !colour => None,
        (EventKind::Transition, Some(Status::Succeeded)) | (EventKind::CloudstackBack | EventKind::KeyAccepted, _) => {
            Some(32)
        }
        (EventKind::Transition, Some(Status::Failed | Status::Stuck | Status::Abandoned))
        | (EventKind::ExportFailed | EventKind::CloudstackAway | EventKind::KeyRefused, _) => Some(31),
        (EventKind::ChangedOutside | EventKind::LeftOut, _) => Some(33),
        _ => None,
    };
    let line = line.trim_end();
    code.map_or_else(|| format!("{line}\n"), |code| format!("\u{1b}[{code}m{line}\u{1b}[0m\n"))
}
