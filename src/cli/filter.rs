//! The flags that say which volumes, exports or operations are wanted.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::api;
use crate::model::Tag;

/// The flags of `ls`, `exports` and `ops`; what is listed fulfils all of them.
#[derive(Args, Debug)]
pub struct Filter {
    /// With this tag on the volume; of several with all
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    /// Asked for by you: of volumes and exports, who asked for the volume's last change here that was not in vain
    #[arg(long)]
    mine: bool,
    /// On this VM
    #[arg(long)]
    here: bool,
    /// In this state, as it is shown
    #[arg(long, value_name = "STATE", value_parser = NonEmptyStringValueParser::new())]
    state: Option<String>,
}

impl From<Filter> for api::Filter {
    fn from(flags: Filter) -> Self {
        Self { tags: flags.tags, mine: flags.mine, here: flags.here, state: flags.state }
    }
}
