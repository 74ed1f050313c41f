//! `volctld --check`: what a configuration looks like from outside, as JSON for `volctl config check --online`. No daemon
//! is started, and one that runs is not disturbed.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Arguments;
use crate::config::{Config, Environment, Paths};
use crate::error::{Error, Kind, Result};
use crate::operation;

/// Prints what was found; fails only where nothing could be looked at.
pub(super) fn main(arguments: Arguments) -> ExitCode {
    match check(arguments) {
        Ok(document) => {
            println!("{document}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(arguments: Arguments) -> Result<String> {
    let environment = Environment::of_process();
    let paths = Paths::of(&environment);
    let config = Config::load(arguments.config.as_deref(), &environment)?;
    let internal = |error: &dyn std::fmt::Display| Error::new(Kind::Internal, error);
    let absolute = |path: PathBuf| std::path::absolute(path).map_err(|error| internal(&error));
    let state_dir = absolute(arguments.state_dir.unwrap_or(paths.state_dir))?;
    let socket = absolute(arguments.socket.unwrap_or(paths.socket))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| internal(&error))?;
    let findings = runtime.block_on(operation::check(config, state_dir, socket));
    // What hangs on a file system is left behind.
    runtime.shutdown_background();
    serde_json::to_string(&findings).map_err(|error| internal(&error))
}
