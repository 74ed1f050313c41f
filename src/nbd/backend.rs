//! The file behind an export: a block device, or a regular file that stands for one. Blocking I/O at any byte.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::fcntl::{FallocateFlags, fallocate};

use super::ioctl;
use super::protocol::Errno;

/// Zeroes are written, and discards and zeroing are asked of the kernel, in pieces of so many bytes at most, so that
/// none lasts long and each can be the last one when the export closes.
const PIECE: u64 = 64 << 20;

/// What is written where the kernel cannot zero a range by itself.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// An open file or device.
pub(super) struct Backend {
    file: File,
    size: AtomicU64,
    /// The device's logical block size in bytes; none for a regular file.
    logical_block: Option<u64>,
    flush_failed: AtomicBool,
}

impl Backend {
    /// Takes a file over. Its size in bytes is read from the kernel.
    pub fn new(file: File) -> io::Result<Self> {
        let size = AtomicU64::new(end(&file)?);
        let logical_block = match file.metadata()?.file_type().is_block_device() {
            true => Some(ioctl::logical_block_size(&file)?),
            false => None,
        };
        Ok(Self { file, size, logical_block, flush_failed: AtomicBool::new(false) })
    }

    /// Size in bytes when it was taken over, or last seen to have grown.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Takes over the size that the kernel has now, where it is larger; gives the size.
    pub fn grow(&self) -> io::Result<u64> {
        let now = end(&self.file)?;
        Ok(self.size.fetch_max(now, Ordering::AcqRel).max(now))
    }

    /// Gives the file back.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Reads exactly so many bytes.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Writes all bytes; they are visible to each later read, and on stable storage after the next flush.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Brings everything written so far to stable storage. Once this has failed it fails for ever: the kernel reports
    /// lost writes once, and a later success would not cover them.
    pub fn flush(&self) -> io::Result<()> {
        if self.flush_failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier flush failed, and what it lost is not known"));
        }
        let flushed = self.file.sync_data();
        if flushed.is_err() {
            self.flush_failed.store(true, Ordering::Release);
        }
        flushed
    }

    /// Tells the device that a range is not needed. A hint: where the device takes none, nothing happens.
    pub fn trim(&self, offset: u64, length: u64, stop: impl Fn() -> bool) -> io::Result<()> {
        for (offset, length) in pieces(offset, length) {
            stopped(&stop)?;
            let trimmed = match self.logical_block {
                None => self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, length),
                Some(block) => match whole_blocks(offset, length, block) {
                    Some((offset, length)) => ioctl::discard(&self.file, offset, length),
                    None => Ok(()),
                },
            };
            match trimmed {
                Err(error) if not_supported(&error) => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes a range read as zeroes; without `may_punch` its space stays allocated. `stop` is asked between pieces.
    pub fn write_zeroes(&self, offset: u64, length: u64, may_punch: bool, stop: impl Fn() -> bool) -> io::Result<()> {
        for (offset, length) in pieces(offset, length) {
            stopped(&stop)?;
            match self.logical_block {
                None => self.zero_range(offset, length, may_punch)?,
                Some(block) => match whole_blocks(offset, length, block) {
                    Some(whole) => self.zero_around(offset, length, whole, may_punch)?,
                    None => self.write_each_zero(offset, length)?,
                },
            }
        }
        Ok(())
    }

    /// A device zeroes whole blocks only: the rest of the range, at both ends, is written.
    fn zero_around(&self, offset: u64, length: u64, whole: (u64, u64), may_punch: bool) -> io::Result<()> {
        let (start, middle) = whole;
        self.write_each_zero(offset, start - offset)?;
        self.zero_range(start, middle, may_punch)?;
        let end = start + middle;
        self.write_each_zero(end, offset + length - end)
    }

    /// On a block device the kernel turns both modes into zeroing, of which only punching may give space back.
    fn zero_range(&self, offset: u64, length: u64, may_punch: bool) -> io::Result<()> {
        use FallocateFlags as Flags;
        let modes = [Flags::FALLOC_FL_PUNCH_HOLE, Flags::FALLOC_FL_ZERO_RANGE];
        for mode in &modes[usize::from(!may_punch)..] {
            match self.allocate(*mode, offset, length) {
                Err(error) if not_supported(&error) => {}
                other => return other,
            }
        }
        self.write_each_zero(offset, length)
    }

    fn allocate(&self, mode: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        retried(|| fallocate(&self.file, mode, offset, length))
    }

    fn write_each_zero(&self, mut offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        while offset < end {
            let piece = ZEROES.len().min((end - offset).try_into().unwrap_or(usize::MAX));
            self.file.write_all_at(&ZEROES[..piece], offset)?;
            offset += piece as u64;
        }
        Ok(())
    }
}

/// The size of a file in bytes. Only this moves the file's position, which nothing else uses.
fn end(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// What a client is told of an error: refusals keep their meaning, everything else is the device's failure.
pub(super) fn errno(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::EROFS) => Errno::Perm,
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Errno::NoSpc,
        Some(libc::ENOMEM) => Errno::NoMem,
        Some(libc::ESHUTDOWN) => Errno::Shutdown,
        _ => Errno::Io,
    }
}

