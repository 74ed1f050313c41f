//! `listZones`, `listDiskOfferings`, `listVirtualMachines`, `listVMSnapshot` and `listProjects` (facts sheet, 4.7).

use std::sync::Arc;

use super::paging::{self, KEYWORD, PAGE, PAGE_SIZE};
use super::{Command, Outcome};
use crate::error::ApiError;
use crate::params::Entity::{AnyProject, DiskOffering, Project, Vm, Zone};
use crate::params::Kind::{Boolean, Id, Ids, List, Text};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;

/// `listZones`
pub const ZONES: Command = Command {
    name: "listZones",
    class: "zone.ListZonesCmd",
    is_async: false,
    params: &[
        Spec::new("id", Id(Zone)),
        Spec::new("name", Text),
        Spec::new("available", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run: zones,
};

/// `listDiskOfferings`
pub const DISK_OFFERINGS: Command = Command {
    name: "listDiskOfferings",
    class: "offering.ListDiskOfferingsCmd",
    is_async: false,
    params: &[
        Spec::new("id", Id(DiskOffering)),
        Spec::new("name", Text),
        Spec::new("zoneid", Id(Zone)),
        Spec::new("listall", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run: disk_offerings,
};

/// `listVirtualMachines`
pub const VIRTUAL_MACHINES: Command = Command {
    name: "listVirtualMachines",
    class: "vm.ListVMsCmd",
    is_async: false,
    params: &[
        Spec::new("id", Id(Vm)),
        Spec::new("ids", Ids(Vm)),
        Spec::new("name", Text),
        Spec::new("state", Text),
        Spec::new("zoneid", Id(Zone)),
        Spec::new("hypervisor", Text),
        Spec::new("details", List),
        Spec::new("projectid", Id(AnyProject)),
        Spec::new("listall", Boolean),
        Spec::new("retrieveonlyresourcecount", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run: virtual_machines,
};

/// `listVMSnapshot`
pub const VM_SNAPSHOTS: Command = Command {
    name: "listVMSnapshot",
    class: "vmsnapshot.ListVMSnapshotCmd",
    is_async: false,
    params: &[
        Spec::new("virtualmachineid", Id(Vm)),
        Spec::new("projectid", Id(AnyProject)),
        Spec::new("listall", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run: vm_snapshots,
};

/// `listProjects`
pub const PROJECTS: Command = Command {
    name: "listProjects",
    class: "project.ListProjectsCmd",
    is_async: false,
    params: &[
        Spec::new("id", Id(Project)),
        Spec::new("name", Text),
        Spec::new("listall", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run: projects,
};

fn zones(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let zones: Vec<_> = world
        .zones
        .iter()
        .filter(|zone| {
            paging::is(params, "id", Some(&zone.id))
                && paging::is(params, "name", Some(&zone.name))
                && paging::has_keyword(params, &[&zone.name])
                && (zone.allocationstate == "Enabled" || world.settings.is_admin())
        })
        .collect();
    paging::list(params, world, "zone", &zones, |zone| view::zone(zone)).map(Outcome::Done)
}

fn disk_offerings(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let offerings: Vec<_> = world
        .disk_offerings
        .iter()
        .filter(|offering| {
            let everywhere = offering.zoneid.is_none();
            paging::is(params, "id", Some(&offering.id))
                && paging::is(params, "name", Some(&offering.name))
                && (everywhere || paging::is(params, "zoneid", offering.zoneid.as_deref()))
                && paging::has_keyword(params, &[&offering.name])
                && (!offering.forbidden || world.settings.is_admin())
        })
        .collect();
    paging::list(params, world, "diskoffering", &offerings, |offering| view::disk_offering(offering)).map(Outcome::Done)
}

fn virtual_machines(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let vms: Vec<_> = world
        .virtual_machines
        .iter()
        .rev()
        .filter(|vm| {
            !vm.removed
                && paging::is_visible(params, world, &vm.account, vm.projectid.as_deref())
                && paging::is(params, "id", Some(&vm.id))
                && paging::is_one_of(params, "ids", &vm.id)
                && paging::is(params, "name", Some(&vm.name))
                && paging::is(params, "state", Some(&vm.state))
                && paging::is(params, "zoneid", Some(&vm.zoneid))
                && paging::is(params, "hypervisor", Some(&vm.hypervisor))
                && paging::has_keyword(params, &[&vm.name, vm.displayname.as_deref().unwrap_or_default(), &vm.state])
        })
        .collect();
    let show = |vm: &&_| view::virtual_machine(vm, world);
    paging::list(params, world, "virtualmachine", &vms, show).map(Outcome::Done)
}

/// A VM that is said to have VM snapshots has one.
fn vm_snapshots(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let vms: Vec<_> = world
        .virtual_machines
        .iter()
        .filter(|vm| {
            vm.vmsnapshots
                && paging::is_visible(params, world, &vm.account, vm.projectid.as_deref())
                && paging::is(params, "virtualmachineid", Some(&vm.id))
        })
        .collect();
    paging::list(params, world, "vmSnapshot", &vms, |vm| view::vm_snapshot(vm)).map(Outcome::Done)
}

fn projects(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let projects: Vec<_> = world
        .projects
        .iter()
        .filter(|project| {
            paging::is(params, "id", Some(&project.id))
                && paging::is(params, "name", Some(&project.name))
                && paging::has_keyword(params, &[&project.name])
        })
        .collect();
    paging::list(params, world, "project", &projects, |project| view::project(project)).map(Outcome::Done)
}
