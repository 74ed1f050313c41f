//! `volctl ops`: the operations, and what can be done with one.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;

use super::answer::{Answer, Refusal};
use super::confirm;
use super::duration;
use super::filter::Filter;
use super::moment;
use super::render::{self, Cell, Column, Facts, Narrow, Output, Page, Screen, Table, read};
use super::session::{Request, Session};
use super::watch;
use crate::api::{
    Moment, Operation, OperationAbandon, OperationGet, OperationKind, OperationList, OperationShown, OperationWait,
    Operations, Status, method,
};
use crate::error::{Error, Kind, Result};
use crate::model::printable;
use crate::rpc::json::Json;

const COLUMNS: &[Column] = &[
    Column::new("ID"),
    Column::new("KIND"),
    Column::new("VOLUME"),
    Column::new("STATUS").least(9),
    Column::number("AGE").least(6),
    Column::new("STEP"),
];
const NARROWING: &[Narrow] = &[
    Narrow::Short("ID"),
    Narrow::Short("VOLUME"),
    Narrow::Short("STEP"),
    Narrow::Elide("VOLUME", 36),
    Narrow::Cut("STEP", 32),
    Narrow::Elide("VOLUME", 12),
    Narrow::Cut("STEP", 20),
    Narrow::Drop("AGE"),
];

/// List the operations, newest first; with -q, their ids
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Ops {
    #[command(flatten)]
    wanted: Wanted,
    #[command(subcommand)]
    command: Option<OpsCommand>,
}

/// Which operations are listed; all conditions hold together.
#[derive(Args, Debug)]
struct Wanted {
    #[command(flatten)]
    filter: Filter,
    /// Only of this kind
    #[arg(long)]
    kind: Option<OperationKind>,
    /// Only with this status
    #[arg(long, visible_alias = "state", ignore_case = true)]
    status: Option<Status>,
    /// Only about this volume: id, id prefix, or a name that it had
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    volume: Option<String>,
    /// Only attaching to or detaching from this VM, id or name
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    vm: Option<String>,
    /// Only asked for by this user, id or name, also behind a sudo
    #[arg(long, value_parser = user)]
    user: Option<u32>,
    /// Only asked for since then: 2h (ago), 2026-01-02, 2026-01-02T03:04:05Z
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    since: Option<Timestamp>,
    /// Only asked for until then
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    until: Option<Timestamp>,
    /// At most so many [default: 100]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// The id of a user of this machine.
fn user(word: &str) -> std::result::Result<u32, String> {
    if let Ok(uid) = word.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(word) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err("there is no such user on this machine; a user id will do as well".to_owned()),
        Err(error) => Err(format!("the users of this machine cannot be looked up: {error}")),
    }
}

