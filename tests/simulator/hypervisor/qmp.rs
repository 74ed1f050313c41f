//! The QEMU back end: hot-plugs virtio-blk disks over QMP, as libvirt does for CloudStack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::{Data, serial};

/// How often the guest's devices are looked at while one is to go. The `DEVICE_DELETED` event alone would be lost with
/// a connection; the list of devices cannot be.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often the deletion of a node that is still in use is tried again.
const NODE_ATTEMPTS: u32 = 100;

/// A guest that listens on a QMP socket.
pub struct Qmp {
    socket: PathBuf,
    ports: u32,
    data: Data,
    monitor: Mutex<Monitor>,
}

#[derive(Default)]
struct Monitor {
    stream: Option<BufReader<UnixStream>>,
    /// The root port of each volume's disk.
    used: BTreeMap<String, u32>,
}

impl Qmp {
    pub(super) fn new(socket: &Path, ports: u32, data: Data) -> Self {
        Self { socket: socket.to_owned(), ports, data, monitor: Mutex::default() }
    }

    pub(super) fn data(&self) -> &Data {
        &self.data
    }

    pub(super) async fn plug(&self, volume: &str, size: u64) -> Result<(), String> {
        let file = self.data.provide(volume, size).map_err(|error| error.to_string())?;
        let mut monitor = self.monitor.lock().await;
        if monitor.used.contains_key(volume) {
            return Ok(());
        }
        let port = (1..=self.ports).find(|port| !monitor.used.values().any(|used| used == port));
        let port = port.ok_or("the guest has no free root port")?;
        let node = json!({
            "driver": "raw", "node-name": node_name(volume), "discard": "unmap",
            "file": {"driver": "file", "filename": file, "discard": "unmap"},
        });
        let device = json!({
            "driver": "virtio-blk-pci", "id": device(volume), "drive": node_name(volume), "serial": serial(volume),
            "bus": format!("rp{port}"),
        });
        monitor.execute(&self.socket, "blockdev-add", node).await?;
        if let Err(error) = monitor.execute(&self.socket, "device_add", device).await {
            monitor.execute(&self.socket, "blockdev-del", json!({"node-name": node_name(volume)})).await?;
            return Err(error);
        }
        monitor.used.insert(volume.to_owned(), port);
        Ok(())
    }

    /// As `virsh blockresize` does on the running domain.
    pub(super) async fn grow(&self, volume: &str, size: u64) -> Result<(), String> {
        self.execute("block_resize", json!({"node-name": node_name(volume), "size": size})).await.map(drop)
    }

    pub(super) async fn unplug(&self, volume: &str) -> Result<(), String> {
        if !self.monitor.lock().await.used.contains_key(volume) {
            return Ok(());
        }
        self.execute("device_del", json!({"id": device(volume)})).await?;
        while self.has(volume).await? {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.delete_node(volume).await?;
        self.monitor.lock().await.used.remove(volume);
        Ok(())
    }

    /// QEMU's last reference to the node goes a little later than the device.
    async fn delete_node(&self, volume: &str) -> Result<(), String> {
        let mut attempts = 0;
        loop {
            match self.execute("blockdev-del", json!({"node-name": node_name(volume)})).await {
                Ok(_) => return Ok(()),
                Err(error) if attempts == NODE_ATTEMPTS => return Err(error),
                Err(_) => attempts += 1,
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<Value, String> {
        self.monitor.lock().await.execute(&self.socket, command, arguments).await
    }

    async fn has(&self, volume: &str) -> Result<bool, String> {
        let devices = self.execute("qom-list", json!({"path": "/machine/peripheral"})).await?;
        let id = device(volume);
        Ok(devices.as_array().into_iter().flatten().any(|entry| entry["name"] == id))
    }
}

impl Monitor {
    /// Sends a command and reads its answer past the events; connects first if need be.
    async fn execute(&mut self, socket: &Path, command: &str, arguments: Value) -> Result<Value, String> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(socket).await?,
        };
        let answer = exchange(&mut stream, command, arguments).await?;
        self.stream = Some(stream);
        match answer {
            Ok(value) => Ok(value),
            Err(refusal) => Err(format!("{command}: {refusal}")),
        }
    }
}

async fn connect(socket: &Path) -> Result<BufReader<UnixStream>, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| format!("{}: {error}", socket.display()))?;
    let mut stream = BufReader::new(stream);
    exchange(&mut stream, "qmp_capabilities", json!({})).await??;
    Ok(stream)
}

/// The outer error is the connection's, the inner one QEMU's.
async fn exchange(
    stream: &mut BufReader<UnixStream>,
    command: &str,
    arguments: Value,
) -> Result<Result<Value, String>, String> {
    let request = json!({"execute": command, "arguments": arguments});
    stream.write_all(format!("{request}\n").as_bytes()).await.map_err(|error| error.to_string())?;
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line).await {
            Ok(0) => return Err("QEMU has closed its monitor".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        let answer: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        if let Some(value) = answer.get("return") {
            return Ok(Ok(value.clone()));
        }
        if let Some(error) = answer.get("error") {
            return Ok(Err(error["desc"].as_str().unwrap_or_default().to_owned()));
        }
    }
}

fn device(volume: &str) -> String {
    format!("disk-{volume}")
}

/// A node name has at most 31 characters: the serial is as unique as the disk's own.
fn node_name(volume: &str) -> String {
    format!("vol-{}", serial(volume))
}
