//! `volctl exports`: the exports with their clients, and sending a client away.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::answer::Answer;
use super::filter::Filter;
use super::render::{self, Cell, Column, Narrow, Output, Page, Screen, Table, read};
use super::session::{Request, Session};
use super::{confirm, duration};
use crate::api::{
    self, Client, Export, ExportChecked, ExportKick, ExportList, ExportPrune, ExportPruned, ExportState,
    ExportsChecked, Kicked, Pruned, TlsMode, method,
};
use crate::model::{format_size, printable};

/// The exit code where an export is not as it should be.
const WRONG: u8 = 1;

const COLUMNS: &[Column] = &[
    Column::new("NAME"),
    Column::new("VOLUME"),
    Column::new("MODE"),
    Column::new("STATE").least(8),
    Column::number("CLIENTS"),
    Column::number("READ").least(5),
    Column::number("WRITTEN"),
    Column::number("REQUESTS/S"),
    Column::number("ERRORS"),
    Column::number("FLUSHED"),
    Column::new("DEVICE"),
    Column::new("URIS"),
];
const NARROWING: &[Narrow] = &[
    Narrow::Short("VOLUME"),
    Narrow::Short("URIS"),
    Narrow::Drop("DEVICE"),
    Narrow::Elide("NAME", 24),
    Narrow::Drop("FLUSHED"),
    Narrow::Drop("REQUESTS/S"),
    Narrow::Elide("NAME", 14),
    Narrow::Elide("VOLUME", 24),
    Narrow::Drop("URIS"),
    Narrow::Elide("VOLUME", 15),
    Narrow::Drop("ERRORS"),
    Narrow::Drop("READ"),
    Narrow::Drop("WRITTEN"),
];
const CLIENT_COLUMNS: &[Column] = &[
    Column::new("CLIENT"),
    Column::new("SUBJECT"),
    Column::new("EXPORT"),
    Column::number("SINCE"),
    Column::number("LAST REQUEST"),
];
const CLIENT_NARROWING: &[Narrow] =
    &[Narrow::Elide("EXPORT", 16), Narrow::Elide("SUBJECT", 16), Narrow::Elide("CLIENT", 16)];
const CHECKED_COLUMNS: &[Column] = &[Column::new("NAME"), Column::new("STATE"), Column::new("FOUND")];
const CHECKED_NARROWING: &[Narrow] = &[Narrow::Wrap("FOUND", 34), Narrow::Elide("NAME", 16)];

/// List the exports and their clients; with -q, the names of the exports
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Exports {
    #[command(flatten)]
    filter: Filter,
    /// In this state
    #[arg(long, ignore_case = true)]
    state: Option<ExportState>,
    #[command(subcommand)]
    command: Option<ExportsCommand>,
}

#[derive(Debug, Subcommand)]
enum ExportsCommand {
    /// Send clients of an export away; they may come back
    ///
    /// The request that is under way is still answered.
    Kick {
        /// The export's name
        #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
        export: String,
        /// Only those at this address, with or without its port
        #[arg(long, value_name = "ADDRESS", value_parser = NonEmptyStringValueParser::new())]
        client: Option<String>,
    },
    /// Check each export against store, CloudStack, device, and the size that a client is told
    ///
    /// Exits with 1 where something is wrong; with -q, the names of the exports of which something is.
    Check,
    /// End the exports that have lost their volume, and those that had no client for long
    ///
    /// Never one with a client, and never one of which CloudStack does not say for certain that its volume is gone. What is
    /// held stays, and is named.
    Prune(Prune),
}

#[derive(Args, Debug)]
struct Prune {
    /// Also those whose last client left this long ago (7d, 12h), or that never had one and are as old
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_some)]
    idle_for: Option<Duration>,
    /// Say what would end, and end nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needed where there is no terminal
    #[arg(long)]
    yes: bool,
}

impl Exports {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let screen = output.screen();
        match self.command {
            None => {
                let params = ExportList { filter: self.filter.with_state(self.state.map(render::word)) };
                let request = Request::new(method::EXPORT_LIST, "list the exports", &params)?;
                Ok(output.answer(session.ask(request), |exports| page(exports, &screen)))
            }
            Some(ExportsCommand::Kick { export, client }) => {
                let params = ExportKick { export, client };
                let request = Request::new(method::EXPORT_KICK, "send clients away", &params)?;
                Ok(output.answer(session.ask(request), kicked))
            }
            Some(ExportsCommand::Check) => check(session, output, &screen),
            Some(ExportsCommand::Prune(prune)) => prune.run(session, output),
        }
    }
}

fn kicked(kicked: &Kicked) -> Page {
    let addresses = || kicked.clients.iter().map(|client| printable(&client.address));
    let text = match addresses().map(|address| format!("{address} sent away\n")).collect::<String>() {
        none if none.is_empty() => "nobody was there\n".to_owned(),
        lines => lines,
    };
    Page { text, quiet: addresses().map(|address| address + "\n").collect(), notes: Vec::new() }
}

fn page(exports: &api::Exports, screen: &Screen) -> Page {
    let rows = exports.exports.iter().map(|export| row(export, screen));
    let mut text = Table::new("exports", COLUMNS, NARROWING, rows).draw(screen);
    let clients =
        || exports.exports.iter().flat_map(|export| export.clients.iter().map(move |client| (export, client)));
    if clients().next().is_some() {
        let rows = clients().map(|(export, client)| client_row(export, client, screen));
        text = format!("{text}\n{}", Table::new("clients", CLIENT_COLUMNS, CLIENT_NARROWING, rows).draw(screen));
    }
    let quiet = exports.exports.iter().map(|export| format!("{}\n", printable(&export.name))).collect();
    Page { text, quiet, notes: Vec::new() }
}

