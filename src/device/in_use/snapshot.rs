//! What the processes and namespaces of this machine use, read once from `/proc`, and which loop devices stand on what.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::super::node::NodeId;
use super::super::sysfs::{Sysfs, node_path};

/// A process, as a message names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its id.
    pub pid: u32,
    /// Its `comm`, not escaped.
    pub name: String,
    /// udevd made it: a worker of its own, or a program that a worker runs for a rule (`scsi_id`).
    pub is_udev: bool,
}

impl Process {
    /// Reads it from its directory in `/proc`.
    fn read(proc: &Path, pid: u32) -> Self {
        let name = comm(proc, pid);
        let is_udev = UDEV.contains(&name.as_str())
            || parent(proc, pid).is_some_and(|parent| UDEV.contains(&comm(proc, parent).as_str()));
        Self { pid, name, is_udev }
    }

    /// `volctl` opens no disk: what it has open it was started with, as whoever waits for the very answer.
    pub fn is_heir(&self) -> bool {
        self.name == "volctl"
    }
}

/// The names that udevd and its workers have had. Only how long a use is watched depends on them.
const UDEV: [&str; 2] = ["(udev-worker)", "systemd-udevd"];

fn comm(proc: &Path, pid: u32) -> String {
    fs::read_to_string(proc.join(pid.to_string()).join("comm")).unwrap_or_default().trim_end().to_owned()
}

fn parent(proc: &Path, pid: u32) -> Option<u32> {
    let status = fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// A file system that is mounted from a block device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The block device.
    pub id: NodeId,
    /// Where, as the namespace sees it.
    pub point: PathBuf,
    /// A process of the namespace, where that is neither our own nor the first process's.
    pub elsewhere: Option<Process>,
}

/// Everything at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Mounts, each once a place.
    pub mounts: Vec<Mount>,
    /// Swap: what it is on, and its path.
    pub swaps: Vec<(NodeId, PathBuf)>,
    /// Block devices and regular files that processes have open, each once a process; our own process is not among them.
    pub opens: Vec<(NodeId, Process)>,
    /// What our own process has open.
    pub ours: HashSet<NodeId>,
    /// What a loop device stands on, and its kernel name.
    pub loops: Vec<(NodeId, String)>,
    /// What could not be read, in words.
    pub unchecked: Vec<String>,
}

impl Snapshot {
    /// Reads everything; of open regular files only the target.
    pub fn take(proc: &Path, sysfs: &Sysfs, dev: &Path, target: NodeId) -> Self {
        let mut snapshot = Self::default();
        snapshot.read_processes(proc, target);
        snapshot.read_swaps(&proc.join("swaps"));
        snapshot.read_loops(sysfs, dev);
        snapshot
    }

    fn read_processes(&mut self, proc: &Path, target: NodeId) {
        let pids = match pids(proc) {
            Ok(pids) => pids,
            Err(error) => return self.unchecked.push(format!("the processes ({}: {error})", proc.display())),
        };
        if pids.first() != Some(&1) {
            self.unchecked.push("processes of other users or namespaces (/proc hides them)".to_owned());
        }
        let mut namespaces = Namespaces::new(proc);
        let mut closed = Vec::new();
        for pid in pids {
            let directory = proc.join(pid.to_string());
            let process = Process::read(proc, pid);
            let mounts = self.read_mounts(&directory, &process, &mut namespaces);
            let opens = self.read_opens(&directory, &process, target);
            if let Some(error) = [mounts, opens].into_iter().filter_map(Result::err).find(|error| !is_end(error)) {
                closed.push(format!("process {pid} ({}): {error}", process.name));
            }
        }
        if let Some(first) = closed.first() {
            let others = closed.len() - 1;
            self.unchecked.push(format!("what is open or mounted in {first}; and in {others} others"));
        }
    }

