//! Whether each export is what it should be: store, CloudStack, device, and the size that a client is told.

use std::collections::HashMap;

use super::exports::check_size;
use super::resolve::{all_volumes, is_deleted};
use super::world::World;
use crate::api::{Export, ExportChecked, ExportState, ExportsChecked};
use crate::error::Result;
use crate::model::{Device, VolumeId, VolumeRecord, printable};

/// What CloudStack says of the volumes now; none where it does not answer.
pub(super) type Books = Option<HashMap<VolumeId, VolumeRecord>>;

impl World {
    /// Checks every export, and says in sentences what is wrong.
    pub async fn check_exports(&self) -> Result<ExportsChecked> {
        let (books, notes) = self.books().await;
        let mut exports = Vec::new();
        for export in self.exports()? {
            let mut findings = Vec::from_iter(self.findings_of_store(&export)?);
            findings.extend(self.loss(&export, &books));
            findings.extend(self.findings_of_device(&export, &books));
            findings.extend(self.findings_of_service(&export).await);
            exports.push(ExportChecked { export, findings });
        }
        let healthy = notes.is_empty() && exports.iter().all(|checked| checked.findings.is_empty());
        Ok(ExportsChecked { healthy, exports, notes })
    }

    /// CloudStack's books, and why they could not be read.
    pub(super) async fn books(&self) -> (Books, Vec<String>) {
        match all_volumes(self).await {
            Ok(volumes) => (Some(volumes.into_iter().map(|volume| (volume.id, volume)).collect()), Vec::new()),
            Err(error) => (None, vec![error.into_error("the volumes could not be looked at in CloudStack").message]),
        }
    }

    /// How an export has lost its volume, where CloudStack says so for certain. What is not known proves nothing.
    pub(super) fn loss(&self, export: &Export, books: &Books) -> Option<String> {
        match books.as_ref()?.get(&export.volume_id) {
            None => Some("CloudStack does not show its volume any more".to_owned()),
            Some(volume) if is_deleted(volume) => {
                Some(format!("its volume is deleted (state {})", printable(&volume.state)))
            }
            Some(VolumeRecord { vm_id: None, .. }) => Some("CloudStack has its volume attached nowhere".to_owned()),
            Some(VolumeRecord { vm_id: Some(vm), .. }) => self
                .this_vm_known()
                .filter(|this| this != vm)
                .map(|_| format!("CloudStack has its volume attached to another VM, {vm}")),
        }
    }

    /// What the store should have of it.
    fn findings_of_store(&self, export: &Export) -> Result<Option<String>> {
        let is_wished = self.store.wish_of(export.volume_id)?.is_some_and(|wish| wish.name == export.name);
        Ok((!is_wished).then(|| "it is served, but the store does not know it: a restart would end it".to_owned()))
    }

    /// Whether its device is here, of the size that CloudStack says.
    fn findings_of_device(&self, export: &Export, books: &Books) -> Vec<String> {
        let device: Device = match self.devices.find(&export.volume_id.serial()) {
            Ok(Some(device)) => device,
            Ok(None) => {
                return vec![format!("its device is not here: no disk has the serial {}", export.volume_id.serial())];
            }
            Err(error) => return vec![error.message],
        };
        let volume = books.as_ref().and_then(|books| books.get(&export.volume_id));
        volume.and_then(|volume| check_size(volume, &device).err()).map(|error| error.message).into_iter().collect()
    }

    /// What a client is told, through a handshake as a client makes it.
    async fn findings_of_service(&self, export: &Export) -> Option<String> {
        match export.state {
            ExportState::Pending => return Some("it is wished for and not served".to_owned()),
            ExportState::Failed => return Some("its device failed under it, and it is not served".to_owned()),
            ExportState::Draining => return None,
            ExportState::Active => {}
        }
        let served = match self.nbd.served_size(&export.name).await {
            Ok(served) => served,
            Err(error) => return Some(format!("a client is not let in: {error}")),
        };
        let device = self.devices.find(&export.volume_id.serial()).ok().flatten()?;
        (served != device.size_bytes)
            .then(|| format!("clients are told {served} bytes, and its device has {}", device.size_bytes))
    }
}
