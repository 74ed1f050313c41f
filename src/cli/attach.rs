//! `volctl attach`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::names::Names;
use super::render::Output;
use super::session::Session;
use crate::api::{Changed, VolumeAttach, method};
use crate::model::Tag;

/// Attach volumes to this VM, or to another one
///
/// Prints the Linux device that each became, proven by its serial. On another VM the device is not known from here.
#[derive(Args, Debug)]
pub struct Attach {
    /// Id, unique name or unique id prefix; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// Attach to this VM (id or name) instead of the one that volctl runs in
    #[arg(long, value_name = "VM", value_parser = NonEmptyStringValueParser::new())]
    vm: Option<String>,
    /// Attach as the root disk of that VM, which must be stopped and have none
    #[arg(long)]
    root: bool,
    /// Export over NBD as well
    #[arg(long)]
    export: bool,
    /// The export refuses writes
    #[arg(long, requires = "export")]
    read_only: bool,
    /// Tag the volumes; may be repeated. A tag that is there keeps its value
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Attach {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.volumes)?;
        names.refuse_several_as_root(self.root)?;
        let params = |volume: &String| VolumeAttach {
            volume: volume.clone(),
            vm: self.vm.clone(),
            root: self.root,
            export: self.export,
            read_only: self.read_only,
            tags: self.tags.clone(),
        };
        let verb = Verb { word: "attach", method: method::VOLUME_ATTACH };
        self.change.run(verb, &names, names.words.iter().map(params), (session, output), phrase)
    }
}

fn phrase(changed: &Changed) -> String {
    let subject = change::subject(changed);
    let Some(volume) = &changed.volume else { return format!("{subject} attached") };
    if volume.vm_id.is_none() {
        return format!("{subject} was attached by this request, and is attached nowhere any more");
    }
    let already = if changed.changed == Some(false) { "is already " } else { "" };
    format!("{subject} {already}{}", change::whereabouts(volume))
}
