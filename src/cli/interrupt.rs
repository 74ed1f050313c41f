//! Ctrl-C during a wait, as something that can be waited for beside a socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Kind, Result};

/// While it lives, Ctrl-C does not end the process but arrives here.
pub struct Interrupt {
    signals: SigSet,
    arrived: SignalFd,
}

impl Interrupt {
    /// Takes SIGINT. Threads that are started later inherit that; the ones before must have been none.
    ///
    /// # Errors
    /// `internal` where the kernel refuses.
    pub fn listen() -> Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        let take = || {
            signals.thread_block()?;
            SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        };
        let arrived = take().map_err(|e| Error::new(Kind::Internal, format_args!("cannot listen for Ctrl-C: {e}")))?;
        Ok(Self { signals, arrived })
    }

    /// Whether Ctrl-C was pressed since.
    pub fn arrived(&self) -> bool {
        matches!(self.arrived.read_signal(), Ok(Some(_)))
    }

    /// Waits for it.
    pub fn arrives_within(&self, span: Duration) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let span = PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX);
        // Another signal may end the wait early, which is as good.
        let _ = poll(&mut fds, span);
        self.arrived()
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // It can only fail for a signal that does not exist.
        let _ = self.signals.thread_unblock();
    }
}
