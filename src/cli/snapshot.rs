//! `volctl snapshot`: the snapshots of volumes, and what can be done with one.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::confirm;
use super::names::Names;
use super::render::{self, Cell, Column, Narrow, Output, Page, Screen, Table, read};
use super::session::{Request, Session};
use crate::api::{
    Changed, Snapshot as Taken, SnapshotCreate, SnapshotDelete, SnapshotList, SnapshotRevert, Snapshots, VmGet,
    VmShown, method,
};
use crate::error::{Error, Kind};
use crate::model::{Tag, format_size, printable};

/// Said of the snapshots of a VM's volumes.
const INCONSISTENT: &str = "the volumes are taken one after another: their snapshots are not consistent in time";

const COLUMNS: &[Column] = &[
    Column::new("VOLUME"),
    Column::new("NAME"),
    Column::new("ID"),
    Column::new("STATE").least(8),
    Column::number("SIZE").least(5),
    Column::number("AGE").least(6),
    Column::new("TAGS"),
];
// The beginning of a snapshot's id names no snapshot.
const NARROWING: &[Narrow] = &[
    Narrow::Cut("TAGS", 12),
    Narrow::Short("VOLUME"),
    Narrow::Elide("VOLUME", 24),
    Narrow::Elide("NAME", 24),
    Narrow::Drop("ID"),
    Narrow::Elide("VOLUME", 12),
    Narrow::Elide("NAME", 20),
    Narrow::Drop("TAGS"),
];

/// Take, list, revert to and delete snapshots of volumes
#[derive(Args, Debug)]
pub struct Snapshot {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    Create(Create),
    Ls(Ls),
    Revert(Revert),
    Delete(Delete),
}

/// Take a snapshot of a volume, or of each volume of a VM
///
/// Ends when the snapshot is BackedUp: the copy to secondary storage can take long. The volume can be used meanwhile, and
/// is neither resized nor deleted. With --vm the volumes are taken one after another, each once the one before is
/// BackedUp, so that they are not consistent in time. Where one fails those after it are not begun, and those before it
/// are kept.
#[derive(Args, Debug)]
struct Create {
    /// Id, unique name or unique id prefix
    #[arg(required_unless_present = "vm", conflicts_with = "vm", value_parser = NonEmptyStringValueParser::new())]
    volume: Option<String>,
    /// All volumes of this VM (id or name), one after another
    #[arg(long, value_name = "VM", value_parser = NonEmptyStringValueParser::new())]
    vm: Option<String>,
    /// Name of the snapshot; the volume's name and the time where it is left out
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Tag the snapshot; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    #[command(flatten)]
    change: ChangeFlags,
}

/// List snapshots, newest first; with -q, their ids
#[derive(Args, Debug)]
struct Ls {
    /// Of this volume (id, unique name or unique id prefix)
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    volume: Option<String>,
    /// Of the volumes of this VM (id or name)
    #[arg(long, value_name = "VM", value_parser = NonEmptyStringValueParser::new())]
    vm: Option<String>,
    /// With this tag; of several with all
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
}

/// Give a volume back what it had when a snapshot was taken, its size too
///
/// What was written since is lost. Refused while the volume is exported, held, or attached to a VM that is not stopped.
#[derive(Args, Debug)]
struct Revert {
    /// Id or unique name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    snapshot: String,
    /// Do not ask; needed where there is no terminal
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

/// Delete snapshots for ever; their volumes are not touched
#[derive(Args, Debug)]
struct Delete {
    /// Id or unique name
    #[arg(value_name = "SNAPSHOT", required = true, value_parser = NonEmptyStringValueParser::new())]
    snapshots: Vec<String>,
    /// Do not ask; needed where there is no terminal
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Snapshot {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        match self.command {
            SnapshotCommand::Create(command) => command.run(session, output),
            SnapshotCommand::Ls(command) => command.run(session, output),
            SnapshotCommand::Revert(command) => command.run(session, output),
            SnapshotCommand::Delete(command) => command.run(session, output),
        }
    }
}

impl Create {
    fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let (change, shown) = (&self.change, (session, output));
        let verb = Verb { word: "snapshot", method: method::SNAPSHOT_CREATE };
        let params = |volume: &String| SnapshotCreate {
            volume: volume.clone(),
            name: self.name.clone(),
            tags: self.tags.clone(),
        };
        match (&self.volume, &self.vm) {
            (None, Some(vm)) => {
                change.refuse_not_to_wait()?;
                let names = of_vm(vm, session)?;
                change.run_while_it_works(verb, &names, names.words.iter().map(params), shown, INCONSISTENT, created)
            }
            (volume, _) => {
                let names = Names::one(volume.clone().unwrap_or_default());
                change.run(verb, &names, names.words.iter().map(params), shown, created)
            }
        }
    }
}

