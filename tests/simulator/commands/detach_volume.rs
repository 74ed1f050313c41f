//! `detachVolume`: the host waits for the guest, but not for ever (facts sheet, 4.4).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Command, Outcome};
use crate::error::ApiError;
use crate::guest;
use crate::jobs::{Instance, NewJob, Work};
use crate::params::Entity::{Vm, Volume as VolumeId};
use crate::params::Kind::{Id, Integer};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;
use crate::world::objects::VirtualMachine;

/// `detachVolume`
pub const COMMAND: Command = Command {
    name: "detachVolume",
    class: "volume.DetachVolumeCmd",
    is_async: true,
    params: &[Spec::new("id", Id(VolumeId)), Spec::new("virtualmachineid", Id(Vm)), Spec::new("deviceid", Integer)],
    run,
};

fn run(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let by_place = params.text("virtualmachineid").is_some() || params.text("deviceid").is_some();
    let id = params.text("id");
    let vm = id.and_then(|id| world.volume(id)).and_then(|volume| volume.virtualmachineid.clone());
    let start = match id {
        Some(_) if by_place => {
            Err(ApiError::invalid("Please provide either a volume id, or a tuple(device id, instance id)"))
        }
        None if !by_place => {
            Err(ApiError::invalid("Please provide either a volume id, or a tuple(device id, instance id)"))
        }
        None => Err(ApiError::internal("Failed to detach volume: null")),
        Some(id) => check_at_start(id, world).map(|vm| work(simulator.clone(), world, id, vm)),
    };
    Ok(Outcome::Job(NewJob { instance: id.map(Instance::volume), queue: vm, start }))
}

/// The VM that has the volume.
fn check_at_start(id: &str, world: &World) -> Result<String, ApiError> {
    let volume = world.volume(id).filter(|volume| !volume.removed);
    let volume = volume.ok_or_else(|| ApiError::invalid(format!("Unable to find volume with ID: {id}")))?;
    if !world.may_use(&volume.account) {
        return Err(ApiError::internal(format!("The caller does not have permission to operate with {id}")));
    }
    let vm = volume.virtualmachineid.as_deref().and_then(|vm| world.vm(vm));
    let vm = vm.ok_or_else(|| ApiError::invalid("The specified volume is not attached to a VM."))?;
    if !matches!(vm.state.as_str(), "Running" | "Stopped" | "Destroyed") {
        return Err(ApiError::invalid("Please specify a VM that is running, stopped or destroyed."));
    }
    if vm.vmsnapshots {
        return Err(ApiError::invalid("Unable to detach volume, the VM has VM snapshots or backups"));
    }
    if volume.deviceid == Some(0) && vm.state != "Stopped" {
        return Err(ApiError::invalid("Please specify a VM that is stopped to detach a root volume"));
    }
    Ok(vm.id.clone())
}

fn work(simulator: Arc<Simulator>, world: &World, id: &str, vm: String) -> Work {
    let latency = world.settings.job_latency(COMMAND.name);
    let patience = Duration::from_millis(world.settings.wait_detach_device_ms);
    let id = id.to_owned();
    Box::pin(async move {
        check_again(&id, &vm, &simulator.world())?;
        tokio::time::sleep(latency).await;
        let is_running = simulator.world().vm(&vm).is_some_and(VirtualMachine::is_running);
        if is_running && !guest::unplug(&simulator, &vm, &id, patience).await {
            return Err(ApiError::internal(format!(
                "Failed to detach volume from VM; Could not detach volume after sending the command and waiting for \
                 [{}] milliseconds. Probably the detach command has failed or the volume is in use by the guest",
                patience.as_millis()
            )));
        }
        simulator.change(|world| commit(&id, &vm, world))
    })
}

fn check_again(id: &str, vm: &str, world: &World) -> Result<(), ApiError> {
    if world.attached_to(vm).any(|volume| volume.id == id) {
        Ok(())
    } else {
        Err(ApiError::internal("The volume is not attached to the VM any more"))
    }
}

fn commit(id: &str, vm: &str, world: &mut World) -> Result<Value, ApiError> {
    check_again(id, vm, world)?;
    let volume = world.volume_mut(id).ok_or_else(|| ApiError::internal("The volume does not exist any more"))?;
    volume.virtualmachineid = None;
    volume.deviceid = None;
    volume.attached = None;
    volume.r#type = "DATADISK".to_owned();
    let volume = volume.clone();
    Ok(json!({"volume": view::volume(&volume, world)}))
}
