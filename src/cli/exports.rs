//! `volctl exports`: the exports with their clients, and sending a client away.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::answer::Answer;
use super::render::{self, Cell, Output, Page, Screen, Table};
use super::session::{Request, Session};
use crate::api::{self, Client, Export, ExportKick, Kicked, method};
use crate::model::{format_size, printable};

/// List the exports and their clients; with -q, the names of the exports
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Exports {
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
}

impl Exports {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        match self.command {
            None => {
                let request = Request::new(method::EXPORT_LIST, "list the exports", &serde_json::json!({}))?;
                let screen = output.screen();
                Ok(output.answer(session.ask(request), |exports| page(exports, &screen)))
            }
            Some(ExportsCommand::Kick { export, client }) => {
                let params = ExportKick { export, client };
                let request = Request::new(method::EXPORT_KICK, "send clients away", &params)?;
                Ok(output.answer(session.ask(request), kicked))
            }
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
    let header = &[
        "NAME",
        "VOLUME",
        "MODE",
        "STATE",
        "CLIENTS",
        "READ",
        "WRITTEN",
        "REQUESTS/S",
        "ERRORS",
        "FLUSHED",
        "DEVICE",
        "URIS",
    ];
    let mut text = Table::new(header, exports.exports.iter().map(|export| row(export, screen))).draw(screen);
    let clients =
        || exports.exports.iter().flat_map(|export| export.clients.iter().map(move |client| (export, client)));
    if clients().next().is_some() {
        let header = &["CLIENT", "EXPORT", "SINCE", "LAST REQUEST"];
        let rows = clients().map(|(export, client)| client_row(export, client, screen));
        text = format!("{text}\n{}", Table::new(header, rows).draw(screen));
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
        Cell::id(export.volume_id),
        Cell::text(mode(export)),
        Cell::state(render::word(export.state)),
        Cell::text(export.clients.len().to_string()),
        Cell::text(format_size(usage.bytes_read)),
        Cell::text(format_size(usage.bytes_written)),
        Cell::text(traffic.requests_per_second.to_string()),
        Cell::text(traffic.errors.to_string()),
        Cell::text(flushed.unwrap_or_default()),
        Cell::path(&export.device_path),
        Cell::text(uris.join(" ")),
    ]
}

fn mode(export: &Export) -> &'static str {
    match (export.read_only, export.shared) {
        (true, _) => "ro",
        (false, false) => "rw",
        (false, true) => "rw,shared",
    }
}

fn client_row(export: &Export, client: &Client, screen: &Screen) -> Vec<Cell> {
    let ago = |at| format!("{} ago", render::ago(screen.now, at));
    vec![
        Cell::text(printable(&client.address)),
        Cell::text(printable(&export.name)),
        Cell::text(ago(client.since)),
        Cell::text(client.last_request.map(ago).unwrap_or_default()),
    ]
}
