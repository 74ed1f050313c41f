//! What the guest is made of: the Debian image, built once and kept, and the disk with the programs under test.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::tool::{run, tool};

/// A Debian with systemd and udev, never written to.
pub struct Image {
    /// The root file system.
    pub root: PathBuf,
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initrd: PathBuf,
}

impl Image {
    /// The image of today's recipe (`image.sh`), built where it is not there yet: half a minute, as root.
    pub fn get() -> Self {
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/image.sh");
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("lab");
        let directory = PathBuf::from(run(tool("sh", "dash").arg(recipe).arg(cache)));
        Self {
            root: directory.join("root.img"),
            kernel: directory.join("vmlinuz"),
            initrd: directory.join("initrd.img"),
        }
    }
}

/// Makes a disk image in `work` with `volctl` and `volctld`, which the guest mounts at `/usr/local/bin`. They are those
/// that cargo has built, or those in `VOLCTL_BIN_DIR`.
pub fn programs_disk(work: &Path) -> PathBuf {
    let built = || Path::new(env!("CARGO_BIN_EXE_volctl")).parent().unwrap().to_owned();
    let programs = env::var_os("VOLCTL_BIN_DIR").map_or_else(built, PathBuf::from);
    let content = work.join("programs");
    fs::create_dir(&content).unwrap();
    let mut bytes = 0;
    for program in ["volctl", "volctld"] {
        let source = programs.join(program);
        bytes +=
            fs::copy(&source, content.join(program)).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    }
    let disk = work.join("programs.img");
    // A quarter and 16 MiB beside the files: the file system's own.
    let kibibytes = (bytes + bytes / 4 + (16 << 20)) >> 10;
    run(tool("mkfs.ext4", "e2fsprogs").args(["-q", "-F", "-d"]).args([&content, &disk]).arg(kibibytes.to_string()));
    disk
}
