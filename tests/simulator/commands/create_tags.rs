//! `createTags`: one value for each key, all or nothing (facts sheet, 4.9).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Command, Outcome};
use crate::error::ApiError;
use crate::jobs::{NewJob, Work};
use crate::params::Kind::{List, Map, Text};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::world::World;
use crate::world::objects::Tag;

/// `createTags`
pub const COMMAND: Command = Command {
    name: "createTags",
    class: "tag.CreateTagsCmd",
    is_async: true,
    params: &[
        Spec::new("resourceids", List).required(),
        Spec::new("resourcetype", Text).required(),
        Spec::new("tags", Map).required(),
    ],
    run,
};

fn run(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let volumes: Vec<_> = params.list("resourceids").unwrap_or_default().into_iter().map(str::to_owned).collect();
    let tag = |(key, value): (&str, &str)| Tag { key: key.to_owned(), value: value.to_owned() };
    let tags: Vec<_> = params.map("tags").into_iter().map(tag).collect();
    let is_volume = params.required("resourcetype").eq_ignore_ascii_case("volume");
    let start = if is_volume {
        check(&volumes, &tags, world).map(|()| work(simulator, world, volumes, tags))
    } else {
        Err(ApiError::invalid("Only volumes are known here"))
    };
    Ok(Outcome::Job(NewJob { instance: None, queue: None, start }))
}

fn check(volumes: &[String], tags: &[Tag], world: &World) -> Result<(), ApiError> {
    if tags.iter().any(|tag| tag.key.is_empty() || tag.value.is_empty()) {
        return Err(ApiError::invalid("Value for the key of a tag is either null or empty"));
    }
    for id in volumes {
        let volume = world.volume(id).filter(|volume| !volume.removed && world.may_use(&volume.account));
        let volume = volume.ok_or_else(|| ApiError::invalid(format!("Unable to find resource by id {id}")))?;
        if volume.tags.iter().any(|old| tags.iter().any(|new| new.key == old.key)) {
            return Err(ApiError::internal(format!("A tag of this key exists on {id}")));
        }
    }
    Ok(())
}

fn work(simulator: &Arc<Simulator>, world: &World, volumes: Vec<String>, tags: Vec<Tag>) -> Work {
    let latency = world.settings.job_latency(COMMAND.name);
    let simulator = simulator.clone();
    Box::pin(async move {
        tokio::time::sleep(latency).await;
        simulator.change(|world| apply(&volumes, &tags, world))
    })
}

fn apply(volumes: &[String], tags: &[Tag], world: &mut World) -> Result<Value, ApiError> {
    check(volumes, tags, world)?;
    for volume in world.volumes.iter_mut().filter(|volume| volumes.contains(&volume.id)) {
        volume.tags.extend_from_slice(tags);
    }
    Ok(json!({"success": true}))
}
