//! The NBD clients outside the guest, written by others: they reach the daemon through the forwarded port.

use std::fs;
use std::path::Path;

use crate::tool::{run, tool};

/// The size of an export in bytes, as libnbd sees it.
pub fn size(uri: &str) -> u64 {
    run(tool("nbdinfo", "libnbd-bin").args(["--size", uri])).parse().unwrap()
}

/// Whether a client gets as far as the export.
pub fn reachable(uri: &str) -> bool {
    tool("nbdinfo", "libnbd-bin").args(["--size", uri]).output().unwrap().status.success()
}

/// Writes bytes to the start of an export (libnbd).
pub fn write(uri: &str, work: &Path, bytes: &[u8]) {
    let file = work.join("to-write");
    fs::write(&file, bytes).unwrap();
    run(tool("nbdcopy", "libnbd-bin").arg("--flush").arg(file).arg(uri));
}

/// Reads whole MiB of an export (QEMU).
pub fn read(uri: &str, work: &Path, skip_mib: usize, count_mib: usize) -> Vec<u8> {
    let file = work.join("was-read");
    // To this program `count` is where the reading ends, not how much is read.
    let count = skip_mib + count_mib;
    run(tool("qemu-img", "qemu-utils")
        .args(["dd", "-f", "raw", "-O", "raw", "bs=1M"])
        .args([format!("skip={skip_mib}"), format!("count={count}"), format!("if={uri}")])
        .arg(format!("of={}", file.display())));
    let bytes = fs::read(file).unwrap();
    assert_eq!(bytes.len(), count_mib << 20, "qemu-img dd read something else than was asked for");
    bytes
}
