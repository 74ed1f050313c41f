//! The two `ioctl` calls of block devices that no safe interface offers (`linux/fs.h`).
#![expect(unsafe_code, reason = "ioctl takes a pointer whose type only its number tells")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

mod request {
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), libc::c_int);
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

/// A block device's logical block size, in bytes (`BLKSSZGET`).
pub(super) fn logical_block_size(device: &File) -> io::Result<u64> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int, and `size` is one that lives across the call.
    unsafe { request::blksszget(device.as_raw_fd(), &raw mut size) }?;
    u64::try_from(size).ok().filter(|size| size.is_power_of_two()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Discards whole blocks of a block device (`BLKDISCARD`); offset and length in bytes.
pub(super) fn discard(device: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: BLKDISCARD reads two u64, and `range` is these and lives across the call.
    unsafe { request::blkdiscard(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}