#[derive(Debug, Subcommand)]
enum OpsCommand {
    /// Show one operation
    Show {
        #[command(flatten)]
        id: Id,
    },
    /// Wait until operations have ended
    ///
    /// The exit code is that of the operation: 0 where it succeeded, that of its error where it did not.
    Wait {
        /// Id, or a unique prefix of it
        #[arg(value_name = "ID", required = true, value_parser = NonEmptyStringValueParser::new())]
        ids: Vec<String>,
        /// Wait at most this long
        #[arg(long, value_name = "DURATION", value_parser = duration::parse_some)]
        timeout: Option<Duration>,
    },
    /// Watch the operations that are under way, until Ctrl-C
    ///
    /// On a terminal a table that is drawn anew; elsewhere a line for each change, with --json a JSON object.
    Watch,
    /// Cancel an operation that has not sent its change to CloudStack yet
    Cancel {
        #[command(flatten)]
        id: Id,
    },
    /// Let a stuck operation look again and go on from its step
    ///
    /// Also sends a detach again that the guest did not follow, once you know that it lets go now.
    Retry {
        #[command(flatten)]
        id: Id,
    },
    /// End an operation whose outcome is not known: you take over, and its volume is free again
    Abandon {
        #[command(flatten)]
        id: Id,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
        /// Do not ask; needed where there is no terminal
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
struct Id {
    /// Id, or a unique prefix of it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    id: String,
}

impl Ops {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        match self.command {
            None => list(self.wanted, session, output),
            Some(OpsCommand::Show { id }) => show(method::OPERATION_GET, "show operation", id, session, output),
            Some(OpsCommand::Cancel { id }) => show(method::OPERATION_CANCEL, "cancel operation", id, session, output),
            Some(OpsCommand::Retry { id }) => show(method::OPERATION_RETRY, "retry operation", id, session, output),
            Some(OpsCommand::Abandon { id, reason, yes }) => abandon(id, reason, yes, session, output),
            Some(OpsCommand::Watch) => watch::run(session, output),
            Some(OpsCommand::Wait { ids, timeout }) => wait(&ids, timeout, session, output),
        }
    }
}

fn list(wanted: Wanted, session: &Session, output: &Output) -> Answer<u8> {
    let Wanted { filter, kind, status, volume, vm, user, since, until, limit } = wanted;
    moment::in_order(since, until)?;
    let wanted = OperationList { kind, status, volume, vm, user, since, until, limit, filter: filter.with_state(None) };
    let request = Request::new(method::OPERATION_LIST, "list the operations", &wanted)?;
    let screen = output.screen();
    Ok(output.answer(session.ask(request), |operations| list_page(operations, &screen)))
}

fn show(method: &'static str, doing: &str, Id { id }: Id, session: &Session, output: &Output) -> Answer<u8> {
    let request = Request::new(method, format!("{doing} {id}"), &OperationGet { id })?;
    let screen = output.screen();
    Ok(output.answer(session.ask(request), |shown| show_page(shown, &screen)))
}

fn abandon(Id { id }: Id, reason: String, yes: bool, session: &Session, output: &Output) -> Answer<u8> {
    if !yes {
        confirm::abandon(&id, output)?;
    }
    let request =
        Request::new(method::OPERATION_ABANDON, format!("abandon operation {id}"), &OperationAbandon { id, reason })?;
    let screen = output.screen();
    Ok(output.answer(session.ask(request), |shown| show_page(shown, &screen)))
}

fn wait(ids: &[String], timeout: Option<Duration>, session: &Session, output: &Output) -> Answer<u8> {
    let request = |id: &String| {
        let timeout_seconds = timeout.map(|timeout| timeout.as_secs());
        let params = OperationWait { id: id.clone(), timeout_seconds, token: None };
        Ok(Request::new(method::OPERATION_WAIT, format!("operation {id}"), &params)?.watched(timeout))
    };
    let requests = ids.iter().map(request).collect::<Result<Vec<_>>>()?;
    let answers = session.ask_all(requests).into_iter().map(outcome).collect();
    Ok(output.answers(answers, false, ended_page))
}

/// An answer whose operation is passed on as it came.
#[derive(Deserialize)]
pub struct Unread {
    /// The operation.
    pub operation: Json,
}

/// To wait for an operation that then fails is to fail as the operation did.
fn outcome(answer: Answer) -> Answer {
    let document = answer?;
    let OperationShown { operation, .. } = read(&document)?;
    if operation.status == Status::Succeeded {
        return Ok(document);
    }
    let error = operation.error.clone().unwrap_or_else(|| unsuccessful(&operation));
    let Unread { operation: raw } = read(&document)?;
    Err(Box::<Refusal>::from(error).of_operation(raw, &operation))
}

fn unsuccessful(operation: &Operation) -> Error {
    let kind = match operation.status {
        Status::Cancelled | Status::Abandoned => Kind::Cancelled,
        Status::Stuck => Kind::Stuck,
        Status::Queued | Status::Running | Status::Unwinding => Kind::Timeout,
        Status::Succeeded | Status::Failed => Kind::Internal,
    };
    let (task, status) = (operation.task(), render::word(operation.status));
    Error::new(kind, format_args!("{task} is {status} at \"{}\"", printable(&operation.step)))
}

fn ended_page(shown: &OperationShown) -> Page {
    let operation = &shown.operation;
    let text = format!("{} {}\n", operation.task(), render::word(operation.status));
    Page { text, quiet: format!("{}\n", operation.id), notes: Vec::new() }
}

/// The operations as a table.
pub fn table(operations: &[Operation], screen: &Screen) -> String {
    let rows = operations.iter().map(|operation| row(operation, screen));
    Table::new("operations", COLUMNS, NARROWING, rows).draw(screen)
}

fn list_page(operations: &Operations, screen: &Screen) -> Page {
    let text = table(&operations.operations, screen);
    let quiet = operations.operations.iter().map(|operation| format!("{}\n", operation.id)).collect();
    Page { text, quiet, notes: Vec::new() }
}

fn row(operation: &Operation, screen: &Screen) -> Vec<Cell> {
    let volume = match operation.volume_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Cell::text(printable(name)),
        None => operation.volume_id.map_or_else(|| Cell::text(""), Cell::id),
    };
    vec![
        Cell::id(operation.id),
        Cell::text(render::word(operation.kind)),
        volume,
        Cell::state(render::word(operation.status)),
        Cell::text(render::ago(screen.now, operation.created_at)),
        step(operation),
    ]
}

