//! Names from the daemon, as it knows them now: it is not started for them, and CloudStack is not waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::Candidate;
use crate::api::{Exports, Operation, OperationList, Operations, Status, Volume, VolumeList, Volumes, method};
use crate::model::{VolumeType, format_size};
use crate::rpc::client::{Client, Wait};

/// Whoever presses the tab key waits no longer.
const PATIENCE: Duration = Duration::from_millis(45);

/// Older than any store: what it has will do.
const ANY_AGE: u64 = u32::MAX as u64;

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
    /// VMs that have volumes.
    Vms,
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
        _ => {
            let list = VolumeList { max_age_seconds: Some(ANY_AGE), ..VolumeList::default() };
            let all: Volumes = daemon.call(method::VOLUME_LIST, &list)?;
            match names {
                Names::Vms => vms(&all.volumes),
                _ => volumes(&all.volumes, names, typed),
            }
        }
    })
}

struct Daemon {
    client: Client,
    deadline: Instant,
}

impl Daemon {
    fn call<T: serde::de::DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Option<T> {
        let wait = Wait { deadline: Some(self.deadline), interrupt: None };
        let answer = self.client.call(method, &serde_json::to_value(params).ok()?, &wait, |_, _| {}).ok()?;
        serde_json::from_value(answer).ok()
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

fn vms(volumes: &[Volume]) -> Vec<Candidate> {
    let named: BTreeSet<&str> = volumes.iter().filter_map(|volume| volume.vm_name.as_deref()).collect();
    named.into_iter().map(|name| Candidate::new(name, "VM")).collect()
}

/// By name where only one volume has it, else by id; by id too where an id was begun.
fn volumes(all: &[Volume], names: Names, typed: &str) -> Vec<Candidate> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    all.iter().for_each(|volume| *count.entry(&volume.name).or_default() += 1);
    let begun = typed.len() >= SHORTEST_PREFIX;
    let mut candidates = Vec::new();
    for volume in all.iter().filter(|volume| fits(volume, names)) {
        let (id, size) = (volume.id.to_string(), format_size(volume.size_bytes));
        let is_only_one = count.get(volume.name.as_str()) == Some(&1) && !volume.name.is_empty();
        if is_only_one {
            candidates.push(Candidate::new(&volume.name, &size));
        }
        if !is_only_one || (begun && id.starts_with(typed)) {
            candidates.push(Candidate::new(id, format!("{} {size}", volume.name)));
        }
    }
    candidates
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
