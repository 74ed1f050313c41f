//! Lets the requests of busy clients gather, as a network card moderates its interrupts: whoever looks for requests as
//! fast as it can finds one or two each time, and each look and each send costs as much as for twenty.
//!
//! What that gives depends on the clients, so it is tried and measured: the threads of an export's connections rest a
//! moment before each look, and a longer one, only while the requests come no slower for it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests are counted and timed so many at a time.
const WINDOW: u32 = 512;
/// Rests are so many of these; with what the kernel adds to it, one is as long as some ten requests of a busy client take.
const STEP: Duration = Duration::from_micros(10);
/// The longest rest in steps: a bad moment in which longer ones do not seem slower is not to cost much.
const LONGEST: u32 = 3;
/// Rests become longer by a step after so many windows.
const LENGTHENED_EVERY: u32 = 8;
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
    /// Of a rest; 0 without rests.
    steps: u32,
    /// So many steps are tried at most, until it is measured again what a window without rests takes.
    most: u32,
    /// How many steps were no slower when it was measured last.
    good: u32,
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
        Self(Mutex::new(Window {
            since: Instant::now(),
            requests: 0,
            looks: 0,
            steps: 0,
            most: 0,
            good: 0,
            without: Duration::ZERO,
            slow: 0,
            left: 0,
            failed: 0,
        }))
    }

    /// A connection has served the requests that it found when it looked last, and looks for more: how long it should
    /// rest before, if it should.
    pub fn look(&self, requests: u32) -> Option<Duration> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.steps > 0 && window.since.elapsed() >= BUSY {
            window.calm();
        }
        window.looks += 1;
        window.requests += requests;
        if window.requests >= WINDOW {
            window.end();
        }
        (window.steps > 0).then(|| STEP * window.steps)
    }
}

impl Window {
    /// The clients are not busy any more, or send larger requests.
    fn calm(&mut self) {
        (self.good, self.steps, self.left) = (self.steps, 0, 0);
        (self.since, self.requests, self.looks) = (Instant::now(), 0, 0);
    }

    fn end(&mut self) {
        let now = Instant::now();
        let took = (now - self.since) * WINDOW / self.requests;
        let has_company = self.looks < self.requests - self.requests / COMPANY;
        let are_few = self.looks > self.requests / MANY;
        (self.since, self.requests, self.looks) = (now, 0, 0);
        self.left = self.left.saturating_sub(1);
        if self.steps > 0 {
            self.judge(took);
            return;
        }
        if took >= BUSY {
            return;
        }
        self.without = if self.without.is_zero() { took } else { (self.without + took) / 2 };
        if self.left == 0 && has_company && are_few {
            (self.steps, self.most, self.slow, self.left) = (self.good.max(1), LONGEST, 0, MEASURED_EVERY);
        }
    }

    fn judge(&mut self, took: Duration) {
        self.slow = if took > self.without + self.without / TOLERANCE { self.slow + 1 } else { 0 };
        if self.slow == SLOW {
            self.shorten();
        } else if self.left == 0 {
            (self.good, self.steps, self.failed) = (self.steps, 0, 0);
        } else if self.slow == 0 && self.left.is_multiple_of(LENGTHENED_EVERY) && self.steps < self.most {
            self.steps += 1;
        }
    }

    fn shorten(&mut self) {
        self.steps -= 1;
        (self.most, self.good, self.slow) = (self.steps, self.steps, 0);
        if self.steps == 0 {
            self.failed = (4 * self.failed).clamp(4, LONGEST_WITHOUT);
            self.left = self.failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many windows of a client that sends so many requests a look, each of which takes so long: steps at their ends.
    fn windows(gather: &Gather, count: u32, at_a_look: u32, each: Duration) -> Vec<u32> {
        let window = || {
            gather.0.lock().unwrap_or_else(PoisonError::into_inner).since = Instant::now() - each * WINDOW;
            let rest = (0..WINDOW / at_a_look).fold(None, |_, _| gather.look(at_a_look)).unwrap_or_default();
            (rest.as_micros() / STEP.as_micros()) as u32
        };
        (0..count).map(|_| window()).collect()
    }

    const FAST: Duration = Duration::from_micros(8);

    #[test]
    fn only_busy_clients_that_do_not_wait_for_each_answer_are_let_gather() {
        for (at_a_look, each) in [(1, FAST), (16, FAST), (2, 3 * FAST)] {
            assert_eq!(windows(&Gather::new(), 3, at_a_look, each), [0; 3]);
        }
        assert_eq!(windows(&Gather::new(), 2, 2, FAST), [1; 2]);
    }

    #[test]
    fn a_pause_of_the_clients_makes_no_later_window_look_fast() {
        let gather = Gather::new();
        assert_eq!(windows(&gather, 1, 2, 100 * FAST), [0]);
        assert_eq!(windows(&gather, 1, 2, FAST), [1]);
        assert_eq!(windows(&gather, SLOW, 16, 2 * FAST).last(), Some(&0));
    }

    #[test]
    fn rests_last_while_nothing_is_slower_for_them() {
        let gather = Gather::new();
        let slow = |count| windows(&gather, count, 16, 2 * FAST);
        assert_eq!(windows(&gather, 1, 2, FAST), [1]);
        assert_eq!(slow(SLOW - 1).last(), Some(&1));
        assert_eq!(windows(&gather, 1, 2, FAST), [1]);
        assert_eq!(slow(SLOW).last(), Some(&0));
        let waits = windows(&gather, 8, 2, FAST).iter().position(|steps| *steps > 0);
        assert_eq!(waits, Some(3), "another trial after a while");
        assert_eq!(slow(SLOW).last(), Some(&0));
        let waits = windows(&gather, 32, 2, FAST).iter().position(|steps| *steps > 0);
        assert_eq!(waits, Some(15), "the next one later");
        assert_eq!(windows(&gather, MEASURED_EVERY + 1, 2, FAST).iter().filter(|steps| **steps == 0).count(), 1);
    }

    #[test]
    fn clients_that_are_busy_no_more_are_not_waited_for() {
        let gather = Gather::new();
        assert_eq!(windows(&gather, 2, 2, FAST), [1; 2]);
        gather.0.lock().unwrap_or_else(PoisonError::into_inner).since = Instant::now() - BUSY;
        assert_eq!(gather.look(1), None);
        assert_eq!(windows(&gather, 1, 2, FAST), [1], "until they are busy again");
    }

    #[test]
    fn rests_are_as_long_as_is_no_slower() {
        let gather = Gather::new();
        assert_eq!(windows(&gather, 1 + 2 * LENGTHENED_EVERY, 2, FAST).last(), Some(&LONGEST));
        assert_eq!(windows(&gather, SLOW, 16, 2 * FAST).last(), Some(&(LONGEST - 1)));
        let later = windows(&gather, MEASURED_EVERY, 2, FAST);
        let measured = later.iter().position(|steps| *steps == 0).unwrap_or(0);
        assert!(measured > 0 && later[..measured].iter().all(|steps| *steps == LONGEST - 1), "{later:?}");
        assert_eq!(later[measured + 1..][..=LENGTHENED_EVERY as usize].iter().max(), Some(&LONGEST), "tried again");
    }
}
