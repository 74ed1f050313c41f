//! The contract: each method's name, parameters and result, and the notifications. Knows no transport.
//!
//! The parameters of a change are those of its struct and, beside them in the same object, those of [`Change`].
//! Times are RFC 3339 UTC, sizes bytes. An unknown parameter is refused.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::model::{Device, OperationId, VmId, VolumeId, VolumeType};

/// The version of everything here, shown as `schema` in each document that `--json` prints.
pub const SCHEMA: u32 = 1;

/// The names of the methods.
pub mod method {
    #![expect(missing_docs, reason = "each is its value")]
    pub const VOLUME_CREATE: &str = "volume.create";
    pub const VOLUME_LIST: &str = "volume.list";
    pub const VOLUME_GET: &str = "volume.get";
    pub const VOLUME_ATTACH: &str = "volume.attach";
    pub const VOLUME_DETACH: &str = "volume.detach";
    pub const VOLUME_DELETE: &str = "volume.delete";
    pub const VOLUME_RECOVER: &str = "volume.recover";
    pub const DEVICE_GET: &str = "device.get";
    pub const DEVICE_FIND: &str = "device.find";
    pub const VM_GET: &str = "vm.get";
    pub const EXPORT_CREATE: &str = "export.create";
    pub const EXPORT_DELETE: &str = "export.delete";
    pub const EXPORT_LIST: &str = "export.list";
    pub const OPERATION_GET: &str = "operation.get";
    pub const OPERATION_LIST: &str = "operation.list";
    pub const OPERATION_WAIT: &str = "operation.wait";
    pub const OPERATION_CANCEL: &str = "operation.cancel";
    pub const OPERATION_RETRY: &str = "operation.retry";
    pub const OPERATION_ABANDON: &str = "operation.abandon";
    pub const STORE_BACKUP: &str = "store.backup";
    pub const SYSTEM_SYNC: &str = "system.sync";
    pub const SYSTEM_HEALTH: &str = "system.health";
    pub const SYSTEM_VERSION: &str = "system.version";
    /// The notification that comes before the answer of a change that waits.
    pub const PROGRESS: &str = "progress";
}

/// What every change takes beside its own parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// Answer when the operation has ended, not when it is accepted.
    pub wait: bool,
    /// Wait in line where another operation has the volume, instead of `busy`.
    pub queue: bool,
    /// How long the caller waits, in seconds; also how late the operation may send its first request to CloudStack
    /// (600 where it is not given).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// The caller's own id: the same again returns the same operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Why, for the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Comes back in each `progress` notification; without it there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Value>,
}

impl Change {
    /// The names of its fields, which a caller may put beside a change's own parameters.
    pub const FIELDS: [&'static str; 6] = ["wait", "queue", "timeout_seconds", "request_id", "reason", "token"];
}

/// `volume.create`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// `volume.attach`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeAttach {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// VM, id or name; this VM where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Export it as well.
    #[serde(default)]
    pub export: bool,
    /// The export is read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// `volume.detach`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// `volume.delete`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields)]
pub struct VolumeRecover {
    /// Volume: id or unique name.
    pub volume: String,
}

/// `volume.list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VolumeList {
    /// Ask CloudStack again for what is older than so many seconds (30 where absent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
}

/// `volume.get`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields)]
pub struct DeviceFind {
    /// Any absolute path or link to the disk or one of its partitions.
    pub path: PathBuf,
}

/// `vm.get`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmGet {
    /// VM, id or unique name.
    pub vm: String,
}

/// `export.create`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportCreate {
    /// Volume: id, unique name, or unique id prefix.
    pub volume: String,
    /// Export name; `vol-<volume id>` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
}

/// `export.delete`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// `operation.get`, `operation.cancel`, `operation.retry`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationGet {
    /// The operation's id, or a unique prefix of it.
    pub id: String,
}

