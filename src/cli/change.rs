//! What all changing verbs share: their flags, sending them for one or several volumes, and showing what came of it.

use std::collections::HashSet;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::answer::{Answer, Refusal};
use super::duration;
use super::names::Names;
use super::render::{self, Output, Page};
use super::session::{Request, Session};
use crate::api::{Begun, Change, Changed, Departure, Operation, OperationBegin, Volume, method};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, VolumeType, clock_time, format_size, printable};

/// The flags of every changing verb.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every change")]
pub struct ChangeFlags {
    /// Say what would be asked of CloudStack and done here, and do nothing
    ///
    /// All is looked at, and refused as it would be.
    #[arg(long)]
    dry_run: bool,
    /// Return as soon as the operation is accepted, and print it
    #[arg(long)]
    no_wait: bool,
    /// Wait in line where another operation has the volume, instead of failing as busy
    #[arg(long)]
    queue: bool,
    /// Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_some)]
    timeout: Option<Duration>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Your own id of this request: the same again returns the same operation
    ///
    /// A script may so repeat a request blindly. With a list of volumes, each request gets ID/VOLUME.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    request_id: Option<String>,
}

/// A changing verb: its word for people, and its method.
#[derive(Clone, Copy)]
pub struct Verb {
    /// `attach`
    pub word: &'static str,
    /// `volume.attach`
    pub method: &'static str,
}

impl ChangeFlags {
    /// Whether nothing is to be changed, so that there is nothing to ask about.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Refuses `--no-wait` where each change is to begin once the one before has ended.
    ///
    /// # Errors
    /// `usage`.
    pub fn refuse_not_to_wait(&self) -> Result<()> {
        if !self.no_wait {
            return Ok(());
        }
        let message = "--no-wait is not possible here: each begins once the one before has ended; nothing was sent";
        Err(Error::new(Kind::Usage, message).hint("leave --no-wait away, or name one volume"))
    }

    /// Asks for a change of each of the named, and shows what came of them; `phrase` says it in words. Of several all
    /// are looked at before any is begun.
    ///
    /// # Errors
    /// Whatever kept them all from being begun, such as a volume that is named twice.
    pub fn run<P: Serialize>(
        &self,
        verb: Verb,
        names: &Names,
        params: impl IntoIterator<Item = P>,
        (session, output): (&Session, &Output),
        phrase: impl Fn(&Changed) -> String,
    ) -> Answer<u8> {
        let requests = self.requests(verb, names, params)?;
        let answers = if requests.len() > 1 { ask_several(session, requests)? } else { session.ask_all(requests) };
        Ok(output.answers(answers, names.is_list, |changed| page(verb, changed, &phrase)))
    }

    /// Sends a change of each thing once the one before has its answer, and shows what came of them all.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_in_turn<P: Serialize>(
        &self,
        verb: Verb,
        names: &Names,
        params: impl IntoIterator<Item = P>,
        (session, output): (&Session, &Output),
        phrase: impl Fn(&Changed) -> String,
    ) -> Answer<u8> {
        let requests = self.requests(verb, names, params)?;
        let answers = in_turn(session, requests, |refusal| refusal.interrupted);
        Ok(output.answers(answers, names.is_list, |changed| page(verb, changed, &phrase)))
    }

    /// As [`run_in_turn`](Self::run_in_turn), up to the first that fails; `note` is about all of them together.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_while_it_works<P: Serialize>(
        &self,
        verb: Verb,
        names: &Names,
        params: impl IntoIterator<Item = P>,
        (session, output): (&Session, &Output),
        note: &str,
        phrase: impl Fn(&Changed) -> String,
    ) -> Answer<u8> {
        let requests = self.requests(verb, names, params)?;
        output.remark(&format!("note: {note}"));
        // A dry run looks at all of them.
        let answers = in_turn(session, requests, |refusal| refusal.interrupted || !self.dry_run);
        Ok(output.answers_about(note, answers, |changed| page(verb, changed, &phrase)))
    }

    fn requests<P: Serialize>(
        &self,
        verb: Verb,
        names: &Names,
        params: impl IntoIterator<Item = P>,
    ) -> Result<Vec<Request>> {
        each_once(names.words.iter().map(String::as_str))?;
        let own_id = |word: &str| {
            let id = self.request_id.clone()?;
            Some(if names.is_list { format!("{id}/{word}") } else { id })
        };
        let named = names.words.iter().zip(&names.labels);
        let request = |((word, label), params): ((&String, &String), P)| {
            self.request(format!("{} {label}", verb.word), verb.method, &params, own_id(word))
        };
        named.zip(params).map(request).collect()
    }

    fn request(&self, label: String, method: &str, params: &impl Serialize, own_id: Option<String>) -> Result<Request> {
        let change = Change {
            wait: !self.no_wait && !self.dry_run,
            queue: self.queue,
            timeout_seconds: self.timeout.map(|timeout| timeout.as_secs()),
            // The connection may be lost, and the request is then sent again.
            request_id: own_id.or_else(|| (!self.dry_run).then(|| Uuid::new_v4().to_string())),
            reason: self.reason.clone(),
            token: None,
            dry_run: self.dry_run,
        };
        let request = Request::new(method, label, params)?.with(&change)?;
        Ok(if self.no_wait || self.dry_run { request } else { request.watched(self.timeout) })
    }
}

