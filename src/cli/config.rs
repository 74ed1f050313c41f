//! `volctl config`: the daemon's configuration, looked at before the daemon reads it. The daemon is not asked.

mod import;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::answer::Answer;
use super::render::{Output, Page};
use crate::config::{self, Environment, Paths};
use crate::error::Error;
use crate::model::printable;

/// Check the daemon's configuration, or make one from another tool's
#[derive(Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say everything that is wrong in a configuration; exit code 1 where something is
    ///
    /// It is read as the daemon would read it if the caller started it: with the caller's environment and rights. Neither
    /// the daemon nor CloudStack is asked.
    Check {
        /// The configuration [default: that of the caller's daemon]
        file: Option<PathBuf>,
    },
    Import(import::Import),
}

impl Config {
    pub fn run(self, output: &Output) -> Answer<u8> {
        match self.command {
            ConfigCommand::Check { file } => Ok(check(file, output)),
            ConfigCommand::Import(import) => import.run(output),
        }
    }
}

fn check(file: Option<PathBuf>, output: &Output) -> u8 {
    let environment = Environment::of_process();
    let mistakes = mistakes(file.as_deref(), &environment);
    let path = file.unwrap_or_else(|| Paths::of(&environment).config);
    let document = json!({ "file": path.display().to_string(), "ok": mistakes.is_empty(), "mistakes": mistakes });
    let code = output.answer(Ok(document), |document| page(document, &mistakes));
    if mistakes.is_empty() { code } else { 1 }
}

/// Everything that is wrong with a configuration.
fn mistakes(file: Option<&std::path::Path>, environment: &Environment) -> Vec<Error> {
    config::Config::check(file, environment).err().unwrap_or_default()
}

fn page(document: &Value, mistakes: &[Error]) -> Page {
    let file = printable(document["file"].as_str().unwrap_or_default());
    let lines = |mistake: &Error| {
        let hint = mistake.hint.as_deref().map(|hint| format!("  hint: {}\n", printable(hint)));
        format!("{}\n{}", printable(&mistake.message), hint.unwrap_or_default())
    };
    let text = match mistakes {
        [] => format!("{file}: nothing is wrong\n"),
        _ => mistakes.iter().map(lines).collect(),
    };
    Page { text, quiet: if mistakes.is_empty() { "ok\n" } else { "wrong\n" }.to_owned(), notes: Vec::new() }
}
