//! What the kernel says of a block device's queue, in `/sys/dev/block/MAJOR:MINOR/queue` (sysfs-block in the kernel's
//! `Documentation/ABI`).

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::sys::stat::{major, minor};

/// What a block device can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// The smallest unit that it reads and writes, in bytes; a power of 2.
    pub logical_block: u32,
    /// The smallest unit that it writes without reading first, in bytes; a power of 2.
    pub physical_block: u32,
    /// It takes discards.
    pub discards: bool,
    /// It zeroes a range without being sent the zeroes.
    pub zeroes: bool,
}

impl Queue {
    /// Of a device by its number.
    pub fn of(device: u64) -> io::Result<Self> {
        let number = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        // A partition has the queue of its disk.
        let folders = [PathBuf::from(&number).join("queue"), PathBuf::from(&number).join("../queue")];
        let queue = folders.into_iter().find(|folder| folder.exists()).ok_or(io::ErrorKind::NotFound)?;
        let number = |name: &str| -> io::Result<u64> {
            let text = fs::read_to_string(queue.join(name))?;
            text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
        };
        let size = |name: &str| -> io::Result<u32> {
            let size = u32::try_from(number(name)?).ok().filter(|size| size.is_power_of_two());
            size.ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        Ok(Self {
            logical_block: size("logical_block_size")?,
            physical_block: size("physical_block_size")?,
            discards: number("discard_max_bytes")? > 0,
            zeroes: number("write_zeroes_max_bytes")? > 0,
        })
    }
}
