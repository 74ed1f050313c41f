//! The process's environment as far as it configures anything, and the paths that follow from it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::document::Given;
use crate::error::Result;

/// Who runs this, and with which variables.
#[derive(Clone)]
pub struct Environment {
    /// The effective user.
    pub uid: u32,
    variables: HashMap<OsString, OsString>,
}

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        Self::new(nix::unistd::geteuid().as_raw(), std::env::vars_os())
    }

    /// A user's, with these variables.
    pub fn new(uid: u32, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { uid, variables: variables.into_iter().collect() }
    }

    /// A variable's text, trimmed. A value that is empty or not UTF-8 is an error.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<Given<String>>> {
        let Some(value) = self.variables.get(OsStr::new(name)) else { return Ok(None) };
        let place = format!("{name} in the environment");
        let Some(text) = value.to_str() else { return Err(Given { place, value }.refuse("is not UTF-8")) };
        let given = Given { place, value: text.trim().to_owned() };
        if given.value.is_empty() {
            return Err(given.refuse("is empty").hint("give it a value, or unset it"));
        }
        Ok(Some(given))
    }

    /// A variable's absolute path; the XDG Base Directory Specification has others ignored.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

/// A command line to which a variable that is set to nothing counts as not set.
pub fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(clap::builder::Resettable::<clap::builder::OsStr>::Reset),
        false => arg,
    })
}

/// Where things are when nothing says otherwise: root's in the system's directories, anybody else's in their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// The socket on which the daemon is asked.
    pub socket: PathBuf,
    /// The socket on which it serves NBD.
    pub nbd_socket: PathBuf,
    /// The directory of its store.
    pub state_dir: PathBuf,
}

impl Paths {
    /// Those of a user. Where a variable of theirs is missing, it is the system's.
    pub fn of(environment: &Environment) -> Self {
        let own = |variable| environment.path(variable).filter(|_| environment.uid != 0);
        let own_or_home = |variable, below_home: &str| own(variable).or_else(|| Some(own("HOME")?.join(below_home)));
        let place = |base: Option<PathBuf>, system: &str| base.map_or(system.into(), |base| base.join("volctl"));
        let runtime = place(own("XDG_RUNTIME_DIR"), "/run/volctl");
        Self {
            config: place(own_or_home("XDG_CONFIG_HOME", ".config"), "/etc/volctl").join("config.toml"),
            socket: runtime.join("volctld.sock"),
            nbd_socket: runtime.join("nbd.sock"),
            state_dir: place(own_or_home("XDG_STATE_HOME", ".local/state"), "/var/lib/volctl"),
        }
    }
}
