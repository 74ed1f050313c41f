//! `createVolume`: the row in the call, and a job that makes nothing on storage (facts sheet, 4.2).

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::{Command, Outcome};
use crate::error::ApiError;
use crate::jobs::{Instance, NewJob, Work};
use crate::params::Entity::{DiskOffering as OfferingId, Project, Snapshot, Vm, Zone};
use crate::params::Kind::{Boolean, Id, Integer, Text};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;
use crate::world::objects::{DiskOffering, Volume, random_id};

/// `custom.diskoffering.size.min`, GiB.
pub const MIN_CUSTOM_GIB: i64 = 1;
/// `custom.diskoffering.size.max`, GiB.
pub const MAX_CUSTOM_GIB: i64 = 1024;
/// 1 GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// `createVolume`
pub const COMMAND: Command = Command {
    name: "createVolume",
    class: "volume.CreateVolumeCmd",
    is_async: true,
    params: &[
        Spec::new("name", Text),
        Spec::new("zoneid", Id(Zone)),
        Spec::new("diskofferingid", Id(OfferingId)),
        Spec::new("snapshotid", Id(Snapshot)),
        Spec::new("size", Integer),
        Spec::new("virtualmachineid", Id(Vm)),
        Spec::new("customid", Text),
        Spec::new("account", Text),
        Spec::new("projectid", Id(Project)),
        Spec::new("displayvolume", Boolean),
    ],
    run,
};

fn run(simulator: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let volume = row(world, params)?;
    let id = volume.id.clone();
    world.volumes.push(volume);
    let job = NewJob { instance: Some(Instance::volume(&id)), queue: None, start: Ok(work(simulator, world, id)) };
    Ok(Outcome::Created(job))
}

fn row(world: &World, params: &Params) -> Result<Volume, ApiError> {
    let offering = params.text("diskofferingid").and_then(|id| world.disk_offerings.iter().find(|o| o.id == id));
    let offering = offering.ok_or_else(|| {
        ApiError::invalid(
            "Missing parameter(s), either a positive volume size or a valid disk offering id must be specified.",
        )
    })?;
    let zoneid = params.text("zoneid").ok_or_else(|| ApiError::invalid("Missing parameter: zoneid"))?;
    if params.text("virtualmachineid").is_some() {
        return Err(ApiError::invalid("virtual machine id is only to be specified when a snapshot id is"));
    }
    let size = GIB * size_gib(offering, world, params)?;
    check_access(offering, zoneid, world)?;
    let account = owner(world, params)?;
    let id = volume_id(world, params)?;
    check_limits(&account, size, 1, world)?;
    let name = params.text("name").filter(|name| !name.trim().is_empty());
    Ok(Volume {
        id,
        name: name.map_or_else(random_id, str::to_owned),
        r#type: "DATADISK".to_owned(),
        state: "Allocated".to_owned(),
        size,
        zoneid: zoneid.to_owned(),
        diskofferingid: Some(offering.id.clone()),
        virtualmachineid: None,
        deviceid: None,
        attached: None,
        account,
        projectid: params.text("projectid").map(str::to_owned),
        created: world.now(),
        tags: Vec::new(),
        deleteprotection: false,
        removed: false,
    })
}

/// Given for a customised offering, and only for one.
fn size_gib(offering: &DiskOffering, world: &World, params: &Params) -> Result<u64, ApiError> {
    let size = match (params.integer("size"), offering.is_customized()) {
        (None, false) => return Ok(offering.disksize),
        (Some(_), false) => {
            return Err(ApiError::invalid(format!("This disk offering does not allow custom size: {}", offering.id)));
        }
        (None, true) => return Err(ApiError::invalid("This disk offering requires a custom size specified")),
        (Some(size), true) => size,
    };
    if !(MIN_CUSTOM_GIB..=MAX_CUSTOM_GIB).contains(&size) {
        return Err(ApiError::invalid(format!(
            "Volume size: {size}GB is out of allowed range. Min: {MIN_CUSTOM_GIB}. Max: {MAX_CUSTOM_GIB}"
        )));
    }
    let maximum = world.settings.max_volume_size_gib;
    u64::try_from(size)
        .ok()
        .filter(|size| *size <= maximum)
        .ok_or_else(|| ApiError::invalid(format!("The maximum size allowed is {maximum} GB")))
}

fn check_access(offering: &DiskOffering, zoneid: &str, world: &World) -> Result<(), ApiError> {
    let elsewhere = offering.zoneid.as_deref().is_some_and(|only| only != zoneid);
    let is_disabled = world.zones.iter().any(|zone| zone.id == zoneid && zone.allocationstate != "Enabled");
    if elsewhere || (offering.forbidden && !world.settings.is_admin()) {
        Err(ApiError::permission(format!("The caller has no access to the disk offering {}", offering.name)))
    } else if is_disabled && !world.settings.is_admin() {
        Err(ApiError::permission(format!("Cannot perform this operation, Zone is currently disabled: {zoneid}")))
    } else {
        Ok(())
    }
}

fn owner(world: &World, params: &Params) -> Result<String, ApiError> {
    match params.text("account") {
        Some(account) if !world.may_use(account) => {
            Err(ApiError::permission(format!("The caller has no access to the account {account}")))
        }
        Some(account) => Ok(account.to_owned()),
        None => Ok(world.settings.account.clone()),
    }
}

/// Root admin may choose it.
fn volume_id(world: &World, params: &Params) -> Result<String, ApiError> {
    let Some(id) = params.text("customid") else {
        return Ok(random_id());
    };
    if !world.settings.is_admin() {
        return Err(ApiError::permission("Only root admins can specify custom ids"));
    }
    let is_uuid = Uuid::try_parse(id).is_ok_and(|uuid| uuid.to_string() == id);
    if !is_uuid || world.volume(id).is_some() {
        return Err(ApiError::invalid(format!("{id} is no UUID, or is taken")));
    }
    Ok(id.to_owned())
}

/// Whether an account may have so many bytes and volumes more.
pub fn check_limits(account: &str, size: u64, more: usize, world: &World) -> Result<(), ApiError> {
    let owned: Vec<_> = world.volumes.iter().filter(|v| !v.removed && v.account == account).collect();
    let bytes = owned.iter().fold(size, |sum, volume| sum.saturating_add(volume.size));
    let exceeded = |resource: &str| {
        Err(ApiError::limit(format!(
            "Maximum amount of resources of Type = '{resource}' for Account has been exceeded"
        )))
    };
    if world.settings.max_volumes.is_some_and(|limit| more > 0 && owned.len() + more > limit) {
        exceeded("volume")
    } else if world.settings.max_primary_storage_gib.is_some_and(|limit| bytes > limit.saturating_mul(GIB)) {
        exceeded("primary_storage")
    } else {
        Ok(())
    }
}

fn work(simulator: &Arc<Simulator>, world: &World, id: String) -> Work {
    let latency = world.settings.job_latency(COMMAND.name);
    let simulator = simulator.clone();
    Box::pin(async move {
        tokio::time::sleep(latency).await;
        let world = simulator.world();
        let volume = world.volume(&id).filter(|volume| !volume.removed);
        let volume = volume.ok_or_else(|| ApiError::internal("Failed to create volume"))?;
        Ok(json!({"volume": view::volume(volume, &world)}))
    })
}