fn row(export: &Export, screen: &Screen) -> Vec<Cell> {
    let uris: Vec<String> = render::uris(export).collect();
    let (traffic, usage) = (&export.traffic, &export.usage);
    let flushed = traffic.last_flush.map(|at| format!("{} ago", render::ago(screen.now, at)));
    vec![
        Cell::text(printable(&export.name)),
        volume(export),
        Cell::text(mode(export)),
        Cell::state(render::word(export.state)),
        Cell::text(export.clients.len().to_string()),
        Cell::text(format_size(usage.bytes_read)),
        Cell::text(format_size(usage.bytes_written)),
        Cell::text(traffic.requests_per_second.to_string()),
        Cell::text(traffic.errors.to_string()),
        Cell::text(flushed.unwrap_or_default()),
        Cell::path(&export.device_path),
        Cell::text(uris.join(" ")).or(uris.first().cloned().unwrap_or_default()),
    ]
}

fn volume(export: &Export) -> Cell {
    export.volume_name.as_deref().map_or_else(|| Cell::id(export.volume_id), |name| Cell::text(printable(name)))
}

fn mode(export: &Export) -> String {
    let mode = match (export.read_only, export.shared) {
        (true, _) => "ro",
        (false, false) => "rw",
        (false, true) => "rw,shared",
    };
    if export.access.tls == TlsMode::Required { format!("{mode},tls") } else { mode.to_owned() }
}

fn client_row(export: &Export, client: &Client, screen: &Screen) -> Vec<Cell> {
    let ago = |at| format!("{} ago", render::ago(screen.now, at));
    vec![
        Cell::text(printable(&client.address)),
        Cell::text(client.subject.as_deref().map(printable).unwrap_or_default()),
        Cell::text(printable(&export.name)),
        Cell::text(ago(client.since)),
        Cell::text(client.last_request.map(ago).unwrap_or_default()),
    ]
}

fn check(session: &Session, output: &Output, screen: &Screen) -> Answer<u8> {
    let request = Request::new(method::EXPORT_CHECK, "check the exports", &serde_json::json!({}))?;
    let answer = session.ask(request);
    let is_wrong =
        answer.as_ref().is_ok_and(|document| read::<ExportsChecked>(document).is_ok_and(|checked| !checked.healthy));
    let code = output.answer(answer, |checked| checked_page(checked, screen));
    Ok(if code == 0 && is_wrong { WRONG } else { code })
}

fn checked_page(checked: &ExportsChecked, screen: &Screen) -> Page {
    let is_wrong = |checked: &&ExportChecked| !checked.findings.is_empty();
    let rows = checked.exports.iter().flat_map(checked_rows);
    let quiet = checked.exports.iter().filter(is_wrong);
    Page {
        text: Table::new("exports", CHECKED_COLUMNS, CHECKED_NARROWING, rows).draw(screen),
        quiet: quiet.map(|checked| format!("{}\n", printable(&checked.export.name))).collect(),
        notes: checked.notes.clone(),
    }
}

/// A row for each finding; one for an export that is as it should be.
fn checked_rows(checked: &ExportChecked) -> Vec<Vec<Cell>> {
    let row = |state: &str, found: &str| {
        vec![Cell::text(printable(&checked.export.name)), Cell::state(state), Cell::text(printable(found))]
    };
    match checked.findings.as_slice() {
        [] => vec![row("ok", "")],
        findings => findings.iter().map(|finding| row("bad", finding)).collect(),
    }
}

impl Prune {
    fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let params =
            |exports, dry_run| ExportPrune { idle_seconds: self.idle_for.map(|age| age.as_secs()), exports, dry_run };
        let looked = ask(&params(Vec::new(), true), session)?;
        let found: Pruned = read(&looked)?;
        if self.dry_run || found.exports.is_empty() {
            return Ok(output.answer(Ok(looked), |pruned| pruned_page(pruned, "would end")));
        }
        if !self.yes {
            confirm::prune(&found, output)?;
        }
        // What was shown, and nothing that has come to be idle since.
        let names = found.exports.into_iter().map(|export| export.name).collect();
        let answer = ask(&params(names, false), session);
        let has_failed = answer.as_ref().is_ok_and(|pruned| read::<Pruned>(pruned).is_ok_and(|pruned| failed(&pruned)));
        let code = output.answer(answer, |pruned| pruned_page(pruned, "ended"));
        Ok(if code == 0 && has_failed { WRONG } else { code })
    }
}

fn ask(params: &ExportPrune, session: &Session) -> Answer {
    session.ask(Request::new(method::EXPORT_PRUNE, "prune the exports", params)?)
}

fn failed(pruned: &Pruned) -> bool {
    pruned.exports.iter().any(|export| export.error.is_some())
}

fn pruned_page(pruned: &Pruned, ended: &str) -> Page {
    let line = |export: &ExportPruned| match &export.error {
        None => format!("{} {ended}: {}\n", printable(&export.name), printable(&export.reason)),
        Some(error) => format!("{} stays: {}\n", printable(&export.name), printable(&error.message)),
    };
    let left = pruned.left.iter().map(|left| format!("{} stays: {}", printable(&left.name), left.reason));
    let text: String = pruned.exports.iter().map(line).collect();
    Page {
        text: if text.is_empty() { "nothing to prune\n".to_owned() } else { text },
        quiet: pruned.exports.iter().map(|export| format!("{}\n", printable(&export.name))).collect(),
        notes: pruned.notes.iter().cloned().chain(left).collect(),
    }
}