/// A VM's volumes, in the order of their device ids.
fn of_vm(word: &str, session: &Session) -> Answer<Names> {
    let request = Request::new(method::VM_GET, format!("look up VM {word}"), &VmGet { vm: Some(word.to_owned()) })?;
    let vm: VmShown = read(&session.ask(request)?)?;
    if vm.volumes.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("VM {} ({}) has no volumes", printable(&vm.name), vm.id)).into());
    }
    Ok(Names::of_volumes(vm.volumes.iter()))
}

fn created(changed: &Changed) -> String {
    let subject = change::subject(changed);
    match &changed.snapshot {
        Some(snapshot) => format!(
            "snapshot {} ({}) of {subject} taken: {}, {}",
            printable(&snapshot.name),
            snapshot.id,
            format_size(snapshot.size_bytes),
            printable(&snapshot.state)
        ),
        None => format!("snapshot of {subject} taken"),
    }
}

impl Ls {
    fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let params = SnapshotList { volume: self.volume, vm: self.vm, tags: self.tags, max_age_seconds: None };
        let request = Request::new(method::SNAPSHOT_LIST, "list the snapshots", &params)?;
        let screen = output.screen();
        Ok(output.answer(session.ask(request), |snapshots| page(snapshots, &screen)))
    }
}

fn page(snapshots: &Snapshots, screen: &Screen) -> Page {
    let rows = snapshots.snapshots.iter().map(|snapshot| row(snapshot, screen));
    let text = Table::new("snapshots", COLUMNS, NARROWING, rows).draw(screen);
    let quiet = snapshots.snapshots.iter().map(|snapshot| format!("{}\n", snapshot.id)).collect();
    Page { text, quiet, notes: Vec::new() }
}

fn row(snapshot: &Taken, screen: &Screen) -> Vec<Cell> {
    let volume = match snapshot.volume_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Cell::text(printable(name)),
        None => snapshot.volume_id.map_or_else(|| Cell::text(""), Cell::id),
    };
    vec![
        volume,
        Cell::text(printable(&snapshot.name)),
        Cell::id(snapshot.id),
        Cell::state(printable(&snapshot.state)),
        Cell::text(format_size(snapshot.size_bytes)),
        Cell::text(snapshot.created_at.map(|at| render::ago(screen.now, at)).unwrap_or_default()),
        Cell::text(render::tags(&snapshot.tags)),
    ]
}

impl Revert {
    fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let snapshot = match self.yes || self.change.is_dry_run() {
            true => self.snapshot.clone(),
            false => confirm::snapshot(&self.snapshot, confirm::OfSnapshot::Revert, session, output)?,
        };
        let verb = Verb { word: "revert", method: method::SNAPSHOT_REVERT };
        self.change.run(verb, &Names::one(self.snapshot), [SnapshotRevert { snapshot }], (session, output), reverted)
    }
}

fn reverted(changed: &Changed) -> String {
    let size = changed.volume.as_ref().map(|volume| format!(": {}", format_size(volume.size_bytes)));
    format!("{} reverted{}", change::subject(changed), size.unwrap_or_default())
}

impl Delete {
    fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let named = self.snapshots.iter().map(|word| match self.yes || self.change.is_dry_run() {
            true => Ok(word.clone()),
            false => confirm::snapshot(word, confirm::OfSnapshot::Delete, session, output),
        });
        let named = named.collect::<Answer<Vec<_>>>()?;
        let params = named.into_iter().map(|snapshot| SnapshotDelete { snapshot });
        let names = Names { is_list: self.snapshots.len() > 1, ..Names::several(self.snapshots) };
        let verb = Verb { word: "delete snapshot", method: method::SNAPSHOT_DELETE };
        self.change.run_in_turn(verb, &names, params, (session, output), deleted)
    }
}

fn deleted(changed: &Changed) -> String {
    let subject = change::subject(changed);
    let done = if changed.changed == Some(false) { "was deleted already" } else { "deleted; it is gone for ever" };
    format!("snapshot of {subject} {done}")
}