/// `operation.abandon`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationAbandon {
    /// The operation's id, or a unique prefix of it.
    pub id: String,
    /// Why, for the record; not empty.
    pub reason: String,
}

/// `store.backup`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreBackup {
    /// The file to write, an absolute path at which nothing is yet.
    pub path: PathBuf,
}

/// `operation.wait`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[serde(default, deny_unknown_fields)]
pub struct OperationList {
    /// At most so many, newest first (100 where absent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A volume as everybody sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its name as CloudStack has it; not escaped.
    pub name: String,
    /// Virtual size, bytes.
    pub size_bytes: u64,
    /// CloudStack's state of it.
    pub state: String,
    /// `ROOT` or `DATADISK`.
    #[serde(rename = "type")]
    pub volume_type: VolumeType,
    /// Its zone.
    pub zone_id: String,
    /// The VM that it is attached to.
    pub vm_id: Option<VmId>,
    /// That VM's name.
    pub vm_name: Option<String>,
    /// CloudStack's number of the attachment.
    pub device_id: Option<u32>,
    /// Its block device here, read from the kernel for this answer.
    pub device: Option<Device>,
    /// Its export, read from the live server for this answer.
    pub export: Option<Export>,
    /// When CloudStack said the rest.
    pub cloudstack_as_of: Timestamp,
    /// CloudStack was asked for something newer and did not answer.
    pub stale: bool,
}

/// What an export is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportState {
    /// Wished for; not served yet, or its device is not here.
    Pending,
    /// Served: a handshake through its own socket has answered with the right size.
    Active,
    /// Takes no new clients; those that are there finish.
    Draining,
    /// Its device failed or went away, or is not the one that was exported.
    Failed,
}

/// A device served over NBD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// The export name.
    pub name: String,
    /// Its volume.
    pub volume_id: VolumeId,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What a client can use as it is.
    pub uris: Vec<String>,
    /// The clients that are connected.
    pub clients: Vec<Client>,
    /// The device's stable path.
    pub device_path: PathBuf,
    /// What it is doing.
    pub state: ExportState,
}

/// A client of an export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// `192.0.2.7:53210`, or `unix:pid=1234,uid=0` on the Unix socket.
    pub address: String,
    /// When it connected.
    pub since: Timestamp,
    /// When its last request came; none yet where absent.
    pub last_request: Option<Timestamp>,
}

/// What kind of change an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum OperationKind {
    Create,
    Attach,
    Export,
    Unexport,
    Detach,
    Delete,
    Recover,
}

/// Where an operation stands. `failed` is a proof: its effect is known not to be there, or was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "design, 2 has the meanings")]
pub enum Status {
    Queued,
    Running,
    Unwinding,
    Succeeded,
    Failed,
    Cancelled,
    Stuck,
    Abandoned,
}

impl Status {
    /// Whether nothing more will happen by itself or at a person's word.
    pub fn ended(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed | Status::Cancelled | Status::Abandoned)
    }
}

/// One requested change, as everybody sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it changes.
    pub kind: OperationKind,
    /// Where it stands.
    pub status: Status,
    /// The step under way, in words; the last one where it has ended.
    pub step: String,
    /// Its volume; none while a creation has not learned it.
    pub volume_id: Option<VolumeId>,
    /// That volume's name, where known.
    pub volume_name: Option<String>,
    /// The VM that it attaches to or detaches from.
    pub vm_id: Option<VmId>,
    /// Why it failed, or what holds it up.
    pub error: Option<Error>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its step or status last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// How the last client of an export left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastClient {
    /// By itself.
    #[serde(rename = "disconnected")]
    Disconnected,
    /// We closed it (`--force`, or the end of `--drain`).
    #[serde(rename = "cut off")]
    CutOff,
}

/// What a detach (or an unexport) can say of the device's last moments here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Departure {
    /// When everything written was on stable storage.
    pub flushed_at: Option<Timestamp>,
    /// Bytes that clients wrote through the export.
    pub bytes_written: Option<u64>,
    /// How the last client left; none where there never was one.
    pub last_client: Option<LastClient>,
    /// When this kernel had let the device go.
    pub device_gone_at: Option<Timestamp>,
}

