//! `volctl create`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::names::Names;
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, VolumeCreate, method};
use crate::model::{Tag, format_size, parse_size, whole_gib};

/// Create volumes
///
/// Offering and zone default from the daemon's configuration; where exactly one fits, it is taken, and the output
/// says so. CloudStack creates a volume on storage when it is first attached.
#[derive(Args, Debug)]
pub struct Create {
    /// The new volume's name; - reads names from standard input, one a line
    #[arg(value_name = "NAME", required = true, value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
    /// Size: an integer with K, M, G or T (powers of 1024), such as 10G; CloudStack rounds up to whole GiB
    ///
    /// Needed with a disk offering of custom size, refused with one of fixed size.
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    /// Disk offering (id or name)
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    offering: Option<String>,
    /// Zone (id or name)
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    zone: Option<String>,
    /// Attach it to this VM
    #[arg(long)]
    attach: bool,
    /// Export it over NBD; implies --attach
    #[arg(long)]
    export: bool,
    /// Take a volume that has this name already, where size, offering and zone agree
    #[arg(long)]
    exists_ok: bool,
    /// Tag it; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Create {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.names)?;
        let params = |name: &String| VolumeCreate {
            name: name.clone(),
            size_bytes: self.size,
            offering: self.offering.clone(),
            zone: self.zone.clone(),
            attach: self.attach || self.export,
            export: self.export,
            exists_ok: self.exists_ok,
            tags: self.tags.clone(),
        };
        let verb = Verb { word: "create", method: method::VOLUME_CREATE };
        let phrase = |changed: &Changed| phrase(changed, self.size);
        self.change.run(verb, &names, names.words.iter().map(params), (session, output), phrase)
    }
}

fn phrase(changed: &Changed, asked: Option<u64>) -> String {
    let subject = change::subject(changed);
    let existed = changed.existed == Some(true) || changed.changed == Some(false);
    let done = if existed { "exists already" } else { "created" };
    let Some(volume) = &changed.volume else { return format!("{subject} {done}") };
    let size = format_size(volume.size_bytes);
    let rounded = asked
        .filter(|asked| *asked != volume.size_bytes)
        .map(|asked| format!(", {} asked for: CloudStack makes whole GiB, here {}", exact(asked), whole_gib(asked)));
    let attached = volume.vm_id.map(|_| format!(", {}", change::whereabouts(volume)));
    let (rounded, attached) = (rounded.unwrap_or_default(), attached.unwrap_or_default());
    format!("{subject} ({}) {done}: {size}{rounded}{attached}", volume.id)
}

/// A size in the largest unit that leaves no rest, as it was probably typed.
fn exact(bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let whole = units.into_iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| format!("{bytes} bytes"), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_typed() {
        for (bytes, text) in [(10_500 << 20, "10500M"), (10 << 30, "10G"), (5, "5 bytes"), (3 << 40, "3T")] {
            assert_eq!(exact(bytes), text);
        }
    }
}
