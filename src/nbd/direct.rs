//! I/O past the page cache (`O_DIRECT` of open(2)): between the device and aligned memory, in whole blocks.
//!
//! What a client asks for may begin and end anywhere. A part of a block is read with the rest of its block, and written
//! by reading the block, changing it and writing it back. Meanwhile nothing else is written to the export: what a
//! neighbour put into the same block in between would be lost.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::memory::{Aligned, is_aligned};

/// A file or device that is open past the page cache.
pub(super) struct Direct {
    file: File,
    /// The unit of offsets and lengths in bytes, a power of 2.
    block: u64,
    /// Shared by all who write whole blocks; whoever writes a part of one is alone.
    writers: RwLock<()>,
}

impl Direct {
    /// Opens a file a second time, past the page cache, and proves on a block that this can be read.
    pub fn open(file: &File, writable: bool, block: u64) -> io::Result<Self> {
        let again = OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(libc::O_DIRECT)
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mut first = Aligned::new(block as usize);
        // Nothing or less than a block is read of a file that has no more.
        let _ = again.read_at(first.bytes(), 0)?;
        Ok(Self { file: again, block, writers: RwLock::default() })
    }

    /// The end of the last whole block of so many bytes: nothing beyond it can be read or written here.
    pub fn end_of_blocks(&self, size: u64) -> u64 {
        size / self.block * self.block
    }

    /// The file, where a range has only whole blocks.
    pub fn of_whole_blocks(&self, range: &Range<u64>) -> Option<&File> {
        (self.span(range) == *range).then_some(&self.file)
    }

    /// Reads exactly so many bytes, which end within the whole blocks.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + buffer.len() as u64;
        let span = self.span(&range);
        if span == range && is_aligned(buffer) {
            return self.file.read_exact_at(buffer, offset);
        }
        let mut blocks = Aligned::new(length(&span));
        self.file.read_exact_at(blocks.bytes(), span.start)?;
        buffer.copy_from_slice(&blocks.bytes()[inside(&range, &span)]);
        Ok(())
    }

    /// Writes all bytes, which end within the whole blocks.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + bytes.len() as u64;
        let span = self.span(&range);
        if span != range {
            return self.write_parts(bytes, &range, &span);
        }
        let _shared = self.share();
        if is_aligned(bytes) {
            return self.file.write_all_at(bytes, offset);
        }
        let mut blocks = Aligned::new(length(&span));
        blocks.bytes().copy_from_slice(bytes);
        self.file.write_all_at(blocks.bytes(), offset)
    }

    /// To be held by whoever has the kernel change a range in another way.
    pub fn share(&self) -> RwLockReadGuard<'_, ()> {
        self.writers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a range of which the first or the last block is not whole.
    fn write_parts(&self, bytes: &[u8], range: &Range<u64>, span: &Range<u64>) -> io::Result<()> {
        let mut blocks = Aligned::new(length(span));
        let _alone = self.writers.write().unwrap_or_else(PoisonError::into_inner);
        let last = span.end - self.block;
        if range.start != span.start {
            self.read_block(&mut blocks, span, span.start)?;
        }
        if range.end != span.end && (last != span.start || range.start == span.start) {
            self.read_block(&mut blocks, span, last)?;
        }
        blocks.bytes()[inside(range, span)].copy_from_slice(bytes);
        self.file.write_all_at(blocks.bytes(), span.start)
    }

    fn read_block(&self, blocks: &mut Aligned, span: &Range<u64>, start: u64) -> io::Result<()> {
        let block = inside(&(start..start + self.block), span);
        self.file.read_exact_at(&mut blocks.bytes()[block], start)
    }

    /// The whole blocks of a range.
    fn span(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.block * self.block..range.end.next_multiple_of(self.block)
    }
}

fn length(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize
}

/// Where a range is in the memory that has all of a wider one.
fn inside(range: &Range<u64>, span: &Range<u64>) -> Range<usize> {
    (range.start - span.start) as usize..(range.end - span.start) as usize
}
