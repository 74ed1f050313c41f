//! What changed outside: CloudStack says otherwise of a volume than it did last, and no operation of ours was at work.

use std::collections::HashMap;

use jiff::Timestamp;

use super::world::World;
use crate::api::EventKind;
use crate::error::Result;
use crate::model::{VolumeId, VolumeRecord, printable};
use crate::store::{CachedVolume, NewEvent};

/// Something that CloudStack says otherwise than before.
pub(super) struct Change<'a> {
    /// The volume, as it is now or was last.
    pub volume: &'a VolumeRecord,
    /// What differs, in words.
    pub found: String,
    /// CloudStack no longer has it.
    pub is_gone: bool,
}

/// What differs between two lists of all volumes.
pub(super) fn changes<'a>(before: &'a [CachedVolume], now: &'a [VolumeRecord]) -> Vec<Change<'a>> {
    let known: HashMap<VolumeId, &VolumeRecord> =
        before.iter().map(|cached| (cached.record.id, &cached.record)).collect();
    let listed: HashMap<VolumeId, &VolumeRecord> = now.iter().map(|volume| (volume.id, volume)).collect();
    let changed = now.iter().filter_map(|volume| {
        let found = match known.get(&volume.id) {
            None => "it was not known here".to_owned(),
            Some(old) => what_changed(old, volume)?,
        };
        Some(Change { volume, found, is_gone: false })
    });
    let gone = before.iter().map(|cached| &cached.record).filter(|volume| !listed.contains_key(&volume.id));
    changed.chain(gone.map(gone_from_cloudstack)).collect()
}

fn gone_from_cloudstack(volume: &VolumeRecord) -> Change<'_> {
    Change { volume, found: "CloudStack no longer has it".to_owned(), is_gone: true }
}

fn what_changed(old: &VolumeRecord, new: &VolumeRecord) -> Option<String> {
    let vm = |volume: &VolumeRecord| volume.vm_id.map_or_else(|| "no VM".to_owned(), |vm| format!("VM {vm}"));
    let mut changes = Vec::new();
    if old.vm_id != new.vm_id {
        changes.push(format!("it was on {}, and is on {}", vm(old), vm(new)));
    }
    if old.state != new.state {
        changes.push(format!("its state was {}, and is {}", printable(&old.state), printable(&new.state)));
    }
    if old.size_bytes != new.size_bytes {
        changes.push(format!("its size was {} bytes, and is {}", old.size_bytes, new.size_bytes));
    }
    if old.name != new.name {
        changes.push(format!("its name was {}", printable(&old.name)));
    }
    (!changes.is_empty()).then(|| changes.join("; "))
}

impl World {
    /// Takes down what a list that was asked for at `as_of` says otherwise than the store does, before it gets there.
    pub(super) fn note_list(&self, now: &[VolumeRecord], as_of: Timestamp) -> Result<()> {
        // With the first list everything is new.
        if self.store.listed_at()?.is_none() {
            return Ok(());
        }
        let before = self.store.volumes()?;
        // What was said since the list was asked for is newer than the list.
        let newer: Vec<VolumeId> =
            before.iter().filter(|cached| cached.as_of > as_of).map(|cached| cached.record.id).collect();
        for change in changes(&before, now) {
            if !newer.contains(&change.volume.id) {
                self.note_change(&change)?;
            }
        }
        Ok(())
    }

    /// Takes down what CloudStack says otherwise of one volume than the store does, before it gets there.
    pub(super) fn note_look(&self, id: VolumeId, now: Option<&VolumeRecord>) -> Result<()> {
        let Some(before) = self.store.volume(id)? else { return Ok(()) };
        let change = match now {
            Some(volume) => what_changed(&before.record, volume).map(|found| Change { volume, found, is_gone: false }),
            None => Some(gone_from_cloudstack(&before.record)),
        };
        change.map_or(Ok(()), |change| self.note_change(&change))
    }

    fn note_change(&self, change: &Change<'_>) -> Result<()> {
        if self.store.is_at_work_on(change.volume)? {
            return Ok(());
        }
        let (volume_id, volume_name) = (Some(change.volume.id), Some(change.volume.name.clone()));
        let event = NewEvent::new(EventKind::ChangedOutside, change.found.clone());
        self.store.record(NewEvent { volume_id, volume_name, ..event });
        Ok(())
    }
}
