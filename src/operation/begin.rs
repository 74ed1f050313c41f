//! Several changes at once: all of them are looked at before any is begun, and then each is an operation of its own.
//!
//! What says that the list itself is wrong refuses it whole: a name that is not there or fits several, a volume that is
//! named twice, more attachments than the VM has slots. What is in the way of one volume only (busy, held, attached
//! elsewhere) refuses that one, and the others go on.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Engine;
use super::place::Place;
use super::request::{Drafted, Request};
use super::world::World;
use crate::api::{Asker, Begun, BegunOne, Change, OperationKind};
use crate::error::{Error, Kind, Result};
use crate::model::{VmId, VolumeType, printable};
use crate::store::{NewOperation, OperationRow};

/// How many changes are looked at side by side: each asks CloudStack several times.
const LOOKS: usize = 8;

/// One change of a list.
pub struct Listed {
    /// What is asked for.
    pub request: Request,
    /// How.
    pub change: Change,
    /// By whom.
    pub asker: Asker,
}

impl Engine {
    /// Begins each of several changes, or none where the list itself is wrong; gives what became of each, in order.
    pub async fn begin(&self, list: Vec<Listed>) -> Result<Begun> {
        let is_dry_run = list.iter().any(|listed| listed.change.dry_run);
        let drafts = self.drafts(list).await;
        if has_wrong_names(&drafts) {
            let refused = |drafted: Result<Drafted>| BegunOne::refused(drafted.err().unwrap_or_else(not_begun));
            return Ok(Begun { results: drafts.into_iter().map(refused).collect() });
        }
        refuse_twice(&drafts)?;
        // Of two lists at once the second sees what the first takes.
        let _slots = self.world().slots.lock().await;
        self.world().refuse_too_few_slots(&drafts).await?;
        let begin = |drafted: Result<Drafted>| match drafted {
            Ok(Drafted::Before(row)) => self.begun(&row),
            Ok(Drafted::New { new, .. }) if !is_dry_run => self.accept(&new).and_then(|row| self.begun(&row)),
            Ok(Drafted::New { .. } | Drafted::Plan(_)) => Ok(BegunOne::default()),
            Err(error) => Err(error),
        };
        let begun = |drafted| begin(drafted).unwrap_or_else(BegunOne::refused);
        Ok(Begun { results: drafts.into_iter().map(begun).collect() })
    }

    fn begun(&self, row: &OperationRow) -> Result<BegunOne> {
        Ok(BegunOne { operation: Some(self.operation(row.id)?), error: None })
    }

    /// Looks at all of them, some side by side; in their order.
    async fn drafts(&self, list: Vec<Listed>) -> Vec<Result<Drafted>> {
        let turns = Arc::new(Semaphore::new(LOOKS));
        let mut looks = JoinSet::new();
        for (index, listed) in list.into_iter().enumerate() {
            let (engine, turns) = (self.clone(), turns.clone());
            looks.spawn(async move {
                // The semaphore is never closed.
                let _turn = turns.acquire().await;
                let change = Change { dry_run: false, ..listed.change };
                (index, engine.draft(&listed.request, &change, listed.asker).await)
            });
        }
        let mut drafts = looks.join_all().await;
        drafts.sort_by_key(|(index, _)| *index);
        drafts.into_iter().map(|(_, drafted)| drafted).collect()
    }
}

/// The changes that would be new.
fn new_ones(drafts: &[Result<Drafted>]) -> impl Iterator<Item = (&NewOperation, Option<Place>)> {
    drafts.iter().filter_map(|drafted| match drafted {
        Ok(Drafted::New { new, takes }) => Some((&**new, *takes)),
        _ => None,
    })
}

/// A word that means nothing, or several things, was probably mistyped, and with it the list.
fn has_wrong_names(drafts: &[Result<Drafted>]) -> bool {
    let is_name = |error: &Error| matches!(error.kind, Kind::NotFound | Kind::Ambiguous | Kind::Usage);
    drafts.iter().filter_map(|drafted| drafted.as_ref().err()).any(is_name)
}

fn not_begun() -> Error {
    Error::new(Kind::Cancelled, "the others were not begun: the list has to be right as a whole")
}

/// Two changes of one volume in one list cannot both be meant.
fn refuse_twice(drafts: &[Result<Drafted>]) -> Result<()> {
    let mut seen = HashSet::new();
    for (new, _) in new_ones(drafts) {
        let subject = new.volume_id.map(|id| id.to_string()).or_else(|| new.new_name.clone());
        if !seen.insert(subject) {
            let name = new.volume_name.as_deref().map(printable).unwrap_or_default();
            let id = new.volume_id.map(|id| format!(" ({id})")).unwrap_or_default();
            let what = format!("volume {name}{id} is named twice; of the {} changes none was begun", drafts.len());
            return Err(Error::new(Kind::Conflict, what));
        }
    }
    Ok(())
}

impl World {
    /// Refuses more attachments than a VM has slots for, with those that are under way.
    async fn refuse_too_few_slots(&self, drafts: &[Result<Drafted>]) -> Result<()> {
        let mut wanted: BTreeMap<VmId, usize> = BTreeMap::new();
        for vm in new_ones(drafts).filter(|(_, takes)| *takes == Some(Place::Data)).filter_map(|(new, _)| new.vm_id) {
            *wanted.entry(vm).or_default() += 1;
        }
        for (vm, wanted) in wanted {
            let disks = self.cloud.volumes_of_vm(vm).await;
            let disks = disks
                .map_err(|error| error.into_error(&format!("counting the disks of VM {vm}; nothing was begun")))?;
            let attached = disks.iter().filter(|volume| volume.volume_type == VolumeType::DataDisk).count();
            let is_coming = |row: &OperationRow| {
                let is_there = row.volume_id.is_some_and(|id| disks.iter().any(|volume| volume.id == id));
                row.vm_id == Some(vm) && row.kind != OperationKind::Detach && !is_there
            };
            let coming = self.store.unfinished()?.iter().filter(|row| is_coming(row)).count();
            let slots = self.config.device.max_disks as usize;
            if wanted + attached + coming > slots {
                let free = slots.saturating_sub(attached + coming);
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "{wanted} volumes are to be attached to VM {vm}, which has {free} of {slots} slots free \
                         ({attached} attached, {coming} under way); none was begun"
                    ),
                )
                .hint("attach fewer, or detach some first"));
            }
        }
        Ok(())
    }
}
