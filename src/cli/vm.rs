//! `volctl vm`

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::answer::Answer;
use super::ls;
use super::render::{Cell, Column, Facts, Narrow, Output, Page, Screen, Table};
use super::session::{Request, Session};
use crate::api::{VmGet, VmList, VmListed, VmShown, Vms, Volume, method};
use crate::model::{format_size, printable};

const COLUMNS: &[Column] =
    &[Column::new("NAME"), Column::new("ID"), Column::new("STATE"), Column::number("VOLUMES"), Column::new("THIS VM")];
// The beginning of a VM's id names no VM.
const NARROWING: &[Narrow] = &[Narrow::Elide("NAME", 30), Narrow::Drop("ID"), Narrow::Elide("NAME", 12)];
const VOLUME_COLUMNS: &[Column] = &[
    Column::number("NO"),
    Column::new("NAME"),
    Column::new("ID"),
    Column::number("SIZE").least(5),
    Column::new("STATE").least(10),
    Column::new("DEVICE"),
    Column::new("EXPORT").least(8),
];
const VOLUME_NARROWING: &[Narrow] = &[
    Narrow::Short("ID"),
    Narrow::Short("EXPORT"),
    Narrow::Short("DEVICE"),
    Narrow::Elide("NAME", 36),
    Narrow::Drop("DEVICE"),
    Narrow::Elide("NAME", 20),
    Narrow::Drop("ID"),
];

/// Look at the VMs that CloudStack shows this key
#[derive(Args, Debug)]
pub struct Vm {
    #[command(subcommand)]
    command: VmCommand,
}

#[derive(Debug, Subcommand)]
enum VmCommand {
    /// List the VMs, this one marked; with -q, their ids
    Ls,
    /// Show a VM and its volumes in device order; with -q, the volumes' ids
    Show {
        /// Id or unique name [default: the VM that volctld runs in]
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        vm: Option<String>,
    },
}

impl Vm {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let screen = output.screen();
        match self.command {
            VmCommand::Ls => {
                let request = Request::new(method::VM_LIST, "list the VMs", &VmList::default())?;
                Ok(output.answer(session.ask(request), |vms| list(vms, &screen)))
            }
            VmCommand::Show { vm } => {
                let label = format!("show VM {}", vm.as_deref().unwrap_or("that this is"));
                let request = Request::new(method::VM_GET, label, &VmGet { vm })?;
                Ok(output.answer(session.ask(request), |shown| page(shown, &screen)))
            }
        }
    }
}

fn list(vms: &Vms, screen: &Screen) -> Page {
    let text = Table::new("VMs", COLUMNS, NARROWING, vms.vms.iter().map(row)).draw(screen);
    Page { text, quiet: vms.vms.iter().map(|vm| format!("{}\n", vm.id)).collect(), notes: unknown(vms) }
}

fn row(vm: &VmListed) -> Vec<Cell> {
    vec![
        Cell::text(printable(&vm.name)),
        Cell::id(vm.id),
        Cell::state(printable(&vm.state)),
        Cell::text(vm.volumes.to_string()),
        Cell::text(if vm.this_vm == Some(true) { "yes" } else { "" }),
    ]
}

fn unknown(vms: &Vms) -> Vec<String> {
    let is_unknown = !vms.vms.is_empty() && vms.vms.iter().all(|vm| vm.this_vm.is_none());
    is_unknown.then(|| "which of them this is cannot be proven: volctl health".to_owned()).into_iter().collect()
}

fn page(vm: &VmShown, screen: &Screen) -> Page {
    let mut facts = Facts::default();
    facts.add("name", printable(&vm.name));
    facts.add("id", vm.id);
    facts.add("state", printable(&vm.state));
    facts.add("zone", printable(&vm.zone_id));
    facts.add("this vm", vm.this_vm.map_or("not proven", |is| if is { "yes" } else { "no" }));
    let volumes =
        Table::new("volumes", VOLUME_COLUMNS, VOLUME_NARROWING, vm.volumes.iter().map(volume_row)).draw(screen);
    let quiet = vm.volumes.iter().map(|volume| format!("{}\n", volume.id)).collect();
    Page { text: format!("{}\n{volumes}", facts.draw(screen)), quiet, notes: Vec::new() }
}

fn volume_row(volume: &Volume) -> Vec<Cell> {
    let device = volume.device.as_ref().map_or_else(|| Cell::text(""), |device| Cell::path(&device.path));
    vec![
        Cell::text(volume.device_id.map_or_else(String::new, |number| number.to_string())),
        Cell::text(printable(&volume.name)),
        Cell::id(volume.id),
        Cell::text(format_size(volume.size_bytes)),
        Cell::state(ls::state(volume)),
        device,
        ls::export(volume),
    ]
}
