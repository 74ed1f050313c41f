//! The reads of a connection that go past the page cache, by io_uring(7): one system call hands over all that have come,
//! and no thread waits for the device.
//!
//! A fast way and nothing more: what it cannot take, and what does not come back whole, is left to the workers. Writes
//! are theirs too: a write holds a lock until it is done, and what is done here is found out only once the client has
//! taken its answers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};

use super::deferred::Done;
use super::memory::Aligned;
use super::protocol::{Extent, Request};
use super::served::Served;
use super::work::{Outcome, Work};

/// So many reads are with the kernel at most.
const MOST: u32 = 128;

/// Before the next try, where the kernel has no memory to take them.
const PAUSE: Duration = Duration::from_millis(1);

/// The reads of one connection that are with the kernel.
pub(super) struct Ring {
    ring: IoUring,
    served: Arc<Served>,
    /// By their number, which the kernel gives back.
    reads: Vec<Option<Read>>,
    free: Vec<usize>,
    /// How many are queued, and not with the kernel yet.
    queued: usize,
}

struct Read {
    request: Request,
    parts: Vec<Extent>,
    bytes: Aligned,
}

impl Ring {
    /// For the reads of the thread that asks for it, and no other.
    ///
    /// # Errors
    /// Where the kernel has none, or is told to give none.
    pub fn new(served: &Arc<Served>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(MOST)
            // Linux before 6.0 has not all of that, which only makes it faster.
            .or_else(|_| IoUring::builder().dontfork().build(MOST))?;
        let (reads, free) = ((0..MOST).map(|_| None).collect(), (0..MOST as usize).collect());
        Ok(Self { ring, served: Arc::clone(served), reads, free, queued: 0 })
    }

    /// Queues the work of a request; gives it back where it is not for here.
    pub fn queue(&mut self, request: &Request, work: Work) -> Result<(), Work> {
        let Work::Read(parts) = work else { return Err(work) };
        let (file, number) = match (self.served.backend.past_cache(request.offset, request.length), self.free.pop()) {
            (Some(file), Some(number)) if parts.iter().all(|part| !part.hole) => (types::Fd(file.as_raw_fd()), number),
            (_, number) => {
                self.free.extend(number);
                return Err(Work::Read(parts));
            }
        };
        let mut bytes = self.served.spare.take(request.length as usize);
        let memory = bytes.bytes();
        let entry = opcode::Read::new(file, memory.as_mut_ptr(), memory.len() as u32).offset(request.offset);
        let entry = entry.build().user_data(number as u64);
        self.reads[number] = Some(Read { request: *request, parts, bytes });
        #[expect(unsafe_code, reason = "the kernel writes to memory that is named by an address")]
        // SAFETY: the memory stays where it is in `reads`, which nobody touches, until the kernel has said that it is done
        // with it, also where this is dropped; the file is open as long as `served` is.
        let queued = unsafe { self.ring.submission().push(&entry) };
        match queued {
            Ok(()) => {
                self.queued += 1;
                Ok(())
            }
            Err(_) => Err(self.free_read(number).map_or(Work::Rest, |read| Work::Read(read.parts))),
        }
    }

    /// Hands what is queued over to the kernel.
    pub fn hand_over(&mut self) -> io::Result<()> {
        while self.queued > 0 {
            self.enter(0)?;
        }
        Ok(())
    }

    /// What is done by now, or else is to be done in another way.
    pub fn take(&mut self) -> io::Result<Vec<Result<Done, (Request, Work)>>> {
        if self.ring.submission().taskrun() {
            self.enter(0)?;
        }
        let ended: Vec<_> = self.ring.completion().map(|entry| (entry.user_data() as usize, entry.result())).collect();
        Ok(ended.into_iter().filter_map(|(number, result)| self.end(number, result)).collect())
    }

    fn end(&mut self, number: usize, result: i32) -> Option<Result<Done, (Request, Work)>> {
        let Read { request, parts, bytes } = self.free_read(number)?;
        let outcome = match u32::try_from(result) {
            Ok(count) if u64::from(count) == request.length => Ok((bytes, parts)),
            Err(_) if !is_passing(-result) => Err(self.served.fault(&io::Error::from_raw_os_error(-result))),
            _ => return Some(Err((request, Work::Read(parts)))),
        };
        Some(Ok(Done { request, outcome: Outcome::Read(outcome) }))
    }

