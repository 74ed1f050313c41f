//! `volctl health` answers within two seconds, whatever hangs, and says which part it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::wait_for;
use crate::support::wording::names;

/// The answer, which must come in time, and the names of the parts that are not as they should be.
fn health(appliance: &Appliance) -> (Value, Vec<String>) {
    let before = Instant::now();
    let ended = appliance.json(&["health"]);
    assert!(before.elapsed() < Duration::from_secs(2), "it took {:?}", before.elapsed());
    let health = ended.json();
    let bad = health["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
    let bad: Vec<String> = bad.map(|check| check["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!((ended.code, health["healthy"] == true), (i32::from(!bad.is_empty()), bad.is_empty()), "{health}");
    (health, bad)
}

fn check<'a>(health: &'a Value, name: &str) -> &'a Value {
    health["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap()
}

#[track_caller]
fn says(health: &Value, name: &str, words: &[&str]) {
    names(check(health, name)["message"].as_str().unwrap(), words);
}

/// One that has compared itself with CloudStack, so that nothing is under way.
fn settled() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    appliance.ok(&["sync"]);
    appliance
}

#[test]
fn each_part_says_what_it_saw() {
    let appliance = settled();
    let (health, bad) = health(&appliance);
    assert!(bad.is_empty(), "{health}");
    let parts = health["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap());
    let expected =
        ["cloudstack", "this_vm", "devices", "disks", "store", "exports", "tls", "operations", "sync", "daemon"];
    assert_eq!(parts.collect::<Vec<_>>(), expected);
    says(&health, "cloudstack", &["version", "accepts the key"]);
    says(&health, "this_vm", &["proven by the disk"]);
    says(&health, "devices", &["disks with a volume's serial: 2", "sandbox"]);
    says(&health, "disks", &["1 of 32 disks"]);
    says(&health, "store", &[appliance.path("state").to_str().unwrap(), "free"]);
    says(&health, "exports", &["1 of 1 served", "clients: 0", "127.0.0.1:", "unix:"]);
    says(&health, "operations", &["0 under way"]);
    says(&health, "daemon", &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn a_cloudstack_that_hangs_or_is_cut_off_is_not_waited_for() {
    let appliance = settled();
    let last = Instant::now();
    for mode in [json!({"mode": "late", "delay_ms": 60_000}), json!({"mode": "cut-before"})] {
        appliance.cloud.admin("DELETE", "faults", json!({}));
        let mut fault = json!({"command": "*", "times": 1_000_000});
        fault.as_object_mut().unwrap().extend(mode.as_object().unwrap().clone());
        appliance.cloud.fault(fault);
        let (health, bad) = health(&appliance);
        assert_eq!(bad, ["cloudstack"], "{health}");
        says(&health, "cloudstack", &["the last answer came at"]);
    }
    wait_for("its age to be told", || {
        let age = check(&health(&appliance).0, "cloudstack")["age_seconds"].as_u64().unwrap();
        assert!(age <= last.elapsed().as_secs() + 1);
        (age > 0).then_some(())
    });
}

#[test]
fn an_nbd_socket_that_is_gone_is_told() {
    let appliance = settled();
    fs::remove_file(appliance.path("nbd.sock")).unwrap();
    let (health, bad) = health(&appliance);
    assert_eq!(bad, ["exports"], "{health}");
    says(&health, "exports", &["nbd.sock is gone", "restarted"]);
}

#[test]
fn a_refused_key_is_told_with_its_time() {
    let appliance = settled();
    appliance.cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "error", "code": 401, "text": "no"}));
    let (health, bad) = health(&appliance);
    assert_eq!(bad, ["cloudstack"]);
    says(&health, "cloudstack", &["key refused since", "UTC"]);
}

#[test]
fn a_locked_store_is_not_waited_for() {
    let appliance = settled();
    let other = rusqlite::Connection::open(appliance.path("state").join("volctl.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for _ in 0..3 {
        let (health, bad) = health(&appliance);
        assert_eq!(bad, ["store"], "{health}");
        says(&health, "store", &["locked"]);
        let before = Instant::now();
        let metrics = appliance.run(&["metrics"]).success().stdout;
        assert!(before.elapsed() < Duration::from_secs(2), "it took {:?}", before.elapsed());
        names(&metrics, &["volctl_part_ok{part=\"store\"} 0", "kind=\"create\",outcome=\"succeeded\"} 1"]);
    }
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    wait_for("the store to answer again", || health(&appliance).1.is_empty().then_some(()));
}

/// A file whose file system can be made to hang; ends with the value.
struct HangingFile {
    server: Child,
    file: PathBuf,
}

impl HangingFile {
    fn at(file: PathBuf) -> Self {
        fs::write(&file, "").unwrap();
        let server = Command::new("nbdfuse")
            .arg(&file)
            .args(["[", "nbdkit", "--exit-with-parent", "memory", "1M", "]"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let hanging = Self { server, file };
        wait_for("nbdfuse", || (fs::metadata(&hanging.file).unwrap().len() == 1 << 20).then_some(()));
        hanging
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.server.id() as i32), signal).unwrap();
    }
}

impl Drop for HangingFile {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
        Command::new("umount").arg("--lazy").arg(&self.file).status().ok();
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn link(appliance: &Appliance, to: &Path) {
    std::os::unix::fs::symlink(to, appliance.path("by-id").join("virtio-00000000000000000000")).unwrap();
}

#[test]
fn a_look_for_devices_that_hangs_is_not_waited_for() {
    let appliance = settled();
    let disk = HangingFile::at(appliance.path("disk"));
    link(&appliance, &disk.file);
    assert_eq!(health(&appliance).1, [""; 0]);
    disk.signal(Signal::SIGSTOP);
    wait_for("the look to hang", || (health(&appliance).1 == ["devices"]).then_some(()));
    for _ in 0..5 {
        let (health, bad) = health(&appliance);
        assert_eq!(bad, ["devices"], "{health}");
        says(&health, "devices", &["hangs"]);
        names(&appliance.run(&["metrics"]).success().stdout, &["volctl_part_ok{part=\"devices\"} 0"]);
    }
    disk.signal(Signal::SIGCONT);
    wait_for("the look to come back", || health(&appliance).1.is_empty().then_some(()));
}
