//! The directory back end: a disk is a link `virtio-<serial>` to the volume's sparse file.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Data, serial};

/// A directory that stands for `/dev/disk/by-id`.
pub struct Directory {
    devices: PathBuf,
    data: Data,
}

impl Directory {
    pub(super) fn new(devices: &Path, data: Data) -> Self {
        Self { devices: devices.to_owned(), data }
    }

    pub(super) fn data(&self) -> &Data {
        &self.data
    }

    fn link(&self, volume: &str) -> PathBuf {
        self.devices.join(format!("virtio-{}", serial(volume)))
    }

    /// The link appears whole, by a rename; also anew where it is there already and its file has grown.
    pub(super) fn plug(&self, volume: &str, size: u64) -> io::Result<()> {
        let file = self.data.provide(volume, size)?;
        let new = self.devices.join(format!(".{}.new", serial(volume)));
        remove_if_there(&new)?;
        symlink(file, &new)?;
        fs::rename(new, self.link(volume))
    }

    pub(super) fn unplug(&self, volume: &str) -> io::Result<()> {
        remove_if_there(&self.link(volume))
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
