//! What a path or an open file really is, whatever it is called: a block device by its number, a file by its inode.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, makedev, minor};

/// The kernel's name for a thing that holds a volume's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NodeId {
    /// A block device: its number (`st_rdev`).
    Block(u64),
    /// A regular file.
    File {
        /// The file system that it is on (`st_dev`).
        device: u64,
        /// Its inode there.
        inode: u64,
    },
}

impl NodeId {
    /// None for what is neither a block device nor a regular file.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let file_type = metadata.file_type();
        if file_type.is_block_device() {
            Some(Self::Block(metadata.rdev()))
        } else if file_type.is_file() {
            Some(Self::File { device: metadata.dev(), inode: metadata.ino() })
        } else {
            None
        }
    }

    /// What a path leads to; none also where it leads nowhere.
    pub fn at(path: &Path) -> Option<Self> {
        Self::of(&fs::metadata(path).ok()?)
    }

    /// Reads the kernel's `254:16`.
    pub fn from_numbers(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        let numbers: (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        Some(Self::Block(makedev(numbers.0.into(), numbers.1.into())))
    }
}

/// `254:16` for a block device as sysfs writes it, `device:inode` for a file.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(number) => write!(f, "{}:{}", major(*number), minor(*number)),
            Self::File { device, inode } => write!(f, "{device}:{inode}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop there")]
    use super::*;

    #[test]
    fn numbers_read_and_write_as_the_kernel_has_them() {
        assert_eq!(NodeId::from_numbers("254:16\n").unwrap().to_string(), "254:16");
        assert_eq!(NodeId::from_numbers("259:1048575").unwrap().to_string(), "259:1048575");
        for text in ["", "254", ":", "a:b", "254:16:1", "-1:0", "99999999999:0"] {
            assert_eq!(NodeId::from_numbers(text), None, "{text}");
        }
    }

    #[test]
    fn links_are_followed_and_other_things_are_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(NodeId::at(&link), NodeId::at(&file));
        assert!(matches!(NodeId::at(&file), Some(NodeId::File { .. })));
        assert_eq!(NodeId::at(dir.path()), None);
        assert_eq!(NodeId::at(&dir.path().join("missing")), None);
        assert_eq!(NodeId::at(Path::new("/dev/null")), None, "a character device");
    }
}
