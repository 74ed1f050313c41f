//! What the cloud's database holds, with the names of the API; also the form of the seed and of the admin's edits.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::seed;

/// A volume's row.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// A UUID, unless a test wants otherwise.
    #[serde(default = "random_id")]
    pub id: String,
    /// Not unique, may be empty.
    pub name: String,
    /// `ROOT` or `DATADISK`.
    #[serde(default = "data_disk")]
    pub r#type: String,
    /// Facts sheet, 2.3.
    #[serde(default = "ready")]
    pub state: String,
    /// Virtual size in bytes.
    pub size: u64,
    /// Its zone.
    #[serde(default = "default_zone")]
    pub zoneid: String,
    /// Its offering; roots have none.
    pub diskofferingid: Option<String>,
    /// The VM that it is attached to.
    pub virtualmachineid: Option<String>,
    /// The place that it has there.
    pub deviceid: Option<i64>,
    /// Since when.
    pub attached: Option<Timestamp>,
    /// The owner.
    #[serde(default = "default_account")]
    pub account: String,
    /// The project, if one owns it.
    pub projectid: Option<String>,
    /// When it was made.
    #[serde(default = "Timestamp::now")]
    pub created: Timestamp,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Deletion is refused.
    #[serde(default)]
    pub deleteprotection: bool,
    /// Expunged: known by its id, listed nowhere.
    #[serde(default)]
    pub removed: bool,
}

/// A volume snapshot's row.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// A UUID.
    #[serde(default = "random_id")]
    pub id: String,
    /// Not unique.
    pub name: String,
    /// What it is of.
    pub volumeid: String,
    /// Facts sheet, 2.3.
    #[serde(default = "backed_up")]
    pub state: String,
    /// Its zone.
    #[serde(default = "default_zone")]
    pub zoneid: String,
    /// The volume's size when it was taken, bytes.
    pub virtualsize: u64,
    /// The owner.
    #[serde(default = "default_account")]
    pub account: String,
    /// The project, if one owns it.
    pub projectid: Option<String>,
    /// When it was taken.
    #[serde(default = "Timestamp::now")]
    pub created: Timestamp,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Destroyed: known by its id, listed nowhere.
    #[serde(default)]
    pub removed: bool,
}

/// A key and its value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Unique on an object.
    pub key: String,
    /// Never empty.
    pub value: String,
}

/// A VM's row.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualMachine {
    /// A UUID, unless a test wants otherwise.
    #[serde(default = "random_id")]
    pub id: String,
    /// The host name.
    pub name: String,
    /// The name for people.
    pub displayname: Option<String>,
    /// `Running`, `Stopped`, ...
    #[serde(default = "running")]
    pub state: String,
    /// Its zone.
    #[serde(default = "default_zone")]
    pub zoneid: String,
    /// `KVM`, ...
    #[serde(default = "kvm")]
    pub hypervisor: String,
    /// The owner.
    #[serde(default = "default_account")]
    pub account: String,
    /// The project, if one owns it.
    pub projectid: Option<String>,
    /// It has VM snapshots or backups, so that its disks must stay as they are.
    #[serde(default)]
    pub vmsnapshots: bool,
    /// It is not to be destroyed.
    #[serde(default)]
    pub deleteprotection: bool,
    /// Its guest stops only by force.
    #[serde(default)]
    pub ignores_shutdown: bool,
    /// Expunged: known by its id, listed nowhere.
    #[serde(default)]
    pub removed: bool,
}

/// A zone's row.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// A UUID.
    #[serde(default = "random_id")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// `Enabled` or `Disabled`.
    #[serde(default = "enabled")]
    pub allocationstate: String,
}

/// A disk offering's row.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskOffering {
    /// A UUID.
    #[serde(default = "random_id")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// Fixed size in GiB; 0 if the caller gives the size.
    #[serde(default)]
    pub disksize: u64,
    /// The one zone that it is for; none for all.
    pub zoneid: Option<String>,
    /// The caller may not use it.
    #[serde(default)]
    pub forbidden: bool,
    /// A volume of it keeps its size.
    #[serde(default)]
    pub disksizestrictness: bool,
}

/// A project's row.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// A UUID.
    #[serde(default = "random_id")]
    pub id: String,
    /// Its name.
    pub name: String,
}

impl Volume {
    /// A volume that a VM has.
    pub fn is_attached(&self) -> bool {
        self.virtualmachineid.is_some()
    }

    /// A volume whose state ends by itself.
    pub fn is_in_transition(&self) -> bool {
        !matches!(self.state.as_str(), "Allocated" | "Ready" | "Uploaded" | "Destroy" | "Expunging")
    }
}

impl Snapshot {
    /// Until it is `BackedUp` its volume is neither deleted nor resized.
    pub fn is_unfinished(&self) -> bool {
        matches!(self.state.as_str(), "Allocated" | "Creating" | "CreatedOnPrimary" | "BackingUp")
    }
}

impl VirtualMachine {
    /// It has a domain on a host.
    pub fn is_running(&self) -> bool {
        self.state == "Running"
    }
}

impl DiskOffering {
    /// The caller gives the size.
    pub fn is_customized(&self) -> bool {
        self.disksize == 0
    }
}

/// A new id.
pub fn random_id() -> String {
    Uuid::new_v4().to_string()
}

fn data_disk() -> String {
    "DATADISK".to_owned()
}

fn ready() -> String {
    "Ready".to_owned()
}

fn backed_up() -> String {
    "BackedUp".to_owned()
}

fn running() -> String {
    "Running".to_owned()
}

fn kvm() -> String {
    "KVM".to_owned()
}

fn enabled() -> String {
    "Enabled".to_owned()
}

fn default_zone() -> String {
    seed::ZONE.to_owned()
}

fn default_account() -> String {
    seed::ACCOUNT.to_owned()
}
