//! Which VM this is: proven, not configured.
//!
//! The SMBIOS system UUID that CloudStack knows as a VM proves it, and so does a serial seen in this kernel that belongs
//! to a volume which CloudStack lists on a VM. `vm_id` or cloud-init's instance data only fill a gap. Where two of them
//! disagree every change is refused, with both ids: a wrong one would attach to, or detach from, somebody else's machine.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::world::World;
use crate::cloudstack::{CallError, CloudStack};
use crate::device::Devices;
use crate::error::{Error, Kind, Result};
use crate::model::{VmId, VmRecord, VolumeRecord, VolumeType};

/// The store is bound to the VM that it was first used in.
const BOUND_TO: &str = "vm_id";

/// What was proven, once.
#[derive(Default)]
pub(super) struct ThisVm(Mutex<Option<Known>>);

/// This VM, and what says so.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub id: VmId,
    /// In words: a proof, or what fills its place.
    pub by: String,
}

impl Known {
    /// Which VM this is, by what CloudStack and this kernel say; `configured` is `vm_id`. Changes nothing.
    pub(super) async fn prove(cloud: &CloudStack, devices: &Devices, configured: Option<VmId>) -> Result<Self> {
        let evidence = devices.this_vm();
        let mut claims: BTreeMap<VmId, String> = BTreeMap::new();
        if let Ok(smbios) = evidence.smbios
            && known_vm(cloud, smbios).await?.is_some()
        {
            claims.insert(smbios, "the SMBIOS UUID".to_owned());
        }
        for (vm, claim) in claims_of_serials(cloud, devices).await? {
            claims.entry(vm).or_insert(claim);
        }
        let hint = configured.or(evidence.cloud_init.ok());
        let source = if configured.is_some() { "vm_id in the configuration" } else { "cloud-init" };
        let mut proven = claims.iter();
        match (proven.next(), proven.next(), hint) {
            (Some((one, claim)), Some((other, other_claim)), _) => Err(contradiction(*one, claim, *other, other_claim)),
            (Some((vm, claim)), None, Some(hint)) if configured.is_some() && hint != *vm => {
                Err(contradiction(*vm, claim, hint, source))
            }
            (Some((vm, claim)), None, _) => Ok(Self { id: *vm, by: format!("proven by {claim}") }),
            (None, _, Some(hint)) => match known_vm(cloud, hint).await? {
                Some(vm) => Ok(Self { id: vm.id, by: format!("said by {source}, which nothing here contradicts or proves") }),
                None => Err(Error::new(
                    Kind::Config,
                    format!("this VM is not known: {source} says {hint}, which CloudStack does not know; nothing was sent"),
                )
                .hint("set vm_id in [cloudstack] to the id of the VM in which volctld runs")),
            },
            (None, _, None) => Err(Error::new(
                Kind::Config,
                "this VM is not known: neither SMBIOS nor a disk's serial nor cloud-init tells which it is; nothing was sent",
            )
            .hint("set vm_id in [cloudstack] to the id of the VM in which volctld runs")),
        }
    }
}

async fn known_vm(cloud: &CloudStack, id: VmId) -> Result<Option<VmRecord>> {
    cloud.vm(id).await.map_err(proving)
}

/// The VMs to which CloudStack has attached the volumes whose serials this kernel shows.
async fn claims_of_serials(cloud: &CloudStack, devices: &Devices) -> Result<Vec<(VmId, String)>> {
    let seen = devices.all()?;
    if seen.is_empty() {
        return Ok(Vec::new());
    }
    let volumes = cloud.volumes().await.map_err(proving)?;
    let claim = |volume: &VolumeRecord| {
        let serial = volume.id.serial();
        let here = seen.iter().find(|device| device.serial == serial)?;
        Some((volume.vm_id?, format!("the disk {} of volume {}", here.path.display(), volume.label())))
    };
    Ok(volumes.iter().filter_map(claim).collect())
}

impl World {
    /// This VM, if it was proven before.
    pub fn this_vm_known(&self) -> Option<VmId> {
        self.this_vm().as_ref().map(|known| known.id)
    }

    /// What says that it is this VM, in words: a proof, or what fills its place.
    pub fn this_vm_known_by(&self) -> Option<String> {
        self.this_vm().as_ref().map(|known| known.by.clone())
    }

    fn this_vm(&self) -> MutexGuard<'_, Option<Known>> {
        self.this_vm.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proves which VM this is, before the first change; later asks nobody.
    pub async fn prove_this_vm(&self) -> Result<VmId> {
        if let Some(known) = self.this_vm_known() {
            return Ok(known);
        }
        let known = Known::prove(&self.cloud, &self.devices, self.config.cloudstack.vm_id).await?;
        let id = known.id;
        self.bind(id)?;
        tracing::info!(vm = %id, by = known.by, "this VM is known");
        *self.this_vm() = Some(known);
        Ok(id)
    }

    /// This VM, proven, as CloudStack has it now.
    pub(super) async fn this_vm_record(&self) -> Result<VmRecord> {
        let id = self.prove_this_vm().await?;
        let found =
            self.cloud.vm(id).await.map_err(|error| error.into_error("looking at this VM; nothing was sent"))?;
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("CloudStack does not know this VM, {id}, any more")))
    }

    /// The disk that this machine runs from is nobody's to change.
    pub(super) fn refuse_own_root(&self, volume: &VolumeRecord) -> Result<()> {
        let what = match (volume.vm_id, self.this_vm_known()) {
            (Some(vm), Some(this)) if vm == this => "is this VM's own root disk",
            (Some(_), None) => "is a root disk, and may be this VM's own",
            _ => return Ok(()),
        };
        if volume.volume_type != VolumeType::Root {
            return Ok(());
        }
        Err(Error::new(Kind::Conflict, format!("volume {} {what}: it is not touched", volume.label())))
    }

    /// Whether a VM is this one.
    pub(super) fn is_here(&self, vm: VmId) -> bool {
        self.this_vm_known() == Some(vm)
    }

    /// In a copy of the appliance the store knows operations and exports that are another machine's.
    fn bind(&self, vm: VmId) -> Result<()> {
        match self.store.meta(BOUND_TO)? {
            None => self.store.set_meta(BOUND_TO, &vm.to_string()),
            Some(bound) if bound == vm.to_string() => Ok(()),
            Some(bound) => Err(Error::new(
                Kind::Conflict,
                format!(
                    "the state in {} belongs to VM {bound}, but this is VM {vm}: every change is refused",
                    self.store.path().display()
                ),
            )
            .hint("in a cloned or restored appliance begin with another --state-dir")),
        }
    }
}

fn contradiction(one: VmId, claim: &str, other: VmId, other_claim: &str) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "which VM this is cannot be proven: {claim} says {one}, {other_claim} says {other}; every change is refused"
        ),
    )
    .hint("correct vm_id, or detach what belongs to the other VM")
}

fn proving(error: CallError) -> Error {
    error.into_error("proving which VM this is; nothing was sent")
}
