//! The cloud to start with; each part can be given instead, in a JSON file with the same names.

use serde::Deserialize;

use super::objects::{DiskOffering, Project, VirtualMachine, Volume, Zone, random_id};
use super::settings::Settings;

/// The VM that the daemon under test runs in, unless `--this-vm` says otherwise.
pub const APPLIANCE: &str = "a0000000-0000-4000-8000-000000000001";
/// The zone.
pub const ZONE: &str = "20000000-0000-4000-8000-000000000001";
/// The caller's account.
pub const ACCOUNT: &str = "volctl";

const WORKER: &str = "a0000000-0000-4000-8000-000000000002";
const OLD: &str = "a0000000-0000-4000-8000-000000000003";
const GIB: u64 = 1 << 30;

/// What a cloud starts with.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seed {
    /// `zone1`
    pub zones: Vec<Zone>,
    /// `custom` and `fixed-5g`
    pub disk_offerings: Vec<DiskOffering>,
    /// None.
    pub projects: Vec<Project>,
    /// `appliance` and `worker`, which run, and `old`, which does not.
    pub virtual_machines: Vec<VirtualMachine>,
    /// A root volume for each.
    pub volumes: Vec<Volume>,
    /// All defaults.
    pub settings: Settings,
}

impl Default for Seed {
    fn default() -> Self {
        let virtual_machines =
            vec![vm(APPLIANCE, "appliance", "Running"), vm(WORKER, "worker", "Running"), vm(OLD, "old", "Stopped")];
        Self {
            zones: vec![Zone { id: ZONE.into(), name: "zone1".into(), allocationstate: "Enabled".into() }],
            disk_offerings: vec![
                offering("30000000-0000-4000-8000-000000000001", "custom", 0),
                offering("30000000-0000-4000-8000-000000000002", "fixed-5g", 5),
            ],
            projects: Vec::new(),
            volumes: virtual_machines.iter().map(root_volume).collect(),
            virtual_machines,
            settings: Settings::default(),
        }
    }
}

fn vm(id: &str, name: &str, state: &str) -> VirtualMachine {
    VirtualMachine {
        id: id.to_owned(),
        name: name.to_owned(),
        displayname: None,
        state: state.to_owned(),
        zoneid: ZONE.to_owned(),
        hypervisor: "KVM".to_owned(),
        account: ACCOUNT.to_owned(),
        projectid: None,
        vmsnapshots: false,
        deleteprotection: false,
        ignores_shutdown: false,
        removed: false,
    }
}

fn offering(id: &str, name: &str, disksize: u64) -> DiskOffering {
    DiskOffering {
        id: id.to_owned(),
        name: name.to_owned(),
        disksize,
        zoneid: None,
        forbidden: false,
        disksizestrictness: false,
    }
}

fn root_volume(vm: &VirtualMachine) -> Volume {
    let now = jiff::Timestamp::now();
    Volume {
        id: random_id(),
        name: format!("ROOT-{}", vm.name),
        r#type: "ROOT".to_owned(),
        state: "Ready".to_owned(),
        size: 8 * GIB,
        zoneid: ZONE.to_owned(),
        diskofferingid: None,
        virtualmachineid: Some(vm.id.clone()),
        deviceid: Some(0),
        attached: Some(now),
        account: ACCOUNT.to_owned(),
        projectid: None,
        created: now,
        tags: Vec::new(),
        deleteprotection: false,
        removed: false,
    }
}
