//! What each method takes.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::objects::{OperationKind, Status};
use super::tls::TlsMode;
use crate::model::{OperationId, Tag};

/// `volume.create`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeCreate {
    /// The new volume's name.
    pub name: String,
    /// Bytes; needed with an offering of custom size, forbidden with a fixed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Disk offering, id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offering: Option<String>,
    /// Zone, id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Attach it to this VM.
    #[serde(default)]
    pub attach: bool,
    /// Export it; implies `attach`.
    #[serde(default)]
    pub export: bool,
    /// Take an existing volume of this name when size, offering and zone agree.
    #[serde(default)]
    pub exists_ok: bool,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// `volume.attach`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeAttach {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// VM, id or name; this VM where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// As the root disk of that VM, which is stopped and has none.
    #[serde(default)]
    pub root: bool,
    /// Export it as well.
    #[serde(default)]
    pub export: bool,
    /// The export is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Tags that the volume is to have; another value for a key that it has is a conflict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// `volume.detach`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeDetach {
    /// Volume: id or unique name.
    pub volume: String,
    /// The other VM, id or name, that it is detached from; this VM where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Let the export's clients finish for so many seconds, and take no new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u64>,
    /// Close the export's clients. Overrides nothing else.
    #[serde(default)]
    pub force: bool,
    /// Whoever asks knows that the other VM is running and that use there cannot be checked.
    #[serde(default)]
    pub confirmed: bool,
}

/// `volume.move`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeMove {
    /// Volume: id or unique name.
    pub volume: String,
    /// The other VM, id or name, that it goes to.
    pub to: String,
    /// It becomes the root disk of that VM, which is stopped.
    #[serde(default)]
    pub root: bool,
    /// That VM's present root disk is detached first, and kept.
    #[serde(default)]
    pub swap_root: bool,
    /// Let the export's clients finish for so many seconds, and take no new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u64>,
    /// Close the export's clients. Overrides nothing else.
    #[serde(default)]
    pub force: bool,
}

/// `volume.reclaim`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeReclaim {
    /// Volume: id or unique name.
    pub volume: String,
    /// The other VM, id or name, that it comes from; that VM is stopped.
    pub from: String,
    /// Where that VM does not stop by itself, it is stopped by force.
    #[serde(default)]
    pub force_stop: bool,
    /// That VM's name once more: it is destroyed, not expunged, once the disk is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy_vm: Option<String>,
}

/// `volume.delete`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeDelete {
    /// Volume: id or unique name.
    pub volume: String,
    /// For ever, not recoverable.
    #[serde(default)]
    pub expunge: bool,
}

/// `volume.recover`, `volume.get` without an age
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeRecover {
    /// Volume: id or unique name.
    pub volume: String,
}

/// `volume.resize`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeResize {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// Bytes, rounded up to whole GiB; not less than it has.
    pub size_bytes: u64,
}

/// `volume.hold`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeHold {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// Why, for whoever is refused; 1 to 500 characters.
    pub note: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `volume.release`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeRelease {
    /// Volume: id, unique name, or unique id prefix; of one that CloudStack no longer shows, the id or the name that it
    /// had when it was held.
    pub volume: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Which of what is listed is wanted: what fulfils all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// With all of these tags on the volume.
    pub tags: Vec<Tag>,
    /// Asked for by the caller, who is known by login user id, else by user id: an operation; a volume, or its export,
    /// whose last operation here that did not fail and was not given up was the caller's.
    pub mine: bool,
    /// On this VM: a volume, an export whose device is here, an operation on this VM or on a volume that is here now.
    pub here: bool,
    /// In this state, in upper or lower case: CloudStack's state of a volume, or `held` or `stale`; an export's state; an
    /// operation's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// `volume.list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct VolumeList {
    /// Ask CloudStack again for what is older than so many seconds (30 where absent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// Which are wanted.
    pub filter: Filter,
}

/// `export.list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExportList {
    /// Which are wanted.
    pub filter: Filter,
}

/// `volume.get`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeGet {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// Ask CloudStack again for what is older than so many seconds (30 where absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
}

/// `device.get`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceGet {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// Wait so many seconds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
}

