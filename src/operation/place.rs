//! Where a volume can be attached: CloudStack's rules (facts sheet, 4.3), looked at before anything is sent, since
//! CloudStack itself tells them only inside of the job. Each has its own sentence.

use serde::{Deserialize, Serialize};

use super::world::World;
use crate::error::{Error, Kind, Result};
use crate::model::{VmRecord, VolumeRecord, VolumeType, printable};

/// The device id of a root disk.
const ROOT: u32 = 0;

/// The hypervisors that take a volume as a root disk.
const TAKE_ROOTS: [&str; 3] = ["KVM", "XenServer", "VMware"];

/// As what a volume is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    /// A data disk; CloudStack chooses the device id.
    Data,
    /// The disk that the VM starts from.
    Root,
}

impl Place {
    /// What is asked for.
    pub fn of(root: bool) -> Self {
        if root { Self::Root } else { Self::Data }
    }

    /// What CloudStack is told.
    pub fn device_id(self) -> Option<u32> {
        (self == Self::Root).then_some(ROOT)
    }
}

/// Whether an attached volume is its VM's root disk.
pub(super) fn is_root_disk(volume: &VolumeRecord) -> bool {
    volume.volume_type == VolumeType::Root || volume.device_id == Some(ROOT)
}

/// Refuses a volume that does not fit a VM, wherever it is attached now.
pub(super) fn refuse_unfit(volume: &VolumeRecord, vm: &VmRecord, place: Place) -> Result<()> {
    let conflict =
        |what: String| Err(Error::new(Kind::Conflict, format!("volume {} {what}; nothing was sent", volume.label())));
    if volume.job_id.is_none() && !matches!(volume.state.as_str(), "Allocated" | "Ready" | "Uploaded") {
        return conflict(format!("is in state {}", printable(&volume.state)));
    }
    let state = printable(&vm.state);
    if place == Place::Root && vm.state != "Stopped" {
        return conflict(format!(
            "cannot become the root disk of VM {}, which is {state}: only a stopped VM takes one",
            vm.label()
        ));
    }
    if !matches!(vm.state.as_str(), "Running" | "Stopped") {
        return conflict(format!("cannot be attached: VM {} is {state}", vm.label()));
    }
    if vm.zone_id != volume.zone_id {
        return conflict(format!("is in another zone than VM {}", vm.label()));
    }
    if volume.owner.differs(&vm.owner) {
        return conflict(format!(
            "belongs to {}, but VM {} to {}: only what has the same owner can be attached",
            volume.owner,
            vm.label(),
            vm.owner
        ));
    }
    let Some(hypervisor) = &vm.hypervisor else { return Ok(()) };
    let name = printable(hypervisor);
    if place == Place::Root && !TAKE_ROOTS.iter().any(|known| known.eq_ignore_ascii_case(hypervisor)) {
        return conflict(format!("cannot become the root disk of VM {}: {name} takes none", vm.label()));
    }
    match &volume.hypervisor {
        Some(other) if !is_any(other) && !other.eq_ignore_ascii_case(hypervisor) => {
            conflict(format!("is on storage for {}, but VM {} runs on {name}", printable(other), vm.label()))
        }
        _ => Ok(()),
    }
}

/// A volume that is not on storage yet, or on storage for all.
fn is_any(hypervisor: &str) -> bool {
    ["None", "Any"].iter().any(|any| any.eq_ignore_ascii_case(hypervisor))
}

/// Refuses one disk more on a VM that has these.
pub(super) fn refuse_occupied(vm: &VmRecord, disks: &[VolumeRecord], place: Place, max_disks: u32) -> Result<()> {
    match place {
        Place::Root => refuse_second_root(vm, disks),
        Place::Data => refuse_too_many(vm, disks, max_disks),
    }
}

fn refuse_second_root(vm: &VmRecord, disks: &[VolumeRecord]) -> Result<()> {
    let Some(root) = disks.iter().find(|volume| is_root_disk(volume)) else { return Ok(()) };
    Err(Error::new(
        Kind::Conflict,
        format!("VM {} has a root disk already, volume {}; nothing was sent", vm.label(), root.label()),
    )
    .hint(format!("`volctl detach {} --from {}` detaches that one, and deletes nothing", root.id, vm.id)))
}

/// Counted before anything is sent: CloudStack would say so only inside of the job.
fn refuse_too_many(vm: &VmRecord, disks: &[VolumeRecord], max_disks: u32) -> Result<()> {
    let data_disks = disks.iter().filter(|volume| volume.volume_type == VolumeType::DataDisk).count();
    if data_disks < max_disks as usize {
        return Ok(());
    }
    Err(Error::new(
        Kind::Conflict,
        format!(
            "VM {} has no free slot: {data_disks} of {max_disks} data disks are attached; nothing was sent",
            vm.label()
        ),
    )
    .hint("detach one first"))
}

impl World {
    /// Refuses one disk more on a VM that has no place for it.
    pub(super) async fn refuse_if_occupied(&self, vm: &VmRecord, place: Place) -> Result<()> {
        let doing = format!("looking at the disks of VM {}; nothing was sent", vm.label());
        let disks = self.cloud.volumes_of_vm(vm.id).await.map_err(|error| error.into_error(&doing))?;
        refuse_occupied(vm, &disks, place, self.config.device.max_disks)
    }

    /// Refuses a VM whose snapshots forbid that its disks change.
    pub(super) async fn refuse_vm_snapshots(&self, vm: &VmRecord) -> Result<()> {
        let doing = format!("looking at the VM snapshots of VM {}; nothing was sent", vm.label());
        let snapshots = self.cloud.vm_snapshots(vm.id).await.map_err(|error| error.into_error(&doing))?;
        if snapshots.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = snapshots.iter().take(10).map(|snapshot| printable(&snapshot.name)).collect();
        Err(Error::new(
            Kind::Conflict,
            format!(
                "VM {} has VM snapshots ({}), with which CloudStack attaches and detaches nothing; nothing was sent",
                vm.label(),
                names.join(", ")
            ),
        )
        .hint("delete them in CloudStack first"))
    }
}
