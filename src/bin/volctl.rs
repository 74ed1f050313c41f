//! `volctl`, the command: a doorway.

use std::process::ExitCode;

fn main() -> ExitCode {
    volctl::cli::main(std::env::args_os().collect())
}
