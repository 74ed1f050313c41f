//! `volctl detach`

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::names::Names;
use super::render::{Output, read};
use super::session::{Request, Session};
use super::{confirm, duration};
use crate::api::{Changed, VmGet, VmShown, Volume, VolumeDetach, method};
use crate::model::{VolumeType, printable};

/// The device id of a root disk.
const ROOT: u32 = 0;

/// Detach volumes from this VM, or from another one
///
/// Refused while a disk or one of its partitions is in use here, and while NBD clients are connected. What another
/// VM does with a volume cannot be checked from here.
#[derive(Args, Debug)]
pub struct Detach {
    /// Id or unique name; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME", required_unless_present = "all", value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// All volumes of the VM but its root disk; those that are held or in use stay, and are named
    #[arg(long, conflicts_with = "volumes")]
    all: bool,
    /// Detach from this other VM (id or name); asks first where it is running
    #[arg(long, value_name = "VM", value_parser = NonEmptyStringValueParser::new())]
    from: Option<String>,
    /// Take no new NBD clients, and let the present ones finish for at most this long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    drain: Option<Duration>,
    /// Close the connections of NBD clients; overrides nothing else
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Detach {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = if self.all { self.all_names(session)? } else { Names::of(self.volumes.clone())? };
        if names.words.is_empty() {
            output.remark("note: nothing but the root disk is attached there: nothing to do");
        }
        let confirmed = match &self.from {
            Some(vm) if !self.yes && !self.change.is_dry_run() => {
                confirm::detach_from(vm, &names.words, session, output)?
            }
            other => other.is_some(),
        };
        let params = |volume: &String| VolumeDetach {
            volume: volume.clone(),
            from: self.from.clone(),
            drain_seconds: self.drain.map(|drain| drain.as_secs()),
            force: self.force,
            confirmed,
        };
        let verb = Verb { word: "detach", method: method::VOLUME_DETACH };
        let from = self.from.as_deref().map_or_else(|| "this VM".to_owned(), printable);
        self.change
            .run(verb, &names, names.words.iter().map(params), (session, output), |changed| phrase(changed, &from))
    }

    /// The ids of what is attached to the VM as CloudStack has it now, without its root disk.
    fn all_names(&self, session: &Session) -> Answer<Names> {
        let request = Request::new(method::VM_GET, "look up the VM", &VmGet { vm: self.from.clone() })?;
        let vm: VmShown = read(&session.ask(request)?)?;
        let is_root = |volume: &Volume| volume.volume_type == VolumeType::Root || volume.device_id == Some(ROOT);
        Ok(Names::of_volumes(vm.volumes.iter().filter(|volume| !is_root(volume))))
    }
}

fn phrase(changed: &Changed, from: &str) -> String {
    let subject = change::subject(changed);
    if changed.changed == Some(false) {
        return format!("{subject} is not attached to {from}: nothing to do");
    }
    format!("{subject} detached from {from}{}", change::last_moments(changed.departure.as_ref()))
}
