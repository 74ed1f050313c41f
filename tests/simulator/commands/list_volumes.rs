//! `listVolumes` (facts sheet, 4.7).

use std::sync::Arc;

use super::paging::{self, KEYWORD, PAGE, PAGE_SIZE};
use super::{Command, Outcome};
use crate::error::ApiError;
use crate::params::Entity::{AnyProject, DiskOffering, Vm, Volume as VolumeId, Zone};
use crate::params::Kind::{Boolean, Id, Ids, Map, Text};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;
use crate::world::objects::Volume;

/// `listVolumes`
pub const COMMAND: Command = Command {
    name: "listVolumes",
    class: "volume.ListVolumesCmd",
    is_async: false,
    params: &[
        Spec::new("id", Id(VolumeId)),
        Spec::new("ids", Ids(VolumeId)),
        Spec::new("name", Text),
        Spec::new("type", Text),
        Spec::new("state", Text),
        Spec::new("virtualmachineid", Id(Vm)),
        Spec::new("zoneid", Id(Zone)),
        Spec::new("diskofferingid", Id(DiskOffering)),
        Spec::new("projectid", Id(AnyProject)),
        Spec::new("tags", Map),
        Spec::new("listall", Boolean),
        Spec::new("retrieveonlyresourcecount", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run,
};

fn run(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    if params.text("id").is_some() && params.text("ids").is_some() {
        return Err(ApiError::invalid("Specify either id or ids but not both parameters"));
    }
    // Newest first.
    let volumes: Vec<_> = world.volumes.iter().rev().filter(|volume| is_listed(volume, params, world)).collect();
    let show = |volume: &&_| view::volume(volume, world);
    paging::list(params, world, "volume", &volumes, show).map(Outcome::Done)
}

fn is_listed(volume: &Volume, params: &Params, world: &World) -> bool {
    let tags = params.map("tags");
    let has_a_tag = || volume.tags.iter().any(|tag| tags.contains(&(tag.key.as_str(), tag.value.as_str())));
    !volume.removed
        && paging::is_visible(params, world, &volume.account, volume.projectid.as_deref())
        && paging::is(params, "id", Some(&volume.id))
        && paging::is_one_of(params, "ids", &volume.id)
        && paging::is(params, "name", Some(&volume.name))
        && params.text("type").is_none_or(|part| volume.r#type.contains(&part.to_uppercase()))
        && paging::is(params, "state", Some(&volume.state))
        && paging::is(params, "virtualmachineid", volume.virtualmachineid.as_deref())
        && paging::is(params, "zoneid", Some(&volume.zoneid))
        && paging::is(params, "diskofferingid", volume.diskofferingid.as_deref())
        && paging::has_keyword(params, &[&volume.name, &volume.r#type, &volume.state])
        && (tags.is_empty() || has_a_tag())
}
