//! Snapshots of volumes: taking, reverting to and deleting one, each a story of its own, and what they share.

mod create;
mod delete;
mod revert;

pub(super) use create::{SnapshotCreate, ask as ask_create};
pub(super) use delete::{SnapshotDelete, ask as ask_delete};
pub(super) use revert::{SnapshotRevert, ask as ask_revert};

use std::collections::HashSet;
use std::time::Instant;

use super::request::Subject;
use super::resolve::{self, Meaning};
use super::tags;
use super::world::World;
use crate::api::{Snapshot, SnapshotList, Snapshots};
use crate::cloudstack::CallError;
use crate::error::{Error, Kind, Result};
use crate::model::{SnapshotRecord, VolumeId, VolumeRecord, printable};

/// What an operator can do where CloudStack gives one text for all that can go wrong (facts sheet, 4.8).
const GENERIC: &str = "CloudStack gives the same text for every cause; the management server's log has more";

impl World {
    /// The snapshots, newest first; of one volume, of a VM's volumes, with all of these tags.
    pub async fn list_snapshots(&self, params: &SnapshotList) -> Result<Snapshots> {
        tags::check(&params.tags)?;
        let volume = match &params.volume {
            Some(word) => Some(resolve::volume(self, word, Meaning::Any).await?.id),
            None => None,
        };
        let doing = |error: CallError| error.into_error("listing the snapshots");
        let on_vm: Option<HashSet<VolumeId>> = match &params.vm {
            Some(word) => {
                let vm = resolve::vm(self, word).await?;
                let volumes = self.cloud.volumes_of_vm(vm.id).await.map_err(doing)?;
                Some(volumes.iter().map(|volume| volume.id).collect())
            }
            None => None,
        };
        let is_wanted = |snapshot: &SnapshotRecord| {
            on_vm.as_ref().is_none_or(|on_vm| snapshot.volume_id.is_some_and(|id| on_vm.contains(&id)))
                && params.tags.iter().all(|tag| snapshot.tags.contains(tag))
        };
        let found = match volume {
            Some(volume) => self.cloud.snapshots(Some(volume)).await.map_err(doing)?,
            None => self.all_snapshots(params.max_age_seconds).await.map_err(doing)?,
        };
        let wanted = found.into_iter().filter(is_wanted).map(|snapshot| self.shown_snapshot(snapshot));
        Ok(Snapshots { snapshots: wanted.collect::<Result<_>>()? })
    }

    async fn all_snapshots(&self, max_age_seconds: Option<u64>) -> Result<Vec<SnapshotRecord>, CallError> {
        if let Some(kept) = self.snapshots.younger_than(max_age_seconds) {
            return Ok(kept);
        }
        let asked = Instant::now();
        let all = self.cloud.snapshots(None).await?;
        self.snapshots.keep(asked, &all);
        Ok(all)
    }

    /// A snapshot as everybody sees it, with the name of its volume as far as it is known.
    fn shown_snapshot(&self, record: SnapshotRecord) -> Result<Snapshot> {
        let known = record.volume_id.map(|id| self.store.volume(id)).transpose()?.flatten();
        Ok(Snapshot {
            id: record.id,
            name: record.name,
            volume_id: record.volume_id,
            volume_name: known.map(|cached| cached.record.name).or(record.volume_name),
            state: record.state,
            size_bytes: record.size_bytes,
            created_at: record.created,
            tags: record.tags,
        })
    }

    /// While a snapshot of it is being made CloudStack neither resizes nor deletes a volume; it would say so only in the
    /// job.
    pub(super) async fn refuse_unfinished_snapshot(&self, volume: &VolumeRecord) -> Result<()> {
        let doing = format!("looking at the snapshots of volume {}; nothing was sent", volume.label());
        let snapshots = self.cloud.snapshots(Some(volume.id)).await.map_err(|error| error.into_error(&doing))?;
        let unfinished = snapshots.iter().try_for_each(refuse_unfinished);
        unfinished.map_err(|error| error.doing(format!("volume {} is not resized", volume.label())))
    }
}

/// Asks CloudStack now which snapshot a word means: its id or its name. Both verbs that take one are destructive, so a
/// prefix of an id is none.
async fn named(world: &World, word: &str) -> Result<SnapshotRecord> {
    let doing = format!("looking up snapshot {}; nothing was sent", printable(word));
    let failed = |error: CallError| error.into_error(&doing);
    let all = world.cloud.snapshots(None).await.map_err(failed)?;
    let lower = word.to_ascii_lowercase();
    if let Some(identified) = all.iter().find(|snapshot| snapshot.id.to_string() == lower) {
        return Ok(identified.clone());
    }
    let matches: Vec<&SnapshotRecord> = all.iter().filter(|snapshot| snapshot.name == word).collect();
    match matches.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(missing(word, &all)),
        many => {
            let list: Vec<String> = many.iter().take(10).map(|snapshot| snapshot.label()).collect();
            let fits = many.len();
            Err(Error::new(Kind::Ambiguous, format!("{} fits {fits} snapshots: {}", printable(word), list.join(", ")))
                .hint("name the snapshot by its full id"))
        }
    }
}

fn missing(word: &str, all: &[SnapshotRecord]) -> Error {
    let lower = word.to_ascii_lowercase();
    if let Some(begun) = all.iter().find(|snapshot| word.len() >= 6 && snapshot.id.to_string().starts_with(&lower)) {
        let what = format!("{} is only the beginning of an id, and this verb takes the whole one", printable(word));
        return Error::new(Kind::NotFound, what).hint(format!("it fits snapshot {}", begun.label()));
    }
    let names = all.iter().map(|snapshot| snapshot.name.as_str());
    resolve::not_found("snapshot", word, names, "`volctl snapshot ls` lists the snapshots that this key can see")
}

/// A snapshot that CloudStack is still making.
fn refuse_unfinished(snapshot: &SnapshotRecord) -> Result<()> {
    if !snapshot.is_unfinished() {
        return Ok(());
    }
    let state = printable(&snapshot.state);
    Err(Error::new(
        Kind::Busy,
        format!("snapshot {} is still being made: it is {state}; nothing was sent", snapshot.label()),
    )
    .hint("ask again when it is BackedUp: `volctl snapshot ls` shows it"))
}

/// The volume of a snapshot, for the journal, whether or not it is still there.
fn subject(world: &World, snapshot: &SnapshotRecord) -> Result<Option<Subject>> {
    let Some(id) = snapshot.volume_id else { return Ok(None) };
    let known = world.store.volume(id)?.map(|cached| cached.record.name);
    Ok(Some(Subject { id, name: known.or(snapshot.volume_name.clone()).unwrap_or_default() }))
}
