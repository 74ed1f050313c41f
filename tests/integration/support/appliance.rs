//! An appliance: a simulated CloudStack, a `volctld` of its own, and `volctl` as an operator types it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use volctl::operation::pause::VARIABLE as PAUSE;

use super::descriptor_store::DescriptorStore;
use super::simulator::{API_KEY, APPLIANCE, SECRET_KEY, Simulator};
use super::wait_for;

/// What takes longer than this will not end.
const LONGEST: Duration = Duration::from_secs(180);

/// All of it; ends with the value.
pub struct Appliance {
    /// The cloud.
    pub cloud: Simulator,
    daemon: Option<Child>,
    /// What the configuration says beside the usual.
    config: Config,
    /// What the daemon runs under, where that keeps descriptors as systemd does.
    manager: Option<DescriptorStore>,
    directory: tempfile::TempDir,
}

/// The parts of the configuration that tests vary.
pub struct Config {
    /// `endpoint`; the simulator's where absent.
    pub endpoint: Option<String>,
    /// `vm_id`
    pub vm_id: Option<String>,
    /// Further lines of `[cloudstack]`.
    pub cloudstack: String,
    /// Further lines of `[device]`.
    pub device: String,
    /// Further lines of `[nbd]`.
    pub nbd: String,
    /// Further lines of `[daemon]`.
    pub daemon: String,
    /// The secret.
    pub secret_key: String,
    /// What starts the daemon, before its own command line.
    pub launcher: Vec<String>,
    /// Environment of the daemon.
    pub environment: Vec<(String, String)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            vm_id: Some(APPLIANCE.to_owned()),
            cloudstack: String::new(),
            device: "timeout = \"2s\"\n".to_owned(),
            nbd: "listen = [\"127.0.0.1:0\"]\n".to_owned(),
            daemon: String::new(),
            secret_key: SECRET_KEY.to_owned(),
            launcher: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// How a `volctl` ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Ended {
    /// Stdout as the one JSON document that it is.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not one JSON document ({error}): {self:?}"))
    }

    /// Panics unless it succeeded.
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Panics unless it failed with this exit code and, as JSON, with this kind; gives the error.
    pub fn failure(self, code: i32, kind: &str) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        let error = self.json()["error"].clone();
        assert_eq!(error["kind"], kind, "{self:?}");
        error
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Appliance {
    /// With a simulator and a running daemon.
    pub fn start() -> Self {
        Self::with(Config::default())
    }

    /// With another configuration.
    pub fn with(config: Config) -> Self {
        let mut appliance = Self::stopped(config);
        appliance.start_daemon();
        appliance
    }

    /// With a simulator, and a daemon yet to be started.
    pub fn stopped(config: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let devices = directory.path().join("by-id");
        let cloud = Simulator::start(&["--devices", devices.to_str().unwrap()]);
        cloud.settings(json!({"device_delay_ms": 10, "latency": {"default": {"min_ms": 1, "max_ms": 1}}}));
        Self { cloud, daemon: None, config, manager: None, directory }
    }

    /// With a daemon under a service manager that keeps descriptors.
    pub fn managed() -> Self {
        Self::managed_with("")
    }

    /// The same, with further settings of `[nbd]`.
    pub fn managed_with(settings: &str) -> Self {
        // The process id has to be known to the environment.
        let launcher = ["sh", "-c", r#"LISTEN_PID=$$ exec "$0" "$@""#].map(str::to_owned).to_vec();
        let mut appliance = Self::stopped(Config { launcher, ..Config::default() });
        appliance.configure(|config| config.nbd.push_str(settings));
        appliance.manager = Some(DescriptorStore::listen(&appliance.path("notify")));
        appliance.start_daemon();
        appliance
    }

    /// What the daemon runs under.
    pub fn manager(&self) -> &DescriptorStore {
        self.manager.as_ref().unwrap()
    }

    /// With a daemon that stops for ever at a point of a journal: `attach/send/before`.
    pub fn pausing_at(point: &str) -> Self {
        let environment = vec![(PAUSE.to_owned(), point.to_owned())];
        Self::with(Config { environment, ..Config::default() })
    }

    /// Waits until the daemon has stopped at a point, and kills it there; the next one does not stop.
    pub fn kill_daemon_at(&mut self, point: &str) {
        wait_for(&format!("the daemon to stop at {point}"), || {
            self.log().contains(&format!("paused at {point}\n")).then_some(())
        });
        self.kill_daemon();
        self.configure(|config| config.environment.clear());
    }

    /// Where its files are.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes the configuration; the next start of the daemon reads it.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// Writes the configuration as the next daemon will read it.
    pub fn write_config(&self) -> PathBuf {
        let config = &self.config;
        let endpoint = config.endpoint.as_deref().unwrap_or(self.cloud.endpoint());
        let vm_id = config.vm_id.as_ref().map(|id| format!("vm_id = \"{id}\"\n")).unwrap_or_default();
        let text = format!(
            "[cloudstack]\nendpoint = \"{endpoint}\"\napi_key = \"{API_KEY}\"\nsecret_key_file = \"{secret}\"\n{vm_id}{cloudstack}\n\
             [device]\nby_id_dir = \"{by_id}\"\n{device}\n[nbd]\nunix_socket = \"{nbd_socket}\"\n{nbd}\n[daemon]\n{daemon}\n",
            secret = self.path("secret").display(),
            cloudstack = config.cloudstack,
            by_id = self.path("by-id").display(),
            device = config.device,
            nbd_socket = self.path("nbd.sock").display(),
            nbd = config.nbd,
            daemon = config.daemon,
        );
        let secret = self.path("secret");
        fs::write(&secret, &config.secret_key).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let path = self.path("config.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// The daemon's command line.
    pub fn daemon_command(&self) -> Command {
        let log = fs::File::options().create(true).append(true).open(self.path("volctld.log")).unwrap();
        let mut words = self.config.launcher.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_volctld")]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("VOLCTLD_LOG", "volctl=debug")
            .envs(self.config.environment.iter().map(|(key, value)| (key, value)))
            .arg("--config")
            .arg(self.write_config())
            .arg("--socket")
            .arg(self.socket())
            .arg("--state-dir")
            .arg(self.path("state"))
            .stdin(Stdio::null())
            .stderr(log);
        if let Some(manager) = &self.manager {
            manager.hand_over(&mut command);
        }
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        let child = self.daemon_command().spawn().unwrap();
        self.daemon = Some(child);
        wait_for("volctld to answer", || {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().unwrap());
            assert!(ended.is_none(), "volctld ended: {ended:?}\n{}", self.log());
            answers(&self.socket())
        });
    }

    /// The daemon's process id.
    pub fn daemon_id(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop_daemon(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id() as i32), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        daemon.wait().unwrap()
    }

    /// How the daemon has ended, once it has.
    pub fn daemon_ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut().unwrap().try_wait().unwrap()
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path("volctld.sock")
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("volctld.log")).unwrap_or_default()
    }

    /// `volctl` with these words, to be run.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volctl"));
        command.env_clear().env("VOLCTL_SOCKET", self.socket()).args(words).stdin(Stdio::null());
        command
    }

    /// Runs `volctl` with these words.
    pub fn run(&self, words: &[&str]) -> Ended {
        self.command(words).output().unwrap().into()
    }

    /// Runs `volctl --json` with these words.
    /// What the command leaves on a terminal of this width, without colour; stdout and stderr are one.
    pub fn on_terminal(&self, width: u16, words: &[&str]) -> String {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let shell = format!("stty cols {width}; {} {}", env!("CARGO_BIN_EXE_volctl"), quoted.join(" "));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &shell, "/dev/null"]).env_clear().stdin(Stdio::null());
        script
            .env("PATH", "/usr/bin:/bin")
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .env("VOLCTL_SOCKET", self.socket());
        let shown = String::from_utf8(script.output().unwrap().stdout).unwrap().replace('\r', "");
        // What stands before an erasure of the line is progress.
        shown.split_inclusive('\n').filter_map(|line| line.rsplit("\u{1b}[2K").next()).collect()
    }

    pub fn json(&self, words: &[&str]) -> Ended {
        self.run(&[&["--json"], words].concat())
    }

    /// Runs `volctl --json` with these words, which succeed; gives the document.
    pub fn ok(&self, words: &[&str]) -> Value {
        self.json(words).success().json()
    }

    /// Starts `volctl --json` with these words.
    pub fn begin(&self, words: &[&str]) -> Begun {
        let mut command = self.command(&[&["--json"], words].concat());
        Begun(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// A volume as `volctl show` has it.
    pub fn show(&self, volume: &str) -> Value {
        self.ok(&["show", volume, "--max-age", "0"])["volume"].clone()
    }

    /// A volume in the simulator's own books.
    pub fn truth(&self, name: &str) -> Option<Value> {
        let state = self.cloud.state();
        let volumes = state["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == name || volume["id"] == name).cloned()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- volctld's log\n{}", self.log());
        }
    }
}

/// Whether the daemon at a socket answers a request.
fn answers(socket: &Path) -> Option<()> {
    let mut connection = UnixStream::connect(socket).ok()?;
    connection.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"system.version\"}\n").ok()?;
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer).ok().filter(|read| *read > 0).map(drop)
}

/// A `volctl` under way.
pub struct Begun(pub Child);

impl Begun {
    /// Waits for its end, which has to come.
    pub fn end(self) -> Ended {
        let id = Pid::from_raw(self.0.id().cast_signed());
        let (say, said) = mpsc::channel();
        thread::spawn(move || say.send(self.0.wait_with_output()));
        let output = said.recv_timeout(LONGEST).unwrap_or_else(|_| {
            kill(id, Signal::SIGKILL).unwrap();
            panic!("it has not ended within {LONGEST:?}");
        });
        output.unwrap().into()
    }
}
