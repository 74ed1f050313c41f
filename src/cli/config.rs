//! `volctl config`: the daemon's configuration, looked at before the daemon reads it. The daemon is not asked.

mod check;
mod import;

use std::path::Path;

use clap::{Args, Subcommand};

use super::answer::Answer;
use super::render::Output;
use crate::config::{self, Environment};
use crate::error::Error;

/// Check the daemon's configuration, or make one from another tool's
#[derive(Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Check(check::Check),
    Import(import::Import),
}

impl Config {
    pub fn run(self, socket: &Path, output: &Output) -> Answer<u8> {
        match self.command {
            ConfigCommand::Check(check) => check.run(socket, output),
            ConfigCommand::Import(import) => import.run(output),
        }
    }
}

/// Everything that is wrong with a configuration.
fn mistakes(file: Option<&Path>, environment: &Environment) -> Vec<Error> {
    config::Config::check(file, environment).err().unwrap_or_default()
}