    fn free_read(&mut self, number: usize) -> Option<Read> {
        let read = self.reads.get_mut(number)?.take()?;
        self.free.push(number);
        Some(read)
    }

    fn enter(&mut self, wanted: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wanted) {
            Ok(count) => self.queued -= count.min(self.queued),
            Err(error) if is_passing(error.raw_os_error().unwrap_or(0)) => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl AsFd for Ring {
    /// Readable when something is done.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.free.len() < self.reads.len() {
            if self.enter(1).and_then(|()| self.take()).is_err() {
                // The kernel may still write to them.
                std::mem::forget(std::mem::take(&mut self.reads));
                return;
            }
        }
    }
}

/// Whether the next try may go better.
fn is_passing(errno: i32) -> bool {
    matches!(errno, libc::EINTR | libc::EAGAIN | libc::EBUSY)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::fs::FileExt;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::nbd::protocol::command;
    use crate::nbd::tests::{Place, noise};

    fn read(cookie: u64, offset: u64, length: u64) -> (Request, Work) {
        let request = Request { flags: 0, command: command::READ, cookie, offset, length, asked_from: offset };
        (request, Work::Read(vec![Extent { length, hole: false }]))
    }

    async fn ring() -> (Place, Ring, Vec<u8>) {
        let place = Place::direct().await;
        let content = noise(1, 1 << 20);
        let spec = place.device("disk", 1 << 20);
        spec.file.write_all_at(&content, 0).unwrap();
        let served = Arc::new(Served::new(spec, true, Default::default()).unwrap());
        (place, Ring::new(&served).unwrap(), content)
    }

    #[tokio::test]
    async fn reads_come_back_with_their_bytes() {
        let (_place, mut ring, content) = ring().await;
        let asked: Vec<_> = (0..u64::from(MOST)).map(|n| read(n, n * 4096, 8192)).collect();
        for (request, work) in asked {
            assert!(ring.queue(&request, work).is_ok());
        }
        let (request, work) = read(0, 0, 4096);
        assert!(ring.queue(&request, work).is_err(), "no more than it has room for");
        ring.hand_over().unwrap();
        let mut seen = vec![false; MOST as usize];
        while seen.contains(&false) {
            poll(&mut [PollFd::new(ring.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000u16)).unwrap();
            for ended in ring.take().unwrap() {
                let Ok(Done { request, outcome: Outcome::Read(Ok((mut bytes, _))) }) = ended else {
                    panic!("no bytes")
                };
                let start = request.offset as usize;
                assert!(bytes.bytes() == &content[start..start + 8192]);
                assert!(!std::mem::replace(&mut seen[request.cookie as usize], true));
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_whole_is_left_to_others() {
        let (_place, mut ring, _) = ring().await;
        for (offset, length) in [(1, 4096), (4096, 100), (0, 4097)] {
            let (request, work) = read(1, offset, length);
            assert!(ring.queue(&request, work).is_err());
        }
        let (request, _) = read(1, 0, 4096);
        assert!(ring.queue(&request, Work::Read(vec![Extent { length: 4096, hole: true }])).is_err());
        assert!(ring.queue(&request, Work::Rest).is_err());
        // The file has become shorter than what is served of it.
        ring.served.backend.past_cache(0, 4096).unwrap().set_len(4096).unwrap();
        let (request, work) = read(1, 0, 8192);
        assert!(ring.queue(&request, work).is_ok());
        ring.enter(1).unwrap();
        assert!(matches!(ring.take().unwrap().as_slice(), [Err((request, Work::Read(_)))] if request.length == 8192));
    }

    #[tokio::test]
    async fn nothing_is_with_the_kernel_once_it_is_dropped() {
        let (_place, mut ring, _) = ring().await;
        for number in 0..u64::from(MOST) {
            let (request, work) = read(number, 0, 1 << 20);
            assert!(ring.queue(&request, work).is_ok());
        }
        ring.hand_over().unwrap();
        let served = Arc::downgrade(&ring.served);
        drop(ring);
        assert!(served.upgrade().is_none());
    }
}