    fn read_opens(&mut self, directory: &Path, process: &Process, target: NodeId) -> io::Result<()> {
        let mut seen = HashSet::new();
        for entry in fs::read_dir(directory.join("fd"))? {
            let metadata = match fs::metadata(entry?.path()) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                // Closed meanwhile, or on a file system that no longer answers: no block device, which always does.
                Err(_) => continue,
            };
            match NodeId::of(&metadata) {
                Some(id @ NodeId::Block(_)) => seen.insert(id),
                Some(id) if id == target => seen.insert(id),
                _ => continue,
            };
        }
        if process.pid == std::process::id() {
            self.ours = seen;
        } else {
            self.opens.extend(seen.into_iter().map(|id| (id, process.clone())));
        }
        Ok(())
    }

    fn read_mounts(&mut self, directory: &Path, process: &Process, namespaces: &mut Namespaces) -> io::Result<()> {
        let namespace = Namespaces::of(directory);
        if namespace.as_ref().is_some_and(|namespace| namespaces.read.contains(namespace)) {
            return Ok(());
        }
        let table = fs::read(directory.join("mountinfo"))?;
        // Of a namespace that may not be known the table counts all the same, as if it were our own.
        let is_usual = namespace.as_ref().is_none_or(|(namespace, _)| namespaces.usual.contains(namespace));
        namespaces.read.extend(namespace);
        for (id, point) in table.split(|byte| *byte == b'\n').filter_map(parse_mount) {
            if !self.mounts.iter().any(|mount| mount.id == id && mount.point == point) {
                let elsewhere = (!is_usual).then(|| process.clone());
                self.mounts.push(Mount { id, point, elsewhere });
            }
        }
        Ok(())
    }

    fn read_swaps(&mut self, swaps: &Path) {
        match fs::read(swaps) {
            Ok(table) => self.swaps.extend(table.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
                let path = PathBuf::from(unescape(line.split(|byte| *byte == b' ' || *byte == b'\t').next()?));
                Some((NodeId::at(&path)?, path))
            })),
            // A kernel without swap.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.unchecked.push(format!("swap ({}: {error})", swaps.display())),
        }
    }

    fn read_loops(&mut self, sysfs: &Sysfs, dev: &Path) {
        let disks = sysfs.disks().unwrap_or_else(|error| {
            self.unchecked.push(format!("the loop devices ({error})"));
            Vec::new()
        });
        for name in disks {
            if !sysfs.has(&name, "loop/backing_file") {
                continue;
            }
            match backing(&node_path(dev, &name)) {
                Ok(Some(id)) => self.loops.push((id, name)),
                Ok(None) => {}
                Err(error) => self.unchecked.push(format!("what loop device {name} stands on ({error})")),
            }
        }
    }
}

/// The mount namespaces by their links in `/proc`, each with a root in it: `mountinfo` shows only what is below the
/// process's root.
struct Namespaces {
    /// Those in which people work: ours and the first process's.
    usual: Vec<PathBuf>,
    /// Those whose mounts are known.
    read: HashSet<(PathBuf, PathBuf)>,
}

impl Namespaces {
    fn new(proc: &Path) -> Self {
        let usual = ["self", "1"].iter().filter_map(|pid| fs::read_link(proc.join(pid).join("ns/mnt")).ok());
        Self { usual: usual.collect(), read: HashSet::new() }
    }

    /// None where it may not be known.
    fn of(process: &Path) -> Option<(PathBuf, PathBuf)> {
        Some((fs::read_link(process.join("ns/mnt")).ok()?, fs::read_link(process.join("root")).ok()?))
    }
}

/// The ids of all processes, sorted.
fn pids(proc: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc)? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// A line of `mountinfo` (proc_pid_mountinfo(5)): the third field is the device, the fifth the mount point; after `-`
/// come type and source. A file system over several devices (btrfs) has a number of its own, so there the source counts.
fn parse_mount(line: &[u8]) -> Option<(NodeId, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = str::from_utf8(fields.nth(2)?).ok()?;
    let point = PathBuf::from(unescape(fields.nth(1)?));
    if !number.starts_with("0:") {
        return Some((NodeId::from_numbers(number)?, point));
    }
    let source = PathBuf::from(unescape(fields.skip_while(|field| *field != b"-").nth(2)?));
    // Only below /dev: elsewhere it may be on a server that does not answer.
    let id = source.starts_with("/dev").then(|| NodeId::at(&source)).flatten()?;
    matches!(id, NodeId::Block(_)).then_some((id, point))
}

