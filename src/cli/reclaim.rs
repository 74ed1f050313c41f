//! `volctl reclaim`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::confirm;
use super::names::Names;
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, VolumeReclaim, method};
use crate::model::printable;

/// Bring a volume back from another VM: stop that VM, detach there, attach and export here as before
///
/// The export gets the name and the mode that the volume's last one here had; a volume that had none gets none. What is done
/// already is not done again, so it can be run again from wherever it stopped.
#[derive(Args, Debug)]
pub struct Reclaim {
    /// Id or unique name
    #[arg(value_name = "VOLUME", value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// The VM (id or name) that it comes from, and that is stopped; asks first where it is running
    #[arg(long, value_name = "VM", value_parser = NonEmptyStringValueParser::new())]
    from: String,
    /// Where that VM does not stop by itself, stop it by force
    #[arg(long)]
    force_stop: bool,
    /// Destroy that VM, whose name is repeated here, once the disk is here; it is never expunged
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    destroy_vm: Option<String>,
    /// Do not ask; needed where there is no terminal and no VM's name is repeated
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Reclaim {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        if !self.yes && self.destroy_vm.is_none() && !self.change.is_dry_run() {
            confirm::stop(&self.from, &self.volume, session, output)?;
        }
        let params = VolumeReclaim {
            volume: self.volume.clone(),
            from: self.from.clone(),
            force_stop: self.force_stop,
            destroy_vm: self.destroy_vm.clone(),
        };
        let verb = Verb { word: "reclaim", method: method::VOLUME_RECLAIM };
        let from = self.from;
        self.change.run(verb, &Names::one(self.volume), [params], (session, output), |changed| phrase(changed, &from))
    }
}

fn phrase(changed: &Changed, from: &str) -> String {
    let subject = change::subject(changed);
    let Some(volume) = &changed.volume else { return format!("{subject} reclaimed from {}", printable(from)) };
    let now = change::whereabouts(volume);
    match changed.changed {
        Some(false) => format!("{subject} is {now} already: nothing to do"),
        _ => format!("{subject} reclaimed from {}: {now}", printable(from)),
    }
}
