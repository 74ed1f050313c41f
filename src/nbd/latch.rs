//! A latch that wakes whoever waits on it beside a socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A condition that becomes true once, and wakes all who wait for it beside a socket.
pub(super) struct Latch {
    raised: AtomicBool,
    event: EventFd,
}

impl Latch {
    /// A latch that is not raised.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { raised: AtomicBool::new(false), event })
    }

    /// Raises it, for ever.
    pub fn raise(&self) {
        // The event's counter is never read, so a write adds 1 and can fail only after 2^64 of them.
        if !self.raised.swap(true, Ordering::SeqCst)
            && let Err(error) = self.event.write(1)
        {
            tracing::error!("NBD clients could not be woken: {error}");
        }
    }

    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Waits until it is raised, or for that long.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)], timeout) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop).map_err(io::Error::from),
            }
        }
    }
}

impl AsFd for Latch {
    /// Readable once it is raised.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
