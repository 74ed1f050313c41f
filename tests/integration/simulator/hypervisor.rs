//! The back ends: a directory of links, and a real QEMU.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::simulator::{APPLIANCE, Simulator, WORKER};
use crate::support::wait_for;

fn link(devices: &Path, volume: &str) -> std::path::PathBuf {
    devices.join(format!("virtio-{}", &volume.replace('-', "")[..20]))
}

fn attach(simulator: &Simulator, volume: &str, vm: &str) {
    let job = simulator.job("attachVolume", &[("id", volume), ("virtualmachineid", vm)]);
    assert_eq!(job["jobstatus"], 1, "{job}");
}

fn detach(simulator: &Simulator, volume: &str) {
    let job = simulator.job("detachVolume", &[("id", volume)]);
    assert_eq!(job["jobstatus"], 1, "{job}");
}

#[test]
fn a_directory_shows_this_vms_disks_and_keeps_their_data() {
    let directory = tempfile::tempdir().unwrap();
    let devices = directory.path().join("by-id");
    let simulator = Simulator::start(&["--devices", devices.to_str().unwrap()]);
    assert_eq!(fs::read_dir(&devices).unwrap().count(), 1, "the root disk");
    let id = simulator.volume("data");
    let path = link(&devices, &id);
    attach(&simulator, &id, APPLIANCE);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 30);
    fs::File::options().write(true).open(&path).unwrap().write_all(b"kept").unwrap();
    detach(&simulator, &id);
    assert!(fs::symlink_metadata(&path).is_err());
    attach(&simulator, &id, WORKER);
    assert!(fs::symlink_metadata(&path).is_err(), "another VM's");
    detach(&simulator, &id);
    attach(&simulator, &id, APPLIANCE);
    let mut start = [0; 4];
    fs::File::open(&path).unwrap().read_exact(&mut start).unwrap();
    assert_eq!(&start, b"kept");
    let file = fs::read_link(&path).unwrap();
    detach(&simulator, &id);
    assert_eq!(simulator.call("deleteVolume", &[("id", &id)]).status, 200);
    assert!(!file.exists());
}

#[test]
fn a_device_comes_late_or_never() {
    let directory = tempfile::tempdir().unwrap();
    let devices = directory.path().join("by-id");
    let simulator = Simulator::start(&["--devices", devices.to_str().unwrap()]);
    let id = simulator.volume("data");
    simulator.settings(json!({"device_delay_ms": 300}));
    let start = Instant::now();
    attach(&simulator, &id, APPLIANCE);
    wait_for("the device", || link(&devices, &id).exists().then_some(()));
    assert!(start.elapsed() >= Duration::from_millis(300));
    detach(&simulator, &id);
    simulator.settings(json!({"devices_appear": false}));
    attach(&simulator, &id, APPLIANCE);
    assert!(!link(&devices, &id).exists());
    simulator.admin("POST", "volume", json!({"id": id, "plugged": true}));
    assert!(link(&devices, &id).exists(), "by the back door");
    simulator.admin("POST", "volume", json!({"id": id, "plugged": false}));
    assert!(!link(&devices, &id).exists());
    detach(&simulator, &id);
    simulator.settings(json!({"devices_appear": true, "device_delay_ms": -60_000,
        "latency": {"attachVolume": {"min_ms": 60_000, "max_ms": 60_000}}}));
    simulator.call("attachVolume", &[("id", &id), ("virtualmachineid", APPLIANCE)]);
    wait_for("the device, long before its job ends", || link(&devices, &id).exists().then_some(()));
    assert!(simulator.listed(&id).get("virtualmachineid").is_none());
}
/// A QEMU without a system in it; killed with the value.
struct Qemu(Child);

impl Qemu {
    fn start(sockets: [&Path; 2]) -> Self {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-machine", "q35,accel=tcg", "-nodefaults", "-display", "none", "-S", "-m", "64"]);
        command.args(["-device", "pcie-root-port,id=rp1,chassis=1"]);
        for socket in sockets {
            command.args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]);
        }
        Self(command.stdin(Stdio::null()).spawn().expect("qemu-system-x86_64"))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The test's own look into the guest.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// QEMU makes its monitors in order: where the last one listens, all do.
    fn connect(socket: &Path) -> Self {
        let stream = wait_for("QEMU's last monitor", || UnixStream::connect(socket).ok());
        let mut monitor = Self(BufReader::new(stream));
        monitor.execute("qmp_capabilities", json!({}));
        monitor
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.0.get_mut(), "{request}").unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "QEMU has gone");
            let answer: Value = serde_json::from_str(&line).unwrap();
            if let Some(value) = answer.get("return") {
                return value.clone();
            }
            assert!(answer.get("error").is_none(), "{command}: {line}");
        }
    }

    fn serial(&mut self, device: &str) -> Value {
        self.execute("qom-get", json!({"path": format!("/machine/peripheral/{device}"), "property": "serial"}))
    }

    fn devices(&mut self) -> String {
        self.execute("qom-list", json!({"path": "/machine/peripheral"})).to_string()
    }
}

#[test]
fn disks_are_plugged_into_a_qemu_guest() {
    let directory = tempfile::tempdir().unwrap();
    let [socket, second, data] = ["qmp", "qmp2", "data"].map(|name| directory.path().join(name));
    let _qemu = Qemu::start([&socket, &second]);
    let mut monitor = Monitor::connect(&second);
    let options = ["--qmp", socket.to_str().unwrap(), "--qmp-ports", "1", "--data", data.to_str().unwrap()];
    let simulator = Simulator::start(&options);
    simulator.settings(json!({"wait_detach_device_ms": 300}));
    let (id, other) = (simulator.volume("data"), simulator.volume("other"));
    attach(&simulator, &id, APPLIANCE);
    assert_eq!(monitor.serial(&format!("disk-{id}")), id.replace('-', "")[..20]);
    let full = simulator.job("attachVolume", &[("id", &other), ("virtualmachineid", APPLIANCE)]);
    assert_eq!(full["jobresult"]["errorcode"], 530, "no free port");
    assert_eq!(simulator.listed(&other)["state"], "Ready");

    // Nobody in the guest hears the request to let the disk go; at a reset QEMU itself does.
    let held = simulator.job("detachVolume", &[("id", &id)]);
    assert_eq!(held["jobresult"]["errorcode"], 530);
    assert!(monitor.devices().contains(&id));
    monitor.execute("system_reset", json!({}));
    wait_for("the disk to go", || (!simulator.is_plugged(&id)).then_some(()));
    assert!(!monitor.devices().contains(&id));
    detach(&simulator, &id);
    attach(&simulator, &other, APPLIANCE);
    assert_eq!(monitor.serial(&format!("disk-{other}")), other.replace('-', "")[..20], "the port is free again");
}
