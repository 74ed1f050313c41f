//! What the tests share: the processes that they start, and how to wait for a condition.

pub mod appliance;
pub mod descriptor_store;
pub mod journal;
pub mod matrix;
pub mod nbd;
pub mod scenario;
pub mod simulator;
pub mod wording;

use std::time::{Duration, Instant};

/// Waits until `look` finds something; panics after 20 s, naming what was waited for.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_up_to(Duration::from_secs(20), what, look)
}

/// Waits until `look` finds something; panics after `limit`, naming what was waited for.
pub fn wait_up_to<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s for: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}
