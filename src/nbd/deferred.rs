//! The requests of one connection that other threads deal with: its own goes on to the next ones meanwhile, and answers
//! each as it is done.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bell::Bell;
use super::latch::Latch;
use super::protocol::Request;
use super::ring::Ring;
use super::served::Served;
use super::transmission::held_by;
use super::work::{Outcome, Work, perform};
use crate::config::InFlight;

/// With so many bytes a device has enough to do; more of them would only wait.
const ENOUGH: u64 = 4 << 20;

/// A request whose work is done.
pub(super) struct Done {
    pub request: Request,
    pub outcome: Outcome,
}

/// What of a connection is with other threads.
pub(super) struct Deferred {
    served: Arc<Served>,
    halt: Arc<Latch>,
    inbox: Arc<Inbox>,
    /// Of a device that is read past the page cache, where the kernel gives one.
    ring: Option<Ring>,
    /// What is not taken back yet.
    held: InFlight,
}

struct Inbox {
    done: Mutex<Vec<Done>>,
    bell: Arc<Bell>,
}

impl Deferred {
    /// Nothing yet; the bell rings when something is done.
    pub fn new(bell: Arc<Bell>, served: &Arc<Served>, halt: &Arc<Latch>) -> Self {
        let ring = served.backend.is_direct().then(|| Ring::new(served)).and_then(|ring| {
            ring.inspect_err(|error| tracing::debug!(%error, "no io_uring: threads read past the page cache")).ok()
        });
        let inbox = Arc::new(Inbox { done: Mutex::default(), bell });
        Self { served: Arc::clone(served), halt: Arc::clone(halt), inbox, ring, held: InFlight::default() }
    }

    /// How many requests are not taken back yet.
    pub fn pending(&self) -> u64 {
        self.held.requests
    }

    /// Whether no more should be taken before something is done.
    pub fn is_enough(&self) -> bool {
        self.held.bytes >= ENOUGH
    }

    /// What they hold.
    pub fn held(&self) -> InFlight {
        self.held
    }

    /// Has the work of a request done by the kernel or another thread; by this one where there is none to be had.
    pub fn submit(&mut self, request: Request, work: Work) {
        self.held.requests += 1;
        self.held.bytes += held_by(&request);
        let left = match &mut self.ring {
            Some(ring) => ring.queue(&request, work).err(),
            None => Some(work),
        };
        if let Some(work) = left {
            self.have_done(request, work);
        }
    }

    fn have_done(&self, request: Request, work: Work) {
        let (device, halt, inbox) = (Arc::clone(&self.served), Arc::clone(&self.halt), Arc::clone(&self.inbox));
        let work = move || {
            let outcome = perform(&device, &halt, &request, work);
            // Whoever finds no request pending finds the export unused.
            drop(device);
            inbox.put(Done { request, outcome });
        };
        if let Err(work) = self.served.workers.submit(Box::new(work)) {
            work();
        }
    }

    /// Begins all that was submitted.
    pub fn begin(&mut self) -> io::Result<()> {
        self.ring.as_mut().map_or(Ok(()), Ring::hand_over)
    }

    /// Readable when something is done, beside the bell.
    pub fn ring(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(Ring::as_fd)
    }

    /// What is done by now.
    pub fn take(&mut self) -> io::Result<Vec<Done>> {
        if self.pending() == 0 {
            return Ok(Vec::new());
        }
        let from_ring = self.ring.as_mut().map_or(Ok(Vec::new()), Ring::take)?;
        let mut done = std::mem::take(&mut *self.inbox.done.lock().unwrap_or_else(PoisonError::into_inner));
        for ended in from_ring {
            match ended {
                Ok(ended) => done.push(ended),
                Err((request, work)) => self.have_done(request, work),
            }
        }
        for Done { request, .. } in &done {
            self.held.requests -= 1;
            self.held.bytes -= held_by(request);
        }
        Ok(done)
    }

    /// Waits until something is done; nothing where nothing is pending.
    pub fn wait(&mut self) -> io::Result<Vec<Done>> {
        self.begin()?;
        loop {
            let done = self.take()?;
            if self.pending() == 0 || !done.is_empty() {
                return Ok(done);
            }
            self.sleep()?;
        }
    }

    /// Waits until the bell is rung, not where it was since the last look, or the kernel has done something.
    fn sleep(&self) -> io::Result<()> {
        let bell = &self.inbox.bell;
        if bell.lie_down() {
            let sources = [bell.as_fd(), self.ring().unwrap_or(bell.as_fd())];
            let mut sources = sources.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let polled = poll(&mut sources, PollTimeout::NONE);
            bell.get_up(polled.is_ok() && sources[0].any() == Some(true));
            polled.or_else(|error| if error == Errno::EINTR { Ok(0) } else { Err(error) })?;
        }
        Ok(())
    }
}

impl Inbox {
    fn put(&self, done: Done) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.bell.ring();
    }
}
