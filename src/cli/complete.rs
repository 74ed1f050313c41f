//! `volctl complete`, which the scripts in completions/ call at each press of the tab key: what may stand at the end of
//! a line. The commands and options are those of the clap tree, the names those that the daemon knows.

mod line;
mod names;
mod tree;

use std::path::Path;

use clap::{Args, ValueEnum};

use self::tree::Wanted;
use super::render::Output;
use crate::model::printable;

/// Where the shell is to complete file names.
const FILES: u8 = 3;

/// Complete a command line, for the shells
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub struct Complete {
    /// For which shell
    shell: Shell,
    /// bash: the line up to the cursor as it was typed; otherwise its words, the last one to be completed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// Replaces what it calls a word by what it is told as it is: quoted and cut here.
    Bash,
    /// Gets values and what they are, and quotes and matches them itself.
    Words,
}

/// What may stand there, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    value: String,
    help: String,
}

impl Candidate {
    fn new(value: impl Into<String>, help: impl Into<String>) -> Self {
        Self { value: value.into(), help: help.into() }
    }

    /// A name with control characters cannot be typed.
    fn can_be_typed(&self) -> bool {
        !self.value.is_empty() && !self.value.chars().any(char::is_control)
    }
}

impl Complete {
    /// Prints what may stand there, a line each, and says the exit code.
    pub fn run(self, socket: &Path, output: &Output) -> u8 {
        let typed = match self.shell {
            Shell::Bash => line::Typed::of_line(self.words.first().map_or("", String::as_str)),
            Shell::Words => line::Typed::of_words(self.words),
        };
        let (before, last) = typed.words();
        let candidates = match tree::wanted(super::definition(), before, last) {
            Wanted::Files => return FILES,
            Wanted::Words(candidates) => candidates,
            Wanted::Names { of, prefix, typed } => {
                let names = names::ask(socket, of, last).unwrap_or_default();
                let is_new = |candidate: &Candidate| !typed.contains(&candidate.value);
                let with = |name: Candidate| Candidate { value: format!("{prefix}{}", name.value), ..name };
                names.into_iter().filter(is_new).map(with).collect()
            }
        };
        let mut text = String::new();
        for candidate in candidates.iter().filter(|candidate| candidate.can_be_typed()) {
            match self.shell {
                Shell::Bash => text.extend(typed.insertion(&candidate.value).map(|inserted| inserted + "\n")),
                Shell::Words => text += &format!("{}\t{}\n", candidate.value, printable(&candidate.help)),
            }
        }
        output.lines(&text)
    }
}
