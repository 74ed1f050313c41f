//! `createSnapshot`, `listSnapshots`, `revertSnapshot` and `deleteSnapshot` (facts sheet, 4.8).

use std::sync::Arc;

use serde_json::{Value, json};

use super::paging::{self, KEYWORD, PAGE, PAGE_SIZE};
use super::{Command, Outcome, own_volume_named};
use crate::error::ApiError;
use crate::jobs::{Instance, NewJob, Work};
use crate::params::Entity::{AnyProject, Snapshot as SnapshotEntity, Volume as VolumeId, Zone};
use crate::params::Kind::{Boolean, Id, Ids, Map, Text};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;
use crate::world::objects::{Snapshot, Tag, Volume, random_id};

/// How long the copy to secondary storage takes is set under this name.
const BACKUP: &str = "backupSnapshot";
/// What every failure of the jobs says, whatever it was.
const GENERIC: &str = "Failed to create snapshot due to an internal error creating snapshot for volume";

/// `createSnapshot`
pub const CREATE: Command = Command {
    name: "createSnapshot",
    class: "snapshot.CreateSnapshotCmd",
    is_async: true,
    params: &[
        Spec::new("volumeid", Id(VolumeId)).required(),
        Spec::new("name", Text),
        Spec::new("asyncbackup", Boolean),
        Spec::new("locationtype", Text),
        Spec::new("quiescevm", Boolean),
        Spec::new("tags", Map),
    ],
    run: create,
};

/// `listSnapshots`
pub const LIST: Command = Command {
    name: "listSnapshots",
    class: "snapshot.ListSnapshotsCmd",
    is_async: false,
    params: &[
        Spec::new("id", Id(SnapshotEntity)),
        Spec::new("ids", Ids(SnapshotEntity)),
        Spec::new("volumeid", Id(VolumeId)),
        Spec::new("name", Text),
        Spec::new("zoneid", Id(Zone)),
        Spec::new("projectid", Id(AnyProject)),
        Spec::new("listall", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run: list,
};

/// `revertSnapshot`
pub const REVERT: Command = Command {
    name: "revertSnapshot",
    class: "snapshot.RevertSnapshotCmd",
    is_async: true,
    params: &[Spec::new("id", Id(SnapshotEntity)).required()],
    run: revert,
};

/// `deleteSnapshot`
pub const DELETE: Command = Command {
    name: "deleteSnapshot",
    class: "snapshot.DeleteSnapshotCmd",
    is_async: true,
    params: &[Spec::new("id", Id(SnapshotEntity)).required()],
    run: delete,
};

fn create(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let volume = own_volume_named("volumeid", params, world)?;
    if volume.state != "Ready" {
        return Err(ApiError::invalid(format!("VolumeId: {} is not in Ready state but {}", volume.id, volume.state)));
    }
    if params.text("locationtype").is_some() {
        return Err(ApiError::invalid("VolumeId: LocationType is supported only for managed storage"));
    }
    let taken = world.snapshots.iter().filter(|snapshot| !snapshot.removed && snapshot.account == volume.account);
    if world.settings.max_snapshots.is_some_and(|limit| taken.count() >= limit) {
        return Err(ApiError::limit("Maximum amount of resources of Type = 'snapshot' has been exceeded"));
    }
    let row = row(volume, params, world);
    let (id, vm) = (row.id.clone(), volume.virtualmachineid.clone());
    let start = match params.is_true("quiescevm") {
        true => Err(ApiError::internal(GENERIC)),
        false => Ok(taking(simulator, world, id.clone(), row.volumeid.clone())),
    };
    world.snapshots.push(row);
    Ok(Outcome::Created(NewJob { instance: Some(Instance::snapshot(&id)), queue: vm, start }))
}

fn row(volume: &Volume, params: &Params, world: &World) -> Snapshot {
    let tag = |(key, value): (&str, &str)| Tag { key: key.to_owned(), value: value.to_owned() };
    let default_name = || format!("{}_{}", volume.name, world.now().strftime("%Y%m%d%H%M%S"));
    Snapshot {
        id: random_id(),
        name: params.text("name").filter(|name| !name.is_empty()).map_or_else(default_name, str::to_owned),
        volumeid: volume.id.clone(),
        state: "Allocated".to_owned(),
        zoneid: volume.zoneid.clone(),
        virtualsize: volume.size,
        account: volume.account.clone(),
        projectid: volume.projectid.clone(),
        created: world.now(),
        tags: params.map("tags").into_iter().map(tag).collect(),
        removed: false,
    }
}

/// The volume is `Snapshotting` while the snapshot is taken, and `Ready` again during the copy.
fn taking(simulator: &Arc<Simulator>, world: &World, id: String, volume: String) -> Work {
    let (latency, copying) = (world.settings.job_latency(CREATE.name), world.settings.job_latency(BACKUP));
    let simulator = simulator.clone();
    Box::pin(async move {
        let begun = simulator.change(|world| {
            let is_ready = world.volume(&volume).is_some_and(|volume| volume.state == "Ready");
            set_state(world, &id, if is_ready { "Creating" } else { "Error" });
            if is_ready {
                set_volume_state(world, &volume, "Snapshotting");
            }
            is_ready
        });
        if !begun {
            return Err(ApiError::internal(GENERIC));
        }
        tokio::time::sleep(latency).await;
        let kept = simulator.hypervisor.keep(&volume, &id).await;
        simulator.change(|world| {
            set_volume_state(world, &volume, "Ready");
            set_state(world, &id, if kept.is_ok() { "BackingUp" } else { "Error" });
        });
        kept.map_err(|_| ApiError::internal(GENERIC))?;
        tokio::time::sleep(copying).await;
        simulator.change(|world| set_state(world, &id, "BackedUp"));
        shown(&simulator.world(), &id)
    })
}

fn list(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let is_listed = |snapshot: &&Snapshot| {
        !snapshot.removed
            && paging::is_visible(params, world, &snapshot.account, snapshot.projectid.as_deref())
            && paging::is(params, "id", Some(&snapshot.id))
            && paging::is_one_of(params, "ids", &snapshot.id)
            && paging::is(params, "volumeid", Some(&snapshot.volumeid))
            && paging::is(params, "name", Some(&snapshot.name))
            && paging::is(params, "zoneid", Some(&snapshot.zoneid))
            && paging::has_keyword(params, &[&snapshot.name])
    };
    let snapshots: Vec<_> = world.snapshots.iter().rev().filter(is_listed).collect();
    paging::list(params, world, "snapshot", &snapshots, |snapshot| view::snapshot(snapshot, world)).map(Outcome::Done)
}

/// The snapshot named by `id`, if it is not removed and the caller may use it.
fn own<'a>(params: &Params, world: &'a World) -> Result<&'a Snapshot, ApiError> {
    let id = params.required("id");
    let snapshot = world.snapshot(id).filter(|snapshot| !snapshot.removed && world.may_use(&snapshot.account));
    snapshot.ok_or_else(|| ApiError::invalid(format!("unable to find a snapshot with id {id}")))
}

