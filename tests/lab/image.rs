//! What the guest is made of: the Debian image, built once and kept, and the disk with what is under test.

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

/// `volctl` and `volctld` as cargo has built them, or those in `VOLCTL_BIN_DIR`.
pub fn programs() -> Vec<PathBuf> {
    let built = || Path::new(env!("CARGO_BIN_EXE_volctl")).parent().unwrap().to_owned();
    let directory = env::var_os("VOLCTL_BIN_DIR").map_or_else(built, PathBuf::from);
    ["volctl", "volctld"].map(|program| directory.join(program)).to_vec()
}

/// The package of this version.
pub fn package() -> PathBuf {
    let name = format!("volctl_{}_", env!("CARGO_PKG_VERSION"));
    let is_it = |file: &PathBuf| file.file_name().is_some_and(|found| found.to_string_lossy().starts_with(&name));
    packages().into_iter().find(is_it).unwrap_or_else(|| panic!("{name}*.deb is missing: run `make packages`"))
}

/// The packages that `make packages` has built, and the one with a higher version that an upgrade is tried with.
pub fn packages() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/packages");
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    let found: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "deb")).collect();
    assert!(found.len() >= 2, "{}: run `make packages`", directory.display());
    found
}

/// Makes a disk image in `work` with these files, which the guest mounts at `/usr/local/bin`.
pub fn files_disk(work: &Path, files: &[PathBuf]) -> PathBuf {
    let content = work.join("programs");
    fs::create_dir(&content).unwrap();
    let mut bytes = 0;
    for file in files {
        let copy = content.join(file.file_name().unwrap());
        bytes += fs::copy(file, copy).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    let disk = work.join("programs.img");
    // A quarter and 16 MiB beside the files: the file system's own.
    let kibibytes = (bytes + bytes / 4 + (16 << 20)) >> 10;
    run(tool("mkfs.ext4", "e2fsprogs").args(["-q", "-F", "-d"]).args([&content, &disk]).arg(kibibytes.to_string()));
    disk
}
