//! The simulated CloudStack outside the guest, whose hypervisor plugs the volumes' disks into it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use volctl::model::{VmId, VolumeId};

use crate::guest::HOTPLUG_PORTS;
use crate::image::built;

/// The key that the simulator knows.
pub const API_KEY: &str = "simulator-key";

/// Its secret.
pub const SECRET_KEY: &str = "simulator-secret";

/// A simulator process, which ends with this value, or with this process.
pub struct Cloud {
    process: Child,
    /// Where its API answers.
    pub address: SocketAddr,
    data: PathBuf,
}

impl Cloud {
    /// Starts the simulator. Its hypervisor finds QEMU at a socket, which need not be there yet.
    pub fn start(work: &Path, hypervisor: &Path) -> Self {
        let simulator = built("examples/cloudstack-simulator");
        assert!(simulator.exists(), "{} is missing: cargo build --examples", simulator.display());
        let data = work.join("disks");
        fs::create_dir(&data).unwrap();
        let mut process = Command::new(simulator)
            .arg("--until-stdin-closes")
            .arg("--qmp")
            .arg(hypervisor)
            .args(["--qmp-ports", &HOTPLUG_PORTS.to_string()])
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let address = url.trim().strip_prefix("http://").and_then(|rest| rest.split('/').next()?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("the simulator does not say where it listens: {url:?}"));
        Self { process, address, data }
    }

    /// The VM that is the guest, and its root volume.
    pub fn this_vm(&self) -> (VmId, VolumeId) {
        let state = self.state();
        let vm = state["this_vm"].as_str().unwrap();
        let volumes = state["volumes"].as_array().unwrap();
        let root = volumes.iter().find(|volume| volume["virtualmachineid"] == vm && volume["type"] == "ROOT").unwrap();
        (vm.parse().unwrap(), root["id"].as_str().unwrap().parse().unwrap())
    }

    /// The names of the volumes that it holds to be attached to the guest.
    pub fn attached(&self, vm: VmId) -> Vec<String> {
        let state = self.state();
        let attached =
            state["volumes"].as_array().unwrap().iter().filter(|volume| volume["virtualmachineid"] == vm.to_string());
        attached.map(|volume| volume["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it holds a volume to be attached no more, whatever the guest still has.
    pub fn wait_detached(&self, vm: VmId, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.attached(vm).iter().any(|attached| attached == name) {
            assert!(Instant::now() < deadline, "{name} is still attached");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A volume's bytes, behind everybody's back.
    pub fn disk(&self, volume: VolumeId) -> PathBuf {
        self.data.join(format!("{volume}.img"))
    }

    /// Changes something behind everybody's back.
    pub fn admin(&self, path: &str, body: &Value) {
        self.exchange("POST", path, body);
    }

    /// All that it knows.
    fn state(&self) -> Value {
        self.exchange("GET", "/admin/state", &Value::Null)
    }

    fn exchange(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {answer}"))
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
