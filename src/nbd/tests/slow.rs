//! A device that does not answer for a while: a file on a filesystem that is frozen takes no writes, and is read as ever.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::foreign::run;
use super::{MIB, Place, noise};
use crate::nbd::protocol::command;
use crate::nbd::{Clients, ExportSpec};

/// A filesystem of its own, mounted in a directory.
struct Filesystem(PathBuf);

impl Filesystem {
    /// None where this cannot be had.
    async fn new(place: &Place) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("not run: a mount takes root and the kernel's loop driver");
            return None;
        }
        let (image, mount) = (place.path("image"), place.path("mount"));
        File::create(&image).unwrap().set_len(64 * MIB).unwrap();
        fs::create_dir(&mount).unwrap();
        run("mkfs.ext4", "e2fsprogs", &["-q", image.to_str().unwrap()]).await;
        run("mount", "mount", &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()]).await;
        Some(Self(mount))
    }

    fn freeze(&self, flag: &str) {
        assert!(Command::new("fsfreeze").arg(flag).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        // A mount that is still frozen can be thawed, and not unmounted.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).output();
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_device_holds_up_no_other() {
    let place = Place::direct().await;
    let Some(filesystem) = Filesystem::new(&place).await else { return };
    let device_path = filesystem.0.join("disk");
    let data = noise(9, MIB);
    fs::write(&device_path, &data).unwrap();
    let file = File::options().read(true).write(true).open(&device_path).unwrap();
    place.server.add(ExportSpec { device_path, file, size_bytes: MIB, ..place.device("disk", 0) }).await.unwrap();
    let mut client = place.connect();
    client.go("disk");

    filesystem.freeze("-f");
    // More than there are threads for an export, apart from one for the reads: they wait for each other in part.
    for cookie in 0..8 {
        client.ask(0, command::WRITE, cookie, cookie * 4096, 4096, &[cookie as u8 + 1; 4096]);
    }
    for cookie in 100..300 {
        let at = cookie as usize * 3000;
        client.ask(0, command::READ, cookie, at as u64, 3000, &[]);
        let reply = client.simple_reply(3000);
        assert_eq!(reply.cookie, cookie);
        assert!(reply.data == data[at..at + 3000]);
    }
    assert!(client.hears_nothing());
    assert_eq!(place.server.in_flight().requests, 8);

    // Who is sent away has the answers first.
    let kicked = tokio::spawn({
        let server = place.server.clone();
        async move { server.kick("disk", None).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    filesystem.freeze("-u");
    kicked.await.unwrap().unwrap();
    let mut replies = client.replies(8, |_| 0);
    assert!(replies.values().all(|reply| reply.error == 0));
    assert_eq!(replies.pop_last().unwrap().0, 7);
    assert_eq!(client.until_closed(), b"");
    assert!(place.idle("disk").await);
    let removed = place.server.remove("disk", Clients::MustBeGone).await.unwrap();
    drop(removed);
    let found = fs::read(filesystem.0.join("disk")).unwrap();
    for (number, block) in found[..8 * 4096].chunks(4096).enumerate() {
        assert!(block.iter().all(|byte| usize::from(*byte) == number + 1), "block {number}");
    }
    assert!(found[8 * 4096..] == data[8 * 4096..]);
}
