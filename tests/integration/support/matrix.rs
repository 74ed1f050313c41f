//! Many cases of one test, side by side, since each mostly waits.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many run at the same time.
const SIDE_BY_SIDE: usize = 8;

/// Runs every case and gives the results in their order; panics after the last one if any did, and names those.
pub fn side_by_side<T: Sync, R: Send>(
    cases: &[T],
    run: impl Fn(&T) -> R + Sync,
    name: impl Fn(&T) -> String + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let ended = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((at, case)) = cases.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = catch_unwind(AssertUnwindSafe(|| run(case)));
                    ended.lock().unwrap().push((at, result));
                }
            });
        }
    });
    let mut ended = ended.into_inner().unwrap();
    ended.sort_by_key(|(at, _)| *at);
    let failed: Vec<String> =
        ended.iter().filter(|(_, result)| result.is_err()).map(|(at, _)| name(&cases[*at])).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
    ended.into_iter().filter_map(|(_, result)| result.ok()).collect()
}

/// Says how large a matrix is, past the harness, which keeps to itself what a test prints.
#[expect(clippy::explicit_write, reason = "what eprintln! prints, the harness keeps too")]
pub fn announce(size: &str) {
    writeln!(std::io::stderr(), "{size}").unwrap();
}
