//! The end of the time in which an operation may begin, by two clocks: what has passed by either is over.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Until then an operation may begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// Outlives a restart, and tells of the time for which the machine was suspended.
    wall: Timestamp,
    /// Cannot be set back.
    monotonic: Instant,
}

impl Deadline {
    /// The deadline that a row has.
    pub fn at(wall: Timestamp) -> Self {
        let now = Instant::now();
        let left = Duration::try_from(wall.duration_since(Timestamp::now())).unwrap_or_default();
        Self { wall, monotonic: now.checked_add(left).unwrap_or(now) }
    }

    /// How long it is until then; none where it has passed.
    pub fn left(self) -> Option<Duration> {
        let wall = Duration::try_from(self.wall.duration_since(Timestamp::now())).unwrap_or_default();
        let left = wall.min(self.monotonic.saturating_duration_since(Instant::now()));
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn in_seconds(seconds: i64) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn either_clock_ends_it() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        assert!(Deadline::at(in_seconds(60)).left().unwrap() <= minute);
        assert_eq!(Deadline::at(in_seconds(-60)).left(), None);
        let set_back = Deadline { wall: in_seconds(86_400), monotonic: now + minute };
        assert!(set_back.left().unwrap() <= minute);
        assert_eq!(Deadline { wall: in_seconds(86_400), monotonic: now }.left(), None);
        assert_eq!(
            Deadline { wall: in_seconds(-1), monotonic: now + minute }.left(),
            None,
            "set forward, or suspended"
        );
    }
}
