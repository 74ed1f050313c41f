//! The commands: what each declares, and the way from a checked call to its answer.

mod async_jobs;
mod attach_volume;
mod create_volume;
mod detach_volume;
mod discovery;
mod list_events;
mod list_volumes;
mod lists;
mod paging;
mod remove_volume;
mod resize_volume;
mod snapshots;
mod tags;
mod vm_power;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api;
use crate::error::ApiError;
use crate::events;
use crate::jobs::{self, Fate, Instance, NewJob};
use crate::params::{Params, Spec};
use crate::request::ApiRequest;
use crate::simulator::Simulator;
use crate::world::World;
use crate::world::objects::Volume;

/// A command of the API.
pub struct Command {
    /// Its name; the case matters.
    pub name: &'static str,
    /// Its Java class below the package of commands, as in `volume.AttachVolumeCmd`.
    pub class: &'static str,
    /// Whether it makes a job.
    pub is_async: bool,
    /// What it declares; other parameters are ignored.
    pub params: &'static [Spec],
    /// What it does in the HTTP call.
    pub run: fn(&Arc<Simulator>, &mut World, &Params) -> Result<Outcome, ApiError>,
}

/// What a command leaves to be answered.
pub enum Outcome {
    /// The answer.
    Done(Value),
    /// A job.
    Job(NewJob),
    /// A job for an object that exists in the database already.
    Created(NewJob),
}

static COMMANDS: [&Command; 28] = [
    &attach_volume::COMMAND,
    &snapshots::CREATE,
    &tags::CREATE,
    &snapshots::DELETE,
    &tags::DELETE,
    &snapshots::LIST,
    &tags::LIST,
    &snapshots::REVERT,
    &create_volume::COMMAND,
    &remove_volume::DELETE,
    &remove_volume::DESTROY,
    &detach_volume::COMMAND,
    &discovery::LIST_APIS,
    &async_jobs::LIST,
    &discovery::LIST_CAPABILITIES,
    &lists::DISK_OFFERINGS,
    &lists::PROJECTS,
    &lists::VIRTUAL_MACHINES,
    &lists::VM_SNAPSHOTS,
    &list_events::COMMAND,
    &list_volumes::COMMAND,
    &lists::ZONES,
    &async_jobs::QUERY,
    &remove_volume::RECOVER,
    &resize_volume::COMMAND,
    &vm_power::DESTROY,
    &vm_power::START,
    &vm_power::STOP,
];

/// The command of this name, in this case.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.into_iter().find(|command| command.name == name)
}

/// Whether a command needs POST where that is enforced.
pub fn changes_state(name: &str) -> bool {
    !["get", "list", "query", "find"].iter().any(|prefix| name.to_lowercase().starts_with(prefix))
}

/// Carries out a call whose signature was checked, and answers what stands under the command's key.
pub fn execute(
    simulator: &Arc<Simulator>,
    world: &mut World,
    command: &Command,
    request: &ApiRequest,
    fate: Fate,
) -> Result<Value, ApiError> {
    if command.is_async && world.settings.maintenance {
        return Err(api::in_maintenance());
    }
    let params = Params::unpack(request.sent.iter())?;
    params.check(command.params, world)?;
    let (job, is_create) = match (command.run)(simulator, world, &params)? {
        Outcome::Done(content) => {
            let volume = params.text("id").map(Instance::volume);
            events::enter(world, command.name, volume.as_ref(), "Completed", None);
            return Ok(content);
        }
        Outcome::Job(job) => (job, false),
        Outcome::Created(job) => (job, true),
    };
    let object = job.instance.as_ref().filter(|_| is_create).map(|instance| instance.id.clone());
    let id = jobs::submit(simulator, world, command.name, job, params.text("customjobid"), fate)?;
    Ok(match object {
        Some(object) => json!({"id": object, "jobid": id}),
        None => json!({"jobid": id}),
    })
}

/// The volume named by `id`, if it is not removed and the caller may use it.
fn own_volume<'a>(params: &Params, world: &'a World) -> Result<&'a Volume, ApiError> {
    own_volume_named("id", params, world)
}

/// The volume named by a parameter, if it is not removed and the caller may use it.
fn own_volume_named<'a>(name: &str, params: &Params, world: &'a World) -> Result<&'a Volume, ApiError> {
    let id = params.required(name);
    let volume = world.volume(id).filter(|volume| !volume.removed);
    let volume = volume.ok_or_else(|| ApiError::invalid(format!("Unable to find volume with ID: {id}")))?;
    if !world.may_use(&volume.account) {
        return Err(ApiError::permission(format!("The caller does not have permission to operate with {id}")));
    }
    Ok(volume)
}
