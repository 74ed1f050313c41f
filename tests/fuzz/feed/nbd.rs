//! Bytes as all that a client sends to a real NBD server, over its Unix socket.

use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use volctl::config;
use volctl::model::VolumeId;
use volctl::nbd::{ExportSpec, Server};

/// The one export; a short name is found soon.
const EXPORT: &str = "d";
/// Longer than the server's buffers, so that a read of all of it takes several rounds.
const SIZE: u64 = 3 << 20;
/// How much is sent: so much fits into the socket, whether the server reads or not.
const MOST: usize = 64 << 10;
/// When a server that does not answer is taken to hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with one writable export.
pub struct Place {
    runtime: Runtime,
    server: Server,
    socket: PathBuf,
    panicked: Arc<AtomicBool>,
    _directory: TempDir,
}

impl Place {
    /// A server that nobody has spoken to yet.
    ///
    /// # Panics
    /// If it does not start.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("nbd.sock");
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(serving(socket.clone())).expect("a server");
        Self { runtime, server, socket, panicked: notice_panics(), _directory: directory }
    }

    /// Sends the bytes and nothing more; how many bytes were answered, the greeting included.
    ///
    /// # Panics
    /// If the server hangs, panics, or keeps the client's place.
    pub fn answer_to(&self, bytes: &[u8]) -> u64 {
        let mut client = UnixStream::connect(&self.socket).expect("a connection");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // A server that has heard enough closes, and what it has not read is lost with an error.
        let _ = client.write_all(&bytes[..bytes.len().min(MOST)]).and_then(|()| client.shutdown(Shutdown::Write));
        let answered = match io::copy(&mut client, &mut io::sink()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the server hangs"),
            Err(_) => 0,
            Ok(answered) => answered,
        };
        let left = self.runtime.block_on(self.server.wait_idle(EXPORT, Instant::now() + PATIENCE));
        assert!(left, "the client is gone and keeps its place");
        assert!(!self.panicked.load(Ordering::SeqCst), "the client's thread panicked");
        answered
    }
}

async fn serving(unix_socket: PathBuf) -> volctl::error::Result<Server> {
    let config = config::Nbd { listen: Vec::new(), unix_socket, advertise: None, allow: Vec::new() };
    let server = Server::bind(&config).await?;
    server.add(disk().expect("a file")).await?;
    Ok(server)
}

fn disk() -> io::Result<ExportSpec> {
    let file: File = tempfile::tempfile()?;
    file.set_len(SIZE)?;
    Ok(ExportSpec {
        name: EXPORT.to_owned(),
        volume_id: VolumeId::random(),
        read_only: false,
        device_path: PathBuf::from("/dev/disk/by-id/none"),
        file,
        size_bytes: SIZE,
        served_before: false,
    })
}

/// A client's thread that panics ends its connection, which alone would look like a refusal.
fn notice_panics() -> Arc<AtomicBool> {
    let panicked = Arc::new(AtomicBool::new(false));
    let (noticed, hook) = (Arc::clone(&panicked), panic::take_hook());
    panic::set_hook(Box::new(move |what| {
        if std::thread::current().name() == Some("nbd-client") {
            noticed.store(true, Ordering::SeqCst);
        }
        hook(what);
    }));
    panicked
}
