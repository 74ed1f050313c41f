//! `volctl recover`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::names::Names;
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, VolumeRecover, method};
use crate::model::printable;

/// Bring deleted volumes back
#[derive(Args, Debug)]
pub struct Recover {
    /// Id or unique name; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Recover {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.volumes)?;
        let params = |volume: &String| VolumeRecover { volume: volume.clone() };
        let verb = Verb { word: "recover", method: method::VOLUME_RECOVER };
        self.change.run(verb, &names, names.words.iter().map(params), (session, output), phrase)
    }
}

fn phrase(changed: &Changed) -> String {
    let subject = change::subject(changed);
    let state = changed.volume.as_ref().map(|volume| format!(" ({})", printable(&volume.state))).unwrap_or_default();
    match changed.changed {
        Some(false) => format!("{subject} is not deleted{state}: nothing to do"),
        _ => format!("{subject} recovered{state}"),
    }
}
