//! `deleteVolume` (synchronous), `destroyVolume` and `recoverVolume` (facts sheet, 4.5).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Command, Outcome, own_volume};
use crate::error::ApiError;
use crate::jobs::{Instance, NewJob, Work};
use crate::params::Entity::Volume as VolumeId;
use crate::params::Kind::{Boolean, Id};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;

/// `deleteVolume`
pub const DELETE: Command = Command {
    name: "deleteVolume",
    class: "volume.DeleteVolumeCmd",
    is_async: false,
    params: &[Spec::new("id", Id(VolumeId)).required()],
    run: delete,
};

/// `destroyVolume`
pub const DESTROY: Command = Command {
    name: "destroyVolume",
    class: "volume.DestroyVolumeCmd",
    is_async: true,
    params: &[Spec::new("id", Id(VolumeId)).required(), Spec::new("expunge", Boolean)],
    run: destroy,
};

/// `recoverVolume`
pub const RECOVER: Command = Command {
    name: "recoverVolume",
    class: "volume.RecoverVolumeCmd",
    is_async: false,
    params: &[Spec::new("id", Id(VolumeId)).required()],
    run: recover,
};

fn delete(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    may_expunge(world)?;
    let id = own_volume(params, world)?.id.clone();
    check_removable(&id, world)?;
    expunge(simulator, world, &id);
    Ok(Outcome::Done(json!({"success": true})))
}

fn destroy(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let id = own_volume(params, world)?.id.clone();
    let expunge = params.is_true("expunge");
    let start = check_destroyable(&id, expunge, world).map(|()| destruction(simulator, world, id.clone(), expunge));
    Ok(Outcome::Job(NewJob { instance: Some(Instance::volume(&id)), queue: None, start }))
}

fn recover(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    may_expunge(world)?;
    let id = own_volume(params, world)?.id.clone();
    let volume = world.volume_mut(&id).filter(|volume| volume.state == "Destroy");
    let volume = volume.ok_or_else(|| ApiError::invalid("Please specify a volume in Destroy state."))?;
    volume.state = "Ready".to_owned();
    let volume = volume.clone();
    Ok(Outcome::Done(json!({"volume": view::volume(&volume, world)})))
}

fn may_expunge(world: &World) -> Result<(), ApiError> {
    if world.settings.allow_user_expunge_recover_volume || world.settings.is_admin() {
        Ok(())
    } else {
        Err(ApiError::permission("Expunging and recovering a volume can only be done by an Admin"))
    }
}

fn check_removable(id: &str, world: &World) -> Result<(), ApiError> {
    let volume = world.volume(id).filter(|volume| !volume.removed);
    let volume = volume.ok_or_else(|| ApiError::invalid(format!("Unable to find volume with ID: {id}")))?;
    if volume.is_attached() {
        Err(ApiError::invalid("Please specify a volume that is not attached to any VM."))
    } else if volume.deleteprotection {
        Err(ApiError::invalid(format!("Volume [id = {id}] has delete protection enabled and cannot be deleted")))
    } else if world.has_unfinished_snapshot(id) {
        Err(ApiError::invalid("There are snapshots creating for this volume, unable to delete it"))
    } else if volume.is_in_transition() {
        Err(ApiError::internal(format!("Failed to destroy volume {id}: it is {}", volume.state)))
    } else {
        Ok(())
    }
}

fn check_destroyable(id: &str, expunge: bool, world: &World) -> Result<(), ApiError> {
    if expunge {
        // A permission error is 530 inside a job.
        may_expunge(world).map_err(|error| ApiError::internal(error.text))?;
    }
    check_removable(id, world)?;
    let never_created =
        world.volume(id).is_some_and(|volume| matches!(volume.state.as_str(), "Allocated" | "Uploaded"));
    if never_created && !expunge {
        return Err(ApiError::invalid("Volume can not be destroyed in this state, it can only be expunged"));
    }
    Ok(())
}

fn destruction(simulator: &Arc<Simulator>, world: &World, id: String, expunged: bool) -> Work {
    let latency = world.settings.job_latency(DESTROY.name);
    let simulator = simulator.clone();
    Box::pin(async move {
        tokio::time::sleep(latency).await;
        simulator.change(|world| {
            check_removable(&id, world)?;
            if expunged { Ok(expunge(&simulator, world, &id)) } else { Ok(set_destroyed(world, &id)) }
        })
    })
}

fn set_destroyed(world: &mut World, id: &str) -> Value {
    if let Some(volume) = world.volume_mut(id) {
        volume.state = "Destroy".to_owned();
    }
    shown(world, id)
}

fn expunge(simulator: &Simulator, world: &mut World, id: &str) -> Value {
    if let Some(volume) = world.volume_mut(id) {
        volume.state = "Expunged".to_owned();
        volume.removed = true;
    }
    simulator.hypervisor.erase(id);
    shown(world, id)
}

fn shown(world: &World, id: &str) -> Value {
    json!({"volume": world.volume(id).map(|volume| view::volume(volume, world))})
}
