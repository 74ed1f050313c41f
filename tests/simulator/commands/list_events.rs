//! `listEvents` with `resourceid` and `resourcetype` (facts sheet, 4.1; 4.17 and later), newest first.

use std::sync::Arc;

use serde_json::json;

use super::paging::{self, KEYWORD, PAGE, PAGE_SIZE};
use super::{Command, Outcome};
use crate::error::ApiError;
use crate::params::Entity::AnyProject;
use crate::params::Kind::{Boolean, Id, Text};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;

/// `listEvents`
pub const COMMAND: Command = Command {
    name: "listEvents",
    class: "event.ListEventsCmd",
    is_async: false,
    params: &[
        Spec::new("resourceid", Text),
        Spec::new("resourcetype", Text),
        Spec::new("type", Text),
        Spec::new("level", Text),
        Spec::new("projectid", Id(AnyProject)),
        Spec::new("listall", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run,
};

fn run(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    if params.text("resourceid").is_some() != params.text("resourcetype").is_some() {
        return Err(ApiError::invalid("Both resourceId and resourceType must be set together"));
    }
    let wanted = ["resourceid", "resourcetype", "type", "level"];
    let events: Vec<_> = world
        .events
        .iter()
        .rev()
        .filter(|event| {
            let values = [&event.resourceid[..], event.resourcetype, event.r#type, event.level];
            wanted.iter().zip(values).all(|(name, value)| paging::is(params, name, Some(value)))
        })
        .collect();
    let show = |event: &&crate::events::Event| {
        json!({"id": event.id, "username": event.username, "account": event.account, "type": event.r#type,
               "level": event.level, "description": event.description, "state": event.state,
               "resourceid": event.resourceid, "resourcetype": event.resourcetype, "created": view::date(event.created)})
    };
    paging::list(params, world, "event", &events, show).map(Outcome::Done)
}
