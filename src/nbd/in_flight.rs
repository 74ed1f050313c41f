//! What is in flight: requests that were taken and are not answered yet, and the bytes that they hold, of one client and
//! of all. Whoever would be beyond a limit waits, with its next request unread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::InFlight;

/// So much may be in flight at a time; what is too large for it may be alone.
pub(super) struct Pool {
    most: InFlight,
    /// Whoever waits longer starves.
    patience: Duration,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    taken: InFlight,
    /// How many wait for room.
    waiting: usize,
    /// When somebody starved last.
    starved: Option<Instant>,
}

impl Pool {
    /// An empty one; whoever waits for room for longer than `patience` starves.
    pub fn new(most: InFlight, patience: Duration) -> Self {
        Self { most, patience, state: Mutex::default(), freed: Condvar::new() }
    }

    /// Whether somebody has waited in vain for too long, and not longer ago than that.
    pub fn has_starved(&self, within: Duration) -> bool {
        self.state().starved.is_some_and(|at| at.elapsed() < within)
    }

    /// What is in flight now.
    pub fn taken(&self) -> InFlight {
        self.state().taken
    }

    /// Takes so much, where there is room for it now or by the end of the wait.
    fn take(&self, wanted: InFlight, wait: Option<Wait>) -> bool {
        let mut state = self.state();
        while !self.has_room(state.taken, wanted) {
            let now = Instant::now();
            let Some(Wait { since, until }) = wait.filter(|wait| now < wait.until) else { return false };
            if now - since >= self.patience {
                state.starved = Some(now);
            }
            state.waiting += 1;
            state = self.freed.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        state.taken.requests += wanted.requests;
        state.taken.bytes += wanted.bytes;
        true
    }

    fn has_room(&self, taken: InFlight, wanted: InFlight) -> bool {
        let fits =
            taken.requests + wanted.requests <= self.most.requests && taken.bytes + wanted.bytes <= self.most.bytes;
        fits || taken == InFlight::default()
    }

    fn give_back(&self, held: InFlight) {
        let mut state = self.state();
        state.taken.requests -= held.requests;
        state.taken.bytes -= held.bytes;
        if state.waiting > 0 {
            self.freed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait for room.
#[derive(Clone, Copy)]
struct Wait {
    since: Instant,
    until: Instant,
}

/// What one connection has in flight.
pub(super) struct Flight {
    client: Arc<Pool>,
    all: Arc<Pool>,
    held: InFlight,
}

impl Flight {
    /// Nothing yet, of a client.
    pub fn new(client: Arc<Pool>, all: Arc<Pool>) -> Self {
        Self { client, all, held: InFlight::default() }
    }

    /// Has one more request in flight, which holds so many bytes, where there is room for it now.
    pub fn take(&mut self, bytes: u64) -> bool {
        self.take_in(bytes, None)
    }

    /// The same, and waits for room, as it has done since then. Whoever waits must hold nothing, or two may wait for each
    /// other.
    pub fn wait_for(&mut self, bytes: u64, since: Instant, limit: Duration) -> bool {
        debug_assert!(self.held == InFlight::default());
        self.take_in(bytes, Some(Wait { since, until: Instant::now() + limit }))
    }

    fn take_in(&mut self, bytes: u64, wait: Option<Wait>) -> bool {
        let wanted = InFlight { requests: 1, bytes };
        if !self.client.take(wanted, wait) {
            return false;
        }
        if !self.all.take(wanted, wait) {
            self.client.give_back(wanted);
            return false;
        }
        self.held.requests += wanted.requests;
        self.held.bytes += wanted.bytes;
        true
    }

    /// All of them are answered.
    pub fn land(&mut self) {
        self.land_but(InFlight::default());
    }

    /// All but so many of them are answered.
    pub fn land_but(&mut self, left: InFlight) {
        let held = std::mem::replace(&mut self.held, left);
        if held != left {
            let landed = InFlight { requests: held.requests - left.requests, bytes: held.bytes - left.bytes };
            self.client.give_back(landed);
            self.all.give_back(landed);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.land();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(requests: u64, bytes: u64) -> Arc<Pool> {
        Arc::new(Pool::new(InFlight { requests, bytes }, Duration::ZERO))
    }

    #[test]
    fn each_limit_holds_for_one_client_and_for_all() {
        let (all, first) = (pool(3, 100), pool(2, 60));
        let flight = |client: &Arc<Pool>| Flight::new(Arc::clone(client), Arc::clone(&all));
        let (mut one, mut two, mut other) = (flight(&first), flight(&first), flight(&pool(2, 60)));
        assert!(one.take(10) && two.take(10));
        assert!(!one.take(0), "a third request of the client");
        two.land();
        assert!(!two.take(51), "more bytes than the client may have");
        assert!(two.take(50) && !other.take(41), "more bytes than all may have");
        assert!(other.take(40) && !other.take(0), "a fourth request of all");
        assert_eq!(all.taken(), InFlight { requests: 3, bytes: 100 });
        drop((one, two, other));
        assert_eq!((all.taken(), first.taken()), (InFlight::default(), InFlight::default()));
    }

    #[test]
    fn what_is_too_large_is_alone() {
        let (all, client) = (pool(9, 100), pool(9, 10));
        let mut flight = Flight::new(Arc::clone(&client), Arc::clone(&all));
        assert!(flight.take(200));
        assert!(!Flight::new(pool(9, 100), Arc::clone(&all)).take(1));
    }

    #[test]
    fn who_waits_goes_on_once_there_is_room() {
        let (all, client) = (pool(1, 1), pool(1, 1));
        let mut first = Flight::new(Arc::clone(&client), Arc::clone(&all));
        assert!(first.take(1));
        std::thread::scope(|scope| {
            let since = Instant::now();
            let mut second = Flight::new(Arc::clone(&client), Arc::clone(&all));
            let waits = scope.spawn(move || second.wait_for(1, since, Duration::from_secs(20)));
            while client.state().waiting == 0 {
                std::thread::yield_now();
            }
            first.land();
            assert!(waits.join().is_ok_and(|taken| taken));
        });
    }
}
