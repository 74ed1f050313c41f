//! The file behind an export: a block device, or a regular file that stands for one. Blocking I/O at any byte.

use std::fs::File;
use std::io::{self, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek};
use rustix::io::{ReadWriteFlags, preadv2};

use super::direct::Direct;
use super::ioctl;
use super::protocol::{BlockSizes, Errno, Extent};
use super::queue::Queue;

/// Zeroes are written, and discards and zeroing are asked of the kernel, in pieces of so many bytes at most, so that
/// none lasts long and each can be the last one when the export closes or its clients are handed over.
const PIECE: u64 = 16 << 20;

/// The page cache reads and writes in units of so many bytes.
const PAGE: u32 = 4096;

/// What is written where the kernel cannot zero a range by itself.
static ZEROES: Zeroes = Zeroes([0; 64 << 10]);

/// Aligned, so that they go past the page cache as they are.
#[repr(align(4096))]
struct Zeroes([u8; 64 << 10]);

/// An open file or device.
pub(super) struct Backend {
    file: File,
    size: AtomicU64,
    /// None for a regular file.
    device: Option<Queue>,
    /// None where data go through the page cache.
    direct: Option<Direct>,
    flush_failed: AtomicBool,
    punches: AtomicU64,
}

impl Backend {
    /// Takes a file over. What it is, is read from the kernel.
    pub fn new(file: File) -> io::Result<Self> {
        let size = AtomicU64::new(end(&file)?);
        let metadata = file.metadata()?;
        let device = match metadata.file_type().is_block_device() {
            true => Some(Queue::of(metadata.rdev())?),
            false => None,
        };
        Ok(Self { file, size, device, direct: None, flush_failed: AtomicBool::new(false), punches: AtomicU64::new(0) })
    }

    /// Takes the data past the page cache from now on.
    ///
    /// # Errors
    /// Where the device or the filesystem does not do that.
    pub fn bypass_cache(&mut self, writable: bool) -> io::Result<()> {
        let block = self.device.map_or(PAGE, |queue| queue.logical_block);
        self.direct = Some(Direct::open(&self.file, writable, block.into())?);
        Ok(())
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

    /// What a client's requests should keep to: a device's blocks, of which the page cache takes no less than a page.
    pub fn block_sizes(&self) -> BlockSizes {
        match self.device {
            Some(queue) if self.direct.is_some() => {
                BlockSizes { minimum: queue.logical_block, preferred: queue.physical_block.max(queue.logical_block) }
            }
            Some(queue) => BlockSizes { minimum: queue.logical_block, preferred: queue.physical_block.max(PAGE) },
            None => BlockSizes { minimum: 1, preferred: PAGE },
        }
    }

    /// Whether a trim has an effect; for a regular file, its filesystem decides at each one.
    pub fn trims(&self) -> bool {
        self.device.is_none_or(|queue| queue.discards)
    }

    /// Gives the file back.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Reads exactly so many bytes.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(direct) = &self.direct else { return self.file.read_exact_at(buffer, offset) };
        let (blocks, rest) = buffer.split_at_mut(self.in_blocks(direct, buffer.len(), offset));
        if !blocks.is_empty() {
            direct.read(blocks, offset)?;
        }
        self.file.read_exact_at(rest, offset + blocks.len() as u64)
    }

    /// Reads exactly so many bytes from the page cache.
    ///
    /// # Errors
    /// `WouldBlock` where not all of them are there, or data go past it.
    pub fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.direct.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = buffer.len();
        match preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(count) if count == length => Ok(()),
            // The filesystem does not know what it has in the page cache.
            Err(rustix::io::Errno::OPNOTSUPP) => self.read(buffer, offset),
            Ok(_) | Err(rustix::io::Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The file to read whole blocks from, past the page cache; none where the range has others, or they go through it.
    pub fn past_cache(&self, offset: u64, length: u64) -> Option<&File> {
        let (direct, end) = (self.direct.as_ref()?, offset + length);
        direct.of_whole_blocks(&(offset..end)).filter(|_| end <= direct.end_of_blocks(self.size()))
    }

    /// Whether data go past the page cache, so that to write them is to wait for the device.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Writes all bytes; they are visible to each later read, and on stable storage after the next flush.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(direct) = &self.direct else { return self.file.write_all_at(bytes, offset) };
        let (blocks, rest) = bytes.split_at(self.in_blocks(direct, bytes.len(), offset));
        if !blocks.is_empty() {
            direct.write(blocks, offset)?;
        }
        self.file.write_all_at(rest, offset + blocks.len() as u64)
    }