/// In short, what CloudStack said of a failure: the row has the rest of the sentence.
fn step(operation: &Operation) -> Cell {
    let cell = Cell::text(printable(where_it_stands(operation)));
    let fault = operation.error.as_ref().and_then(|error| error.cloudstack.as_ref());
    match fault.and_then(|fault| fault.text.as_deref()) {
        Some(said) => cell.or(printable(said)),
        None => cell,
    }
}

/// The step under way, or why it ended otherwise than well.
pub fn where_it_stands(operation: &Operation) -> &str {
    match (&operation.error, operation.status) {
        (_, Status::Succeeded) => "",
        (Some(error), _) => &error.message,
        (None, _) => &operation.step,
    }
}

fn show_page(shown: &OperationShown, screen: &Screen) -> Page {
    let operation = &shown.operation;
    let mut facts = Facts::default();
    facts.add("id", operation.id);
    facts.add("kind", render::word(operation.kind));
    facts.add_some("volume", volume(operation));
    facts.add_some("vm", operation.vm_id);
    facts.add("status", render::word(operation.status));
    facts.add("step", printable(&operation.step));
    facts.add("created", moment(operation.created_at, screen));
    facts.add("updated", moment(operation.updated_at, screen));
    facts.add_some("finished", operation.finished_at.map(|at| moment(at, screen)));
    if let Some(error) = &operation.error {
        facts.add("error", printable(&error.message));
        facts.add_some("hint", error.hint.as_deref().map(printable));
    }
    if let Some(asker) = &shown.asked_by {
        facts.add_some("asked by", asker.uid.map(|uid| asked_by(uid, asker.login_uid)));
        facts.add_some("command", asker.command.as_deref().map(printable));
        facts.add_some("reason", asker.reason.as_deref().map(printable));
    }
    for (index, moment) in shown.history.iter().enumerate() {
        facts.add(if index == 0 { "history" } else { "" }, history_line(moment));
    }
    Page { text: facts.draw(screen), quiet: format!("{}\n", operation.id), notes: Vec::new() }
}

fn asked_by(uid: u32, login: Option<u32>) -> String {
    match login.filter(|login| *login != uid) {
        Some(login) => format!("user {uid}, logged in as {login}"),
        None => format!("user {uid}"),
    }
}

fn history_line(moment: &Moment) -> String {
    let at = moment.at.strftime("%Y-%m-%d %H:%M:%S UTC");
    let what = moment.note.as_ref().unwrap_or(&moment.step);
    format!("{at}  {:<9}  {}", render::word(moment.status), printable(what))
}

fn volume(operation: &Operation) -> Option<String> {
    let id = operation.volume_id.map(|id| id.to_string());
    match operation.volume_name.as_deref().filter(|name| !name.is_empty()).map(printable) {
        Some(name) => Some(id.map_or(name.clone(), |id| format!("{name} ({id})"))),
        None => id,
    }
}

fn moment(at: jiff::Timestamp, screen: &Screen) -> String {
    format!("{} ({} ago)", at.strftime("%Y-%m-%d %H:%M:%S UTC"), render::ago(screen.now, at))
}
