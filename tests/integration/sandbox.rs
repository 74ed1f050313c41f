//! `volctl --sandbox`: the main job as an ordinary user, with nothing but the installed programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::Value;

use crate::support::appliance::Ended;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

/// `nobody`.
const UID: u32 = 65534;

/// What `cargo install` has put into one directory, and a user's own directory for temporary files. The sandbox ends with
/// the value.
struct Installed {
    directory: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let installed = Self { directory };
        fs::create_dir(installed.path("bin")).unwrap();
        fs::create_dir(installed.path("tmp")).unwrap();
        if Uid::effective().is_root() {
            chown(installed.path("tmp"), Some(UID), Some(UID)).unwrap();
        }
        for program in
            [env!("CARGO_BIN_EXE_volctl"), env!("CARGO_BIN_EXE_volctld"), env!("CARGO_BIN_EXE_cloudstack-simulator")]
        {
            fs::copy(program, installed.path("bin").join(Path::new(program).file_name().unwrap())).unwrap();
        }
        installed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command as that user; one who runs the tests as an ordinary user is an ordinary user already.
    fn command(&self, program: &str) -> Command {
        let mut command = if Uid::effective().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &UID.to_string(), "--regid", &UID.to_string(), "--clear-groups", program]);
            command
        } else {
            Command::new(program)
        };
        command.env("TMPDIR", self.path("tmp")).env("VOLCTL_SOCKET", "/nowhere").env("CLOUDSTACK_KEY", "another");
        command.current_dir(self.path("tmp")).stdin(Stdio::null());
        command
    }

    fn volctl(&self, arguments: &[&str]) -> Ended {
        let program = self.path("bin/volctl");
        let mut command = self.command(program.to_str().unwrap());
        command.args(["--sandbox", "--json"]).args(arguments).output().unwrap().into()
    }

    fn ok(&self, arguments: &[&str]) -> Value {
        self.volctl(arguments).success().json()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    }

    fn pid(&self) -> Option<Pid> {
        let mut sandboxes = fs::read_dir(self.path("tmp")).unwrap().map(|entry| entry.unwrap().path().join("pid"));
        let file = sandboxes.find(|file| file.exists())?;
        Some(Pid::from_raw(fs::read_to_string(file).unwrap().trim().parse().unwrap()))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // An error means that it has ended.
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
}

/// The processes that run one of these programs.
fn running(directory: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("exe"));
    processes.filter_map(|exe| fs::read_link(exe).ok()).filter(|program| program.starts_with(directory)).collect()
}

#[test]
fn an_ordinary_user_does_the_main_job() {
    let installed = Installed::new();
    let first = installed.volctl(&["create", "data1", "--size", "64M", "--attach"]).success();
    names(&first.stderr, &["sandbox: a simulated CloudStack", "kill "]);
    let path = first.json()["volume"]["device"]["path"].as_str().unwrap().to_owned();
    assert_eq!(installed.ok(&["find", &path])["volume"]["name"], "data1");
    assert_eq!(installed.ok(&["device", "data1"])["device"]["path"], Value::from(path));

    let written: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(4 << 20).collect();
    fs::write(installed.path("tmp/written"), &written).unwrap();
    let uri = installed.ok(&["export", "data1"])["export"]["uris"][0].as_str().unwrap().to_owned();
    installed.run("nbdcopy", &["written", &uri]);
    installed.ok(&["detach", "data1"]);
    let again = installed.volctl(&["attach", "data1", "--export", "--read-only"]).success();
    assert!(!again.stderr.contains("sandbox:"), "it runs already: {again:?}");
    let uri = again.json()["export"]["uris"][0].as_str().unwrap().to_owned();
    installed.run("nbdcopy", &[&uri, "read"]);
    assert!(fs::read(installed.path("tmp/read")).unwrap()[..written.len()] == written);
    installed.ok(&["detach", "data1"]);
    installed.ok(&["delete", "data1", "--yes"]);
}

#[test]
fn a_sandbox_ends_as_a_whole_and_begins_anew() {
    let installed = Installed::new();
    installed.ok(&["create", "data1", "--size", "1G"]);
    assert_eq!(running(&installed.path("bin")).len(), 2);
    kill(installed.pid().unwrap(), Signal::SIGKILL).unwrap();
    wait_for("the simulated cloud to end with its volctld", || {
        running(&installed.path("bin")).is_empty().then_some(())
    });
    installed.volctl(&["show", "data1"]).failure(3, "not_found");
}

#[test]
fn a_program_that_the_sandbox_lacks_is_named() {
    let installed = Installed::new();
    fs::remove_file(installed.path("bin/cloudstack-simulator")).unwrap();
    let error = installed.volctl(&["ls"]).failure(7, "daemon_unreachable");
    names(message(&error), &["the sandbox cannot be started", "bin/cloudstack-simulator is missing"]);
    names(hint(&error), &["cargo install"]);
}

#[test]
fn what_another_user_has_prepared_is_no_sandbox() {
    let installed = Installed::new();
    let uid = if Uid::effective().is_root() { UID } else { Uid::effective().as_raw() };
    let prepared = installed.path("tmp").join(format!("volctl-sandbox-{uid}"));
    fs::create_dir(&prepared).unwrap();
    fs::set_permissions(&prepared, Permissions::from_mode(0o777)).unwrap();
    let error = installed.volctl(&["ls"]).failure(7, "daemon_unreachable");
    names(message(&error), &["is not a directory of yours alone"]);
}
