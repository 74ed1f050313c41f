//! Lengths of time on the command line: whole seconds, as on the socket.

use std::time::Duration;

use crate::config::{DurationError, parse_duration};

/// A length of time that will not do.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] DurationError),
    /// Nothing could ever be done in it.
    #[error("it must be longer than 0s")]
    Zero,
}

/// Reads `30s`, `1h30m`; what is left of a second counts as a whole one.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let length = parse_duration(text)?;
    Ok(Duration::from_secs(length.as_secs().saturating_add(u64::from(length.subsec_nanos() > 0))))
}

/// As [`parse`], but not zero.
pub fn parse_some(text: &str) -> Result<Duration, WaitError> {
    let length = parse(text)?;
    if length.is_zero() { Err(WaitError::Zero) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_wait_is_not_none() {
        assert!(matches!(parse("0"), Ok(Duration::ZERO)));
        assert!(matches!(parse_some("1ms"), Ok(length) if length.as_secs() == 1));
        assert!(matches!(parse_some("0s"), Err(WaitError::Zero)));
        assert!(matches!(parse_some("1x"), Err(WaitError::Unreadable(_))));
    }
}