    /// How many bytes of a range can go past the page cache: all but those beyond the last whole block of a file, which
    /// has less than a block of them.
    fn in_blocks(&self, direct: &Direct, length: usize, offset: u64) -> usize {
        let end = direct.end_of_blocks(self.size());
        end.saturating_sub(offset).try_into().map_or(length, |within: usize| within.min(length))
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

    /// What follows on `offset`, up to `end`, which is above it. A device does not tell what of it is allocated.
    pub fn extent(&self, offset: u64, end: u64) -> Extent {
        let rest = |hole| Extent { length: end - offset, hole };
        let until = |next: u64, hole| Extent { length: next.min(end) - offset, hole };
        if self.device.is_some() {
            return rest(false);
        }
        match self.seek(Whence::SeekData, offset) {
            // No data follow: a hole, unless the file has become shorter than it was.
            Err(nix::Error::ENXIO) => rest(self.file.metadata().is_ok_and(|metadata| metadata.len() >= end)),
            Ok(data) if data > offset => until(data, true),
            Ok(_) => match self.seek(Whence::SeekHole, offset) {
                Ok(hole) if hole > offset => until(hole, false),
                _ => rest(false),
            },
            Err(_) => rest(false),
        }
    }

    /// How often data may have become holes: where that is as it was, what were data still are.
    pub fn punches(&self) -> u64 {
        self.punches.load(Ordering::Relaxed)
    }

    /// The position that this leaves behind is nobody's: all reads and writes say where.
    fn seek(&self, whence: Whence, offset: u64) -> nix::Result<u64> {
        let found = lseek(&self.file, offset.try_into().map_err(|_| nix::Error::EINVAL)?, whence)?;
        u64::try_from(found).map_err(|_| nix::Error::EINVAL)
    }

    /// Begins to read a range into the page cache, and does not wait for it. A hint: without a page cache, nothing happens.
    pub fn cache(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.direct.is_some() {
            return Ok(());
        }
        let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok(posix_fadvise(&self.file, offset, length, PosixFadviseAdvice::POSIX_FADV_WILLNEED)?)
    }

    /// Tells the device that a range is not needed. A hint: where it takes none, nothing happens. `stop` is asked between
    /// pieces; gives how many bytes are dealt with.
    pub fn trim(&self, start: u64, whole: u64, stop: impl Fn() -> bool) -> io::Result<u64> {
        for (offset, length) in pieces(start, whole) {
            if stop() {
                return Ok(offset - start);
            }
            let trimmed = match self.device {
                None => self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, length),
                Some(queue) => match whole_blocks(offset, length, queue.logical_block.into()) {
                    Some((offset, length)) => {
                        let _shared = self.direct.as_ref().map(Direct::share);
                        ioctl::discard(&self.file, offset, length)
                    }
                    None => Ok(()),
                },
            };
            match trimmed {
                Err(error) if not_supported(&error) => break,
                other => other?,
            }
        }
        Ok(whole)
    }

    /// Makes a range read as zeroes; without `may_punch` its space stays allocated. `stop` is asked between pieces; gives
    /// how many bytes are dealt with.
    pub fn write_zeroes(&self, start: u64, whole: u64, may_punch: bool, stop: impl Fn() -> bool) -> io::Result<u64> {
        for (offset, length) in pieces(start, whole) {
            if stop() {
                return Ok(offset - start);
            }
            match self.device {
                None => self.zero_range(offset, length, may_punch)?,
                Some(queue) => match whole_blocks(offset, length, queue.logical_block.into()) {
                    Some(whole) => self.zero_around(offset, length, whole, may_punch)?,
                    None => self.write_each_zero(offset, length)?,
                },
            }
        }
        Ok(whole)
    }

    /// Does the same where that takes no writing of zeroes; none, and nothing is changed, where it would.
    pub fn zero_fast(
        &self,
        offset: u64,
        length: u64,
        may_punch: bool,
        stop: impl Fn() -> bool,
    ) -> io::Result<Option<u64>> {
        if let Some(queue) = self.device
            && !(queue.zeroes && whole_blocks(offset, length, queue.logical_block.into()) == Some((offset, length)))
        {
            return Ok(None);
        }
        let first = length.min(PIECE);
        let mode = if may_punch { FallocateFlags::FALLOC_FL_PUNCH_HOLE } else { FallocateFlags::FALLOC_FL_ZERO_RANGE };
        match self.allocate(mode, offset, first) {
            Err(error) if not_supported(&error) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => self.write_zeroes(offset + first, length - first, may_punch, stop).map(|done| Some(first + done)),
        }
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
        let _shared = self.direct.as_ref().map(Direct::share);
        let allocated = retried(|| fallocate(&self.file, mode, offset, length));
        self.punches.fetch_add(1, Ordering::Relaxed);
        allocated
    }

