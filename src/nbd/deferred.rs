//! The requests of one connection that other threads deal with: its own goes on to the next ones meanwhile, and answers
//! each as it is done.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bell::Bell;
use super::protocol::Request;
use super::served::Served;
use super::stream::Latch;
use super::transmission::held_by;
use super::work::{Outcome, Work, perform};
use crate::config::InFlight;

/// A request whose work is done.
pub(super) struct Done {
    pub request: Request,
    pub outcome: Outcome,
}

/// What of a connection is with other threads.
pub(super) struct Deferred {
    inbox: Arc<Inbox>,
    /// What is not taken back yet.
    held: InFlight,
}

struct Inbox {
    done: Mutex<Vec<Done>>,
    bell: Arc<Bell>,
}

impl Deferred {
    /// Nothing yet; the bell rings when something is done.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { inbox: Arc::new(Inbox { done: Mutex::default(), bell }), held: InFlight::default() }
    }

    /// How many requests are not taken back yet.
    pub fn pending(&self) -> u64 {
        self.held.requests
    }

    /// What they hold.
    pub fn held(&self) -> InFlight {
        self.held
    }

    /// Has the work of a request done by another thread; by this one where there is none to be had.
    pub fn submit(&mut self, served: &Arc<Served>, halt: &Arc<Latch>, request: Request, work: Work) {
        let (device, halt, inbox) = (Arc::clone(served), Arc::clone(halt), Arc::clone(&self.inbox));
        self.held.requests += 1;
        self.held.bytes += held_by(&request);
        let work = move || {
            let outcome = perform(&device, &halt, &request, work);
            // Whoever finds no request pending finds the export unused.
            drop(device);
            inbox.put(Done { request, outcome });
        };
        if let Err(work) = served.workers.submit(Box::new(work)) {
            work();
        }
    }

    /// What is done by now.
    pub fn take(&mut self) -> Vec<Done> {
        if self.pending() == 0 {
            return Vec::new();
        }
        let done = std::mem::take(&mut *self.inbox.done.lock().unwrap_or_else(PoisonError::into_inner));
        for Done { request, .. } in &done {
            self.held.requests -= 1;
            self.held.bytes -= held_by(request);
        }
        done
    }

    /// Waits until something is done; nothing where nothing is pending.
    pub fn wait(&mut self) -> io::Result<Vec<Done>> {
        loop {
            let done = self.take();
            if self.pending() == 0 || !done.is_empty() {
                return Ok(done);
            }
            self.inbox.sleep()?;
        }
    }
}

impl Inbox {
    /// Waits until the bell is rung; not where it was since the last look.
    fn sleep(&self) -> io::Result<()> {
        if self.bell.lie_down() {
            let polled = poll(&mut [PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
            self.bell.get_up(polled == Ok(1));
            polled.or_else(|error| if error == Errno::EINTR { Ok(0) } else { Err(error) })?;
        }
        Ok(())
    }

    fn put(&self, done: Done) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.bell.ring();
    }
}