fn revert(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let snapshot = own(params, world)?;
    let (id, volume) = (snapshot.id.clone(), snapshot.volumeid.clone());
    let start = check_revertable(snapshot, world).map(|()| reverting(simulator, world, id.clone(), volume));
    Ok(Outcome::Job(NewJob { instance: Some(Instance::snapshot(&id)), queue: None, start }))
}

fn check_revertable(snapshot: &Snapshot, world: &World) -> Result<(), ApiError> {
    let volume = world.volume(&snapshot.volumeid).filter(|volume| !volume.removed);
    let volume = volume.ok_or_else(|| ApiError::internal(GENERIC))?;
    let vm = volume.virtualmachineid.as_deref().and_then(|vm| world.vm(vm));
    if vm.is_some_and(|vm| vm.vmsnapshots) {
        Err(ApiError::invalid("Volume has VM snapshots: it cannot be reverted"))
    } else if vm.is_some_and(|vm| vm.state != "Stopped" && vm.state != "Shutdown") {
        Err(ApiError::internal("The VM the specified disk is attached to is not in the shutdown state."))
    } else if volume.state != "Ready" || snapshot.state != "BackedUp" {
        Err(ApiError::internal(GENERIC))
    } else {
        Ok(())
    }
}

fn reverting(simulator: &Arc<Simulator>, world: &World, id: String, volume: String) -> Work {
    let latency = world.settings.job_latency(REVERT.name);
    let simulator = simulator.clone();
    Box::pin(async move {
        simulator.change(|world| set_volume_state(world, &volume, "RevertSnapshotting"));
        tokio::time::sleep(latency).await;
        let put_back = simulator.hypervisor.put_back(&volume, &id).await;
        simulator.change(|world| {
            let size = world.snapshot(&id).map(|snapshot| snapshot.virtualsize);
            if let (Some(volume), Some(size), Ok(())) = (world.volume_mut(&volume), size, &put_back) {
                volume.size = size;
            }
            set_volume_state(world, &volume, "Ready");
        });
        put_back.map_err(|_| ApiError::internal(GENERIC))?;
        shown(&simulator.world(), &id)
    })
}

fn delete(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let snapshot = own(params, world)?;
    let (id, latency) = (snapshot.id.clone(), world.settings.job_latency(DELETE.name));
    let is_busy = snapshot.is_unfinished();
    let simulator = simulator.clone();
    let work: Work = Box::pin({
        let id = id.clone();
        async move {
            if is_busy {
                return Err(ApiError::internal("Failed to delete snapshot: it is still being made"));
            }
            simulator.change(|world| set_state(world, &id, "Destroying"));
            tokio::time::sleep(latency).await;
            simulator.change(|world| {
                set_state(world, &id, "Destroyed");
                world.snapshots.iter_mut().filter(|snapshot| snapshot.id == id).for_each(|gone| gone.removed = true);
            });
            Ok(json!({"success": true}))
        }
    });
    Ok(Outcome::Job(NewJob { instance: Some(Instance::snapshot(&id)), queue: None, start: Ok(work) }))
}

fn set_state(world: &mut World, id: &str, state: &str) {
    let rows = world.snapshots.iter_mut().filter(|snapshot| snapshot.id == id);
    rows.for_each(|snapshot| snapshot.state = state.to_owned());
}

fn set_volume_state(world: &mut World, id: &str, state: &str) {
    if let Some(volume) = world.volume_mut(id) {
        volume.state = state.to_owned();
    }
}

fn shown(world: &World, id: &str) -> Result<Value, ApiError> {
    let snapshot = world.snapshot(id).ok_or_else(|| ApiError::internal(GENERIC))?;
    Ok(json!({"snapshot": view::snapshot(snapshot, world)}))
}
