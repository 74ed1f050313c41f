//! What is counted while the daemon runs, and how it gets into the store: every few seconds and at the end, so that no
//! call and no request of a client waits for the disk because it is counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::world::World;
use crate::error::Result;
use crate::store::Counter;

/// So many seconds of counting a crash may cost.
const INTERVAL: Duration = Duration::from_secs(5);

/// The names of the counters.
pub mod counter {
    /// Operations that ended, by kind and outcome; the store counts them itself.
    pub const OPERATIONS: &str = "operations";
    /// Calls to CloudStack, by command.
    pub const CALLS: &str = "cloudstack_calls";
    /// Those that failed, by command and [`CallError::word`](crate::cloudstack::CallError::word).
    pub const ERRORS: &str = "cloudstack_errors";
    /// Bytes that clients read.
    pub const READ: &str = "nbd_read_bytes";
    /// Bytes that clients wrote or zeroed.
    pub const WRITTEN: &str = "nbd_written_bytes";
    /// Requests of clients.
    pub const REQUESTS: &str = "nbd_requests";
    /// Those that were refused or failed.
    pub const REFUSED: &str = "nbd_errors";
    /// What `sync` found to differ.
    pub const DIFFERENCES: &str = "sync_differences";
}

/// How much of what was counted is in the store already, by name and label.
#[derive(Default)]
pub(super) struct Tally(Mutex<HashMap<(String, String), u64>>);

impl World {
    /// Keeps what has been counted so far; fails where the store cannot be written.
    pub fn keep_tally(&self) -> Result<()> {
        let mut kept = self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = self.counted();
        let left = |counter: &Counter| {
            let key = (counter.name.clone(), counter.label.clone());
            let value = counter.value.saturating_sub(kept.get(&key).copied().unwrap_or_default());
            (value > 0).then(|| Counter { value, ..counter.clone() })
        };
        let added: Vec<Counter> = counted.iter().filter_map(left).collect();
        let usages: Vec<_> = self.nbd.list().into_iter().map(|export| (export.volume_id, export.usage)).collect();
        self.store.keep_tally(&added, &usages)?;
        kept.extend(counted.into_iter().map(|counter| ((counter.name, counter.label), counter.value)));
        Ok(())
    }

    /// What was counted since the daemon began.
    fn counted(&self) -> Vec<Counter> {
        let mut counted = Vec::new();
        let mut count =
            |name: &str, label: String, value| counted.push(Counter { name: name.to_owned(), label, value });
        for (command, calls) in self.cloud.calls() {
            count(counter::CALLS, command.to_owned(), calls.made);
            for (error, times) in calls.failed {
                count(counter::ERRORS, format!("{command} {error}"), times);
            }
        }
        let moved = self.nbd.moved();
        count(counter::READ, String::new(), moved.read);
        count(counter::WRITTEN, String::new(), moved.written);
        count(counter::REQUESTS, String::new(), moved.requests);
        count(counter::REFUSED, String::new(), moved.errors);
        count(counter::DIFFERENCES, String::new(), self.synced().differences);
        counted
    }
}

/// Keeps it for as long as the daemon lives and has a store that can be written.
pub async fn keep(world: Arc<World>) {
    while world.store.refuse_if_read_only().is_ok() {
        tokio::time::sleep(INTERVAL).await;
        if let Err(error) = world.keep_tally() {
            tracing::warn!(%error, "what was counted is not kept yet");
        }
    }
}
