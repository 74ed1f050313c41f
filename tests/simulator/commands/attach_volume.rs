//! `attachVolume`: checked when the job starts, checked again in the VM's queue (facts sheet, 4.3 and 5).

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
use crate::world::objects::{VirtualMachine, Volume};

/// Kept for the CD-ROM.
const CD_ROM: i64 = 3;
/// Data disks where the hypervisor's capabilities are not known.
const DISKS_IF_UNKNOWN: usize = 6;

/// `attachVolume`
pub const COMMAND: Command = Command {
    name: "attachVolume",
    class: "volume.AttachVolumeCmd",
    is_async: true,
    params: &[
        Spec::new("id", Id(VolumeId)).required(),
        Spec::new("virtualmachineid", Id(Vm)).required(),
        Spec::new("deviceid", Integer),
    ],
    run,
};

/// What is to be attached, where.
struct Attach {
    volume: String,
    vm: String,
    device_id: Option<i64>,
    latency: Duration,
}

fn run(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let id = params.required("id");
    let volume = world.volume(id).filter(|volume| !volume.removed);
    let volume = volume.ok_or_else(|| ApiError::invalid(format!("Unable to find volume with ID: {id}")))?;
    let vm_id = params.required("virtualmachineid");
    let vm = world.vm(vm_id).filter(|vm| !vm.removed);
    let vm = vm.ok_or_else(|| ApiError::invalid(format!("Unable to find VM with ID: {vm_id}")))?;
    if !world.may_use(&vm.account) {
        return Err(ApiError::permission(format!("The caller does not have permission to operate with VM {vm_id}")));
    }
    let attach = Attach {
        volume: id.to_owned(),
        vm: vm_id.to_owned(),
        device_id: params.integer("deviceid"),
        latency: world.settings.job_latency(COMMAND.name),
    };
    let start = check_at_start(&attach, volume, vm, world).map(|()| work(simulator.clone(), attach));
    Ok(Outcome::Job(NewJob { instance: Some(Instance::volume(id)), queue: Some(vm_id.to_owned()), start }))
}

fn check_at_start(attach: &Attach, volume: &Volume, vm: &VirtualMachine, world: &World) -> Result<(), ApiError> {
    if volume.account != vm.account || volume.projectid != vm.projectid {
        return Err(ApiError::internal("The volume and the VM belong to different owners"));
    }
    let refusal = if volume.is_attached() {
        "Please specify a volume that is not attached to any VM."
    } else if !matches!(volume.state.as_str(), "Allocated" | "Ready" | "Uploaded") {
        "Volume state must be in Allocated, Ready or in Uploaded state"
    } else if !matches!(vm.state.as_str(), "Running" | "Stopped") {
        "Please specify a VM that is either running or stopped."
    } else if volume.zoneid != vm.zoneid {
        "Please specify a volume that is in the same zone as the VM."
    } else if vm.vmsnapshots {
        "Unable to attach volume, please specify a VM that does not have VM snapshots or backups"
    } else if attach.device_id == Some(0) {
        return check_as_root(vm, world);
    } else if data_disks(vm, world) >= max_data_disks(vm, world) {
        "The specified VM already has the maximum number of data disks attached."
    } else {
        return Ok(());
    };
    Err(ApiError::invalid(refusal))
}

fn check_as_root(vm: &VirtualMachine, world: &World) -> Result<(), ApiError> {
    if vm.state != "Stopped" {
        Err(ApiError::invalid("Please specify a VM that is stopped to attach a root volume"))
    } else if !matches!(vm.hypervisor.as_str(), "KVM" | "XenServer" | "VMware") {
        Err(ApiError::invalid("Attaching a root volume is not supported by the VM's hypervisor"))
    } else if world.attached_to(&vm.id).any(|volume| volume.deviceid == Some(0)) {
        Err(ApiError::invalid("The VM has a root volume already"))
    } else {
        Ok(())
    }
}

