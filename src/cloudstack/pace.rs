//! How fast CloudStack may be asked, where it limits that (facts sheet, 3.3): what would be turned away waits here.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// One call in so many is left to the account's other clients, and to those of ours that arrive late.
const LEFT: usize = 5;

/// CloudStack's own default, for where it has turned a call away and not told its limit.
const DEFAULT: Limit = Limit { calls: 25, interval: Duration::from_secs(1) };

/// So many calls in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub calls: usize,
    pub interval: Duration,
}

/// The calls of late, as far as a limit counts them.
#[derive(Default)]
pub(super) struct Pace {
    /// Held by whoever is next.
    line: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limit: Option<Limit>,
    made: VecDeque<Instant>,
}

impl Pace {
    /// CloudStack has told its limit, or that it has none.
    pub fn told(&self, limit: Option<Limit>) {
        self.state().limit = limit.filter(|limit| limit.calls > 0);
    }

    /// CloudStack has turned a call away.
    pub fn turned_away(&self) {
        self.state().limit.get_or_insert(DEFAULT);
    }

    /// Waits, in order of coming, until a look is within the limit, and counts it.
    pub async fn look(&self) {
        if self.state().limit.is_none() {
            return;
        }
        let _first = self.line.lock().await;
        loop {
            let Some(free_at) = self.state().count(Instant::now()) else { return };
            sleep_until(free_at).await;
        }
    }

    /// Counts a change, which waits for nobody.
    pub fn change(&self) {
        let mut state = self.state();
        if state.limit.is_some() {
            state.made.push_back(Instant::now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call that is made now; where there is no room for it, when there may be.
    fn count(&mut self, now: Instant) -> Option<Instant> {
        let interval = self.limit.map_or(Duration::ZERO, |limit| limit.interval);
        while self.made.front().is_some_and(|made| *made + interval <= now) {
            self.made.pop_front();
        }
        let ours = self.limit.map_or(usize::MAX, |limit| (limit.calls - limit.calls / LEFT).max(1));
        if self.made.len() >= ours {
            return self.made.front().map(|made| *made + interval);
        }
        self.made.push_back(now);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(state: &mut State, calls: usize, now: Instant) -> usize {
        (0..calls).filter(|_| state.count(now).is_none()).count()
    }

    #[test]
    fn calls_stay_below_the_limit_in_every_interval() {
        let (mut state, began) = (State::default(), Instant::now());
        assert_eq!(counted(&mut state, 100, began), 100, "no limit is known");
        let interval = Duration::from_secs(1);
        let mut state = State { limit: Some(Limit { calls: 10, interval }), ..State::default() };
        state.made.push_back(began);
        assert_eq!(counted(&mut state, 10, began + interval / 2), 7, "a change counts too");
        assert_eq!(
            state.count(began + interval / 2),
            Some(began + interval),
            "when the first of them no longer counts"
        );
        assert_eq!(counted(&mut state, 10, began + interval), 1);
        assert_eq!(counted(&mut state, 10, began + interval * 3 / 2), 7);
    }

    #[tokio::test]
    async fn where_one_was_turned_away_the_usual_limit_holds_until_another_is_told() {
        let pace = Pace::default();
        pace.turned_away();
        assert_eq!(pace.state().limit, Some(DEFAULT));
        pace.told(None);
        pace.look().await;
        assert!(pace.state().made.is_empty(), "without a limit nothing is counted");
    }
}