/// Does for each volume what needs no operation, and shows what came of it.
///
/// # Errors
/// As [`ChangeFlags::run`].
pub fn run_at_once<P: Serialize>(
    verb: Verb,
    names: &Names,
    params: impl Fn(String) -> P,
    (session, output): (&Session, &Output),
    phrase: impl Fn(&Changed) -> String,
) -> Answer<u8> {
    each_once(names.words.iter().map(String::as_str))?;
    let request = |word: &String| Request::new(verb.method, format!("{} {word}", verb.word), &params(word.clone()));
    let requests = names.words.iter().map(request).collect::<Result<Vec<_>>>()?;
    Ok(output.answers(session.ask_all(requests), names.is_list, |changed| page(verb, changed, &phrase)))
}

/// Has all of them begun, or none, and then asks each for its end: the same request again is the same operation.
fn ask_several(session: &Session, requests: Vec<Request>) -> Answer<Vec<Answer>> {
    let list = OperationBegin { changes: requests.iter().map(Request::listed).collect() };
    let begin = Request::new(method::OPERATION_BEGIN, format!("begin {} changes", requests.len()), &list)?;
    let begun: Begun = render::read(&session.ask(begin)?)?;
    let mut refused: Vec<Option<Error>> = begun.results.into_iter().map(|one| one.error).collect();
    refused.resize(requests.len(), None);
    let begun = requests.into_iter().zip(&refused).filter(|(_, refused)| refused.is_none()).map(|(request, _)| request);
    let mut answers = session.ask_all(begun.collect()).into_iter();
    let answer = |refused: Option<Error>| refused.map_or_else(|| answers.next(), |error| Some(Err(error.into())));
    Ok(refused.into_iter().filter_map(answer).collect())
}

/// Asks for one after another, and for nothing more after a refusal that ends it.
fn in_turn(session: &Session, requests: Vec<Request>, ends: impl Fn(&Refusal) -> bool) -> Vec<Answer> {
    let mut ended_by: Option<String> = None;
    let answer = |request: Request| {
        if let Some(ended_by) = &ended_by {
            let (label, before) = (printable(&request.label), printable(ended_by));
            let message = format!("{label}: not begun, as it was to come after {before}; what was done before is kept");
            return Err(Error::new(Kind::Cancelled, message).into());
        }
        let label = request.label.clone();
        let answer = session.ask(request);
        ended_by = answer.as_ref().err().filter(|refusal| ends(refusal)).map(|_| label);
        answer
    };
    requests.into_iter().map(answer).collect()
}

/// Each volume once: two changes of one volume on one line cannot both be meant.
fn each_once<'a>(words: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for word in words {
        let id = word.parse::<VolumeId>().map_or_else(|_| word.to_owned(), |id| id.to_string());
        if !seen.insert(id) {
            let word = printable(word);
            return Err(Error::new(Kind::Conflict, format_args!("\"{word}\" is named twice: nothing was sent")));
        }
    }
    Ok(())
}

