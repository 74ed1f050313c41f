//! `volctl --sandbox`: a simulated CloudStack and a volctld of the caller's own, started where they do not run yet.
//!
//! Both programs lie beside volctl, as `cargo install` puts them. The simulated cloud is kept in memory and ends with its
//! volctld, so that each start begins with a new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

use super::render::Output;
use crate::error::{Error, Kind, Result};
use crate::model::printable;
use crate::rpc::client::Client;

/// The VM of the simulated cloud that this machine passes for.
const THIS_VM: &str = "a0000000-0000-4000-8000-000000000001";
/// How long the daemon has to listen.
const START: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The socket of the caller's sandbox, which is started where it does not run.
///
/// # Errors
/// `daemon_unreachable` where it cannot be started.
pub fn socket(output: &Output) -> Result<PathBuf> {
    let sandbox = Sandbox::of_caller()?;
    // Two that start at once: the second finds the first's.
    let _lock = sandbox.lock()?;
    if Client::connect(&sandbox.socket()).is_err() {
        let pid = sandbox.start()?;
        output.remark(&format!(
            "sandbox: a simulated CloudStack and its volctld run in {}; they end after an idle hour, or with kill {pid}",
            shown(&sandbox.directory)
        ));
    }
    Ok(sandbox.socket())
}

/// The directory in which all of it is.
struct Sandbox {
    directory: PathBuf,
}

impl Sandbox {
    /// Nobody else can look into it, or have made it.
    fn of_caller() -> Result<Self> {
        let uid = Uid::effective();
        let directory = std::env::temp_dir().join(format!("volctl-sandbox-{uid}"));
        let cannot = |error: io::Error| failed(format_args!("{} cannot be used: {error}", shown(&directory)));
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot(error)),
            _ => {}
        }
        let found = fs::symlink_metadata(&directory).map_err(cannot)?;
        if !found.is_dir() || found.uid() != uid.as_raw() || found.mode() & 0o077 != 0 {
            return Err(failed(format_args!("{} is not a directory of yours alone", shown(&directory)))
                .hint("remove it, or set TMPDIR to another directory"));
        }
        Ok(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("volctld.sock")
    }

    fn lock(&self) -> Result<Flock<File>> {
        let handle = File::open(&self.directory).map_err(|error| self.unusable(error))?;
        Flock::lock(handle, FlockArg::LockExclusive).map_err(|(_, error)| self.unusable(error.into()))
    }

    fn unusable(&self, error: io::Error) -> Error {
        failed(format_args!("{} cannot be used: {error}", shown(&self.directory)))
    }

    /// Starts both, and returns the daemon's process id once it listens.
    fn start(&self) -> Result<u32> {
        for former in ["state", "devices", "disks"] {
            match fs::remove_dir_all(self.path(former)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.unusable(error)),
                _ => {}
            }
        }
        let (endpoint, life) = self.start_cloud()?;
        self.write_configuration(&endpoint).map_err(|error| self.unusable(error))?;
        let mut daemon = self.start_daemon(life)?;
        self.wait_for(&mut daemon)?;
        fs::write(self.path("pid"), format!("{}\n", daemon.id())).map_err(|error| self.unusable(error))?;
        Ok(daemon.id())
    }

    /// The simulated cloud's address, and what it lives by: it ends when that is closed everywhere.
    fn start_cloud(&self) -> Result<(String, ChildStdin)> {
        let mut command = self.program("cloudstack-simulator")?;
        command.args(["--until-stdin-closes", "--this-vm", THIS_VM, "--devices"]).arg(self.path("devices"));
        let mut cloud = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (Some(life), Some(said)) = (cloud.stdin.take(), cloud.stdout.take()) else {
            return Err(failed("the simulated CloudStack has no pipes"));
        };
        let mut endpoint = String::new();
        BufReader::new(said).read_line(&mut endpoint).map_err(|error| self.unusable(error))?;
        if endpoint.trim().is_empty() {
            return Err(self.ended("cloudstack-simulator"));
        }
        Ok((endpoint.trim().to_owned(), life))
    }

    fn write_configuration(&self, endpoint: &str) -> io::Result<()> {
        let text = format!(
            r#"[cloudstack]
endpoint = "{endpoint}"
api_key = "simulator-key"
secret_key = "simulator-secret"
vm_id = "{THIS_VM}"

[device]
by_id_dir = '{}'

[nbd]
unix_socket = '{}'

[daemon]
idle_timeout = "1h"
"#,
            self.path("devices").display(),
            self.path("nbd.sock").display(),
        );
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o600);
        open.open(self.path("config.toml"))?.write_all(text.as_bytes())
    }

    /// The daemon, which holds the cloud's life as its standard output: it never writes there.
    fn start_daemon(&self, life: ChildStdin) -> Result<Child> {
        let mut command = self.program("volctld")?;
        command.arg("--config").arg(self.path("config.toml")).arg("--state-dir").arg(self.path("state"));
        command.arg("--socket").arg(self.socket());
        for variable in ["CLOUDSTACK_ENDPOINT", "CLOUDSTACK_KEY", "CLOUDSTACK_SECRET"] {
            command.env_remove(variable);
        }
        spawn(command.stdin(Stdio::null()).stdout(life))
    }

    fn wait_for(&self, daemon: &mut Child) -> Result<()> {
        let deadline = Instant::now() + START;
        while Client::connect(&self.socket()).is_err() {
            let ended = daemon.try_wait().map_err(|error| self.unusable(error))?.is_some();
            if ended || Instant::now() > deadline {
                return Err(self.ended("volctld"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// A program beside this one, whose words go to a file; Ctrl-C is not meant for it.
    fn program(&self, name: &str) -> Result<Command> {
        let own = std::env::current_exe().map_err(|error| self.unusable(error))?;
        let program = own.with_file_name(name);
        if !program.exists() {
            return Err(failed(format_args!("{} is missing", shown(&program)))
                .hint("`cargo install --path .` in volctl's source puts all that the sandbox needs side by side"));
        }
        let log = File::create(self.log(name)).map_err(|error| self.unusable(error))?;
        let mut command = Command::new(program);
        command.stderr(log).process_group(0);
        Ok(command)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.path(&format!("{program}.log"))
    }

    fn ended(&self, program: &str) -> Error {
        failed(format_args!("{program} did not start"))
            .hint(format_args!("it says why in {}", shown(&self.log(program))))
    }
}

fn spawn(command: &mut Command) -> Result<Child> {
    let name = shown(Path::new(command.get_program()));
    command.spawn().map_err(|error| failed(format_args!("{name} cannot be run: {error}")))
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::DaemonUnreachable, format_args!("the sandbox cannot be started: {why}"))
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
