//! What the tests share: the processes that they start, and how to wait for a condition.

pub mod appliance;
pub mod journal;
pub mod matrix;
pub mod nbd;
pub mod scenario;
pub mod simulator;
pub mod wording;

use std::time::{Duration, Instant};

/// Waits until `look` finds something; panics after 20 s, naming what was waited for.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited 20 s for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
