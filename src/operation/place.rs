//! Where a volume is, and where it can be attached: CloudStack's rules (facts sheet, 4.3), looked at before anything is
//! sent, since CloudStack itself tells them only inside of the job. Each has its own sentence.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::world::Cx;
use crate::cloudstack::{CallError, CloudStack, VmSnapshot};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::model::{VmId, VmRecord, VolumeId, VolumeRecord, VolumeType, printable};

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

/// Whether a VM of this hypervisor lets its root disk be attached and detached.
pub(super) fn takes_roots(vm: &VmRecord) -> bool {
    vm.hypervisor.as_ref().is_none_or(|name| TAKE_ROOTS.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// A VM, as it is looked at before a volume is attached to it.
pub(super) struct Target {
    pub vm: VmRecord,
    /// All that is attached to it.
    pub disks: Vec<VolumeRecord>,
    /// Its VM snapshots, as far as they were looked for.
    snapshots: Vec<VmSnapshot>,
}

impl Target {
    /// Looks at what is needed for one disk more.
    pub async fn look(cloud: &CloudStack, vm: &VmRecord, place: Place) -> Result<Self, CallError> {
        match place {
            Place::Data => {
                let (disks, snapshots) = tokio::join!(cloud.volumes_of_vm(vm.id), vm_snapshots(cloud, vm.id));
                Ok(Self { vm: vm.clone(), disks: disks?, snapshots })
            }
            Place::Root => Self::look_closely(cloud, vm).await,
        }
    }

    /// Looks at all that CloudStack tells, the VM's state too: it may be another one by now.
    pub async fn look_closely(cloud: &CloudStack, vm: &VmRecord) -> Result<Self, CallError> {
        let gone = || VmRecord { state: "no longer there".to_owned(), ..vm.clone() };
        let now = cloud.vm(vm.id).await?.unwrap_or_else(gone);
        let disks = cloud.volumes_of_vm(vm.id).await?;
        Ok(Self { snapshots: cloud.vm_snapshots(vm.id).await?, vm: now, disks })
    }

    /// Refuses a volume that CloudStack would not attach to it.
    pub fn refuse(&self, volume: &VolumeRecord, place: Place, config: &Config) -> Result<()> {
        refuse_unfit(volume, &self.vm, place)?;
        self.refuse_occupied(place, config)?;
        self.refuse_snapshots()
    }

    /// Refuses where there is no place for one disk more.
    pub fn refuse_occupied(&self, place: Place, config: &Config) -> Result<()> {
        match place {
            Place::Root => self.refuse_second_root(),
            Place::Data => self.refuse_too_many(config.device.max_disks),
        }
    }

    /// Refuses where VM snapshots forbid that its disks change.
    pub fn refuse_snapshots(&self) -> Result<()> {
        refuse_vm_snapshots(&self.vm.label(), &self.snapshots, "attaches and detaches nothing")
    }

    /// Its root disk.
    pub fn root(&self) -> Option<&VolumeRecord> {
        self.disks.iter().find(|volume| is_root_disk(volume))
    }

    fn refuse_second_root(&self) -> Result<()> {
        let Some(root) = self.root() else { return Ok(()) };
        Err(Error::new(
            Kind::Conflict,
            format!("VM {} has a root disk already, volume {}; nothing was sent", self.vm.label(), root.label()),
        )
        .hint(format!("`volctl detach {} --from {}` detaches that one, and deletes nothing", root.id, self.vm.id)))
    }

    /// Counted before anything is sent: CloudStack would say so only inside of the job.
    fn refuse_too_many(&self, max_disks: u32) -> Result<()> {
        let data_disks = self.disks.iter().filter(|volume| volume.volume_type == VolumeType::DataDisk).count();
        if data_disks < max_disks as usize {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "VM {} has no free slot: {data_disks} of {max_disks} data disks are attached; nothing was sent",
                self.vm.label()
            ),
        )
        .hint("detach one first"))
    }
}

/// How long a look is waited for that only spares CloudStack a refusal of its own.
const COURTESY: Duration = Duration::from_secs(5);

/// The VM snapshots of a VM; none where CloudStack does not tell: it then refuses by itself.
pub(super) async fn vm_snapshots(cloud: &CloudStack, vm: VmId) -> Vec<VmSnapshot> {
    match timeout(COURTESY, cloud.vm_snapshots(vm)).await {
        Ok(Ok(snapshots)) => snapshots,
        Ok(Err(error)) => {
            tracing::debug!(%vm, %error, "its VM snapshots are not known");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// Refuses where VM snapshots forbid what CloudStack would be asked for.
pub(super) fn refuse_vm_snapshots(vm: &str, snapshots: &[VmSnapshot], forbidden: &str) -> Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = snapshots.iter().take(10).map(|snapshot| printable(&snapshot.name)).collect();
    Err(Error::new(
        Kind::Conflict,
        format!("VM {vm} has VM snapshots ({}), with which CloudStack {forbidden}; nothing was sent", names.join(", ")),
    )
    .hint("delete them in CloudStack first"))
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
    if place == Place::Root && !takes_roots(vm) {
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

/// Where CloudStack says that a volume is.
pub(super) async fn whereabouts(cx: &Cx, volume: VolumeId) -> String {
    match cx.world.look_up(volume).await {
        Ok(Some(VolumeRecord { vm_id: None, .. })) => "attached nowhere".to_owned(),
        Ok(Some(VolumeRecord { vm_id: Some(vm), vm_name, .. })) => {
            format!("attached to VM {} ({vm})", vm_name.as_deref().map(printable).unwrap_or_default())
        }
        Ok(None) => "no longer there".to_owned(),
        Err(_) => "where CloudStack, which does not answer, has it".to_owned(),
    }
}
