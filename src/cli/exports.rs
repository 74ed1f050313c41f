//! `volctl exports`

use clap::Args;

use super::answer::Answer;
use super::filter::Filter;
use super::render::{self, Cell, Output, Page, Screen, Table};
use super::session::{Request, Session};
use crate::api::{self, ExportList, method};
use crate::model::printable;

/// List the exports; with -q, their names
#[derive(Args, Debug)]
pub struct Exports {
    #[command(flatten)]
    filter: Filter,
}

impl Exports {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let request =
            Request::new(method::EXPORT_LIST, "list the exports", &ExportList { filter: self.filter.into() })?;
        let screen = output.screen();
        Ok(output.answer(session.ask(request), |exports| page(exports, &screen)))
    }
}

fn page(exports: &api::Exports, screen: &Screen) -> Page {
    let header = &["NAME", "VOLUME", "MODE", "STATE", "CLIENTS", "DEVICE", "URIS"];
    let text = Table::new(header, exports.exports.iter().map(row)).draw(screen);
    let quiet = exports.exports.iter().map(|export| format!("{}\n", printable(&export.name))).collect();
    Page { text, quiet, notes: Vec::new() }
}

fn row(export: &api::Export) -> Vec<Cell> {
    let uris: Vec<String> = render::uris(export).collect();
    vec![
        Cell::text(printable(&export.name)),
        Cell::id(export.volume_id),
        Cell::text(if export.read_only { "ro" } else { "rw" }),
        Cell::state(render::word(export.state)),
        Cell::text(export.clients.len().to_string()),
        Cell::path(&export.device_path),
        Cell::text(uris.join(" ")),
    ]
}
