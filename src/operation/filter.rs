//! Which volumes, exports and operations a caller wants to see. CloudStack's own filter by tags takes volumes that have
//! any of several (facts sheet, 4.7), so all of it is looked at here.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use super::tags;
use super::world::World;
use crate::api::{Export, Filter, Volume};
use crate::error::Result;
use crate::model::{Tag, VmId, VolumeId};
use crate::store::OperationRow;

/// A filter, ready to be held against one thing after another.
pub(super) struct Wanted<'a> {
    filter: &'a Filter,
    world: &'a World,
    /// The user whose things are `mine`.
    caller: u32,
    /// The volumes whose last change that was not in vain the caller asked for.
    mine: HashSet<VolumeId>,
}

impl World {
    /// Reads a filter for a caller, who is known by login user id, else by user id.
    pub(super) fn wanted<'a>(&'a self, filter: &'a Filter, caller: u32) -> Result<Wanted<'a>> {
        tags::check(&filter.tags)?;
        let mine = if filter.mine { self.store.volumes_last_changed_by(caller)? } else { HashSet::new() };
        Ok(Wanted { filter, world: self, caller, mine })
    }
}

impl Wanted<'_> {
    /// Whether it lets everything pass.
    pub fn is_all(&self) -> bool {
        *self.filter == Filter::default()
    }

    /// Whether a volume is wanted. Its state is each of the words that are shown for it.
    pub fn has_volume(&self, volume: &Volume) -> bool {
        self.has_tags(&volume.tags)
            && self.has_mine(|| self.mine.contains(&volume.id))
            && self.has_here(|| volume.device.is_some() || self.is_this_vm(volume.vm_id))
            && self.has_state(&[&volume.state, is(volume.hold.is_some(), "held"), is(volume.stale, "stale")])
    }

    /// Whether an export is wanted, by its volume and its own state. It is here while its device is.
    pub fn has_export(&self, export: &Export) -> Result<bool> {
        let device = if self.filter.here { self.world.devices.find(&export.volume_id.serial())? } else { None };
        Ok(self.has_volumes_tags(Some(export.volume_id))?
            && self.has_mine(|| self.mine.contains(&export.volume_id))
            && self.has_here(|| device.is_some())
            && self.has_state(&[&word(export.state)]))
    }

    /// Whether an operation is wanted: one that the caller asked for, on this VM or on a volume that is here now.
    pub fn has_operation(&self, row: &OperationRow) -> Result<bool> {
        let volume = row.volume_id.map(|id| self.world.store.volume(id)).transpose()?.flatten();
        let vm = row.vm_id.or(volume.and_then(|cached| cached.record.vm_id));
        Ok(self.has_volumes_tags(row.volume_id)?
            && self.has_mine(|| row.asker.person() == Some(self.caller))
            && self.has_here(|| self.is_this_vm(vm))
            && self.has_state(&[&word(row.status)]))
    }

    fn has_volumes_tags(&self, id: Option<VolumeId>) -> Result<bool> {
        if self.filter.tags.is_empty() {
            return Ok(true);
        }
        let known = id.map(|id| self.world.store.volume(id)).transpose()?.flatten();
        Ok(known.is_some_and(|cached| self.has_tags(&cached.record.tags)))
    }

    fn has_tags(&self, tags: &[Tag]) -> bool {
        self.filter.tags.iter().all(|tag| tags.contains(tag))
    }

    fn has_mine(&self, is_mine: impl Fn() -> bool) -> bool {
        !self.filter.mine || is_mine()
    }

    fn has_here(&self, is_here: impl Fn() -> bool) -> bool {
        !self.filter.here || is_here()
    }

    fn has_state(&self, words: &[&str]) -> bool {
        let is_one = |wanted: &String| words.iter().any(|word| wanted.eq_ignore_ascii_case(word));
        self.filter.state.as_ref().is_none_or(is_one)
    }

    fn is_this_vm(&self, vm: Option<VmId>) -> bool {
        vm.is_some_and(|vm| self.world.is_here(vm))
    }
}

fn is(so: bool, word: &str) -> &str {
    if so { word } else { "" }
}

/// A state as the socket writes it.
fn word(state: impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}
