//! The one `ioctl` call of block devices that no safe interface offers (`linux/fs.h`).
#![expect(unsafe_code, reason = "ioctl takes a pointer whose type only its number tells")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

mod request {
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

/// Discards whole blocks of a block device (`BLKDISCARD`); offset and length in bytes.
pub(super) fn discard(device: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: BLKDISCARD reads two u64, and `range` is these and lives across the call.
    unsafe { request::blkdiscard(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}
