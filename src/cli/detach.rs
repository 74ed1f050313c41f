//! `volctl detach`

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::render::Output;
use super::session::Session;
use super::{confirm, duration};
use crate::api::{Changed, VolumeDetach, method};
use crate::model::printable;

/// Detach volumes from this VM, or from another one
///
/// Refused while a disk or one of its partitions is in use here, and while NBD clients are connected. What another
/// VM does with a volume cannot be checked from here.
#[derive(Args, Debug)]
pub struct Detach {
    /// Id or unique name
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
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
        let confirmed = match &self.from {
            Some(vm) if !self.yes && !self.change.is_dry_run() => {
                confirm::detach_from(vm, &self.volumes, session, output)?
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
        let volumes = self.volumes.iter().map(|volume| (volume.as_str(), params(volume))).collect();
        let verb = Verb { word: "detach", method: method::VOLUME_DETACH };
        let from = self.from.as_deref().map_or_else(|| "this VM".to_owned(), printable);
        self.change.run(verb, volumes, (session, output), |changed| phrase(changed, &from))
    }
}

fn phrase(changed: &Changed, from: &str) -> String {
    let subject = change::subject(changed);
    if changed.changed == Some(false) {
        return format!("{subject} is not attached to {from}: nothing to do");
    }
    format!("{subject} detached from {from}{}", change::last_moments(changed.departure.as_ref()))
}
