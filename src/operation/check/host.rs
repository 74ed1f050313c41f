//! This machine: the state directory and whose it is, udev and its links.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::super::room::ENOUGH_BYTES;
use super::report::Report;
use crate::config::{self, BY_ID_DIR};
use crate::model::printable;

const UDEV_CONTROL: &str = "/run/udev/control";
/// udevd's names, as systemd and eudev have it (`/proc/PID/comm`).
const UDEVD: [&str; 2] = ["systemd-udevd", "udevd"];

/// The volctld that works with a state directory, by the lock on it: looked up, as taking it would keep a daemon from
/// starting.
pub(super) fn daemon_of(state_dir: &Path) -> Option<u32> {
    let inode = fs::metadata(state_dir).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().filter_map(|line| holder(line, inode)).find(|pid| comm(*pid).as_deref() == Some("volctld"))
}

/// Who holds the lock of a line of `/proc/locks` (proc_locks(5)), where it is on this inode. The device is not compared:
/// some file systems tell another one there.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [_, "FLOCK", _, _, pid, place, ..] if place.rsplit(':').next()?.parse() == Ok(inode) => pid.parse().ok(),
        _ => None,
    }
}

/// A process's name.
pub(super) fn comm(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(printable(name.trim_end()))
}

/// The processes that are there.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The state directory: there or to be made, writable, with room.
pub(super) fn state(directory: &Path) -> Report {
    let mut report = Report::of("state");
    let shown = shown(directory);
    let place = match nearest(directory) {
        Ok(place) => place,
        Err((at, error)) => {
            report.bad(
                format!("the state directory {shown} cannot be used: {}: {error}", self::shown(at)),
                "give another --state-dir, or the user of volctld the right to use it",
            );
            return report;
        }
    };
    if access(place, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        report.bad(
            format!("the state directory {shown} cannot be written to: you may not write to {}", self::shown(place)),
            "check as the user of volctld; if that is you, change the owner, or give another --state-dir",
        );
        return report;
    }
    let free = statvfs(place).ok().map(|stat| stat.blocks_available() * stat.fragment_size());
    if let Some(free) = free.filter(|free| *free < ENOUGH_BYTES) {
        let (free, enough) = (free >> 20, ENOUGH_BYTES >> 20);
        report.bad(
            format!(
                "only {free} MiB are free where the state directory {shown} is; under {enough} MiB no change is taken"
            ),
            "make room on that file system",
        );
        return report;
    }
    let free = free.map(|free| format!(", with {} MiB free", free >> 20)).unwrap_or_default();
    let what = if place == directory { "is writable" } else { "is not there yet, and can be made" };
    let held =
        daemon_of(directory).map(|pid| format!("; the running volctld (pid {pid}) works with it")).unwrap_or_default();
    report.ok(format!("{shown} {what}{free}{held}"));
    report
}

/// The directory, or as much of the way to it as there is.
fn nearest(directory: &Path) -> Result<&Path, (&Path, io::Error)> {
    for place in directory.ancestors().filter(|place| !place.as_os_str().is_empty()) {
        match fs::metadata(place) {
            Ok(found) if found.is_dir() => return Ok(place),
            Ok(_) => return Err((place, io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err((place, error)),
        }
    }
    Err((directory, io::ErrorKind::NotFound.into()))
}

/// udevd, and the directory in which it makes the links to disks.
pub(super) fn udev(config: &config::Device) -> Report {
    let mut report = Report::of("udev");
    let shown = shown(&config.by_id_dir);
    if config.by_id_dir != Path::new(BY_ID_DIR) {
        match fs::read_dir(&config.by_id_dir) {
            Ok(_) => report.ok(format!("not used: by_id_dir is {shown}, a sandbox's, and can be read")),
            Err(error) => report.bad(
                format!("by_id_dir {shown}, a sandbox's, cannot be read: {error}"),
                format!("make it, or leave [device] by_id_dir out to have {BY_ID_DIR}"),
            ),
        }
        return report;
    }
    let runs = processes().any(|pid| comm(pid).is_some_and(|name| UDEVD.contains(&name.as_str())));
    if !runs || !Path::new(UDEV_CONTROL).exists() {
        report.bad(
            "udevd does not run: new disks get no link, and have a path that can change with each start",
            "start it: systemctl start systemd-udevd",
        );
        return report;
    }
    match fs::read_dir(&config.by_id_dir) {
        Ok(links) => report.ok(format!("udevd runs; {} links are in {shown}", links.count())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.ok(format!("udevd runs; {shown} is made with the first disk that has a serial"));
        }
        Err(error) => report.bad(
            format!("udevd runs, but {shown} cannot be read: {error}"),
            "check as the user of volctld, and give that user the right to read it",
        ),
    }
    report
}

pub(super) fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_found_by_its_inode() {
        let line = "7: FLOCK  ADVISORY  WRITE 4242 08:01:131 0 EOF";
        assert_eq!(holder(line, 131), Some(4242));
        assert_eq!(holder(line, 31), None);
        assert_eq!(holder("7: POSIX  ADVISORY  WRITE 4242 08:01:131 0 EOF", 131), None);
        assert_eq!(holder("7: -> FLOCK  ADVISORY  WRITE 4242 08:01:131 0 EOF", 131), None, "it only waits");
        assert_eq!(holder("", 131), None);
    }

    #[test]
    fn what_is_to_be_made_is_judged_by_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&directory.path().join("a/b")).unwrap(), directory.path());
        fs::write(directory.path().join("file"), "").unwrap();
        let below_a_file = directory.path().join("file/state");
        assert!(nearest(&below_a_file).is_err());
    }
}