/// Undoes the kernel's octal escapes (`\040`).
fn unescape(text: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        let escaped = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes)
}

/// What a loop device stands on, from the device itself: the path in sysfs can be of another namespace, or old. None
/// where it has been released.
fn backing(node: &Path) -> io::Result<Option<NodeId>> {
    let file = File::open(node)?;
    let mut status = LoopStatus { device: 0, inode: 0, block_device: 0, rest: [0; 208] };
    // SAFETY: the descriptor is open, and LOOP_GET_STATUS64 writes one `struct loop_info64` of 232 bytes, the size of
    // `LoopStatus`.
    #[expect(unsafe_code, reason = "no crate of ours has this ioctl")]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), LOOP_GET_STATUS64, &raw mut status) };
    match Errno::result(result) {
        Ok(_) if status.block_device != 0 => Ok(Some(NodeId::Block(kernel_number(status.block_device)))),
        Ok(_) => Ok(Some(NodeId::File { device: kernel_number(status.device), inode: status.inode })),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// linux/loop.h
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;

/// `struct loop_info64` of linux/loop.h: `lo_device`, `lo_inode`, `lo_rdevice`, and what is not looked at.
#[repr(C)]
struct LoopStatus {
    device: u64,
    inode: u64,
    block_device: u64,
    rest: [u8; 208],
}

/// A device number as the kernel encodes it for user space (`new_encode_dev`): 12 bits of major, 20 of minor.
fn kernel_number(encoded: u64) -> u64 {
    makedev((encoded >> 8) & 0xfff, (encoded & 0xff) | ((encoded >> 12) & 0xfff00))
}

/// The process has ended; `mountinfo` of one that is ending is `EINVAL`.
fn is_end(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ESRCH | Errno::EINVAL))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop there")]
    use super::*;

    #[test]
    fn mounts_are_read_with_their_escapes() {
        let line = br"36 35 254:17 / /mnt/my\040disk rw,noatime shared:1 master:2 - ext4 /dev/vdb1 rw";
        let (id, point) = parse_mount(line).unwrap();
        assert_eq!((id.to_string().as_str(), point), ("254:17", PathBuf::from("/mnt/my disk")));
        for none in [
            &b""[..],
            b"36 35",
            b"22 27 0:21 / /proc rw - proc proc rw",
            b"22 27 0:40 / /data rw shared:3 - btrfs /dev/no-such-device rw",
            b"22 27 0:40 / /data rw shared:3 - btrfs",
            b"22 27 x:y / /data rw - ext4 /dev/vdb rw",
        ] {
            assert_eq!(parse_mount(none), None, "{}", String::from_utf8_lossy(none));
        }
    }

    #[test]
    fn only_whole_escapes_are_undone() {
        for (text, plain) in
            [(r"a\134b", r"a\b"), (r"\040\011", " \t"), (r"\04", r"\04"), (r"\999", r"\999"), ("ü", "ü")]
        {
            assert_eq!(unescape(text.as_bytes()), plain, "{text}");
        }
    }

    #[test]
    fn kernel_numbers_keep_both_halves() {
        assert_eq!(kernel_number(0xfe10), makedev(254, 16));
        assert_eq!(
            kernel_number((0xabcde_u64 & 0xff) | (259 << 8) | ((0xabcde_u64 & !0xff) << 12)),
            makedev(259, 0xabcde)
        );
    }

    #[test]
    fn our_own_files_are_ours() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let id = NodeId::at(file.path()).unwrap();
        let snapshot = Snapshot::take(Path::new("/proc"), &Sysfs::new("/sys"), Path::new("/dev"), id);
        assert!(snapshot.ours.contains(&id));
        assert!(!snapshot.opens.iter().any(|(open, _)| *open == id));
    }
}
