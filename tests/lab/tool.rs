//! The programs of other packages that the lab runs.

use std::process::Command;

/// A program, or a sentence that names the package which has it.
pub fn tool(program: &str, package: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    assert!(found, "{program} is missing: run tests/setup.sh test, or apt-get install {package}");
    Command::new(program)
}

/// The same, which dies with the thread that starts it, so that a test which ends early leaves none behind.
pub fn mortal_tool(program: &str, package: &str) -> Command {
    tool(program, package);
    let mut command = tool("setpriv", "util-linux");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// Runs a command to its end and returns its standard output; it must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