fn data_disks(vm: &VirtualMachine, world: &World) -> usize {
    world.attached_to(&vm.id).filter(|volume| volume.r#type == "DATADISK").count()
}

fn max_data_disks(vm: &VirtualMachine, world: &World) -> usize {
    if vm.hypervisor == "KVM" { world.settings.max_data_disks } else { DISKS_IF_UNKNOWN }
}

fn work(simulator: Arc<Simulator>, attach: Attach) -> Work {
    Box::pin(async move {
        let device_id = simulator.change(|world| begin(&attach, world))?;
        let result = carry_out(&simulator, &attach, device_id).await;
        if result.is_err() {
            simulator.change(|world| roll_back(world, &attach.volume));
        }
        result
    })
}

/// The second check, now that the queue has come to it; answers the place and puts the volume in transition.
fn begin(attach: &Attach, world: &mut World) -> Result<i64, ApiError> {
    let vm = world.vm(&attach.vm).filter(|vm| !vm.removed && matches!(vm.state.as_str(), "Running" | "Stopped"));
    let vm = vm.ok_or_else(|| ApiError::internal("The VM is neither running nor stopped"))?;
    let volume = world.volume(&attach.volume).filter(|volume| !volume.removed);
    let volume = volume.ok_or_else(|| ApiError::internal("The volume does not exist any more"))?;
    if volume.is_attached() {
        return Err(ApiError::internal(format!("Volume {} is already attached", volume.id)));
    }
    if !matches!(volume.state.as_str(), "Allocated" | "Ready") {
        return Err(ApiError::internal("Volume should be in Ready or Allocated state"));
    }
    let device_id = place(attach.device_id, vm, world)?;
    let next = match volume.state.as_str() {
        "Allocated" if !vm.is_running() && !has_pool(vm, world) => "Allocated",
        "Allocated" => "Creating",
        _ => "Attaching",
    };
    set_state(world, &attach.volume, next);
    Ok(device_id)
}

/// The place that was asked for, or the lowest free one.
fn place(wanted: Option<i64>, vm: &VirtualMachine, world: &World) -> Result<i64, ApiError> {
    let last = i64::try_from(max_data_disks(vm, world)).unwrap_or(i64::MAX).saturating_add(1);
    let is_used = |id: i64| world.attached_to(&vm.id).any(|volume| volume.deviceid == Some(id));
    match wanted {
        Some(id) if id < 0 || id > last || id == CD_ROM => Err(ApiError::internal(format!(
            "Specified deviceId {id} is not valid. Valid device Ids are 0,1,2,4-{last}"
        ))),
        Some(id) if is_used(id) => Err(ApiError::internal(format!("deviceId {id} is used by VM {}", vm.id))),
        Some(id) => Ok(id),
        None => (1..=last)
            .find(|id| *id != CD_ROM && !is_used(*id))
            .ok_or_else(|| ApiError::internal(format!("All device Ids are used by vm {}", vm.id))),
    }
}

/// Whether one of the VM's disks is on storage already.
fn has_pool(vm: &VirtualMachine, world: &World) -> bool {
    world.attached_to(&vm.id).any(|volume| volume.state == "Ready")
}

async fn carry_out(simulator: &Arc<Simulator>, attach: &Attach, device_id: i64) -> Result<Value, ApiError> {
    let mut rest = attach.latency;
    if state_is(simulator, &attach.volume, "Creating") {
        rest /= 2;
        tokio::time::sleep(rest).await;
        simulator.change(|world| set_state(world, &attach.volume, "Attaching"));
    }
    let (is_running, appears, delay) = {
        let world = simulator.world();
        let is_running = world.vm(&attach.vm).is_some_and(VirtualMachine::is_running);
        (is_running, world.settings.devices_appear, world.settings.device_delay_ms)
    };
    let delay_length = Duration::from_millis(delay.unsigned_abs());
    let early = if delay < 0 { delay_length.min(rest) } else { Duration::ZERO };
    tokio::time::sleep(rest - early).await;
    if is_running && appears && delay <= 0 {
        plug(simulator, attach).await?;
    }
    tokio::time::sleep(early).await;
    let result = simulator.change(|world| commit(world, attach, device_id))?;
    if is_running && appears && delay > 0 {
        tokio::spawn(plug_later(simulator.clone(), attach.volume.clone(), delay_length));
    }
    Ok(result)
}

/// In a task of its own, so that a management server that ends leaves no half-plugged disk.
async fn plug(simulator: &Arc<Simulator>, attach: &Attach) -> Result<(), ApiError> {
    let (simulator, volume, vm) = (simulator.clone(), attach.volume.clone(), attach.vm.clone());
    let plugged = tokio::spawn(async move { guest::plug_into(&simulator, &volume, &vm).await });
    let plugged = plugged.await.unwrap_or_else(|error| Err(error.to_string()));
    plugged.map_err(|error| ApiError::internal(format!("Failed to attach volume to VM: {error}")))
}

async fn plug_later(simulator: Arc<Simulator>, volume: String, delay: Duration) {
    tokio::time::sleep(delay).await;
    if let Err(error) = guest::plug(&simulator, &volume).await {
        eprintln!("plugging {volume}: {error}");
    }
}

fn commit(world: &mut World, attach: &Attach, device_id: i64) -> Result<Value, ApiError> {
    let now = world.now();
    let volume = world.volume_mut(&attach.volume).filter(|volume| !volume.removed);
    let volume = volume.ok_or_else(|| ApiError::internal("The volume does not exist any more"))?;
    if volume.is_attached() {
        return Err(ApiError::internal(format!("Volume {} is already attached", volume.id)));
    }
    match volume.state.as_str() {
        "Allocated" => {}
        "Attaching" => volume.state = "Ready".to_owned(),
        other => return Err(ApiError::internal(format!("Volume {} is {other}, not Attaching", volume.id))),
    }
    volume.virtualmachineid = Some(attach.vm.clone());
    volume.deviceid = Some(device_id);
    volume.attached = Some(now);
    if device_id == 0 {
        volume.r#type = "ROOT".to_owned();
    }
    let volume = volume.clone();
    Ok(json!({"volume": view::volume(&volume, world)}))
}

/// A failed attach leaves a volume that was created.
fn roll_back(world: &mut World, volume: &str) {
    if world.volume(volume).is_some_and(|volume| volume.state == "Attaching") {
        set_state(world, volume, "Ready");
    }
}

fn state_is(simulator: &Simulator, volume: &str, state: &str) -> bool {
    simulator.world().volume(volume).is_some_and(|volume| volume.state == state)
}

fn set_state(world: &mut World, volume: &str, state: &str) {
    if let Some(volume) = world.volume_mut(volume) {
        volume.state = state.to_owned();
    }
}
