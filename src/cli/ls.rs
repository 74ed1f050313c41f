//! `volctl ls`

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::duration;
use super::filter::Filter;
use super::render::{self, Cell, Column, Narrow, Output, Page, Screen, Table};
use super::session::{Request, Session};
use crate::api::{Volume, VolumeList, Volumes, method};
use crate::model::{format_size, printable};

/// CloudStack's part of a list that is older than this is said to be, also where nobody watches (the default of
/// `--max-age`).
const OLD: Duration = Duration::from_secs(30);

const COLUMNS: &[Column] = &[
    Column::new("NAME"),
    Column::new("ID"),
    Column::number("SIZE").least(5),
    Column::new("STATE").least(10),
    Column::new("VM").least(7),
    Column::new("DEVICE"),
    Column::new("EXPORT").least(8),
    Column::new("TAGS"),
];
const NARROWING: &[Narrow] = &[
    Narrow::Short("ID"),
    Narrow::Short("EXPORT"),
    Narrow::Short("DEVICE"),
    Narrow::Cut("TAGS", 12),
    Narrow::Elide("NAME", 36),
    Narrow::Elide("VM", 20),
    Narrow::Drop("TAGS"),
    Narrow::Drop("DEVICE"),
    Narrow::Elide("NAME", 20),
    Narrow::Elide("VM", 12),
    Narrow::Drop("ID"),
    Narrow::Drop("EXPORT"),
    Narrow::Elide("NAME", 12),
    Narrow::Drop("VM"),
];

/// List the volumes; with -q, their ids
///
/// Device and export are read live. The rest comes from CloudStack and is asked again when it is older than --max-age;
/// when CloudStack does not answer, the last known is shown and marked STALE.
///
/// On a terminal a volume has a line: what finds no room is shortened (a volume's id to a beginning that other commands
/// take) or left out. In a pipe all columns are there in full.
#[derive(Args, Debug)]
pub struct Ls {
    /// Ask CloudStack again for what is older than this [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    max_age: Option<Duration>,
    #[command(flatten)]
    filter: Filter,
    /// In this state of CloudStack's (Ready, Allocated, Destroy, ...), or held, or stale
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    state: Option<String>,
}

impl Ls {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let max_age_seconds = self.max_age.map(|age| age.as_secs());
        let params = VolumeList { max_age_seconds, filter: self.filter.with_state(self.state) };
        let request = Request::new(method::VOLUME_LIST, "list the volumes", &params)?;
        let watched = output.watched();
        let screen = output.screen();
        Ok(output.answer(session.ask(request), |volumes| page(volumes, &screen, watched)))
    }
}

fn page(volumes: &Volumes, screen: &Screen, watched: bool) -> Page {
    let text = Table::new("volumes", COLUMNS, NARROWING, volumes.volumes.iter().map(row)).draw(screen);
    let quiet = volumes.volumes.iter().map(|volume| format!("{}\n", volume.id)).collect();
    let notes = volumes.notes.iter().cloned().chain(old(&volumes.volumes, screen, watched)).collect();
    Page { text, quiet, notes }
}

fn row(volume: &Volume) -> Vec<Cell> {
    let device = volume.device.as_ref();
    vec![
        Cell::text(printable(&volume.name)),
        Cell::id(volume.id),
        Cell::text(format_size(volume.size_bytes)),
        Cell::state(state(volume)),
        Cell::text(render::place(volume).unwrap_or_default().replace(' ', "-")),
        device.map_or_else(|| Cell::text(""), |device| Cell::path(&device.path)),
        export(volume),
        Cell::text(render::tags(&volume.tags)),
    ]
}

/// A volume's export by its name, or by its state where there is no room.
pub fn export(volume: &Volume) -> Cell {
    let export = volume.export.as_ref();
    export.map_or_else(|| Cell::text(""), |export| Cell::text(printable(&export.name)).or(render::word(export.state)))
}

/// CloudStack's state, marked where the volume is held, and where CloudStack did not answer when it was asked again.
pub fn state(volume: &Volume) -> String {
    let held = if volume.hold.is_some() { ",held" } else { "" };
    let stale = if volume.stale { ",STALE" } else { "" };
    format!("{}{held}{stale}", printable(&volume.state))
}

/// How old CloudStack's part is, where a person watches or it is older than it should be.
fn old(volumes: &[Volume], screen: &Screen, watched: bool) -> Option<String> {
    let oldest = volumes.iter().min_by_key(|volume| volume.cloudstack_as_of)?.cloudstack_as_of;
    let age = render::age(screen.now, oldest);
    let said = age > OLD || (watched && age.as_secs() > 0);
    said.then(|| format!("CloudStack's part is {} old", render::ago(screen.now, oldest)))
}
