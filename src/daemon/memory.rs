//! Memory that a crowd of operations leaves behind.

use std::time::Duration;

use crate::operation::Engine;

/// A thread that has had nothing to wait for, for so long, ends: its stack and its share of the pools are free then.
pub(super) const IDLE_THREAD: Duration = Duration::from_secs(1);

/// So long nothing has ended before it is given back: a crowd that is still coming takes it again, and the threads that
/// waited for its disks have ended.
const QUIET: Duration = Duration::from_secs(2);

/// glibc gives each thread a pool of its own, up to eight a processor, and gives little of it back.
pub(super) fn limit_pools() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "nothing safe sets it")]
    // SAFETY: it takes two integers and sets a number of the allocator's; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives the kernel back what glibc keeps, each time that the last operations have ended.
pub(super) async fn give_back(engine: Engine) {
    let mut ended = engine.ended();
    while ended.changed().await.is_ok() {
        while tokio::time::timeout(QUIET, ended.changed()).await.is_ok() {}
        if engine.unfinished() == 0 {
            engine.world().store.forget_pages();
            trim();
        }
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "nothing safe does it")]
    // SAFETY: it takes an integer, and gives back what is free already; it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