/// `device.find`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceFind {
    /// Any absolute path or link to the disk or one of its partitions.
    pub path: PathBuf,
}

/// `vm.get`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct VmGet {
    /// VM, id or unique name; this VM where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
}

/// `vm.list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct VmList {
    /// A list that CloudStack gave so many seconds ago will do (0 where absent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
}

/// `export.create`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportCreate {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// Export name; where absent the one it has, or `vol-<volume id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
    /// Let several clients write at a time, or one alone, which is refused while several are inside; where absent as it is,
    /// or one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// Whether it is served without TLS; where absent as it is, or as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Who may open it, as in [`Access`]: everybody for an empty list; where absent as it is, or everybody. Who is inside and
    /// is not named any more is sent away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<String>>,
}

/// `export.kick`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportKick {
    /// The export's name.
    pub export: String,
    /// Only the clients at this address, with or without its port; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// `export.delete`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportDelete {
    /// The export's name, or its volume.
    pub export: String,
    /// Let the clients finish for so many seconds, and take no new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u64>,
    /// Close the clients.
    #[serde(default)]
    pub force: bool,
}

/// `export.prune`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExportPrune {
    /// Also those whose last client left so many seconds ago; without it only those that have lost their volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// Only these, by name; all where there is none.
    pub exports: Vec<String>,
    /// Say what would end, and end nothing.
    pub dry_run: bool,
}

/// `operation.begin`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationBegin {
    /// At most [`MOST_CHANGES`] changes; each becomes an operation of its own.
    pub changes: Vec<ListedChange>,
}

/// How many changes one list has at most.
pub const MOST_CHANGES: usize = 256;

/// One change of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ListedChange {
    /// The method of a change that is an operation, such as `volume.attach`.
    pub method: String,
    /// What that method takes; nothing waits for the end of these, and `wait` and `token` mean nothing.
    pub params: Map<String, Value>,
}

/// `snapshot.create`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// Its name, which no other snapshot of the volume has; made of the volume's name and the time where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// `snapshot.list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotList {
    /// Of this volume: id, unique name, or unique id prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Of the volumes of this VM, id or unique name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// With all of these tags.
    pub tags: Vec<Tag>,
    /// Of all volumes: a list that CloudStack gave so many seconds ago will do (0 where absent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
}

/// `snapshot.revert`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotRevert {
    /// Snapshot: id or unique name.
    pub snapshot: String,
}

/// `snapshot.delete`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotDelete {
    /// Snapshot: id or unique name.
    pub snapshot: String,
}

/// `operation.get`, `operation.cancel`, `operation.retry`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationGet {
    /// The operation's id, or a unique prefix of it.
    pub id: String,
}

/// `operation.abandon`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationAbandon {
    /// The operation's id, or a unique prefix of it.
    pub id: String,
    /// Why, for the record; not empty.
    pub reason: String,
}

/// `system.drain`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SystemDrain {
    /// Detach this VM's data volumes too.
    pub detach: bool,
    /// Wait so many seconds, 60 at most, for what is in the way; none where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
    /// Take changes and clients again.
    pub end: bool,
    /// Only say what is in the way.
    pub dry_run: bool,
}

/// `store.backup`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StoreBackup {
    /// The file to write, an absolute path at which nothing is yet.
    pub path: PathBuf,
}

/// `operation.wait`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationWait {
    /// The operation's id, or a unique prefix of it.
    pub id: String,
    /// How long, in seconds; without it as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// Comes back in each `progress` notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Value>,
}

/// `operation.list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct OperationList {
    /// Only of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<OperationKind>,
    /// Only with this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Only those about a volume: its id, its name then, or the beginning of its id, 6 characters at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Only those that attach to or detach from a VM: its id or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Only those that this user asked for, by user id or login user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Only those that were asked for at this moment or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only those that were asked for at this moment or before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// At most so many, newest first (100 where absent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Which are wanted; its state is the operation's status.
    pub filter: Filter,
}

/// `operation.watch`: answers only when it cannot go on; until then each change of an operation comes as a `progress`
/// notification, at first one for each that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct OperationWatch {
    /// Comes back in each notification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Value>,
    /// What was under way when an earlier connection was lost: it is told of too where it has ended since.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<OperationId>,
}
