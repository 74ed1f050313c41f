//! `volctl resize`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::names::Names;
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, VolumeResize, method};
use crate::model::{format_size, parse_size};

/// Grow a volume, and wait until its device here shows the new size
///
/// Its export follows: clients that connect from then on see the new size, those that are connected keep theirs. The
/// file system or partition table on it is not touched. A volume is never made smaller.
#[derive(Args, Debug)]
pub struct Resize {
    /// Id, unique name or unique id prefix
    #[arg(value_name = "VOLUME", value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// New size: an integer with K, M, G or T (powers of 1024), such as 20G; CloudStack rounds up to whole GiB
    #[arg(value_parser = parse_size)]
    size: u64,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Resize {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let params = VolumeResize { volume: self.volume.clone(), size_bytes: self.size };
        let verb = Verb { word: "resize", method: method::VOLUME_RESIZE };
        self.change.run(verb, &Names::one(self.volume), [params], (session, output), phrase)
    }
}

fn phrase(changed: &Changed) -> String {
    let subject = change::subject(changed);
    let Some(volume) = &changed.volume else { return format!("{subject} resized") };
    let size = format!("{} ({} bytes)", format_size(volume.size_bytes), volume.size_bytes);
    let done = if changed.changed == Some(false) { "has that size already" } else { "resized" };
    let here = volume.device.as_ref().map(|device| format!(", {}", super::render::path(&device.path)));
    format!("{subject} {done}: {size}{}", here.unwrap_or_default())
}