fn stopped(stop: &impl Fn() -> bool) -> io::Result<()> {
    if stop() { Err(io::Error::from_raw_os_error(libc::ESHUTDOWN)) } else { Ok(()) }
}

fn not_supported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::ENOSYS))
}

fn retried(mut call: impl FnMut() -> nix::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Cuts a range into pieces of at most [`PIECE`] bytes.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + length;
    (0..length.div_ceil(PIECE)).map(move |n| offset + n * PIECE).map(move |start| (start, PIECE.min(end - start)))
}

/// The whole blocks inside a range, as offset and length; nothing where there is none.
fn whole_blocks(offset: u64, length: u64, block: u64) -> Option<(u64, u64)> {
    let start = offset.next_multiple_of(block);
    let end = (offset + length) / block * block;
    (start < end).then(|| (start, end - start))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::fs::MetadataExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn backend(bytes: &[u8]) -> Backend {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Backend::new(file).unwrap()
    }

    fn contents(backend: &Backend) -> Vec<u8> {
        let mut bytes = vec![0xee; backend.size() as usize];
        backend.read(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_range_is_cut_without_gap_or_overlap() {
        assert_eq!(pieces(5, 0).count(), 0);
        assert_eq!(pieces(5, 1).collect::<Vec<_>>(), [(5, 1)]);
        let cut: Vec<_> = pieces(3, 2 * PIECE + 1).collect();
        assert_eq!(cut, [(3, PIECE), (3 + PIECE, PIECE), (3 + 2 * PIECE, 1)]);
    }

    #[test]
    fn only_whole_blocks_are_inside() {
        assert_eq!(whole_blocks(0, 1024, 512), Some((0, 1024)));
        assert_eq!(whole_blocks(1, 1023, 512), Some((512, 512)));
        assert_eq!(whole_blocks(1, 1022, 512), None);
        assert_eq!(whole_blocks(513, 100, 512), None);
    }

    #[test]
    fn zeroing_touches_its_range_only_and_gives_space_back_only_when_it_may() {
        let backend = backend(&vec![0xaa; 4 * MIB as usize]);
        let blocks = |backend: &Backend| backend.file.metadata().unwrap().blocks();
        let full = blocks(&backend);

        backend.write_zeroes(MIB + 1, MIB, false, || false).unwrap();
        assert!(blocks(&backend) >= full, "a hole was made");
        backend.write_zeroes(3 * MIB, MIB, true, || false).unwrap();
        assert!(blocks(&backend) < full, "no hole was made");

        let mut expected = vec![0xaa; 4 * MIB as usize];
        expected[MIB as usize + 1..2 * MIB as usize + 1].fill(0);
        expected[3 * MIB as usize..].fill(0);
        assert!(contents(&backend) == expected);
    }

    #[test]
    fn zeroes_can_be_written_one_by_one() {
        let backend = backend(&[0xaa; 200_000]);
        backend.write_each_zero(1, 199_998).unwrap();
        let bytes = contents(&backend);
        assert_eq!((bytes[0], bytes[199_999]), (0xaa, 0xaa));
        assert!(bytes[1..199_999].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_closing_export_ends_a_long_request() {
        let backend = backend(&[0xaa; 8192]);
        let error = backend.write_zeroes(0, 8192, true, || true).unwrap_err();
        assert_eq!(errno(&error), Errno::Shutdown);
        assert_eq!(contents(&backend), [0xaa; 8192]);
    }

    #[test]
    fn a_file_that_became_shorter_is_a_failure() {
        let backend = backend(&[1; 8192]);
        backend.file.set_len(4096).unwrap();
        let mut bytes = [0; 8192];
        assert_eq!(errno(&backend.read(&mut bytes, 0).unwrap_err()), Errno::Io);
    }
}
