//! Keeps what is counted in the store, every few seconds and at the end: no call and no request waits for the disk because
//! it is counted.

use std::sync::Arc;
use std::time::Duration;

use super::world::World;
use crate::api::Usage;
use crate::error::Result;
use crate::model::VolumeId;

/// So many seconds of counting a crash may cost.
const INTERVAL: Duration = Duration::from_secs(5);

impl World {
    /// Keeps what has been counted so far.
    pub fn keep_tally(&self) -> Result<()> {
        if self.store.refuse_if_read_only().is_err() {
            return Ok(());
        }
        let served = self.nbd.list().into_iter();
        let usages: Vec<(VolumeId, Usage)> = served.map(|export| (export.volume_id, export.usage)).collect();
        if usages.is_empty() { Ok(()) } else { self.store.put_usages(&usages) }
    }
}

/// Keeps it for as long as the daemon lives.
pub async fn keep(world: Arc<World>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(error) = world.keep_tally() {
            tracing::warn!(%error, "what was counted is not kept yet");
        }
    }
}
