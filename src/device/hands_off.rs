//! Marks by which this machine's udev rules keep their hands off a disk: no probing, no LVM, md, udisks or multipath.
//!
//! A mark is a file named by the disk's serial, which is known before the disk is there. It is in the state directory and
//! not below `/run`, so that it counts too when udev looks at all disks while the machine boots. The rules that read it are
//! in `packaging/udev`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::model::Serial;

/// The marks of one state directory.
#[derive(Clone, Debug)]
pub struct HandsOff {
    directory: PathBuf,
}

impl HandsOff {
    /// Those of a state directory.
    pub fn below(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("hands-off") }
    }

    /// Marks a disk that is here or will be.
    pub fn mark(&self, serial: &Serial) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        File::create(self.directory.join(serial.as_str())).map(drop)
    }

    /// Takes a mark away, where there is one.
    pub fn unmark(&self, serial: &Serial) -> io::Result<()> {
        match fs::remove_file(self.directory.join(serial.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The disks that are marked.
    pub fn marked(&self) -> io::Result<Vec<Serial>> {
        match fs::read_dir(&self.directory) {
            Ok(entries) => {
                let serial = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
                Ok(entries.filter_map(serial).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn marks_come_and_go_by_serial() {
        let state = tempfile::tempdir().unwrap();
        let marks = HandsOff::below(state.path());
        let serials: [Serial; 2] = ["5f0c8a521b2c4d3e9f40".parse().unwrap(), "00000000000000000001".parse().unwrap()];
        assert_eq!(marks.marked().unwrap(), []);
        marks.unmark(&serials[0]).unwrap();
        serials.iter().for_each(|serial| marks.mark(serial).unwrap());
        marks.mark(&serials[0]).unwrap();
        fs::write(state.path().join("hands-off/notes.txt"), "no serial").unwrap();
        let mut found = marks.marked().unwrap();
        found.sort();
        assert_eq!(found, [serials[1].clone(), serials[0].clone()]);
        marks.unmark(&serials[1]).unwrap();
        assert_eq!(marks.marked().unwrap(), serials[..1]);
    }
}
