//! Which VM this is: proven, not configured.
//!
//! The SMBIOS system UUID that CloudStack knows as a VM proves it, and so does a serial seen in this kernel that belongs
//! to a volume which CloudStack lists on a VM. `vm_id` or cloud-init's instance data only fill a gap. Where two of them
//! disagree every change is refused, with both ids: a wrong one would attach to, or detach from, somebody else's machine.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::resolve::all_volumes;
use super::world::World;
use crate::cloudstack::CallError;
use crate::error::{Error, Kind, Result};
use crate::model::{VmId, VmRecord};

/// The store is bound to the VM that it was first used in.
const BOUND_TO: &str = "vm_id";

/// What was proven, once.
#[derive(Default)]
pub(super) struct ThisVm(Mutex<Option<Known>>);

/// This VM, and what says so.
#[derive(Clone, Debug)]
struct Known {
    id: VmId,
    by: String,
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
        let known = self.proof().await?;
        let id = known.id;
        self.bind(id)?;
        tracing::info!(vm = %id, by = known.by, "this VM is known");
        *self.this_vm() = Some(known);
        Ok(id)
    }

    async fn proof(&self) -> Result<Known> {
        let evidence = self.devices.this_vm();
        let mut claims: BTreeMap<VmId, String> = BTreeMap::new();
        if let Ok(smbios) = evidence.smbios
            && self.known_vm(smbios).await?.is_some()
        {
            claims.insert(smbios, "the SMBIOS UUID".to_owned());
        }
        for (vm, claim) in self.claims_of_serials().await? {
            claims.entry(vm).or_insert(claim);
        }
        let hint = self.config.cloudstack.vm_id.or(evidence.cloud_init.ok());
        let source = if self.config.cloudstack.vm_id.is_some() { "vm_id in the configuration" } else { "cloud-init" };
        let mut proven = claims.iter();
        match (proven.next(), proven.next(), hint) {
            (Some((one, claim)), Some((other, other_claim)), _) => Err(contradiction(*one, claim, *other, other_claim)),
            (Some((vm, claim)), None, Some(hint)) if self.config.cloudstack.vm_id.is_some() && hint != *vm => {
                Err(contradiction(*vm, claim, hint, source))
            }
            (Some((vm, claim)), None, _) => Ok(Known { id: *vm, by: format!("proven by {claim}") }),
            (None, _, Some(hint)) => match self.known_vm(hint).await? {
                Some(vm) => Ok(Known { id: vm.id, by: format!("said by {source}, which nothing here contradicts or proves") }),
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

    async fn known_vm(&self, id: VmId) -> Result<Option<VmRecord>> {
        self.cloud.vm(id).await.map_err(proving)
    }

    /// The VMs to which CloudStack has attached the volumes whose serials this kernel shows.
    async fn claims_of_serials(&self) -> Result<Vec<(VmId, String)>> {
        let seen = self.devices.all()?;
        if seen.is_empty() {
            return Ok(Vec::new());
        }
        let volumes = all_volumes(self).await.map_err(proving)?;
        let claim = |volume: &crate::model::VolumeRecord| {
            let serial = volume.id.serial();
            let here = seen.iter().find(|device| device.serial == serial)?;
            Some((volume.vm_id?, format!("the disk {} of volume {}", here.path.display(), volume.label())))
        };
        Ok(volumes.iter().filter_map(claim).collect())
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