/// The result of every change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Whether anything was done; none while the operation goes on.
    pub changed: Option<bool>,
    /// The operation; none where there was nothing to do.
    pub operation: Option<Operation>,
    /// The volume as it is now; none where it is gone.
    pub volume: Option<Volume>,
    /// Its export as it is now.
    pub export: Option<Export>,
    /// Sentences that the caller must see: what was chosen, what could not be checked.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Of a detach or an unexport.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub departure: Option<Departure>,
}

/// The result of `volume.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volumes {
    /// Newest first, as CloudStack lists them.
    pub volumes: Vec<Volume>,
    /// Why CloudStack's part is stale, where it is.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The result of `volume.get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeShown {
    /// The volume.
    pub volume: Volume,
    /// Why CloudStack's part is stale, where it is.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The result of `device.get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceShown {
    /// The volume.
    pub volume_id: VolumeId,
    /// Its device here.
    pub device: Device,
}

/// The result of `device.find`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceFound {
    /// Whose device it is.
    pub volume: Volume,
    /// The whole disk.
    pub device: Device,
    /// The partition's number, where the path leads to one.
    pub partition: Option<u32>,
}

/// The result of `vm.get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmShown {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// `Running`, `Stopped`, ...
    pub state: String,
    /// Whether it is the VM in which the daemon runs; none where that is not known.
    pub this_vm: Option<bool>,
}

/// The result of `export.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exports {
    /// By name.
    pub exports: Vec<Export>,
}

/// The result of `operation.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operations {
    /// Newest first.
    pub operations: Vec<Operation>,
}

/// The result of `operation.get`, `operation.cancel`, `operation.retry` and `operation.abandon`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationShown {
    /// The operation.
    pub operation: Operation,
    /// Who asked for it; only where its history is.
    #[serde(default)]
    pub asked_by: Option<Asker>,
    /// What happened to it, oldest first; only `operation.get` tells.
    #[serde(default)]
    pub history: Vec<Moment>,
}

/// Who asked for an operation, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asker {
    /// User id of the peer on the socket.
    pub uid: Option<u32>,
    /// Its login user id: who is behind a `sudo`.
    pub login_uid: Option<u32>,
    /// Its command line.
    pub command: Option<String>,
    /// `--reason`
    pub reason: Option<String>,
}

/// A moment in an operation's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// Its status then.
    pub status: Status,
    /// The step under way, in words.
    pub step: String,
    /// What was found out then, beside the step.
    pub note: Option<String>,
}

/// The result of `store.backup`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackedUp {
    /// The file that was written.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// The result of `system.sync`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Synced {
    /// What differed between store, CloudStack, kernel and exports.
    pub differences: Vec<Difference>,
}

/// One thing that differed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The volume that it is about.
    pub volume_id: Option<VolumeId>,
    /// What was found, in words.
    pub found: String,
    /// What was done, in words. Nothing is ever changed in CloudStack.
    pub done: String,
}

/// One looked-at part of the whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `cloudstack`, `store`, ...
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub message: String,
    /// How long ago it was looked at.
    pub age_seconds: u64,
}

/// The result of `system.health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Whether each check is.
    pub healthy: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// The result of `system.version`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// The daemon's version.
    pub version: String,
    /// [`SCHEMA`]
    pub schema: u32,
}

/// The parameters of the `progress` notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The caller's.
    pub token: Value,
    /// As it stands now.
    pub operation: Operation,
}

/// The `data` of a JSON-RPC error of ours: the error without its sentence, which is the error object's `message`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The error.
    #[serde(flatten)]
    pub error: Error,
    /// The operation, where one was accepted.
    pub operation: Option<Operation>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, operation: None }
    }
}
