//! Bytes at the door of the NBD server: the handshake, and after it the transmission, over its real socket.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use volctl::api::{Access, Usage};
use volctl::config;
use volctl::model::VolumeId;
use volctl::nbd::{ExportSpec, Server};

/// Bytes of the one export, `disk`.
const SIZE: u64 = 1 << 20;
/// By then a client that sends no more has been answered; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the server's greeting.
const GREETING: usize = 18;

/// A server with an export.
pub struct Door {
    pub server: Server,
    socket: PathBuf,
    _runtime: Runtime,
    _directory: TempDir,
}

impl Door {
    /// Starts the server.
    pub fn open() -> Self {
        Self::configured(config::Nbd::default())
    }

    /// Starts it with these settings.
    pub fn configured(settings: config::Nbd) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("nbd.sock");
        let settings = config::Nbd { unix_socket: socket.clone(), ..settings };
        let device_path = directory.path().join("disk");
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(&device_path).expect("a file");
        file.set_len(SIZE).expect("a size");
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(async {
            let server = Server::bind(&settings, Arc::default(), Vec::new()).await.expect("a server");
            let spec = ExportSpec {
                name: "disk".to_owned(),
                volume_id: VolumeId::random(),
                read_only: false,
                shared: false,
                access: Access::default(),
                device_path,
                file,
                size_bytes: SIZE,
                usage: Usage::default(),
            };
            server.add(spec).await.expect("an export");
            server
        });
        Self { server, socket, _runtime: runtime, _directory: directory }
    }

    /// Sends bytes, and panics unless the server answers what it will and closes, and still serves others.
    pub fn try_bytes(&self, bytes: &[u8]) {
        self.try_after(&[], 0, bytes);
    }

    /// The same, after a beginning and the server's answer to that, of so many bytes.
    pub fn try_after(&self, beginning: &[u8], answer: usize, bytes: &[u8]) {
        let mut client = UnixStream::connect(&self.socket).expect("a connection");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        client.write_all(beginning).expect("the server to take it");
        client.read_exact(&mut vec![0; GREETING + answer]).expect("every client is greeted");
        let mut answers = client.try_clone().expect("a second handle");
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 64 << 10];
            loop {
                match answers.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                    Err(error) => panic!("the server neither answers nor closes: {error}"),
                }
            }
        });
        // It may close before it has read everything.
        let _ = client.write_all(bytes);
        let _ = client.shutdown(Shutdown::Write);
        reader.join().expect("no hang");
    }
}
