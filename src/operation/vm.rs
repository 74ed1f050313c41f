//! VMs as CloudStack has them now, also those that volctl never touched, and the volumes of one in device order.

use std::collections::HashMap;
use std::time::Instant;

use jiff::Timestamp;

use super::resolve;
use super::world::World;
use crate::api::{VmListed, VmShown, Vms};
use crate::error::Result;
use crate::model::{VmId, VmRecord};
use crate::store::CachedVolume;

impl World {
    /// All VMs that the key can see, by name; as they were listed before, where that is not older than wanted.
    pub async fn list_vms(&self, max_age_seconds: Option<u64>) -> Result<Vms> {
        if let Some(kept) = self.vms.younger_than(max_age_seconds) {
            return Ok(kept);
        }
        let asked = Instant::now();
        let vms = self.list_vms_now().await?;
        self.vms.keep(asked, &vms);
        Ok(vms)
    }

    async fn list_vms_now(&self) -> Result<Vms> {
        let failed = |error: crate::cloudstack::CallError| error.into_error("listing the VMs");
        let mut vms = self.cloud.vms().await.map_err(failed)?;
        vms.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let mut counts: HashMap<VmId, usize> = HashMap::new();
        for vm in resolve::all_volumes(self).await.map_err(failed)?.iter().filter_map(|volume| volume.vm_id) {
            *counts.entry(vm).or_default() += 1;
        }
        let this = self.prove_this_vm().await.ok();
        let listed = |vm: VmRecord| VmListed {
            this_vm: this.map(|this| this == vm.id),
            volumes: counts.get(&vm.id).copied().unwrap_or_default(),
            id: vm.id,
            name: vm.name,
            state: vm.state,
            zone_id: vm.zone_id,
        };
        Ok(Vms { vms: vms.into_iter().map(listed).collect() })
    }

    /// One VM, this one where no word is given, with its volumes in device order.
    pub async fn show_vm(&self, word: Option<&str>) -> Result<VmShown> {
        let vm = match word {
            Some(word) => resolve::vm(self, word).await?,
            None => self.this_vm_record().await?,
        };
        let doing = format!("listing the volumes of VM {}", vm.label());
        let as_of = Timestamp::now();
        let mut disks = self.cloud.volumes_of_vm(vm.id).await.map_err(|error| error.into_error(&doing))?;
        disks.sort_by_key(|volume| (volume.device_id.unwrap_or(u32::MAX), volume.id));
        let volumes = disks.into_iter().map(|record| {
            let device = self.devices.find(&record.id.serial())?;
            self.joined_one(CachedVolume { record, as_of }, device, false)
        });
        let volumes = volumes.collect::<Result<_>>()?;
        let this_vm = self.prove_this_vm().await.ok().map(|this| this == vm.id);
        Ok(VmShown { id: vm.id, name: vm.name, state: vm.state, zone_id: vm.zone_id, this_vm, volumes })
    }
}
