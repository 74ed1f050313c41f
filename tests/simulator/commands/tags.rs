//! `createTags`, `deleteTags` and `listTags`: one value for each key of an object (facts sheet, 4.9).

use std::sync::Arc;

use serde_json::{Value, json};

use super::paging::{self, KEYWORD, PAGE, PAGE_SIZE};
use super::{Command, Outcome};
use crate::error::ApiError;
use crate::jobs::{NewJob, Work};
use crate::params::Kind::{Boolean, List, Map, Text};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::world::World;
use crate::world::objects::Tag;

/// `createTags`: all or nothing.
pub const CREATE: Command = Command {
    name: "createTags",
    class: "tag.CreateTagsCmd",
    is_async: true,
    params: &[
        Spec::new("resourceids", List).required(),
        Spec::new("resourcetype", Text).required(),
        Spec::new("tags", Map).required(),
    ],
    run: create,
};

/// `deleteTags`: without `tags` all of them.
pub const DELETE: Command = Command {
    name: "deleteTags",
    class: "tag.DeleteTagsCmd",
    is_async: true,
    params: &[
        Spec::new("resourceids", List).required(),
        Spec::new("resourcetype", Text).required(),
        Spec::new("tags", Map),
    ],
    run: delete,
};

/// `listTags`
pub const LIST: Command = Command {
    name: "listTags",
    class: "tag.ListTagsCmd",
    is_async: false,
    params: &[
        Spec::new("resourceid", Text),
        Spec::new("resourcetype", Text),
        Spec::new("key", Text),
        Spec::new("value", Text),
        Spec::new("listall", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run: list,
};

/// What tags are put on.
struct Objects {
    ids: Vec<String>,
    tags: Vec<Tag>,
}

fn objects(params: &Params) -> Result<Objects, ApiError> {
    let kind = params.required("resourcetype");
    if !["volume", "snapshot"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        return Err(ApiError::invalid("Only volumes and snapshots are known here"));
    }
    let tag = |(key, value): (&str, &str)| Tag { key: key.to_owned(), value: value.to_owned() };
    Ok(Objects {
        ids: params.list("resourceids").unwrap_or_default().into_iter().map(str::to_owned).collect(),
        tags: params.map("tags").into_iter().map(tag).collect(),
    })
}

fn create(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    job(simulator, world, params, CREATE.name, create_all)
}

fn delete(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    job(simulator, world, params, DELETE.name, delete_all)
}

fn job(
    simulator: &Arc<Simulator>,
    world: &World,
    params: &Params,
    name: &str,
    apply: fn(&Objects, &mut World) -> Result<Value, ApiError>,
) -> Result<Outcome, ApiError> {
    let latency = world.settings.job_latency(name);
    let simulator = simulator.clone();
    let start = objects(params).map(|objects| -> Work {
        Box::pin(async move {
            tokio::time::sleep(latency).await;
            simulator.change(|world| apply(&objects, world))
        })
    });
    Ok(Outcome::Job(NewJob { instance: None, queue: None, start }))
}

fn create_all(objects: &Objects, world: &mut World) -> Result<Value, ApiError> {
    if objects.tags.iter().any(|tag| tag.key.is_empty() || tag.value.is_empty()) {
        return Err(ApiError::invalid("Value for the key of a tag is either null or empty"));
    }
    for id in &objects.ids {
        let old = tags_of(id, world)?;
        if old.iter().any(|old| objects.tags.iter().any(|new| new.key == old.key)) {
            return Err(ApiError::internal(format!("A tag of this key exists on {id}")));
        }
    }
    for id in &objects.ids {
        tags_of(id, world)?.extend_from_slice(&objects.tags);
    }
    Ok(json!({"success": true}))
}

fn delete_all(objects: &Objects, world: &mut World) -> Result<Value, ApiError> {
    let named = |tag: &Tag| {
        let is = |wanted: &Tag| {
            wanted.key.eq_ignore_ascii_case(&tag.key)
                && (wanted.value.is_empty() || wanted.value.eq_ignore_ascii_case(&tag.value))
        };
        objects.tags.is_empty() || objects.tags.iter().any(is)
    };
    let mut deleted = 0;
    for id in &objects.ids {
        let tags = tags_of(id, world)?;
        let before = tags.len();
        tags.retain(|tag| !named(tag));
        deleted += before - tags.len();
    }
    match deleted {
        0 => Err(ApiError::internal("Unable to find any tag that conforms to specified delete parameters")),
        _ => Ok(json!({"success": true})),
    }
}

fn tags_of<'a>(id: &str, world: &'a mut World) -> Result<&'a mut Vec<Tag>, ApiError> {
    let (account, is_admin) = (world.settings.account.clone(), world.settings.is_admin());
    let may_use = |owner: &str| is_admin || owner == account;
    let volumes = world.volumes.iter_mut().filter(|row| !row.removed && may_use(&row.account));
    let snapshots = world.snapshots.iter_mut().filter(|row| !row.removed && may_use(&row.account));
    let mut rows = volumes.map(|row| (&row.id, &mut row.tags)).chain(snapshots.map(|row| (&row.id, &mut row.tags)));
    let found = rows.find(|(row, _)| *row == id).map(|(_, tags)| tags);
    found.ok_or_else(|| ApiError::invalid(format!("Unable to find resource by id {id}")))
}

fn list(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let volumes = world.volumes.iter().filter(|row| !row.removed && world.may_use(&row.account));
    let volumes = volumes.flat_map(|row| row.tags.iter().map(|tag| ("Volume", &row.id, tag)));
    let snapshots = world.snapshots.iter().filter(|row| !row.removed && world.may_use(&row.account));
    let snapshots = snapshots.flat_map(|row| row.tags.iter().map(|tag| ("Snapshot", &row.id, tag)));
    let is_listed = |(kind, id, tag): &(&str, &String, &Tag)| {
        params.text("resourcetype").is_none_or(|wanted| wanted.eq_ignore_ascii_case(kind))
            && paging::is(params, "resourceid", Some(id))
            && paging::is(params, "key", Some(&tag.key))
            && paging::is(params, "value", Some(&tag.value))
    };
    let tags: Vec<_> = volumes.chain(snapshots).filter(is_listed).collect();
    let show = |(kind, id, tag): &(&str, &String, &Tag)| json!({"key": tag.key, "value": tag.value, "resourcetype": kind, "resourceid": id});
    paging::list(params, world, "tag", &tags, show).map(Outcome::Done)
}
