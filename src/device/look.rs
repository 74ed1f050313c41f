//! Looking at the world: the kernel's disks, or the sandbox's files, as facts that the rule of correlation can judge.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::correlate::{Disk, Facts, Link};
use super::node::NodeId;
use super::sysfs::{Sysfs, node_path};
use crate::blocking::off_the_runtime;
use crate::error::{Error, Kind, Result};
use crate::model::{Serial, printable};

/// Where the disks are looked for.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// The by-id directory.
    pub by_id: PathBuf,
    /// The directory is a sandbox: its links are the disks.
    pub sandbox: bool,
    /// sysfs.
    pub sysfs: Sysfs,
    /// `/dev`
    pub dev: PathBuf,
    /// Exists while udevd runs.
    pub udev_control: PathBuf,
}

impl World {
    /// What there is now.
    ///
    /// # Errors
    /// `internal` where a directory is there and cannot be read.
    pub fn look(&self) -> Result<Facts> {
        off_the_runtime(|| if self.sandbox { self.sandbox() } else { self.kernel() })
    }

    /// What the kernel has; links are only names for it.
    fn kernel(&self) -> Result<Facts> {
        // Before the disks: a link that udevd makes meanwhile is then missing for now, never taken for a lasting lack.
        let links_are_made = self.udev_control.exists();
        let links = self.links()?;
        let disks = self.kernel_disks().map_err(|error| unreadable(Path::new("/sys/block"), &error))?;
        Ok(Facts { disks, links, links_are_made })
    }

    fn kernel_disks(&self) -> io::Result<Vec<Disk>> {
        let mut disks = Vec::new();
        for name in self.sysfs.disks()? {
            // One that vanishes meanwhile has no number or size any more.
            if let (Some(id), Some(size_bytes)) = (self.sysfs.id(&name)?, self.sysfs.size_bytes(&name)?) {
                let serial = self.sysfs.serial(&name)?;
                disks.push(Disk { id, node: node_path(&self.dev, &name), serial, size_bytes });
            }
        }
        Ok(disks)
    }

    /// The links `virtio-<serial>` are the truth, since no kernel knows a file's serial.
    fn sandbox(&self) -> Result<Facts> {
        let links = self.links()?;
        let disks = links.iter().filter_map(|link| self.sandbox_disk(link)).collect();
        Ok(Facts { disks, links, links_are_made: true })
    }

    fn sandbox_disk(&self, link: &Link) -> Option<Disk> {
        let serial = link.name.strip_prefix("virtio-")?;
        serial.parse::<Serial>().ok()?;
        let size_bytes = match link.leads_to {
            NodeId::Block(_) => self.sysfs.size_bytes(&self.sysfs.name(link.leads_to)?).ok()??,
            NodeId::File { .. } => fs::metadata(&link.path).ok()?.len(),
        };
        let node = fs::canonicalize(&link.path).ok()?;
        Some(Disk { id: link.leads_to, node, serial: Some(serial.to_owned()), size_bytes })
    }

    /// The symbolic links of the by-id directory that lead to a device or a file.
    fn links(&self) -> Result<Vec<Link>> {
        let entries = match fs::read_dir(&self.by_id) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&self.by_id, &error)),
        };
        let mut links = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&self.by_id, &error))?;
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let path = entry.path();
            if let (true, Ok(name), Some(leads_to)) = (is_link, entry.file_name().into_string(), NodeId::at(&path)) {
                links.push(Link { path, name, leads_to });
            }
        }
        Ok(links)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Internal, format!("cannot read {}: {error}", printable(&path.to_string_lossy())))
        .hint("without it no device can be proven")
}
