//! Moments on the command line: how long ago, or a date and time.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::config::parse_duration;
use crate::error::{Error, Kind};

/// A moment that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("say how long ago (30m, 2h, 7d) or when, in UTC (2026-01-02, 2026-01-02T03:04, 2026-01-02T03:04:05Z)")]
pub struct Unreadable;

/// Reads `2h` as two hours ago, and dates and times as UTC where they do not say otherwise.
pub fn parse(text: &str) -> Result<Timestamp, Unreadable> {
    if let Ok(ago) = parse_duration(text) {
        return before(Timestamp::now(), ago).ok_or(Unreadable);
    }
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let at: DateTime = text.parse().map_err(|_| Unreadable)?;
    TimeZone::UTC.to_timestamp(at).map_err(|_| Unreadable)
}

/// Refuses a span that ends before it begins.
pub fn in_order(since: Option<Timestamp>, until: Option<Timestamp>) -> Result<(), Error> {
    match (since, until) {
        (Some(since), Some(until)) if until < since => {
            Err(Error::new(Kind::Usage, format_args!("--until {until:.0} is before --since {since:.0}")))
        }
        _ => Ok(()),
    }
}

fn before(now: Timestamp, ago: Duration) -> Option<Timestamp> {
    now.checked_sub(ago).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_dates_and_times_are_moments() {
        let now = Timestamp::now();
        assert!(parse("2h").is_ok_and(|at| (7199..=7200).contains(&now.duration_since(at).as_secs())));
        let wanted: Timestamp = "2026-01-02T03:04:00Z".parse().unwrap();
        for text in ["2026-01-02T03:04", "2026-01-02 03:04", "2026-01-02T03:04:00Z", "2026-01-02T04:04:00+01:00"] {
            assert_eq!(parse(text).ok(), Some(wanted), "{text}");
        }
        assert_eq!(parse("2026-01-02").map(|at| at.to_string()).ok().as_deref(), Some("2026-01-02T00:00:00Z"));
        for text in ["", "yesterday", "2h ago", "26-1-2", "99999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
