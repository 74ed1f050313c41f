//! Reconciles what the store, CloudStack, the kernel and the exports say. Nothing is ever changed in CloudStack.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::outside::{self, Change};
use super::resolve::all_volumes;
use super::synced::SyncLog;
use super::world::World;
use crate::api::{Difference, Export, ExportState, Synced};
use crate::error::{Error, Result};
use crate::model::{VmId, VolumeRecord, VolumeType, printable};

/// How often it is looked without being asked.
const INTERVAL: Duration = Duration::from_secs(300);

/// So many transactions at a time forget what is old: no operation waits for a long clean-up.
const MOST_PRUNINGS: u32 = 50;

impl World {
    /// Looks at everything, and tells what differed and what was done.
    pub async fn sync(&self) -> Result<Synced> {
        let outcome = self.reconcile().await;
        self.sync_log.note(&outcome);
        outcome
    }

    /// What the reconciliations of this daemon came to.
    pub fn synced(&self) -> SyncLog {
        self.sync_log.now()
    }

    async fn reconcile(&self) -> Result<Synced> {
        let is_new = !self.store.is_reconciled()?;
        let before = self.store.volumes()?;
        let volumes = all_volumes(self)
            .await
            .map_err(|error| error.into_error("asking CloudStack for the volumes; what the store has is kept"))?;
        let mut differences = Vec::new();
        if is_new {
            differences.push(rebuilt());
        }
        differences.extend(outside::changes(&before, &volumes).into_iter().map(changed_in_cloudstack));
        match self.prove_this_vm().await {
            Ok(this) => differences.extend(self.devices_that_differ(this, &volumes)?),
            Err(error) => differences.push(unproven(&error)),
        }
        self.keep_exports().await?;
        for export in self.exports()? {
            differences.extend(self.export_that_differs(&export, &volumes)?);
        }
        if is_new {
            self.store.set_reconciled()?;
        }
        Ok(Synced { differences })
    }

    /// Disks that this kernel has and CloudStack has elsewhere, or the other way round.
    fn devices_that_differ(&self, this: VmId, volumes: &[VolumeRecord]) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        let find = self.devices.find_many()?;
        for volume in volumes.iter().filter(|volume| volume.volume_type == VolumeType::DataDisk) {
            if self.store.operation_on(volume.id)?.is_some() {
                // On its way: the operation sees to it.
                continue;
            }
            let attached = volume.vm_id == Some(this);
            let found = match (find(&volume.id.serial()), attached) {
                (Err(error), _) => format!("which disk it is cannot be told: {}", error.message),
                (Ok(Some(device)), false) => format!(
                    "its disk is here as {}, but CloudStack does not have it attached here",
                    device.path.display()
                ),
                (Ok(None), true) => "CloudStack has it attached here, but this kernel has no such disk".to_owned(),
                _ => continue,
            };
            let done = "nothing: attach or detach it to put it right".to_owned();
            differences.push(Difference { standing: true, ..about(volume, found, done) });
        }
        Ok(differences)
    }

    /// Exports of volumes that are no longer here.
    fn export_that_differs(&self, export: &Export, volumes: &[VolumeRecord]) -> Result<Option<Difference>> {
        let name = printable(&export.name);
        let difference = |found: String, done: &str| {
            Some(Difference { volume_id: Some(export.volume_id), found, done: done.to_owned(), standing: true })
        };
        if !volumes.iter().any(|volume| volume.id == export.volume_id) {
            return Ok(difference(
                format!("export {name}: CloudStack no longer has its volume"),
                "nothing: `volctl unexport` ends it",
            ));
        }
        Ok(match export.state {
            ExportState::Failed => {
                difference(format!("export {name}: its device failed or went away"), "it is not served")
            }
            ExportState::Pending => {
                difference(format!("export {name}: its device is not here"), "it is served once the device comes")
            }
            ExportState::Active | ExportState::Draining => None,
        })
    }
}

/// The first reconciliation in the life of a store.
fn rebuilt() -> Difference {
    Difference {
        volume_id: None,
        found: "the state store is new: history and export wishes of an earlier one are lost".to_owned(),
        done: "volumes were taken from CloudStack, devices from this kernel".to_owned(),
        standing: false,
    }
}

fn unproven(error: &Error) -> Difference {
    let done = "devices were not compared, and every change is refused".to_owned();
    Difference { volume_id: None, found: error.message.clone(), done, standing: true }
}

/// What CloudStack says otherwise than when it was last asked.
fn changed_in_cloudstack(change: Change<'_>) -> Difference {
    let done = if change.is_gone { "forgotten" } else { "taken into the store" };
    about(change.volume, change.found, done.to_owned())
}

fn about(volume: &VolumeRecord, found: String, done: String) -> Difference {
    let found = format!("volume {}: {found}", volume.label());
    Difference { volume_id: Some(volume.id), found, done, standing: false }
}

/// Reconciles at the start and every few minutes, and forgets operations that ended long ago.
pub async fn keep_in_step(world: Arc<World>) {
    // So that its limit is known before much is asked; that it does not answer, the look that follows says.
    let _ = world.cloud.ping().await;
    loop {
        match world.sync().await {
            Ok(synced) => {
                for difference in synced.differences {
                    tracing::info!(found = difference.found, done = difference.done, "reconciled");
                }
            }
            Err(error) => tracing::warn!(%error, "not reconciled"),
        }
        prune(&world).await;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// By CloudStack's clock: a wrong one of ours forgets nothing. What is left is for the next time.
async fn prune(world: &World) {
    let Ok(history) = SignedDuration::try_from(world.config.daemon.history) else { return };
    let Ok(before) = world.cloud.now().checked_sub(history) else { return };
    for _ in 0..MOST_PRUNINGS {
        let operations = world.store.prune_operations(before);
        match operations.and_then(|operations| Ok((operations, world.store.prune_events(before)?))) {
            Ok((0, 0)) => return,
            Ok((operations, events)) => tracing::info!(operations, events, "what ended long ago was forgotten"),
            Err(error) => return tracing::warn!(%error, "old operations and events were not forgotten"),
        }
        tokio::task::yield_now().await;
    }
}
