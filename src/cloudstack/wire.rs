//! CloudStack's objects as they come, and how they become the records of the model (facts sheet, 2.3).
//!
//! Numbers and booleans may come as text (4.11 does so), unknown fields are skipped, fields for people may be absent.
//! What decides about a disk may not: a record without it cannot be used.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::CallError;
use crate::model::{
    DiskOffering, GIB, Owner, SnapshotRecord, Tag, VmRecord, VolumeRecord, VolumeType, Zone, printable,
};

/// A single value, however it is written: a number is kept as its text. What is no single value is skipped, not kept.
pub(super) enum Scalar {
    Flag(bool),
    Text(String),
    Other,
}

impl Scalar {
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Flag(_) | Self::Other => None,
        }
    }

    pub(super) fn number<N: FromStr>(self) -> Option<N> {
        self.text()?.trim().parse().ok()
    }

    pub(super) fn flag(self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(flag),
            Self::Text(text) => text.to_ascii_lowercase().parse().ok(),
            Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Text(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Scalar, E> {
        Ok(Scalar::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Scalar, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar, A::Error> {
        IgnoredAny.visit_map(map).map(|_| Scalar::Other)
    }
}

/// Something that CloudStack lists.
pub(super) trait Record: Sized {
    /// As it comes.
    type Wire: DeserializeOwned;
    /// What tells two of them apart.
    type Id: Eq + std::hash::Hash;

    fn read(wire: Self::Wire) -> Result<Self, CallError>;
    fn id(&self) -> Self::Id;
}

/// A volume as it comes.
#[derive(Deserialize)]
pub(super) struct WireVolume {
    id: Option<Scalar>,
    name: Option<Scalar>,
    #[serde(rename = "type")]
    volume_type: Option<Scalar>,
    state: Option<Scalar>,
    size: Option<Scalar>,
    zoneid: Option<Scalar>,
    zonename: Option<Scalar>,
    diskofferingid: Option<Scalar>,
    virtualmachineid: Option<Scalar>,
    vmname: Option<Scalar>,
    vmstate: Option<Scalar>,
    deviceid: Option<Scalar>,
    jobid: Option<Scalar>,
    hypervisor: Option<Scalar>,
    tags: Option<Vec<WireTag>>,
    account: Option<Scalar>,
    domainid: Option<Scalar>,
    projectid: Option<Scalar>,
}

impl Record for VolumeRecord {
    type Wire = WireVolume;
    type Id = crate::model::VolumeId;

    fn read(wire: WireVolume) -> Result<Self, CallError> {
        let root = needed("a volume's type", wire.volume_type)?.eq_ignore_ascii_case("ROOT");
        Ok(Self {
            id: id("a volume's id", wire.id)?,
            name: text(wire.name).unwrap_or_default(),
            volume_type: if root { VolumeType::Root } else { VolumeType::DataDisk },
            state: needed("a volume's state", wire.state)?,
            size_bytes: number("a volume's size", wire.size)?.unwrap_or(0),
            zone_id: needed("a volume's zoneid", wire.zoneid)?,
            zone_name: text(wire.zonename),
            offering_id: text(wire.diskofferingid),
            vm_id: optional_id("a volume's virtualmachineid", wire.virtualmachineid)?,
            vm_name: text(wire.vmname),
            vm_state: text(wire.vmstate),
            device_id: number("a volume's deviceid", wire.deviceid)?,
            job_id: optional_id("a volume's jobid", wire.jobid)?,
            owner: owner(wire.account, wire.domainid, wire.projectid),
            tags: tags(wire.tags),
            hypervisor: text(wire.hypervisor),
        })
    }

    fn id(&self) -> Self::Id {
        self.id
    }
}

/// A virtual machine as it comes.
#[derive(Deserialize)]
pub(super) struct WireVm {
    id: Option<Scalar>,
    name: Option<Scalar>,
    displayname: Option<Scalar>,
    state: Option<Scalar>,
    zoneid: Option<Scalar>,
    hypervisor: Option<Scalar>,
    account: Option<Scalar>,
    domainid: Option<Scalar>,
    projectid: Option<Scalar>,
    deleteprotection: Option<Scalar>,
}

impl Record for VmRecord {
    type Wire = WireVm;
    type Id = crate::model::VmId;

    fn read(wire: WireVm) -> Result<Self, CallError> {
        Ok(Self {
            id: id("a VM's id", wire.id)?,
            name: text(wire.name).unwrap_or_default(),
            display_name: text(wire.displayname),
            state: needed("a VM's state", wire.state)?,
            zone_id: needed("a VM's zoneid", wire.zoneid)?,
            hypervisor: text(wire.hypervisor),
            owner: owner(wire.account, wire.domainid, wire.projectid),
            is_protected: wire.deleteprotection.and_then(Scalar::flag).unwrap_or(false),
        })
    }

    fn id(&self) -> Self::Id {
        self.id
    }
}

/// A snapshot of a VM with its disks, which forbids to attach to the VM and to detach from it (facts sheet, 4.3, 4.4).
pub struct VmSnapshot {
    id: String,
    /// Its name, for people.
    pub name: String,
    /// Without the VM's memory.
    pub is_disk_only: bool,
}

/// A VM snapshot as it comes; people gave it its `displayname`.
#[derive(Deserialize)]
pub(super) struct WireVmSnapshot {
    id: Option<Scalar>,
    displayname: Option<Scalar>,
    name: Option<Scalar>,
    #[serde(rename = "type")]
    kind: Option<Scalar>,
}

impl Record for VmSnapshot {
    type Wire = WireVmSnapshot;
    type Id = String;

    fn read(wire: WireVmSnapshot) -> Result<Self, CallError> {
        let id = needed("a VM snapshot's id", wire.id)?;
        let is_disk_only = text(wire.kind).is_some_and(|kind| kind == "Disk");
        let name = text(wire.displayname).or(text(wire.name)).unwrap_or_else(|| id.clone());
        Ok(Self { id, name, is_disk_only })
    }

    fn id(&self) -> String {
        self.id.clone()
    }
}

fn owner(account: Option<Scalar>, domain_id: Option<Scalar>, project_id: Option<Scalar>) -> Owner {
    Owner { account: text(account), domain_id: text(domain_id), project_id: text(project_id) }
}

/// What has an id and a name.
#[derive(Deserialize)]
pub(super) struct WireNamed {
    id: Option<Scalar>,
    name: Option<Scalar>,
}

impl Record for Zone {
    type Wire = WireNamed;
    type Id = String;

    fn read(wire: WireNamed) -> Result<Self, CallError> {
        Ok(Self { id: needed("a zone's id", wire.id)?, name: text(wire.name).unwrap_or_default() })
    }

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A project, to which volumes and VMs can belong.
pub(super) struct Project {
    pub(super) id: String,
    pub(super) name: String,
}

impl Record for Project {
    type Wire = WireNamed;
    type Id = String;

    fn read(wire: WireNamed) -> Result<Self, CallError> {
        Ok(Self { id: needed("a project's id", wire.id)?, name: text(wire.name).unwrap_or_default() })
    }

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A disk offering as it comes; `disksize` is in GiB.
#[derive(Deserialize)]
pub(super) struct WireOffering {
    id: Option<Scalar>,
    name: Option<Scalar>,
    iscustomized: Option<Scalar>,
    disksize: Option<Scalar>,
    zoneid: Option<Scalar>,
    disksizestrictness: Option<Scalar>,
}

impl Record for DiskOffering {
    type Wire = WireOffering;
    type Id = String;

    fn read(wire: WireOffering) -> Result<Self, CallError> {
        let gib: u64 = number("a disk offering's disksize", wire.disksize)?.unwrap_or(0);
        let too_large = || CallError::unusable(format_args!("a disk offering of {gib} GiB"));
        Ok(Self {
            id: needed("a disk offering's id", wire.id)?,
            name: text(wire.name).unwrap_or_default(),
            custom_size: wire.iscustomized.and_then(Scalar::flag).unwrap_or(false),
            size_bytes: gib.checked_mul(GIB).ok_or_else(too_large)?,
            zone_ids: text(wire.zoneid)
                .map(|ids| ids.split(',').map(|id| id.trim().to_owned()).collect())
                .unwrap_or_default(),
            strict_size: wire.disksizestrictness.and_then(Scalar::flag).unwrap_or(false),
        })
    }

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A volume snapshot as it comes; `virtualsize` is in bytes.
#[derive(Deserialize)]
pub(super) struct WireSnapshot {
    id: Option<Scalar>,
    name: Option<Scalar>,
    volumeid: Option<Scalar>,
    volumename: Option<Scalar>,
    state: Option<Scalar>,
    virtualsize: Option<Scalar>,
    created: Option<Scalar>,
    tags: Option<Vec<WireTag>>,
}

impl Record for SnapshotRecord {
    type Wire = WireSnapshot;
    type Id = crate::model::SnapshotId;

    fn read(wire: WireSnapshot) -> Result<Self, CallError> {
        Ok(Self {
            id: id("a snapshot's id", wire.id)?,
            name: text(wire.name).unwrap_or_default(),
            volume_id: optional_id("a snapshot's volumeid", wire.volumeid)?,
            volume_name: text(wire.volumename),
            state: needed("a snapshot's state", wire.state)?,
            size_bytes: number("a snapshot's virtualsize", wire.virtualsize)?.unwrap_or(0),
            created: text(wire.created).and_then(|date| moment(&date)),
            tags: tags(wire.tags),
        })
    }

    fn id(&self) -> Self::Id {
        self.id
    }
}

/// A tag as it comes.
#[derive(Deserialize)]
struct WireTag {
    key: Option<Scalar>,
    value: Option<Scalar>,
}

/// In the order of their keys; what has no key or value is none.
fn tags(wire: Option<Vec<WireTag>>) -> Vec<Tag> {
    let wire = wire.unwrap_or_default();
    let mut tags: Vec<Tag> =
        wire.into_iter().filter_map(|tag| Some(Tag { key: text(tag.key)?, value: text(tag.value)? })).collect();
    tags.sort();
    tags
}

/// A date as CloudStack writes it, the offset without a colon (facts sheet, 2).
fn moment(date: &str) -> Option<Timestamp> {
    Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", date).or_else(|_| date.parse()).ok()
}

/// An id that must be there and be a UUID.
pub(super) fn id<I: FromStr>(what: impl fmt::Display, value: Option<Scalar>) -> Result<I, CallError> {
    let text = needed(&what, value)?;
    text.parse().map_err(|_| CallError::unusable(format_args!("{what} is \"{}\", not a UUID", clipped(&text))))
}

/// An id that may be absent.
pub(super) fn optional_id<I: FromStr>(what: &str, value: Option<Scalar>) -> Result<Option<I>, CallError> {
    value.map(|value| id(what, Some(value))).transpose()
}

fn needed(what: impl fmt::Display, value: Option<Scalar>) -> Result<String, CallError> {
    text(value).ok_or_else(|| CallError::unusable(format_args!("{what} is missing")))
}

fn number<N: FromStr>(what: &str, value: Option<Scalar>) -> Result<Option<N>, CallError> {
    let Some(value) = value else { return Ok(None) };
    value.number().map(Some).ok_or_else(|| CallError::unusable(format_args!("{what} is not a number that fits")))
}

fn text(value: Option<Scalar>) -> Option<String> {
    value.and_then(Scalar::text)
}

fn clipped(text: &str) -> String {
    printable(&text.chars().take(60).collect::<String>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<R: Record>(value: Value) -> Result<R, CallError> {
        R::read(serde_json::from_value(value).unwrap())
    }

    fn volume() -> Value {
        json!({
            "id": "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6", "name": "data1", "type": "DATADISK", "state": "Ready",
            "size": 7_516_192_768_u64, "zoneid": "zone", "deviceid": 1,
            "virtualmachineid": "77000000-0000-4000-8000-000000000001", "tags": [], "unknown": {"a": [1]},
        })
    }

    fn with(mut value: Value, field: &str, to: Value) -> Value {
        value[field] = to;
        value
    }

    #[test]
    fn a_volume_is_read_with_numbers_as_text_too() {
        let record: VolumeRecord = read(volume()).unwrap();
        assert_eq!((record.size_bytes, record.device_id), (7_516_192_768, Some(1)));
        assert_eq!(record.volume_type, VolumeType::DataDisk);
        let as_text = with(with(volume(), "size", json!("7516192768")), "deviceid", json!("1"));
        assert_eq!(read::<VolumeRecord>(as_text).unwrap(), record);
        assert_eq!(read::<VolumeRecord>(with(volume(), "tags", json!(null))).unwrap(), record);
    }

    #[test]
    fn whatever_is_not_root_is_a_data_disk() {
        for (written, root) in [("ROOT", true), ("root", true), ("DATADISK", false), ("ISO", false)] {
            let record: VolumeRecord = read(with(volume(), "type", json!(written))).unwrap();
            assert_eq!(record.volume_type == VolumeType::Root, root, "{written}");
        }
    }

    #[test]
    fn what_decides_about_a_disk_must_be_right() {
        for (field, value, why) in [
            ("id", json!("17"), "a volume's id is \"17\", not a UUID"),
            ("id", json!("\u{1b}[2J"), "a volume's id is \"\\u{1b}[2J\", not a UUID"),
            ("id", Value::Null, "a volume's id is missing"),
            ("type", Value::Null, "a volume's type is missing"),
            ("virtualmachineid", json!("vm-1"), "a volume's virtualmachineid is \"vm-1\", not a UUID"),
            ("virtualmachineid", json!({}), "a volume's virtualmachineid is missing"),
            ("size", json!(-1), "a volume's size is not a number that fits"),
            ("deviceid", json!(1_u64 << 40), "a volume's deviceid is not a number that fits"),
        ] {
            let error = read::<VolumeRecord>(with(volume(), field, value)).unwrap_err();
            assert_eq!(error.to_string(), format!("CloudStack's answer cannot be used: {why}"));
        }
    }

    #[test]
    fn an_offering_has_bytes_and_zones() {
        let offering: DiskOffering = read(json!({"id": "o", "name": "five", "disksize": 5, "zoneid": "a,b"})).unwrap();
        assert_eq!((offering.custom_size, offering.size_bytes), (false, 5 * GIB));
        assert_eq!(offering.zone_ids, ["a", "b"]);
        let custom: DiskOffering = read(json!({"id": "o", "iscustomized": "true", "disksize": 0})).unwrap();
        assert!(custom.custom_size && custom.zone_ids.is_empty());
        assert!(read::<DiskOffering>(json!({"id": "o", "disksize": u64::MAX})).is_err());
    }
}
