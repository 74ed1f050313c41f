//! Opening a device so that nobody else can use it meanwhile, and proving on the open file that it is the right one.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::FlockArg;

use super::correlate::Facts;
use super::look::World;
use super::node::NodeId;
use crate::error::{Error, Kind, Result};
use crate::model::{Device, Serial, format_size, printable};

/// A device that is held: no mount, swap or other holder can come to it while this lives.
#[derive(Debug)]
pub struct Held {
    /// The open device; closing it lets go.
    pub file: File,
    /// What was proven on it; equal for the same device after a restart of the daemon, see [`super::Devices::identity`].
    pub identity: String,
}

/// Opens a device by its stable path: a block device with `O_EXCL`, a file of the sandbox with `flock`.
pub(super) fn open_exclusive(world: &World, device: &Device, read_only: bool) -> Result<Held> {
    let show = || printable(&device.path.to_string_lossy());
    let expected = NodeId::at(&device.path)
        .ok_or_else(|| Error::new(Kind::DeviceMissing, format!("{} leads to no device any more", show())))?;
    let is_block = matches!(expected, NodeId::Block(_));
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(if is_block { libc::O_EXCL } else { 0 })
        .open(&device.path)
        .map_err(|error| refused(&error, &show()))?;
    if !is_block {
        lock(&file).map_err(|error| refused(&error, &show()))?;
    }
    let identity = prove(&world.look()?, device, &file)?;
    if !read_only && writes_refused(world, &file) {
        return Err(Error::new(Kind::Conflict, format!("the kernel has {} as a read-only disk", show()))
            .hint("it can be exported with --read-only"));
    }
    Ok(Held { file, identity })
}

/// What is the same for a device after a restart of the daemon, and for no other: the serial, and of a file its inode too.
pub(super) fn identity(serial: &Serial, id: NodeId) -> String {
    match id {
        NodeId::Block(_) => serial.to_string(),
        NodeId::File { .. } => format!("{serial}@{id}"),
    }
}

/// The identity of an open file, where it is that device, of that size.
fn prove(facts: &Facts, device: &Device, mut file: &File) -> Result<String> {
    let mismatch = |what: String| {
        let path = printable(&device.path.to_string_lossy());
        Error::new(Kind::DeviceMismatch, format!("{path} is not the device of serial {}: {what}", device.serial))
            .hint("nothing was read or written; look at it again")
    };
    let unreadable = |error: io::Error| mismatch(format!("it cannot be examined: {error}"));
    let id = NodeId::of(&file.metadata().map_err(unreadable)?)
        .ok_or_else(|| mismatch("it is neither a block device nor a file".to_owned()))?;
    let disk = facts.only(&device.serial)?.ok_or_else(|| mismatch(format!("seen: {}", facts.seen())))?;
    if disk.id != id {
        return Err(mismatch(format!("it leads to {id}, and that serial is at {}", disk.id)));
    }
    let size = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size)).map_err(unreadable)?;
    if size != device.size_bytes {
        let (found, expected) = (format_size(size), format_size(device.size_bytes));
        return Err(mismatch(format!("it has {size} bytes ({found}), not {} ({expected})", device.size_bytes)));
    }
    Ok(identity(&device.serial, id))
}

fn writes_refused(world: &World, file: &File) -> bool {
    let id = file.metadata().ok().as_ref().and_then(NodeId::of);
    id.and_then(|id| world.sysfs.name(id)).is_some_and(|name| world.sysfs.read_only(&name))
}

fn lock(file: &File) -> io::Result<()> {
    #[expect(deprecated, reason = "its successor owns the file, and the lock has to live as long as the file itself")]
    nix::fcntl::flock(file.as_raw_fd(), FlockArg::LockExclusiveNonblock)?;
    Ok(())
}

fn refused(error: &io::Error, path: &str) -> Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY | Errno::EWOULDBLOCK) => {
            Error::new(Kind::InUse, format!("{path} is held exclusively by another user of it"))
                .hint("a mount, swap, RAID, LVM or another program has it; free it and try again")
        }
        Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV | Errno::ENOMEDIUM) => {
            Error::new(Kind::DeviceMissing, format!("{path} went away while it was opened"))
        }
        Some(Errno::EROFS) => Error::new(Kind::Conflict, format!("{path} cannot be written: {error}"))
            .hint("it can be exported with --read-only"),
        Some(Errno::EACCES | Errno::EPERM) => {
            Error::new(Kind::NotPermitted, format!("{path} cannot be opened: {error}")).hint("run volctld as root")
        }
        _ => Error::new(Kind::Internal, format!("{path} cannot be opened: {error}")),
    }
}
