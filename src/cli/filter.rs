//! The flags that say which volumes, exports or operations are wanted.

use clap::Args;

use crate::api;
use crate::model::Tag;

/// The flags of `ls`, `exports` and `ops`; what is listed fulfils all of them.
#[derive(Args, Debug)]
pub struct Filter {
    /// With this tag on the volume; of several with all
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    /// Asked for by you; a volume and its export are yours if its last change here that did not fail was
    #[arg(long)]
    mine: bool,
    /// On this VM: a volume attached to it, an export whose device is here, an operation on it or on such a volume
    #[arg(long)]
    here: bool,
}

impl Filter {
    /// As it is asked for, with the state that is wanted.
    pub fn with_state(self, state: Option<String>) -> api::Filter {
        api::Filter { tags: self.tags, mine: self.mine, here: self.here, state }
    }
}
