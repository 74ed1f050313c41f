//! Bytes at the door of the control socket: lines, batches and what only looks like them, over a real socket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use volctl::rpc::json::Json;
use volctl::rpc::message::ErrorObject;
use volctl::rpc::server::{Caller, Handler, Limits, Load, serve};

/// By then a client that sends no more has been answered; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// An object whose values are not looked into: an id that is no number of ours goes back as it came.
type Answer = BTreeMap<String, Box<RawValue>>;

/// Answers with what it was asked.
struct Echo;

impl Handler for Echo {
    async fn call(&self, method: String, params: Option<Value>, _: Caller) -> Result<Json, ErrorObject> {
        Ok(serde_json::json!({"method": method, "params": params}).into())
    }
}

/// A server that knows one answer.
pub struct Door {
    socket: PathBuf,
    _shutdown: watch::Sender<bool>,
    _runtime: Runtime,
    _directory: TempDir,
}

impl Door {
    /// Starts the server.
    pub fn open() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("control.sock");
        let runtime = Runtime::new().expect("a runtime");
        let (shutdown, stopped) = watch::channel(false);
        runtime.block_on(async {
            let listener = UnixListener::bind(&socket).expect("a listener");
            let load = watch::Sender::new(Load::default());
            tokio::spawn(serve(listener, Arc::new(Echo), stopped, Limits::default(), load));
        });
        Self { socket, _shutdown: shutdown, _runtime: runtime, _directory: directory }
    }

    /// Sends bytes, and panics unless each line of the answer is JSON-RPC and the connection is closed.
    pub fn try_bytes(&self, bytes: &[u8]) {
        let mut client = UnixStream::connect(&self.socket).expect("a connection");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let mut answers = client.try_clone().expect("a second handle");
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            match answers.read_to_end(&mut received) {
                Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                    panic!("the server neither answers nor closes: {error}")
                }
                _ => received,
            }
        });
        // It may close before it has read everything.
        let _ = client.write_all(bytes);
        let _ = client.shutdown(Shutdown::Write);
        let received = reader.join().expect("no hang");
        let text = String::from_utf8(received).expect("answers are UTF-8");
        for line in text.lines() {
            let answers = match line.starts_with('[') {
                true => serde_json::from_str(line).expect("a batch is answered by a batch"),
                false => vec![serde_json::from_str::<Answer>(line).expect("answers are JSON")],
            };
            for answer in answers {
                assert_eq!(answer["jsonrpc"].get(), "\"2.0\"", "{line}");
                assert!(answer.contains_key("id"), "{line}");
                assert!(answer.contains_key("result") != answer.contains_key("error"), "{line}");
            }
        }
    }
}