fn page(verb: Verb, changed: &Changed, phrase: impl Fn(&Changed) -> String) -> Page {
    if let Some(plan) = &changed.plan {
        return Page { text: planned(verb, changed, plan), quiet: String::new(), notes: changed.notes.clone() };
    }
    let text = match (changed.changed, &changed.operation) {
        (None, Some(operation)) => accepted(operation),
        _ => phrase(changed),
    };
    Page { text: format!("{text}\n"), quiet: quiet(changed), notes: changed.notes.clone() }
}

/// What a dry run has found out; with `-q` nothing, as nothing has come of it.
fn planned(verb: Verb, changed: &Changed, plan: &[String]) -> String {
    let of = changed.volume.as_ref().map(|volume| format!(" of {}", render::name(volume))).unwrap_or_default();
    let steps = plan.iter().zip(1..).map(|(step, number)| format!("  {number}. {}\n", printable(step)));
    match plan {
        [] => format!("{}{of}: nothing to do\n", verb.word),
        _ => format!("{}{of} would, in this order:\n{}nothing was changed\n", verb.word, steps.collect::<String>()),
    }
}

fn accepted(operation: &Operation) -> String {
    let watch = render::watch_command(operation);
    format!("{} accepted as operation {}; watch it with: {watch}", operation.task(), operation.id)
}

/// The URI if exported, else the device path, else the id; of what only was accepted, the operation's id.
fn quiet(changed: &Changed) -> String {
    let volume = changed.volume.as_ref();
    let operation = changed.operation.as_ref();
    let export = changed.export.as_ref().or_else(|| volume?.export.as_ref());
    let accepted = operation.filter(|_| changed.changed.is_none()).map(|operation| operation.id.to_string());
    let uri = || render::uris(export?).next();
    let device = || Some(render::path(&volume?.device.as_ref()?.path));
    let volume_id = || volume.map(|volume| volume.id).or_else(|| operation?.volume_id).map(|id| id.to_string());
    let snapshot = || changed.snapshot.as_ref().map(|snapshot| snapshot.id.to_string());
    let line = accepted.or_else(snapshot).or_else(uri).or_else(device).or_else(volume_id);
    line.map_or_else(String::new, |line| format!("{line}\n"))
}

/// The volume's name, as well as it is known.
pub fn subject(changed: &Changed) -> String {
    let volume = changed.volume.as_ref().map(render::name);
    let operation = || {
        let operation = changed.operation.as_ref()?;
        let name = operation.volume_name.as_deref().filter(|name| !name.is_empty()).map(printable);
        name.or_else(|| operation.volume_id.map(|id| id.to_string()))
    };
    volume.or_else(operation).unwrap_or_else(|| "the volume".to_owned())
}

/// Where the volume is now: `attached to this VM: /dev/disk/by-id/..., exported at nbd://...`.
pub fn whereabouts(volume: &Volume) -> String {
    let Some(place) = render::place(volume) else { return "attached nowhere".to_owned() };
    let device = volume.device.as_ref().map(|device| format!(": {}", render::path(&device.path)));
    let uri = volume.export.as_ref().and_then(|export| render::uris(export).next());
    let export = uri.map(|uri| format!(", exported at {uri}"));
    let as_root = if volume.volume_type == VolumeType::Root { " as its root disk" } else { "" };
    format!("attached to {place}{as_root}{}{}", device.unwrap_or_default(), export.unwrap_or_default())
}

/// A device's or export's last moments: `; flushed at 14:07:05, 1.5G written, last client disconnected, ...`.
pub fn last_moments(departure: Option<&Departure>) -> String {
    let Some(departure) = departure else { return String::new() };
    let facts = [
        departure.flushed_at.map(|at| format!("flushed at {} UTC", clock_time(at))),
        departure.bytes_written.map(|bytes| format!("{} written by clients", format_size(bytes))),
        departure.last_client.map(|how| format!("last client {}", render::word(how))),
        departure.device_gone_at.map(|at| format!("device gone at {} UTC", clock_time(at))),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    if facts.is_empty() { String::new() } else { format!("; {}", facts.join(", ")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_named_once() {
        assert!(each_once(["a", "b"].into_iter()).is_ok());
        let twice = ["5F0C8A52-1B2C-4D3E-9F40-A1B2C3D4E5F6", "b", "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6"];
        assert_eq!(each_once(twice.into_iter()).unwrap_err().kind, Kind::Conflict);
    }
}
