//! `volctl move`

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::names::Names;
use super::render::Output;
use super::session::Session;
use super::{confirm, duration};
use crate::api::{Changed, VolumeMove, method};
use crate::model::printable;

/// Move volumes from this VM to another one: end the export, detach here safely, attach there
///
/// Refused, with nothing changed, while a disk is in use here, while NBD clients are connected, and where the other VM
/// could not take it. If CloudStack then does not attach it there, it ends detached, and the error says so.
#[derive(Args, Debug)]
pub struct Move {
    /// Id or unique name; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// The VM (id or name) that they go to
    #[arg(long, value_name = "VM", value_parser = NonEmptyStringValueParser::new())]
    to: String,
    /// Attach as the root disk of that VM, which must be stopped
    #[arg(long)]
    root: bool,
    /// Detach that VM's present root disk first; it is kept
    #[arg(long, requires = "root")]
    swap_root: bool,
    /// Take no new NBD clients, and let the present ones finish for at most this long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    drain: Option<Duration>,
    /// Close the connections of NBD clients; overrides nothing else
    #[arg(long)]
    force: bool,
    /// Do not ask; needed with --swap-root where there is no terminal
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Move {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.volumes)?;
        names.refuse_several_as_root(self.root)?;
        if self.swap_root && !self.yes && !self.change.is_dry_run() {
            confirm::swap_root(&self.to, &names.words, output)?;
        }
        let params = |volume: &String| VolumeMove {
            volume: volume.clone(),
            to: self.to.clone(),
            root: self.root,
            swap_root: self.swap_root,
            drain_seconds: self.drain.map(|drain| drain.as_secs()),
            force: self.force,
        };
        let verb = Verb { word: "move", method: method::VOLUME_MOVE };
        self.change
            .run(verb, &names, names.words.iter().map(params), (session, output), |changed| phrase(changed, &self.to))
    }
}

fn phrase(changed: &Changed, to: &str) -> String {
    let subject = change::subject(changed);
    let now = changed.volume.as_ref().map_or_else(|| format!("attached to {}", printable(to)), change::whereabouts);
    if changed.changed == Some(false) {
        return format!("{subject} is {now} already: nothing to do");
    }
    format!("{subject} moved: {now}{}", change::last_moments(changed.departure.as_ref()))
}