    fn write_each_zero(&self, mut offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        while offset < end {
            let piece = ZEROES.0.len().min((end - offset).try_into().unwrap_or(usize::MAX));
            self.write(&ZEROES.0[..piece], offset)?;
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
        _ => Errno::Io,
    }
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

    use super::*;

    const MIB: u64 = 1 << 20;

    fn backend(bytes: &[u8]) -> Backend {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Backend::new(file).unwrap()
    }

    /// Past the page cache, with a size that is no multiple of a block.
    fn direct_backend(bytes: &[u8]) -> Backend {
        let mut backend = backend(bytes);
        backend.bypass_cache(true).unwrap();
        backend
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
    fn fast_zeroes_are_zeroes() {
        let backend = backend(&vec![0xaa; 4 * MIB as usize]);
        assert_eq!(backend.zero_fast(MIB + 1, MIB, true, || false).unwrap(), Some(MIB));
        let mut expected = vec![0xaa; 4 * MIB as usize];
        expected[MIB as usize + 1..2 * MIB as usize + 1].fill(0);
        assert!(contents(&backend) == expected);
    }

    #[test]
    fn extents_tell_holes_from_data() {
        let backend = backend(&vec![0xaa; 4 * MIB as usize]);
        backend.write_zeroes(MIB, MIB, true, || false).unwrap();
        assert_eq!(backend.extent(7, 4 * MIB), Extent { length: MIB - 7, hole: false });
        assert_eq!(backend.extent(7, 9), Extent { length: 2, hole: false });
        assert_eq!(backend.extent(MIB + 5, 4 * MIB), Extent { length: MIB - 5, hole: true });
        backend.write_zeroes(2 * MIB, 2 * MIB, true, || false).unwrap();
        assert_eq!(backend.extent(MIB, 4 * MIB), Extent { length: 3 * MIB, hole: true });
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
    fn a_long_request_can_be_cut_between_pieces() {
        let backend = backend(&[0xaa; 8192]);
        assert_eq!(backend.write_zeroes(0, 8192, true, || true).unwrap(), 0);
        assert_eq!(backend.trim(0, 8192, || true).unwrap(), 0);
        assert_eq!(contents(&backend), [0xaa; 8192]);
        let asked = std::cell::Cell::new(0);
        let second = || asked.replace(asked.get() + 1) == 1;
        assert_eq!(backend.write_zeroes(0, 3 * PIECE, true, second).unwrap(), PIECE);
        assert_eq!(contents(&backend), [0; 8192]);
    }

    #[test]
    fn a_file_that_became_shorter_is_a_failure() {
        let backend = backend(&[1; 8192]);
        backend.file.set_len(4096).unwrap();
        assert!(!backend.extent(4096, 8192).hole);
        let mut bytes = [0; 8192];
        assert_eq!(errno(&backend.read(&mut bytes, 0).unwrap_err()), Errno::Io);
    }

    #[test]
    fn any_range_goes_past_the_page_cache() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut expected: Vec<u8> = (0..50_001).map(|_| rng.u8(..)).collect();
        let backend = direct_backend(&expected);
        for turn in 0..500 {
            let start = rng.usize(..expected.len());
            let end = rng.usize(start..=expected.len().min(start + 9000));
            match turn % 3 {
                0 => {
                    let mut read = vec![0; end - start];
                    backend.read(&mut read, start as u64).unwrap();
                    assert_eq!(read, expected[start..end], "{start}..{end}");
                }
                1 => {
                    expected[start..end].fill_with(|| rng.u8(..));
                    backend.write(&expected[start..end], start as u64).unwrap();
                }
                _ => {
                    expected[start..end].fill(0);
                    backend.write_each_zero(start as u64, (end - start) as u64).unwrap();
                }
            }
        }
        assert!(contents(&backend) == expected);
        assert_eq!(backend.file.metadata().unwrap().len(), 50_001);
    }

    #[test]
    fn neighbours_in_a_block_lose_nothing_past_the_page_cache() {
        const THREADS: usize = 4;
        let backend = direct_backend(&[0; 20_000]);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let backend = &backend;
                scope.spawn(move || {
                    for at in (thread * 100..20_000).step_by(THREADS * 100) {
                        backend.write(&[thread as u8 + 1; 100], at as u64).unwrap();
                    }
                });
            }
        });
        for (at, byte) in contents(&backend).into_iter().enumerate() {
            assert_eq!(usize::from(byte), at / 100 % THREADS + 1, "byte {at}");
        }
    }
}
