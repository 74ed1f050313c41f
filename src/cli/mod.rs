//! The `volctl` command: the clap tree, one file a command, and the way from a command line to an exit code.

mod answer;
mod attach;
mod change;
mod complete;
mod config;
mod confirm;
mod create;
mod delete;
mod detach;
mod device;
mod drain;
mod duration;
mod events;
mod examples;
mod exchange;
mod export;
mod exports;
mod filter;
mod find;
mod follow;
mod health;
mod hold;
mod interrupt;
mod ls;
mod metrics;
mod moment;
mod r#move;
mod names;
mod ops;
mod reclaim;
mod recover;
mod release;
mod render;
mod resize;
mod rpc;
mod sandbox;
mod session;
mod show;
mod snapshot;
mod store;
mod sync;
mod task;
mod tls;
mod unexport;
mod usage;
mod version;
mod vm;
mod watch;
mod why;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::answer::Answer;
use self::render::{Format, Output};
use self::session::Session;
use crate::config::{Environment, Paths, without_empty_variables};
use crate::error::Result;

/// The exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Block volumes on CloudStack: create, attach, find the device, export over NBD, detach
///
/// volctl asks volctld, the one daemon on this machine that changes volumes. VOLUME is a volume's id, its name where
/// no other has it, or an id's first 6 or more characters where they fit one volume only; detach, delete and recover
/// take no such prefixes.
///
/// Tables fit the terminal, also under watch; in a pipe all columns are there in full. NO_COLOR=1 takes the colour away, and
/// CLICOLOR_FORCE=1 gives it to a pipe: CLICOLOR_FORCE=1 watch -c volctl ls
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict or in use, 5 CloudStack refused, 6 timed out (the
/// operation goes on), 7 daemon not reachable, 8 not permitted, 9 stuck, 130 interrupted (the operation goes on).
#[derive(Debug, Parser)]
#[command(name = "volctl", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The daemon's socket
    #[arg(long, global = true, value_name = "PATH", env = "VOLCTL_SOCKET", hide_env_values = true)]
    socket: Option<PathBuf>,
    /// Ask a sandbox of your own instead: a simulated CloudStack with a volctld, started where they do not run yet
    #[arg(long, global = true)]
    sandbox: bool,
    /// Print one JSON document on stdout, also for errors
    #[arg(long, global = true, conflicts_with = "quiet")]
    json: bool,
    /// Print just the URI if exported, else the device path, else the id
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl Global {
    fn format(&self) -> Format {
        match (self.json, self.quiet) {
            (true, _) => Format::Json,
            (false, true) => Format::Quiet,
            (false, false) => Format::Text,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Create),
    Attach(attach::Attach),
    Detach(detach::Detach),
    Move(r#move::Move),
    Reclaim(reclaim::Reclaim),
    Export(export::Export),
    Unexport(unexport::Unexport),
    Delete(delete::Delete),
    Recover(recover::Recover),
    Resize(resize::Resize),
    Hold(hold::Hold),
    Release(release::Release),
    Ls(ls::Ls),
    Show(show::Show),
    Device(device::Device),
    Find(find::Find),
    Exports(exports::Exports),
    Vm(vm::Vm),
    Snapshot(snapshot::Snapshot),
    Ops(ops::Ops),
    Events(events::Events),
    Why(why::Why),
    Health(health::Health),
    Metrics(metrics::Metrics),
    Sync(sync::Sync),
    Store(store::Store),
    Tls(tls::Tls),
    Drain(drain::Drain),
    Config(config::Config),
    Rpc(rpc::Rpc),
    Version(version::Version),
    #[command(hide = true)]
    Complete(complete::Complete),
}

impl Command {
    fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        match self {
            Command::Create(command) => command.run(session, output),
            Command::Attach(command) => command.run(session, output),
            Command::Detach(command) => command.run(session, output),
            Command::Move(command) => command.run(session, output),
            Command::Reclaim(command) => command.run(session, output),
            Command::Export(command) => command.run(session, output),
            Command::Unexport(command) => command.run(session, output),
            Command::Delete(command) => command.run(session, output),
            Command::Recover(command) => command.run(session, output),
            Command::Resize(command) => command.run(session, output),
            Command::Hold(command) => command.run(session, output),
            Command::Release(command) => command.run(session, output),
            Command::Ls(command) => command.run(session, output),
            Command::Show(command) => command.run(session, output),
            Command::Device(command) => command.run(session, output),
            Command::Find(command) => command.run(session, output),
            Command::Exports(command) => command.run(session, output),
            Command::Vm(command) => command.run(session, output),
            Command::Snapshot(command) => command.run(session, output),
            Command::Ops(command) => command.run(session, output),
            Command::Events(command) => command.run(session, output),
            Command::Why(command) => command.run(session, output),
            Command::Health(command) => command.run(session, output),
            Command::Metrics(command) => command.run(session, output),
            Command::Sync(command) => command.run(session, output),
            Command::Store(command) => command.run(session, output),
            Command::Tls(command) => command.run(session, output),
            Command::Drain(command) => command.run(session, output),
            Command::Config(command) => command.run(session.socket(), output),
            Command::Rpc(command) => command.run(session, output),
            Command::Version(command) => command.run(session, output),
            Command::Complete(command) => Ok(command.run(session.socket(), output)),
        }
    }
}

/// Runs a command line, its first word the program's name, and says the exit code.
pub fn main(line: Vec<OsString>) -> ExitCode {
    let parsed = definition().try_get_matches_from(&line).and_then(|matches| Cli::from_arg_matches(&matches));
    let code = match parsed {
        Ok(cli) => run(cli),
        Err(error) => usage::answer(&error, &line),
    };
    ExitCode::from(code)
}

fn run(cli: Cli) -> u8 {
    let output = Output::new(cli.global.format());
    let asked = socket(cli.global, &output).map_err(Box::from);
    let answered = asked.and_then(|socket| cli.command.run(&Session::new(socket, output.clone()), &output));
    answered.unwrap_or_else(|refusal| output.refuse(&refusal))
}

fn socket(global: Global, output: &Output) -> Result<PathBuf> {
    match global {
        Global { sandbox: true, .. } => sandbox::socket(output),
        Global { socket: Some(socket), .. } => Ok(socket),
        _ => Ok(Paths::of(&Environment::of_process()).socket),
    }
}

/// The definition of the command line, from which the manual pages are generated.
pub fn definition() -> clap::Command {
    without_empty_variables(examples::add(Cli::command()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        definition().debug_assert();
    }
}
