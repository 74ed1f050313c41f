//! `volctl hold`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, Verb};
use super::names::Names;
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
    /// Id, unique name or unique id prefix; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// Why, for whoever is refused
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    note: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Hold {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.volumes)?;
        let params = |volume| VolumeHold { volume, note: self.note.clone(), dry_run: self.dry_run };
        let verb = Verb { word: "hold", method: method::VOLUME_HOLD };
        change::run_at_once(verb, &names, params, (session, output), phrase)
    }
}

fn phrase(changed: &Changed) -> String {
    let subject = change::subject(changed);
    let already = if changed.changed == Some(false) { "is already " } else { "" };
    let hold = changed.volume.as_ref().and_then(|volume| volume.hold.as_ref());
    let by = hold.map(|hold| format!(" by {}: \"{}\"", printable(&hold.holder), printable(&hold.note)));
    format!("{subject} {already}held{}", by.unwrap_or_default())
}
