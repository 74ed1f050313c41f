//! `volctl release`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, Verb};
use super::names::Names;
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, VolumeRelease, method};

/// Release volumes that are held, whoever holds them
///
/// Says whose hold it was, and why. What is not held is left as it is, which is no error.
#[derive(Args, Debug)]
pub struct Release {
    /// Id, unique name or unique id prefix; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Release {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.volumes)?;
        let verb = Verb { word: "release", method: method::VOLUME_RELEASE };
        let params = |volume| VolumeRelease { volume, dry_run: self.dry_run };
        change::run_at_once(verb, &names, params, (session, output), phrase)
    }
}

fn phrase(changed: &Changed) -> String {
    let done = if changed.changed == Some(false) { "is not held: nothing to do" } else { "released" };
    format!("{} {done}", change::subject(changed))
}
