//! `volctl delete`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::confirm;
use super::names::Names;
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, VolumeDelete, method};

/// Delete volumes; recoverable, except with --expunge
///
/// A volume that was never created on storage is gone at once. Refused while a volume is attached, exported or busy.
#[derive(Args, Debug)]
pub struct Delete {
    /// Id or unique name; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// Delete for ever
    #[arg(long)]
    expunge: bool,
    /// Do not ask; needed where there is no terminal
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Delete {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.volumes)?;
        let ids = if self.yes || self.change.is_dry_run() {
            names.words.clone()
        } else {
            confirm::delete(&names.words, self.expunge, session, output)?
        };
        let params = |volume: String| VolumeDelete { volume, expunge: self.expunge };
        let verb = Verb { word: "delete", method: method::VOLUME_DELETE };
        self.change.run(verb, &names, ids.into_iter().map(params), (session, output), phrase)
    }
}

fn phrase(changed: &Changed) -> String {
    let subject = change::subject(changed);
    let done = if changed.changed == Some(false) { "was deleted already" } else { "deleted" };
    match &changed.volume {
        Some(volume) if volume.state == "Destroy" => {
            format!("{subject} {done}; bring it back with: volctl recover {}", volume.id)
        }
        _ => format!("{subject} {done}; it is gone for ever"),
    }
}
