//! Durations as people type them: `30s`, `1h30m`, `400d`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use crate::model::printable;

/// A duration that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is not a duration: write a number and s, m, h or d, such as 30s or 1h30m; without a unit it is seconds"
)]
pub struct DurationError(String);

/// Reads a duration: numbers with units (a day is 24 hours), or a bare integer of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let seconds = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let spelled = || {
        let span: Span = text.parse().ok()?;
        span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.try_into().ok()
    };
    seconds.map(Duration::from_secs).or_else(spelled).ok_or_else(|| DurationError(printable(text)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("30", 30),
            ("0", 0),
            ("30s", 30),
            ("5m", 300),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("2 hours", 7200),
            ("400d", 400 * 86_400),
            ("1w", 7 * 86_400),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            " ",
            "s",
            "-5m",
            "5m ago",
            "5 parsecs",
            "+5",
            "1.5.5s",
            "99999999999999999999",
            "1mo",
            "1y",
            "ten\u{1b}",
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains("is not a duration: write a number"), "{error}");
            assert!(!error.contains('\u{1b}'));
        }
    }
}
