//! Lengths of time as people type them.

use std::time::Duration;

use crate::model::printable;

/// A length of time that cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum DurationError {
    /// Not numbers with units.
    #[error("\"{0}\" is not a length of time: write such as 30s, 10m or 1h30m (a bare number is seconds)")]
    Malformed(String),
    /// Over 2^64 seconds.
    #[error("\"{0}\" is too long")]
    TooLong(String),
    /// Zero where some time is needed.
    #[error("it must be at least 1s")]
    Zero,
}

/// Reads `30s`, `10m`, `1h30m`, `2d`; a bare number is seconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(printable(text));
    let too_long = || DurationError::TooLong(printable(text));
    let bare = text.ends_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit());
    let with_unit = if bare { format!("{text}s") } else { text.to_owned() };
    let mut parts = with_unit.split_inclusive(|c: char| !c.is_ascii_digit()).peekable();
    parts.peek().ok_or_else(malformed)?;
    let mut total: u64 = 0;
    let mut larger = u64::MAX;
    for part in parts {
        let (number, unit) = split(part).filter(|(_, unit)| *unit < larger).ok_or_else(malformed)?;
        let number: u64 = number.parse().map_err(|_| too_long())?;
        total = number.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(too_long)?;
        larger = unit;
    }
    Ok(Duration::from_secs(total))
}

/// `30s` as its digits, of which there is one at least, and the seconds of its unit.
fn split(part: &str) -> Option<(&str, u64)> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    UNITS
        .into_iter()
        .find_map(|(unit, seconds)| Some((part.strip_suffix(unit)?, seconds)))
        .filter(|(digits, _)| !digits.is_empty())
}

/// As [`parse`], but not zero.
pub fn parse_some(text: &str) -> Result<Duration, DurationError> {
    parse(text).and_then(|length| if length.is_zero() { Err(DurationError::Zero) } else { Ok(length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("1h30m", 5_400), ("2d1s", 172_801), ("45", 45), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "1x", "30m1h", "1m1m", "-5s", "1.5h", "5 m", "1h30", "99999999999999999999s", "1ü"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_some("0"), Err(DurationError::Zero));
    }
}
