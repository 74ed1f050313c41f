//! Objects as the API shows them (facts sheet, 2.1 and 2.3): fields without a value are left out.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jobs::{Job, Status};
use crate::world::World;
use crate::world::objects::{DiskOffering, Project, Snapshot, Tag, VirtualMachine, Volume, Zone};

/// The server's version.
pub const VERSION: &str = "4.22.0.0";

const DOMAIN: &str = "d0000000-0000-4000-8000-000000000001";

/// A volume.
pub fn volume(volume: &Volume, world: &World) -> Value {
    let vm = volume.virtualmachineid.as_deref().filter(|_| volume.state != "Destroy").and_then(|id| world.vm(id));
    let offering = world.disk_offerings.iter().find(|offering| Some(&offering.id) == volume.diskofferingid.as_ref());
    let is_root = volume.r#type == "ROOT";
    let job = world.jobs.iter().find(|job| job.is_pending() && job.instance_is("Volume", &volume.id));
    let root_view = world.settings.is_admin();
    without_nulls(json!({
        "id": volume.id, "name": volume.name, "type": volume.r#type, "state": volume.state, "size": volume.size,
        "zoneid": volume.zoneid, "zonename": zone_name(&volume.zoneid, world),
        "account": volume.account, "domainid": DOMAIN, "domain": "ROOT",
        "projectid": volume.projectid, "project": project_name(volume.projectid.as_deref(), world),
        "created": date(volume.created), "deviceid": volume.deviceid, "attached": volume.attached.map(date),
        "virtualmachineid": vm.map(|vm| &vm.id), "vmname": vm.map(|vm| &vm.name),
        "vmdisplayname": vm.map(|vm| vm.displayname.as_ref().unwrap_or(&vm.name)),
        "vmstate": vm.map(|vm| &vm.state), "vmtype": vm.map(|_| "User"),
        "diskofferingid": offering.map(|offering| &offering.id),
        "diskofferingname": offering.map(|offering| &offering.name),
        "serviceofferingid": is_root.then_some("1"), "serviceofferingname": is_root.then_some("Small Instance"),
        "provisioningtype": "thin", "tags": tags("Volume", &volume.id, &volume.tags),
        "destroyed": matches!(volume.state.as_str(), "Destroy" | "Expunging" | "Expunged"),
        "isextractable": true, "deleteprotection": volume.deleteprotection, "quiescevm": false,
        "supportsstoragesnapshot": false,
        "hypervisor": root_view.then_some("KVM"), "storagetype": root_view.then_some("shared"),
        "jobid": job.map(|job| &job.id), "jobstatus": job.map(|_| 0),
    }))
}

