//! Names from the daemon, as it knows them now: it is not started for them, and CloudStack is not waited for.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Candidate;
use crate::api::{
    Exports, Operation, OperationList, Operations, Snapshot, SnapshotList, Snapshots, Status, VmList, VmListed, Vms,
    Volume, VolumeList, Volumes, method,
};
use crate::model::{VolumeType, format_size};
use crate::rpc::client::{Client, Wait};

/// Whoever presses the tab key waits no longer.
const PATIENCE: Duration = Duration::from_millis(40);

/// Older than any store: what it has will do.
const ANY_AGE: u64 = u32::MAX as u64;

/// So old, in seconds, may be what CloudStack is not asked for again.
const RECENT: u64 = 5;

/// So many characters of a word may be the beginning of an id.
const SHORTEST_PREFIX: usize = 3;

/// Which names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Volumes that are there.
    Volumes,
    /// Volumes that are attached nowhere.
    Free,
    /// Data volumes that are attached, here or elsewhere.
    Attached,
    /// Volumes with a device here.
    Here,
    /// Volumes with a device here and no export.
    Exportable,
    /// Deleted volumes.
    Deleted,
    /// Held volumes.
    Held,
    /// Exports.
    Exports,
    /// VMs.
    Vms,
    /// Snapshots.
    Snapshots,
    /// Snapshots that a volume can be reverted to.
    BackedUp,
    /// Operations.
    Operations,
    /// Operations that have not ended.
    Unfinished,
    /// Operations that are stuck.
    Stuck,
}

impl Names {
    /// What a value is called in a command's usage, as that command wants it.
    pub fn of(path: &[&str], value: &str) -> Option<Self> {
        Some(match (value, path) {
            ("VOLUME" | "VOLUMES", ["attach" | "delete"]) => Self::Free,
            ("VOLUME" | "VOLUMES", ["detach"]) => Self::Attached,
            ("VOLUME" | "VOLUMES", ["device" | "move"]) => Self::Here,
            ("VOLUME" | "VOLUMES", ["export"]) => Self::Exportable,
            ("VOLUME" | "VOLUMES", ["recover"]) => Self::Deleted,
            ("VOLUME" | "VOLUMES", ["release"]) => Self::Held,
            ("VOLUME" | "VOLUMES", _) => Self::Volumes,
            ("EXPORT" | "VOLUME|NAME", _) => Self::Exports,
            ("VM", _) => Self::Vms,
            ("SNAPSHOT", [.., "revert"]) => Self::BackedUp,
            ("SNAPSHOT", _) => Self::Snapshots,
            ("ID", ["ops", "wait" | "cancel"]) => Self::Unfinished,
            ("ID", ["ops", "retry" | "abandon"]) => Self::Stuck,
            ("ID", ["ops", ..]) => Self::Operations,
            _ => return None,
        })
    }
}

/// The names that the daemon knows; none where it is away or does not answer at once.
pub fn ask(socket: &Path, names: Names, typed: &str) -> Option<Vec<Candidate>> {
    let mut daemon = Daemon { deadline: Instant::now() + PATIENCE, client: Client::connect(socket).ok()? };
    Some(match names {
        Names::Exports => exports(&daemon.call::<Exports>(method::EXPORT_LIST, &json!({}))?),
        Names::Operations | Names::Unfinished | Names::Stuck => {
            let list = OperationList { limit: Some(100), ..OperationList::default() };
            let all: Operations = daemon.call(method::OPERATION_LIST, &list)?;
            all.operations.iter().filter(|operation| is_wanted(operation, names)).map(operation).collect()
        }
        Names::Snapshots | Names::BackedUp => {
            let list = |age| SnapshotList { max_age_seconds: Some(age), ..SnapshotList::default() };
            let all: Snapshots = daemon.newest(method::SNAPSHOT_LIST, list)?;
            snapshots(&all.snapshots, names, typed)
        }
        Names::Vms => {
            let volumes = daemon.volumes()?;
            let all: Option<Vms> = daemon.newest(method::VM_LIST, |age| VmList { max_age_seconds: Some(age) });
            vms(&volumes, all.map(|all| all.vms).unwrap_or_default())
        }
        _ => volumes(&daemon.volumes()?, names, typed),
    })
}

struct Daemon {
    client: Client,
    deadline: Instant,
}

impl Daemon {
    fn call<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Option<T> {
        let wait = Wait { deadline: Some(self.deadline), interrupt: None };
        let answer = self.client.call(method, &serde_json::to_value(params).ok()?, &wait, |_, _| {}).ok()?;
        answer.read().ok()
    }

