//! `resizeVolume`: every check runs in the job, the caller's mistakes as 432 (facts sheet, 4.6 and 6.1).

use std::sync::Arc;

use serde_json::{Value, json};

use super::create_volume::{GIB, MAX_CUSTOM_GIB, check_limits};
use super::{Command, Outcome};
use crate::error::ApiError;
use crate::guest;
use crate::jobs::{Instance, NewJob, Work};
use crate::params::Entity::{DiskOffering, Volume as VolumeId};
use crate::params::Kind::{Boolean, Id, Integer};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;
use crate::world::objects::Volume;

/// `resizeVolume`
pub const COMMAND: Command = Command {
    name: "resizeVolume",
    class: "volume.ResizeVolumeCmd",
    is_async: true,
    params: &[
        Spec::new("id", Id(VolumeId)).required(),
        Spec::new("size", Integer),
        Spec::new("diskofferingid", Id(DiskOffering)),
        Spec::new("shrinkok", Boolean),
    ],
    run,
};

fn run(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let id = params.required("id");
    let volume = world.volume(id).filter(|volume| !volume.removed);
    let vm = volume.and_then(|volume| volume.virtualmachineid.clone());
    let start = size(id, params, world).map(|size| work(simulator, world, id, size));
    Ok(Outcome::Job(NewJob { instance: Some(Instance::volume(id)), queue: vm, start }))
}

/// The new size in bytes, where all is well.
fn size(id: &str, params: &Params, world: &World) -> Result<u64, ApiError> {
    let volume = check(id, world)?;
    let gib = params.integer("size").ok_or_else(|| unsupported("Requested size out of range"))?;
    if !(1..=MAX_CUSTOM_GIB).contains(&gib) {
        return Err(unsupported("Requested size out of range"));
    }
    let size = GIB * gib.unsigned_abs();
    if size < volume.size {
        // QCOW2 on KVM never shrinks.
        return Err(unsupported(
            "Going from existing size to a smaller one would shrink the volume, which is unsupported",
        ));
    }
    check_limits(&volume.account, size - volume.size, 0, world).map_err(|error| ApiError::new(535, error.text))?;
    Ok(size)
}

fn check<'a>(id: &str, world: &'a World) -> Result<&'a Volume, ApiError> {
    let volume = world.volume(id).filter(|volume| !volume.removed && world.may_use(&volume.account));
    let volume = volume.ok_or_else(|| unsupported("No such volume"))?;
    let offering = world.disk_offerings.iter().find(|offering| Some(&offering.id) == volume.diskofferingid.as_ref());
    let vm = volume.virtualmachineid.as_deref().and_then(|vm| world.vm(vm));
    if !matches!(volume.state.as_str(), "Ready" | "Allocated") {
        return Err(unsupported("Volume should be in ready or allocated state before attempting a resize"));
    }
    if world.has_unfinished_snapshot(id) {
        return Err(ApiError::internal("There are snapshots of the volume in progress"));
    }
    if offering.is_some_and(|offering| offering.disksizestrictness) {
        return Err(unsupported("The disk offering has strict sizes"));
    }
    if vm.is_some_and(|vm| vm.vmsnapshots) {
        return Err(unsupported("The VM has VM snapshots"));
    }
    Ok(volume)
}

fn unsupported(text: &str) -> ApiError {
    ApiError::new(432, text)
}

fn work(simulator: &Arc<Simulator>, world: &World, id: &str, size: u64) -> Work {
    let latency = world.settings.job_latency(COMMAND.name);
    let (simulator, id) = (simulator.clone(), id.to_owned());
    Box::pin(async move {
        let before = simulator.change(|world| begin(world, &id))?;
        tokio::time::sleep(latency).await;
        let result = simulator.change(|world| commit(world, &id, &before, size))?;
        if simulator.world().settings.resize_notifies {
            guest::grow(&simulator, &id).await.map_err(ApiError::internal)?;
        }
        Ok(result)
    })
}

/// The second check, now that the queue has come to it; answers the state before.
fn begin(world: &mut World, id: &str) -> Result<String, ApiError> {
    let state = check(id, world)?.state.clone();
    if state != "Allocated"
        && let Some(volume) = world.volume_mut(id)
    {
        volume.state = "Resizing".to_owned();
    }
    Ok(state)
}

fn commit(world: &mut World, id: &str, before: &str, size: u64) -> Result<Value, ApiError> {
    let volume = world.volume_mut(id).ok_or_else(|| ApiError::internal("The volume does not exist any more"))?;
    volume.size = size;
    volume.state = before.to_owned();
    let volume = volume.clone();
    Ok(json!({"volume": view::volume(&volume, world)}))
}
