//! A peer in the daemon's place, which says what a test tells it to, and the command that talks to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

/// The ids of the things that the tests speak of.
pub const VOLUME: &str = "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6";
pub const OPERATION: &str = "0b5e7c1a-90ab-4cde-8f01-23456789abcd";
pub const VM: &str = "c0ffee00-0000-4000-8000-000000000001";
pub const DEVICE: &str = "/dev/disk/by-id/virtio-5f0c8a521b2c4d3e9f40";
pub const URI: &str = "nbd+unix:///vol-5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6?socket=/run/volctl/nbd.sock";

/// A listening peer; each connection is handled by the script, one after the other.
pub struct Peer {
    dir: TempDir,
}

impl Peer {
    /// Listens, and runs `script` with each connection and its number from 0.
    pub fn new(mut script: impl FnMut(usize, &mut Connection) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                script(number, &mut Connection::new(stream.unwrap()));
            }
        });
        Self { dir }
    }

    /// Answers the requests of one connection with these results or errors, in this order.
    pub fn answering(answers: Vec<Result<Value, Value>>) -> Self {
        Self::new(move |_, connection| {
            for answer in &answers {
                let request = connection.read();
                connection.answer(&request, answer.clone());
            }
            connection.wait_for_end();
        })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Runs the command to its end, without a terminal.
    pub fn run(&self, line: &str) -> Ended {
        run(&self.socket(), line)
    }

    /// Starts the command.
    pub fn start(&self, line: &str) -> Child {
        command(&self.socket(), line).spawn().unwrap()
    }
}

/// The peer's end of a connection.
pub struct Connection {
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self { input: BufReader::new(stream.try_clone().unwrap()), output: stream }
    }

    /// The next request.
    pub fn read(&mut self) -> Value {
        let mut line = String::new();
        self.input.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    /// Writes these bytes as they are.
    pub fn write(&mut self, text: &str) {
        self.output.write_all(text.as_bytes()).unwrap();
    }

    pub fn answer(&mut self, request: &Value, answer: Result<Value, Value>) {
        let id = &request["id"];
        let message = match answer {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
        };
        self.write(&format!("{message}\n"));
    }

    /// Lets all changes of a list begin, and sees the connection end.
    pub fn begin_all(&mut self) {
        let request = self.read();
        assert_eq!(request["method"], "operation.begin");
        let begun = json!({ "operation": operation("running", "check"), "error": null });
        let results = vec![begun; request["params"]["changes"].as_array().unwrap().len()];
        self.answer(&request, Ok(json!({ "results": results })));
        self.wait_for_end();
    }

    pub fn progress(&mut self, request: &Value, operation: Value) {
        let params = json!({ "token": request["params"]["token"], "operation": operation });
        self.write(&format!("{}\n", json!({ "jsonrpc": "2.0", "method": "progress", "params": params })));
    }

    /// Returns when the command has closed the connection.
    pub fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        self.input.read_to_end(&mut rest).ok();
        assert_eq!(String::from_utf8_lossy(&rest), "", "requests that were not expected");
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or_else(|| panic!("{output:?}")),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The command with a sealed environment, stdin empty, stdout and stderr piped.
pub fn command(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volctl"));
    command.env_clear().env("VOLCTL_SOCKET", socket).args(line.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run(socket: &Path, line: &str) -> Ended {
    command(socket, line).output().unwrap().into()
}

/// Runs the command on a terminal of 200 columns, on which `typed` is typed; stdout and stderr are one.
pub fn on_terminal(peer: &Peer, environment: &str, line: &str, typed: &str) -> (i32, String) {
    let shell = format!("stty cols 200; {environment} {} {line}", env!("CARGO_BIN_EXE_volctl"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--echo", "never", "--command", &shell, "/dev/null"]);
    script.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm").env("VOLCTL_SOCKET", peer.socket());
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// A volume as the daemon shows it; attached here, and exported where `exported`.
pub fn volume(name: &str, exported: bool) -> Value {
    json!({
        "id": VOLUME, "name": name, "size_bytes": 10u64 << 30, "state": "Ready", "type": "DATADISK",
        "zone_id": "zone-1", "vm_id": VM, "vm_name": "appliance", "device_id": 1,
        "device": { "path": DEVICE, "node": "/dev/vdb", "serial": "5f0c8a521b2c4d3e9f40", "size_bytes": 10u64 << 30 },
        "export": if exported { export() } else { Value::Null },
        "cloudstack_as_of": "2026-01-02T03:04:05Z", "stale": false, "added_later": true
    })
}

pub fn export() -> Value {
    json!({
        "name": format!("vol-{VOLUME}"), "volume_id": VOLUME, "read_only": false, "uris": [URI, "nbd://192.0.2.5:10809/x"],
        "shared": false, "clients": [],
        "traffic": {"requests": 0, "requests_per_second": 0, "errors": 0, "last_flush": null},
        "device_path": DEVICE, "state": "active"
    })
}

pub fn operation(status: &str, step: &str) -> Value {
    json!({
        "id": OPERATION, "kind": "attach", "status": status, "step": step, "volume_id": VOLUME,
        "volume_name": "data1", "vm_id": VM, "error": null, "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:05Z", "finished_at": null
    })
}

/// What a change that went well answers.
pub fn changed(exported: bool) -> Value {
    json!({
        "changed": true, "operation": operation("succeeded", "done"), "volume": volume("data1", exported),
        "export": if exported { export() } else { Value::Null }, "notes": []
    })
}

/// An error of the daemon's own.
pub fn error(code: i32, kind: &str, message: &str, operation: Value) -> Value {
    json!({ "code": code, "message": message, "data": {
        "kind": kind, "message": message, "hint": "do this", "retryable": false, "cloudstack": null, "operation": operation
    } })
}
