//! Threads that do what would keep a connection's own thread waiting for the device.
//!
//! Each export has its own, so that one whose device does not answer holds up nobody else. They come with the work and
//! leave when there is none. What waits for them is bounded by what clients may have in flight.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So much work is done at a time.
const THREADS: usize = 16;
/// After so long without work a thread leaves.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of a thread's stack: a few frames, and no buffers.
const STACK: usize = 256 << 10;

/// Something to be done, which does not panic.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// The threads of one export.
#[derive(Default)]
pub(super) struct Workers {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    come: Condvar,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    threads: usize,
    /// How many threads wait for work.
    idle: usize,
    /// A thread is on its way to the work; it wakes the next one. One that need not wait does more of it meanwhile.
    waking: bool,
    closed: bool,
}

impl Workers {
    /// Has something done, after all that waits already; gives it back where there are no threads to be had.
    pub fn submit(&self, work: Work) -> Result<(), Work> {
        let mut queue = self.shared.queue();
        queue.work.push_back(work);
        self.shared.wake(&mut queue);
        match queue.threads {
            0 => queue.work.pop_back().map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.come.notify_all();
    }
}

impl Shared {
    /// Sends one more thread to the work, unless one is on its way.
    fn wake(self: &Arc<Self>, queue: &mut Queue) {
        if queue.waking {
            return;
        }
        if queue.idle > 0 {
            queue.waking = true;
            self.come.notify_one();
        } else if queue.threads < THREADS {
            let shared = Arc::clone(self);
            let thread = std::thread::Builder::new().name("nbd-device".to_owned()).stack_size(STACK);
            match thread.spawn(move || shared.work()) {
                Ok(_) => (queue.threads, queue.waking) = (queue.threads + 1, true),
                Err(error) => tracing::warn!("an NBD export has {} threads and gets no more: {error}", queue.threads),
            }
        }
    }

    /// A thread's life.
    fn work(self: Arc<Self>) {
        let mut queue = self.queue();
        let mut came = true;
        loop {
            if came {
                (queue.waking, came) = (false, false);
            }
            if let Some(work) = queue.work.pop_front() {
                if !queue.work.is_empty() {
                    self.wake(&mut queue);
                }
                drop(queue);
                work();
                queue = self.queue();
                continue;
            }
            if queue.closed {
                break;
            }
            queue.idle += 1;
            let (again, waited) = self.come.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            (queue, came) = (again, true);
            queue.idle -= 1;
            if waited.timed_out() && queue.work.is_empty() {
                queue.waking = false;
                break;
            }
        }
        queue.threads -= 1;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_waits_holds_up_nothing_but_itself() {
        let workers = Workers::default();
        let (release, held) = mpsc::channel::<()>();
        let (say, said) = mpsc::channel();
        let first = say.clone();
        assert!(workers.submit(Box::new(move || held.recv().map_or((), |()| first.send(0).unwrap()))).is_ok());
        for number in 1..100 {
            let say = say.clone();
            assert!(workers.submit(Box::new(move || say.send(number).unwrap())).is_ok());
        }
        let next = || said.recv_timeout(Duration::from_secs(20)).unwrap();
        let mut numbers: Vec<_> = (1..100).map(|_| next()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..100).collect::<Vec<_>>());
        release.send(()).unwrap();
        assert_eq!(next(), 0);
        assert!(workers.shared.queue().threads <= THREADS);
    }

    #[test]
    fn the_threads_leave_with_their_export() {
        let workers = Workers::default();
        let (say, said) = mpsc::channel();
        assert!(workers.submit(Box::new(move || say.send(()).unwrap())).is_ok());
        said.recv_timeout(Duration::from_secs(20)).unwrap();
        let shared = Arc::downgrade(&workers.shared);
        drop(workers);
        while shared.upgrade().is_some() {
            std::thread::yield_now();
        }
    }
}