/// A volume snapshot.
pub fn snapshot(snapshot: &Snapshot, world: &World) -> Value {
    let volume = world.volume(&snapshot.volumeid);
    let job = world.jobs.iter().find(|job| job.is_pending() && job.instance_is("Snapshot", &snapshot.id));
    without_nulls(json!({
        "id": snapshot.id, "name": snapshot.name, "volumeid": snapshot.volumeid,
        "volumename": volume.map(|volume| &volume.name), "volumetype": volume.map(|volume| &volume.r#type),
        "state": snapshot.state, "snapshottype": "MANUAL", "intervaltype": "MANUAL",
        "created": date(snapshot.created), "zoneid": snapshot.zoneid, "zonename": zone_name(&snapshot.zoneid, world),
        "physicalsize": 0, "virtualsize": snapshot.virtualsize, "revertable": true,
        "account": snapshot.account, "domainid": DOMAIN, "domain": "ROOT", "projectid": snapshot.projectid,
        "tags": tags("Snapshot", &snapshot.id, &snapshot.tags),
        "jobid": job.map(|job| &job.id), "jobstatus": job.map(|_| 0),
    }))
}

fn tags(kind: &str, id: &str, tags: &[Tag]) -> Vec<Value> {
    let show = |tag: &Tag| json!({"key": tag.key, "value": tag.value, "resourcetype": kind, "resourceid": id});
    tags.iter().map(show).collect()
}

/// A virtual machine.
pub fn virtual_machine(vm: &VirtualMachine, world: &World) -> Value {
    let job = world.jobs.iter().find(|job| job.is_pending() && job.instance_is("VirtualMachine", &vm.id));
    let has_root = world.attached_to(&vm.id).any(|volume| volume.deviceid == Some(0));
    without_nulls(json!({
        "id": vm.id, "name": vm.name, "displayname": vm.displayname.as_ref().unwrap_or(&vm.name), "state": vm.state,
        "zoneid": vm.zoneid, "zonename": zone_name(&vm.zoneid, world), "hypervisor": vm.hypervisor,
        "account": vm.account, "domainid": DOMAIN, "domain": "ROOT",
        "projectid": vm.projectid, "project": project_name(vm.projectid.as_deref(), world),
        "osdisplayname": "Debian GNU/Linux 12 (64-bit)", "cpunumber": 2, "memory": 2048,
        "rootdeviceid": has_root.then_some(0), "nic": [], "tags": [], "details": {"rootDiskController": "virtio"},
        "deleteprotection": vm.deleteprotection, "jobid": job.map(|job| &job.id), "jobstatus": job.map(|_| 0),
        "instancename": world.settings.is_admin().then(|| format!("i-2-{}-VM", vm.name)),
    }))
}

/// The VM snapshot of a VM.
pub fn vm_snapshot(vm: &VirtualMachine) -> Value {
    json!({
        "id": vm.id, "name": format!("i-2-{}_VS", vm.name), "displayname": "before-update", "state": "Ready",
        "virtualmachineid": vm.id, "zoneid": vm.zoneid, "current": true, "account": vm.account,
        "type": if vm.state == "Running" { "DiskAndMemory" } else { "Disk" },
        "domainid": DOMAIN, "domain": "ROOT", "tags": [],
    })
}

/// A zone.
pub fn zone(zone: &Zone) -> Value {
    json!({
        "id": zone.id, "name": zone.name, "allocationstate": zone.allocationstate, "networktype": "Advanced",
        "type": "Core", "localstorageenabled": false, "tags": [],
    })
}

/// A disk offering.
pub fn disk_offering(offering: &DiskOffering) -> Value {
    without_nulls(json!({
        "id": offering.id, "name": offering.name, "displaytext": offering.name, "state": "Active",
        "storagetype": "shared", "provisioningtype": "thin", "disksize": offering.disksize,
        "iscustomized": offering.is_customized(), "disksizestrictness": offering.disksizestrictness, "encrypt": false,
        "zoneid": offering.zoneid,
    }))
}

/// A project.
pub fn project(project: &Project) -> Value {
    json!({"id": project.id, "name": project.name, "displaytext": project.name, "state": "Active", "domainid": DOMAIN})
}

/// A job, with the class name of its command.
pub fn job(job: &Job, class: &str, world: &World) -> Value {
    let status = match job.status {
        Status::Pending => 0,
        Status::Succeeded => 1,
        Status::Failed => 2,
    };
    without_nulls(json!({
        "accountid": "e0000000-0000-4000-8000-000000000001", "account": world.settings.account,
        "userid": "f0000000-0000-4000-8000-000000000001", "domainid": DOMAIN, "domainpath": "ROOT",
        "cmd": class_name(class, world), "jobstatus": status, "jobprocstatus": 0, "jobresultcode": job.result_code,
        "jobresulttype": job.result.as_ref().map(|_| "object"), "jobresult": job.result,
        "jobinstancetype": job.instance.as_ref().map(|instance| &instance.kind),
        "jobinstanceid": job.instance.as_ref().map(|instance| &instance.id),
        "created": date(job.created), "completed": job.completed.map(date),
        "managementserverid": job.is_pending().then_some("c0000000-0000-4000-8000-000000000001"),
        "managementservername": job.is_pending().then_some("ms1"),
        "jobid": job.id,
    }))
}

/// The Java class of a command, of which root admin has another; `class` as in `volume.AttachVolumeCmd`.
pub fn class_name(class: &str, world: &World) -> String {
    if world.settings.is_admin() {
        format!("org.apache.cloudstack.api.command.admin.{class}ByAdmin")
    } else {
        format!("org.apache.cloudstack.api.command.user.{class}")
    }
}

/// A date as the API writes it: the offset without a colon.
pub fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string()
}

fn zone_name<'a>(id: &str, world: &'a World) -> Option<&'a str> {
    world.zones.iter().find(|zone| zone.id == id).map(|zone| zone.name.as_str())
}

fn project_name<'a>(id: Option<&str>, world: &'a World) -> Option<&'a str> {
    world.projects.iter().find(|project| Some(project.id.as_str()) == id).map(|project| project.name.as_str())
}

fn without_nulls(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.retain(|_, value| !value.is_null());
    }
    object
}
