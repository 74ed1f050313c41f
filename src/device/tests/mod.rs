//! The room as a whole, on real directories, processes, loop devices and mounts.

#![allow(clippy::unwrap_used, reason = "a failed test should stop there")]

mod in_use;
mod kernel;
mod sandbox;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;

const A: &str = "5f0c8a521b2c4d3e9f40";
const B: &str = "0a1b2c3d4e5f60718293";

fn serial(text: &str) -> Serial {
    text.parse().unwrap()
}

fn within(seconds: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(seconds))
}

/// A sandbox's directory and the files beside it.
struct Sandbox {
    root: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let sandbox = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir(sandbox.by_id()).unwrap();
        sandbox
    }

    fn by_id(&self) -> PathBuf {
        self.root.path().join("by-id")
    }

    fn devices(&self) -> Devices {
        let by_id_dir = self.by_id();
        Devices::start(&config::Device { by_id_dir, timeout: Duration::from_secs(60), max_disks: 32 }).unwrap()
    }

    fn file(&self, name: &str, size_bytes: u64) -> PathBuf {
        let path = self.root.path().join(name);
        File::create(&path).unwrap().set_len(size_bytes).unwrap();
        path
    }

    fn link(&self, serial: &str, target: &Path) -> PathBuf {
        let link = self.by_id().join(format!("virtio-{serial}"));
        symlink(target, &link).unwrap();
        link
    }

    /// A sandbox with one file that is the device of serial [`A`].
    fn with_one(size_bytes: u64) -> (Self, Devices, Device) {
        let sandbox = Self::new();
        sandbox.link(A, &sandbox.file("disk", size_bytes));
        let devices = sandbox.devices();
        let device = devices.find(&serial(A)).unwrap().unwrap();
        (sandbox, devices, device)
    }
}

/// A process that has a file open as its standard input until it is dropped.
struct Holder(Child);

impl Holder {
    fn open(path: &Path) -> Self {
        Self::run(Command::new("sleep").arg("600"), path)
    }

    fn run(command: &mut Command, path: &Path) -> Self {
        Self(command.stdin(File::open(path).unwrap()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
