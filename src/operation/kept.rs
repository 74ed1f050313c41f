//! What CloudStack last listed and the store does not keep: for whoever would rather have an old list than wait.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The last of some kind of list, in memory only.
pub(super) struct Kept<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Kept<T> {
    /// The list, where it is not older than so many seconds; where no age is said, only a new one will do.
    pub fn younger_than(&self, max_age_seconds: Option<u64>) -> Option<T> {
        let max_age = Duration::from_secs(max_age_seconds?);
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(at, _)| at.elapsed() < max_age).map(|(_, list)| list.clone())
    }

    /// Keeps a list that was asked for at a moment.
    pub fn keep(&self, asked: Instant, list: &T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, list.clone()));
    }
}
