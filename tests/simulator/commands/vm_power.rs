//! `stopVirtualMachine`, `startVirtualMachine` and `destroyVirtualMachine` (facts sheet, 4.10): each in its VM's queue.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Command, Outcome};
use crate::error::ApiError;
use crate::guest;
use crate::jobs::{Instance, NewJob, Work};
use crate::params::Entity::Vm;
use crate::params::Kind::{Boolean, Id};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;

/// `stopVirtualMachine`
pub const STOP: Command = Command {
    name: "stopVirtualMachine",
    class: "vm.StopVMCmd",
    is_async: true,
    params: &[Spec::new("id", Id(Vm)).required(), Spec::new("forced", Boolean)],
    run: stop,
};

/// `startVirtualMachine`
pub const START: Command = Command {
    name: "startVirtualMachine",
    class: "vm.StartVMCmd",
    is_async: true,
    params: &[Spec::new("id", Id(Vm)).required()],
    run: start,
};

/// `destroyVirtualMachine`
pub const DESTROY: Command = Command {
    name: "destroyVirtualMachine",
    class: "vm.DestroyVMCmd",
    is_async: true,
    params: &[Spec::new("id", Id(Vm)).required(), Spec::new("expunge", Boolean)],
    run: destroy,
};

fn stop(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let forced = params.is_true("forced");
    let vm = own_vm(params, world)?;
    let start = if forced && !world.settings.allow_user_force_stop_vm && !world.settings.is_admin() {
        Err(ApiError::internal("The caller does not have permission to force stop a VM"))
    } else {
        Ok(power(simulator, world, &STOP, &vm, move |simulator, vm, latency| {
            Box::pin(async move {
                halt(&simulator, &vm, forced, latency).await?;
                Ok(shown(&simulator, &vm))
            })
        }))
    };
    Ok(job(vm, start))
}

fn start(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let vm = own_vm(params, world)?;
    let start = Ok(power(simulator, world, &START, &vm, |simulator, vm, latency| {
        Box::pin(async move {
            boot(&simulator, &vm, latency).await?;
            Ok(shown(&simulator, &vm))
        })
    }));
    Ok(job(vm, start))
}

fn destroy(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    if params.is_true("expunge") && !world.settings.is_admin() {
        return Err(ApiError::permission("Parameter expunge can be passed by Admin only"));
    }
    let vm = own_vm(params, world)?;
    if world.vm(&vm).is_some_and(|vm| vm.deleteprotection) {
        return Err(ApiError::invalid(format!("VM [id = {vm}] has delete protection enabled and cannot be deleted")));
    }
    let start = Ok(power(simulator, world, &DESTROY, &vm, |simulator, vm, latency| {
        Box::pin(async move {
            halt(&simulator, &vm, false, latency).await?;
            simulator.change(|world| detach_all(world, &vm));
            Ok(shown(&simulator, &vm))
        })
    }));
    Ok(job(vm, start))
}

fn own_vm(params: &Params, world: &World) -> Result<String, ApiError> {
    let id = params.required("id");
    let vm = world.vm(id).filter(|vm| !vm.removed);
    let vm = vm.ok_or_else(|| ApiError::invalid(format!("Unable to find a virtual machine with id {id}")))?;
    if !world.may_use(&vm.account) {
        return Err(ApiError::permission(format!("The caller does not have permission to operate with VM {id}")));
    }
    Ok(vm.id.clone())
}

fn power(
    simulator: &Arc<Simulator>,
    world: &World,
    command: &Command,
    vm: &str,
    work: impl FnOnce(Arc<Simulator>, String, Duration) -> Work,
) -> Work {
    work(simulator.clone(), vm.to_owned(), world.settings.job_latency(command.name))
}

fn job(vm: String, start: Result<Work, ApiError>) -> Outcome {
    Outcome::Job(NewJob { instance: Some(Instance::virtual_machine(&vm)), queue: Some(vm), start })
}

/// Takes the domain away. What is not on a host is stopped already.
async fn halt(simulator: &Arc<Simulator>, vm: &str, forced: bool, latency: Duration) -> Result<(), ApiError> {
    match state(simulator, vm).as_str() {
        "Running" => {}
        "Stopped" | "Destroyed" => return Ok(()),
        other => return Err(ApiError::internal(format!("The VM is {other} and cannot be stopped"))),
    }
    simulator.change(|world| set_state(world, vm, "Stopping"));
    tokio::time::sleep(latency).await;
    let stays = !forced && simulator.world().vm(vm).is_some_and(|vm| vm.ignores_shutdown);
    if stays {
        simulator.change(|world| set_state(world, vm, "Running"));
        return Err(ApiError::internal(format!("Unable to stop VM instance {vm}")));
    }
    for volume in attached(simulator, vm) {
        guest::pull(simulator, &volume).await.map_err(ApiError::internal)?;
    }
    simulator.change(|world| set_state(world, vm, "Stopped"));
    Ok(())
}

/// Makes a domain of the database's rows; a disk that was not on storage is made now.
async fn boot(simulator: &Arc<Simulator>, vm: &str, latency: Duration) -> Result<(), ApiError> {
    match state(simulator, vm).as_str() {
        "Running" => return Ok(()),
        "Stopped" if simulator.world().attached_to(vm).any(|volume| volume.deviceid == Some(0)) => {}
        "Stopped" => return Err(ApiError::internal("Unable to start a VM without a root volume")),
        other => return Err(ApiError::invalid(format!("The VM is {other} and cannot be started"))),
    }
    simulator.change(|world| set_state(world, vm, "Starting"));
    tokio::time::sleep(latency).await;
    for volume in attached(simulator, vm) {
        guest::plug_into(simulator, &volume, vm).await.map_err(ApiError::internal)?;
    }
    simulator.change(|world| {
        set_state(world, vm, "Running");
        world.of_vm_mut(vm).filter(|volume| volume.state == "Allocated").for_each(|volume| {
            volume.state = "Ready".to_owned();
        });
    });
    Ok(())
}

/// A destroyed VM keeps its root disk until it is expunged, and no other.
fn detach_all(world: &mut World, vm: &str) {
    for volume in world.of_vm_mut(vm).filter(|volume| volume.r#type == "DATADISK") {
        (volume.virtualmachineid, volume.deviceid, volume.attached) = (None, None, None);
    }
    set_state(world, vm, "Destroyed");
}

fn attached(simulator: &Simulator, vm: &str) -> Vec<String> {
    simulator.world().attached_to(vm).map(|volume| volume.id.clone()).collect()
}

fn state(simulator: &Simulator, vm: &str) -> String {
    simulator.world().vm(vm).map(|vm| vm.state.clone()).unwrap_or_default()
}

fn set_state(world: &mut World, vm: &str, state: &str) {
    if let Some(vm) = world.virtual_machines.iter_mut().find(|row| row.id == vm) {
        vm.state = state.to_owned();
    }
}

fn shown(simulator: &Simulator, vm: &str) -> Value {
    let world = simulator.world();
    json!({"virtualmachine": world.vm(vm).map(|vm| view::virtual_machine(vm, &world))})
}
