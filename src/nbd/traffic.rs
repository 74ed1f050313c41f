//! What an export has done for its clients, counted.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

use crate::api;

/// The counters of one export; all of this process's time.
#[derive(Default)]
pub(super) struct Traffic {
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    /// Microseconds since the epoch; 0 before the first.
    last_flush: AtomicI64,
    /// Of the last second.
    requests_per_second: AtomicU64,
    /// How many requests there were a second ago.
    sampled: AtomicU64,
}

impl Traffic {
    /// Counts a request, and whether it was refused or failed.
    pub fn count_request(&self, failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts bytes that clients were sent, or holes that they were told of.
    pub fn count_read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that clients wrote or zeroed.
    pub fn count_written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that all is on stable storage now.
    pub fn note_flush(&self) {
        self.last_flush.store(Timestamp::now().as_microsecond(), Ordering::Relaxed);
    }

    /// What was moved so far.
    pub fn moved(&self) -> Moved {
        let [read, written, requests, errors] = [&self.read_bytes, &self.written_bytes, &self.requests, &self.errors]
            .map(|counter| counter.load(Ordering::Relaxed));
        Moved { read, written, requests, errors }
    }

    /// Takes the requests of the last second; to be called each second.
    pub fn sample(&self) {
        let requests = self.requests.load(Ordering::Relaxed);
        let before = self.sampled.swap(requests, Ordering::Relaxed);
        self.requests_per_second.store(requests.saturating_sub(before), Ordering::Relaxed);
    }

    /// As everybody sees it.
    pub fn shown(&self) -> api::Traffic {
        let last_flush = self.last_flush.load(Ordering::Relaxed);
        api::Traffic {
            requests: self.requests.load(Ordering::Relaxed),
            requests_per_second: self.requests_per_second.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_flush: Timestamp::from_microsecond(last_flush).ok().filter(|_| last_flush != 0),
        }
    }
}

/// What clients of one export or of all have moved: bytes, and the requests for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Read.
    pub read: u64,
    /// Written or zeroed.
    pub written: u64,
    /// Requests.
    pub requests: u64,
    /// Those that were refused or failed.
    pub errors: u64,
}

impl Moved {
    /// The sum of two.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            read: self.read.saturating_add(other.read),
            written: self.written.saturating_add(other.written),
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let traffic = Traffic::default();
        (0..5).for_each(|n| traffic.count_request(n == 0));
        traffic.sample();
        let shown = traffic.shown();
        assert_eq!((shown.requests, shown.errors, shown.requests_per_second), (5, 1, 5));
        traffic.sample();
        assert_eq!(traffic.shown().requests_per_second, 0);
        assert_eq!(traffic.shown().last_flush, None);
    }
}
