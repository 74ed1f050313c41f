//! Facts about block devices, read from sysfs at this moment. Nothing is kept: what vanishes meanwhile is absent, and what
//! cannot be read for another reason is an error, never an absence.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::node::NodeId;

/// The most that is read of one attribute: a page, as sysfs itself has it.
const ATTRIBUTE_BYTES: u64 = 4096;
/// sysfs counts sizes in these, whatever the disk's own sector size is (Documentation/ABI/stable/sysfs-block, `size`).
const SECTOR: u64 = 512;

/// The sysfs tree (`/sys`).
#[derive(Clone, Debug)]
pub(super) struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The kernel names of all whole disks (`vda`, `loop0`), sorted.
    pub fn disks(&self) -> io::Result<Vec<String>> {
        names(&self.root.join("block"))
    }

    /// The number of a disk or partition.
    pub fn id(&self, name: &str) -> io::Result<Option<NodeId>> {
        Ok(self.attribute(name, "dev")?.as_deref().and_then(NodeId::from_numbers))
    }

    /// The kernel name of a block device.
    pub fn name(&self, id: NodeId) -> Option<String> {
        let NodeId::Block(_) = id else { return None };
        let target = fs::canonicalize(self.root.join("dev/block").join(id.to_string())).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The serial of a disk as the kernel has it: of virtio-blk its attribute, of SCSI the VPD page 0x80.
    ///
    /// None for a disk that has none by its kind; empty for one that should have and does not say (a virtio disk answers
    /// an I/O error with an empty text).
    pub fn serial(&self, disk: &str) -> io::Result<Option<String>> {
        let virtio = self.block(disk).join("serial");
        let page = self.block(disk).join("device/vpd_pg80");
        let serial = if virtio.exists() {
            read(&virtio).map(|text| text.and_then(|text| String::from_utf8(text).ok()))
        } else if page.exists() {
            read(&page).map(|page| page.and_then(|page| unit_serial(&page)))
        } else {
            return Ok(None);
        };
        match serial {
            Ok(serial) => Ok(Some(trimmed(&serial.unwrap_or_default()))),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(Some(String::new())),
            Err(error) => Err(error),
        }
    }

    /// Size in bytes.
    pub fn size_bytes(&self, name: &str) -> io::Result<Option<u64>> {
        let sectors = self.attribute(name, "size")?.and_then(|sectors| sectors.parse::<u64>().ok());
        Ok(sectors.and_then(|sectors| sectors.checked_mul(SECTOR)))
    }

    /// Whether the kernel refuses writes to it.
    pub fn read_only(&self, name: &str) -> bool {
        self.text(name, "ro").as_deref() == Some("1")
    }

    /// The disk and the number of a partition; none for what is not a partition.
    pub fn partition(&self, name: &str) -> Option<(String, u32)> {
        let number = self.text(name, "partition")?.parse().ok()?;
        let place = fs::canonicalize(self.block(name)).ok()?;
        Some((place.parent()?.file_name()?.to_str()?.to_owned(), number))
    }

    /// The kernel names of a disk's partitions.
    pub fn partitions(&self, disk: &str) -> io::Result<Vec<String>> {
        let mut partitions = names(&self.block(disk))?;
        partitions.retain(|name| self.block(disk).join(name).join("partition").exists());
        Ok(partitions)
    }

    /// The kernel names of what is stacked on a disk or partition (dm, md, bcache).
    pub fn holders(&self, name: &str) -> io::Result<Vec<String>> {
        names(&self.block(name).join("holders"))
    }

    /// The kernel names of what a stacked device stands on.
    pub fn slaves(&self, name: &str) -> io::Result<Vec<String>> {
        names(&self.block(name).join("slaves"))
    }

    /// The id of the mounted btrfs file system of which a disk or partition is a part.
    pub fn btrfs(&self, name: &str) -> io::Result<Option<String>> {
        let file_systems = self.root.join("fs/btrfs");
        let found = names(&file_systems)?;
        Ok(found.into_iter().find(|id| file_systems.join(id).join("devices").join(name).exists()))
    }

    /// The text of an attribute, for a message: none also where it cannot be read.
    pub fn text(&self, name: &str, attribute: &str) -> Option<String> {
        self.attribute(name, attribute).ok().flatten()
    }

    /// The text of an attribute, without the white space and NUL around it.
    fn attribute(&self, name: &str, attribute: &str) -> io::Result<Option<String>> {
        let bytes = read(&self.block(name).join(attribute))?;
        Ok(bytes.map(|bytes| trimmed(&String::from_utf8_lossy(&bytes))))
    }

    /// Whether a device has a directory or attribute of this name.
    pub fn has(&self, name: &str, attribute: &str) -> bool {
        self.block(name).join(attribute).exists()
    }

    fn block(&self, name: &str) -> PathBuf {
        self.root.join("class/block").join(name)
    }
}

/// The path of a device node below `/dev`: sysfs writes `!` for the slash of names such as `cciss/c0d0`.
pub(super) fn node_path(dev: &Path, name: &str) -> PathBuf {
    dev.join(name.replace('!', "/"))
}

/// The names in a directory, sorted; none where there is no such directory (any more).
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// None where it is not there (any more).
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(ATTRIBUTE_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// sysfs answers `ENODEV` (and a driver `ENXIO`) for what went away between open and read.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTDIR))
}

/// The unit serial number in VPD page 0x80 (SPC-4, 7.8.15): page code in byte 1, big-endian length in bytes 2 and 3.
fn unit_serial(page: &[u8]) -> Option<String> {
    let (header, rest) = page.split_first_chunk::<4>()?;
    if header[1] != 0x80 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    Some(trimmed(str::from_utf8(rest.get(..length)?).ok()?))
}

fn trimmed(text: &str) -> String {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop there")]
    use super::*;

    #[test]
    fn vpd_pages_are_read_and_broken_ones_are_not() {
        let page = |length: [u8; 2], text: &str| [&[0, 0x80], &length[..], text.as_bytes()].concat();
        assert_eq!(unit_serial(&page([0, 20], "5f0c8a521b2c4d3e9f40")).unwrap(), "5f0c8a521b2c4d3e9f40");
        assert_eq!(unit_serial(&page([0, 22], "  5f0c8a521b2c4d3e9f40")).unwrap(), "5f0c8a521b2c4d3e9f40");
        assert_eq!(
            unit_serial(&page([0, 4], "5f0c8a521b2c4d3e9f40")).unwrap(),
            "5f0c",
            "what follows is not the serial"
        );
        assert_eq!(unit_serial(&page([1, 0], "5f0c8a521b2c4d3e9f40")), None, "longer than the page");
        assert_eq!(unit_serial(&[0, 0x83, 0, 1, b'x']), None, "another page");
        assert_eq!(unit_serial(&[0, 0x80, 0]), None);
    }
}
