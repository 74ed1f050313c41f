//! Work that blocks, done so that nothing else in the daemon waits for it.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work that waits for a disk, or for a kernel that may hang: the other tasks of this thread go to another one
/// meanwhile.
pub fn off_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