    fn volumes(&mut self) -> Option<Vec<Volume>> {
        let list = VolumeList { max_age_seconds: Some(ANY_AGE), ..VolumeList::default() };
        self.call::<Volumes>(method::VOLUME_LIST, &list).map(|all| all.volumes)
    }

    /// A list that the daemon has to ask CloudStack for: as it has it now, or as CloudStack has it if that answers in
    /// time. The daemon keeps also what comes too late, for whoever presses the key again.
    fn newest<P: Serialize, T: DeserializeOwned>(&mut self, method: &str, list: impl Fn(u64) -> P) -> Option<T> {
        let known = self.call(method, &list(ANY_AGE))?;
        self.call(method, &list(RECENT)).or(Some(known))
    }
}

fn exports(all: &Exports) -> Vec<Candidate> {
    all.exports.iter().map(|export| Candidate::new(&export.name, format!("{} clients", export.clients.len()))).collect()
}

fn is_wanted(operation: &Operation, names: Names) -> bool {
    match names {
        Names::Unfinished => !operation.status.ended(),
        Names::Stuck => operation.status == Status::Stuck,
        _ => true,
    }
}

fn operation(operation: &Operation) -> Candidate {
    let kind = operation.task();
    Candidate::new(operation.id.to_string(), format!("{kind}: {}", operation.step))
}

/// Those that were listed, and where there was no time for that, those that have volumes.
fn vms(volumes: &[Volume], listed: Vec<VmListed>) -> Vec<Candidate> {
    let of_volumes = volumes.iter().filter_map(|volume| Some((volume.vm_name.clone()?, "VM".to_owned())));
    let listed = listed.into_iter().map(|vm| (vm.name, vm.state));
    let named: BTreeMap<String, String> = of_volumes.chain(listed).collect();
    named.into_iter().map(|(name, state)| Candidate::new(name, state)).collect()
}

/// By name where only one has it, else by id; by id too where an id was begun.
fn named(things: impl Iterator<Item = Named>, typed: &str) -> Vec<Candidate> {
    let things: Vec<Named> = things.collect();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    things.iter().for_each(|thing| *count.entry(&thing.name).or_default() += 1);
    let begun = typed.len() >= SHORTEST_PREFIX;
    let mut candidates = Vec::new();
    for thing in things.iter().filter(|thing| thing.is_wanted) {
        let is_only_one = count.get(thing.name.as_str()) == Some(&1) && !thing.name.is_empty();
        if is_only_one {
            candidates.push(Candidate::new(&thing.name, &thing.help));
        }
        if !is_only_one || (begun && thing.id.starts_with(typed)) {
            candidates.push(Candidate::new(&thing.id, format!("{} {}", thing.name, thing.help)));
        }
    }
    candidates
}

/// What has a name that others may have too.
struct Named {
    id: String,
    name: String,
    help: String,
    is_wanted: bool,
}

fn volumes(all: &[Volume], names: Names, typed: &str) -> Vec<Candidate> {
    let volume = |volume: &Volume| Named {
        id: volume.id.to_string(),
        name: volume.name.clone(),
        help: format_size(volume.size_bytes),
        is_wanted: fits(volume, names),
    };
    named(all.iter().map(volume), typed)
}

fn snapshots(all: &[Snapshot], names: Names, typed: &str) -> Vec<Candidate> {
    let snapshot = |snapshot: &Snapshot| Named {
        id: snapshot.id.to_string(),
        name: snapshot.name.clone(),
        help: format!("of {}, {}", snapshot.volume_name.as_deref().unwrap_or("a volume"), snapshot.state),
        is_wanted: names == Names::Snapshots || snapshot.state == "BackedUp",
    };
    named(all.iter().map(snapshot), typed)
}

fn fits(volume: &Volume, names: Names) -> bool {
    let is_deleted = matches!(volume.state.as_str(), "Destroy" | "Destroying" | "Expunging" | "Expunged");
    let is_data = volume.volume_type == VolumeType::DataDisk;
    match names {
        Names::Deleted => volume.state == "Destroy",
        _ if is_deleted => false,
        Names::Free => volume.vm_id.is_none(),
        Names::Attached => is_data && volume.vm_id.is_some(),
        Names::Here => is_data && volume.device.is_some(),
        Names::Exportable => is_data && volume.device.is_some() && volume.export.is_none(),
        Names::Held => volume.hold.is_some(),
        _ => true,
    }
}
