//! `volctl unexport`

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::duration;
use super::names::Names;
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, ExportDelete, method};

/// End exports; the volumes stay attached
///
/// Refused while NBD clients are connected.
#[derive(Args, Debug)]
pub struct Unexport {
    /// Export name, or the volume's id, unique name or unique id prefix; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME|NAME", required = true, value_parser = NonEmptyStringValueParser::new())]
    exports: Vec<String>,
    /// Take no new NBD clients, and let the present ones finish for at most this long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    drain: Option<Duration>,
    /// Close the connections of NBD clients
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Unexport {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.exports)?;
        let params = |export: &String| ExportDelete {
            export: export.clone(),
            drain_seconds: self.drain.map(|drain| drain.as_secs()),
            force: self.force,
        };
        let verb = Verb { word: "unexport", method: method::EXPORT_DELETE };
        self.change.run(verb, &names, names.words.iter().map(params), (session, output), phrase)
    }
}

fn phrase(changed: &Changed) -> String {
    let subject = change::subject(changed);
    if changed.changed == Some(false) {
        return format!("{subject} is not exported: nothing to do");
    }
    format!("{subject} is no longer exported{}", change::last_moments(changed.departure.as_ref()))
}
