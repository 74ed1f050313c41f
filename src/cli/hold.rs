//! `volctl hold`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, Verb};
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, VolumeHold, method};
use crate::model::printable;

/// Hold volumes: nobody can detach, unexport, move, delete, revert, resize or reclaim them until they are released
///
/// Holds outlive restarts, and refuse everybody, the holder too. Holding a volume again gives it another note; one that
/// somebody else holds is refused. What has begun already goes on.
#[derive(Args, Debug)]
pub struct Hold {
    /// Id, unique name or unique id prefix
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// Why, for whoever is refused
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    note: String,
}

impl Hold {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let params = |volume: &String| VolumeHold { volume: volume.clone(), note: self.note.clone() };
        let volumes = self.volumes.iter().map(|volume| (volume.as_str(), params(volume))).collect();
        let verb = Verb { word: "hold", method: method::VOLUME_HOLD };
        change::run_at_once(verb, volumes, (session, output), phrase)
    }
}

fn phrase(changed: &Changed) -> String {
    let subject = change::subject(changed);
    let already = if changed.changed == Some(false) { "is already " } else { "" };
    let hold = changed.volume.as_ref().and_then(|volume| volume.hold.as_ref());
    let by = hold.map(|hold| format!(" by {}: \"{}\"", printable(&hold.holder), printable(&hold.note)));
    format!("{subject} {already}held{}", by.unwrap_or_default())
}
