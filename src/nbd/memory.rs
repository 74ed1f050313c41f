//! Memory for data that go past the page cache. Large pieces are used again: to have the kernel map new ones takes longer
//! than a fast device takes to fill them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory is aligned to so many bytes, which is enough for every device.
const ALIGNMENT: usize = 4096;
/// Pieces of so many bytes are worth keeping; the allocator keeps smaller ones by itself.
const LARGE: usize = 64 << 10;
/// So many bytes are kept at most.
const KEPT: usize = 16 << 20;

/// Aligned memory.
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
    home: Option<Spare>,
}

impl Aligned {
    /// So many zeroes.
    pub fn new(length: usize) -> Self {
        Self::of(vec![0; length + ALIGNMENT], length, None)
    }

    fn of(memory: Vec<u8>, length: usize, home: Option<Spare>) -> Self {
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, length, home }
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.keep(std::mem::take(&mut self.memory));
        }
    }
}

/// Whether the kernel reads into it, or writes from it, as it is.
pub(super) fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

/// What the requests of an export have used, for the next ones.
#[derive(Clone, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// So many bytes, with whatever they had before.
    pub fn take(&self, length: usize) -> Aligned {
        if length < LARGE {
            return Aligned::new(length);
        }
        let memory = self.pieces().pop().filter(|memory| memory.len() >= length + ALIGNMENT);
        Aligned::of(memory.unwrap_or_else(|| vec![0; length + ALIGNMENT]), length, Some(self.clone()))
    }

    /// Gives all of it back.
    pub fn forget(&self) {
        *self.pieces() = Vec::new();
    }

    fn keep(&self, memory: Vec<u8>) {
        let mut pieces = self.pieces();
        if pieces.iter().map(Vec::len).sum::<usize>() + memory.len() <= KEPT {
            pieces.push(memory);
        }
    }

    fn pieces(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 256 << 10;

    #[test]
    fn large_pieces_are_used_again() {
        let spare = Spare::default();
        let mut first = spare.take(PIECE);
        first.bytes().fill(7);
        let address = first.bytes().as_ptr();
        drop(first);
        let mut again = spare.take(PIECE - 1);
        assert_eq!((again.bytes().as_ptr(), again.bytes().len()), (address, PIECE - 1));
        assert!(is_aligned(again.bytes()));
        drop(again);
        assert_eq!(spare.take(2 * PIECE).bytes(), vec![0; 2 * PIECE], "a larger one is new");
    }

    #[test]
    fn no_more_is_kept_than_it_may() {
        let spare = Spare::default();
        let taken: Vec<_> = (0..2 * KEPT / PIECE).map(|_| spare.take(PIECE)).collect();
        drop(taken);
        let kept = spare.pieces().iter().map(Vec::len).sum::<usize>();
        assert!(kept <= KEPT && kept + PIECE + ALIGNMENT > KEPT);
        spare.forget();
        assert!(spare.pieces().is_empty());
        drop(spare.take(1));
        assert!(spare.pieces().is_empty(), "the allocator keeps small ones");
    }
}
