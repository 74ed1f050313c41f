//! Where the disks of this VM are plugged: nowhere but in memory, into a directory, or into a QEMU guest.

mod directory;
mod qmp;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use directory::Directory;
use qmp::Qmp;

/// A back end.
pub enum Hypervisor {
    /// Disks are only remembered.
    Memory,
    /// Disks are links to sparse files.
    Directory(Directory),
    /// Disks are plugged into a QEMU guest.
    Qmp(Qmp),
}

impl Hypervisor {
    /// Plugs into a directory; makes it and the data directory if need be.
    pub fn directory(devices: &Path, data: &Path) -> io::Result<Self> {
        fs::create_dir_all(devices)?;
        Ok(Self::Directory(Directory::new(devices, Data::new(data)?)))
    }

    /// Plugs into a QEMU guest with root ports rp1 to rpN; makes the data directory if need be.
    pub fn qmp(socket: &Path, ports: u32, data: &Path) -> io::Result<Self> {
        Ok(Self::Qmp(Qmp::new(socket, ports, Data::new(data)?)))
    }

    /// Plugs a disk in. A QEMU guest has its root disk from the start.
    ///
    /// # Errors
    /// What the back end said.
    pub async fn plug(&self, volume: &str, size: u64, is_root: bool) -> Result<(), String> {
        match self {
            Self::Memory => Ok(()),
            Self::Directory(directory) => directory.plug(volume, size).map_err(|error| error.to_string()),
            Self::Qmp(_) if is_root => Ok(()),
            Self::Qmp(qmp) => qmp.plug(volume, size).await,
        }
    }

    /// Tells the guest that a disk which is plugged in has grown.
    ///
    /// # Errors
    /// What the back end said.
    pub async fn grow(&self, volume: &str, size: u64) -> Result<(), String> {
        match self {
            Self::Memory => Ok(()),
            Self::Directory(directory) => directory.plug(volume, size).map_err(|error| error.to_string()),
            Self::Qmp(qmp) => qmp.grow(volume, size).await,
        }
    }

    /// Takes a disk out, and returns when the guest has let it go.
    ///
    /// # Errors
    /// What the back end said.
    pub async fn unplug(&self, volume: &str) -> Result<(), String> {
        match self {
            Self::Memory => Ok(()),
            Self::Directory(directory) => directory.unplug(volume).map_err(|error| error.to_string()),
            Self::Qmp(qmp) => qmp.unplug(volume).await,
        }
    }

    fn data(&self) -> Option<&Data> {
        match self {
            Self::Memory => None,
            Self::Directory(directory) => Some(directory.data()),
            Self::Qmp(qmp) => Some(qmp.data()),
        }
    }

    /// Forgets a volume's data for ever.
    pub fn erase(&self, volume: &str) {
        if let Some(data) = self.data() {
            // A volume that was never attached has no file.
            let _ = fs::remove_file(data.file(volume));
        }
    }

    /// Keeps a copy of a volume's data for a snapshot.
    ///
    /// # Errors
    /// What the system said.
    pub async fn keep(&self, volume: &str, snapshot: &str) -> Result<(), String> {
        match self.data() {
            Some(data) => copy(data.file(volume), data.kept(snapshot)).await,
            None => Ok(()),
        }
    }

    /// Puts a snapshot's copy back in the place of the volume's data.
    ///
    /// # Errors
    /// What the system said.
    pub async fn put_back(&self, volume: &str, snapshot: &str) -> Result<(), String> {
        match self.data() {
            Some(data) => copy(data.kept(snapshot), data.file(volume)).await,
            None => Ok(()),
        }
    }
}

/// The directory with the volumes' data: a sparse file for each that was ever attached.
pub struct Data(PathBuf);

impl Data {
    fn new(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        directory.canonicalize().map(Self)
    }

    fn file(&self, volume: &str) -> PathBuf {
        self.0.join(format!("{volume}.img"))
    }

    fn kept(&self, snapshot: &str) -> PathBuf {
        self.0.join(format!("{snapshot}.snapshot"))
    }

    /// The volume's file, of at least this size.
    fn provide(&self, volume: &str, size: u64) -> io::Result<PathBuf> {
        let path = self.file(volume);
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        if file.metadata()?.len() < size {
            file.set_len(size)?;
        }
        Ok(path)
    }
}

/// Copies a sparse file over another, in place; nothing where there is none, as a volume that was never attached has
/// none.
async fn copy(from: PathBuf, to: PathBuf) -> Result<(), String> {
    let copied = tokio::task::spawn_blocking(move || match from.exists() {
        true => Command::new("cp").arg("--sparse=always").args([from, to]).status().map(|status| status.success()),
        false => Ok(true),
    });
    match copied.await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err("cp failed".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The serial of a volume's disk: its id without hyphens, the first 20 characters (facts sheet, 6.1).
fn serial(volume: &str) -> String {
    volume.chars().filter(|c| *c != '-').take(20).collect()
}
