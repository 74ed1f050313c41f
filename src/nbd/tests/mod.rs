//! The server as its clients meet it: a real server on real sockets, over temporary files.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod foreign;
mod hand_over;
mod hostile;
mod life;
mod limits;
mod model;
mod overlap;
mod power_cut;
mod raw;
mod requests;
mod slow;
mod trixie;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{ExportSpec, Server};
use crate::api::{self, Usage};
use crate::config;
use crate::model::VolumeId;
use raw::Raw;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A server on a loopback port and a Unix socket, and a directory for what it serves.
pub(super) struct Place {
    server: Server,
    directory: TempDir,
}

impl Place {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// One whose data go past the page cache.
    pub async fn direct() -> Self {
        Self::with(|config| config.direct = true).await
    }

    /// One that is configured otherwise.
    async fn with(change: impl FnOnce(&mut config::Nbd)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Self::config(&directory);
        change(&mut config);
        let server = Server::bind(&config, Arc::default(), Vec::new()).await.unwrap();
        Self { server, directory }
    }

    fn config(directory: &TempDir) -> config::Nbd {
        config::Nbd {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            unix_socket: directory.path().join("run/nbd.sock"),
            ..config::Nbd::default()
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("run/nbd.sock")
    }

    /// A file of zeroes that stands for a device.
    pub fn device(&self, name: &str, size: u64) -> ExportSpec {
        let device_path = self.path(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&device_path).unwrap();
        file.set_len(size).unwrap();
        let (volume_id, name) = (VolumeId::random(), name.to_owned());
        ExportSpec {
            name,
            volume_id,
            read_only: false,
            shared: false,
            access: api::Access::default(),
            device_path,
            file,
            size_bytes: size,
            usage: Usage::default(),
        }
    }

    async fn serve(&self, name: &str, size: u64) -> api::Export {
        self.server.add(self.device(name, size)).await.unwrap()
    }

    async fn serve_read_only(&self, name: &str, size: u64) -> api::Export {
        self.server.add(ExportSpec { read_only: true, ..self.device(name, size) }).await.unwrap()
    }

    fn contents(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// A client over the Unix socket, after the exchange of flags.
    fn connect(&self) -> Raw {
        Raw::unix(&self.socket()).greeted()
    }

    /// A client over TCP, after the exchange of flags.
    fn connect_tcp(&self, export: &api::Export) -> Raw {
        self.connect_from("127.0.0.1", export)
    }

    /// The same, from another address of this machine.
    fn connect_from(&self, from: &str, export: &api::Export) -> Raw {
        Raw::tcp_from(from.parse().unwrap(), Self::address(export)).greeted()
    }

    fn address(export: &api::Export) -> &str {
        export.uris[0].strip_prefix("nbd://").unwrap().split('/').next().unwrap()
    }

    fn clients(&self, name: &str) -> Vec<api::Client> {
        self.server.get(name).unwrap().clients
    }

    async fn idle(&self, name: &str) -> bool {
        self.server.wait_idle(name, in_time()).await
    }
}

/// A moment until which everything that should happen has happened.
fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Bytes without pattern or holes, the same for the same seed.
pub(super) fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}
