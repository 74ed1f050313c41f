//! Lets the requests of busy clients gather, as a network card moderates its interrupts: whoever looks for requests as
//! fast as it can finds one or two each time, and each look and each send costs as much as for twenty.
//!
//! What that gives depends on the clients, so it is tried and measured: the threads of an export's connections rest a
//! moment before each look only while the requests come no slower for it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests are counted and timed so many at a time.
const WINDOW: u32 = 512;
/// A rest; with what the kernel adds to it, as long as some ten requests of a busy client take.
const REST: Duration = Duration::from_micros(10);
/// Clients whose requests come less often are not busy.
const BUSY: Duration = Duration::from_micros(20 * WINDOW as u64);
/// With so many requests at a look there is nothing to gain.
const MANY: u32 = 4;
/// One in so many requests has company where clients do not wait for each answer.
const COMPANY: u32 = 16;
/// With rests it may take longer by one part in so many, which is within what it varies.
const TOLERANCE: u32 = 16;
/// So many windows in a row that took longer are no chance any more.
const SLOW: u32 = 3;
/// After so many windows with rests one without shows again what they give: that may have been measured in a bad moment.
const MEASURED_EVERY: u32 = 64;
/// The longest time without a trial, in windows.
const LONGEST_WITHOUT: u32 = 256;

/// How the requests of an export have come.
pub(super) struct Gather(Mutex<Window>);

struct Window {
    since: Instant,
    requests: u32,
    looks: u32,
    rests: bool,
    /// How long a busy window without rests takes, of late.
    without: Duration,
    /// How many windows with rests have taken longer, one after the other.
    slow: u32,
    /// Windows until the other way is tried.
    left: u32,
    /// So many windows were without a trial after the last one that failed.
    failed: u32,
}

impl Gather {
    /// Nothing has come yet.
    pub fn new() -> Self {
        let (since, without) = (Instant::now(), Duration::ZERO);
        Self(Mutex::new(Window { since, requests: 0, looks: 0, rests: false, without, slow: 0, left: 0, failed: 0 }))
    }

    /// A connection has served the requests that it found when it looked last, and looks for more: how long it should
    /// rest before, if it should.
    pub fn look(&self, requests: u32) -> Option<Duration> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.looks += 1;
        window.requests += requests;
        if window.requests >= WINDOW {
            window.end();
        }
        window.rests.then_some(REST)
    }
}

impl Window {
    fn end(&mut self) {
        let now = Instant::now();
        let took = (now - self.since) * WINDOW / self.requests;
        let has_company = self.looks < self.requests - self.requests / COMPANY;
        let are_few = self.looks > self.requests / MANY;
        (self.since, self.requests, self.looks) = (now, 0, 0);
        self.left = self.left.saturating_sub(1);
        if self.rests {
            self.judge(took);
            return;
        }
        if took >= BUSY {
            return;
        }
        self.without = if self.without.is_zero() { took } else { (self.without + took) / 2 };
        if self.left == 0 && has_company && are_few {
            (self.rests, self.slow, self.left) = (true, 0, MEASURED_EVERY);
        }
    }

    fn judge(&mut self, took: Duration) {
        self.slow = if took > self.without + self.without / TOLERANCE { self.slow + 1 } else { 0 };
        if self.slow == SLOW {
            self.failed = (4 * self.failed).clamp(4, LONGEST_WITHOUT);
            (self.rests, self.left) = (false, self.failed);
        } else if self.left == 0 {
            (self.rests, self.failed) = (false, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many windows of a client that sends so many requests a look, each of which takes so long.
    fn windows(gather: &Gather, count: u32, at_a_look: u32, each: Duration) -> Vec<bool> {
        let window = || {
            gather.0.lock().unwrap_or_else(PoisonError::into_inner).since = Instant::now() - each * WINDOW;
            (0..WINDOW / at_a_look).fold(false, |_, _| gather.look(at_a_look).is_some())
        };
        (0..count).map(|_| window()).collect()
    }

    const FAST: Duration = Duration::from_micros(8);

    #[test]
    fn only_busy_clients_that_do_not_wait_for_each_answer_are_let_gather() {
        for (at_a_look, each) in [(1, FAST), (16, FAST), (2, 3 * FAST)] {
            assert!(!windows(&Gather::new(), 3, at_a_look, each).contains(&true));
        }
        assert_eq!(windows(&Gather::new(), 2, 2, FAST), [true; 2]);
    }

    #[test]
    fn a_pause_of_the_clients_makes_no_later_window_look_fast() {
        let gather = Gather::new();
        assert_eq!(windows(&gather, 1, 2, 100 * FAST), [false]);
        assert_eq!(windows(&gather, 1, 2, FAST), [true]);
        assert_eq!(windows(&gather, SLOW, 16, 2 * FAST).last(), Some(&false));
    }

    #[test]
    fn rests_last_while_nothing_is_slower_for_them() {
        let gather = Gather::new();
        let slow = |count| windows(&gather, count, 16, 2 * FAST);
        assert_eq!(windows(&gather, 1, 2, FAST), [true]);
        assert_eq!(slow(SLOW - 1).last(), Some(&true));
        assert_eq!(windows(&gather, 1, 2, FAST), [true]);
        assert_eq!(slow(SLOW).last(), Some(&false));
        let waits = windows(&gather, 8, 2, FAST).iter().position(|rests| *rests);
        assert_eq!(waits, Some(3), "another trial after a while");
        assert_eq!(slow(SLOW).last(), Some(&false));
        let waits = windows(&gather, 32, 2, FAST).iter().position(|rests| *rests);
        assert_eq!(waits, Some(15), "the next one later");
        assert_eq!(windows(&gather, MEASURED_EVERY + 1, 2, FAST).iter().filter(|rests| !**rests).count(), 1);
    }
}
