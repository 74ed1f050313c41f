//! What each method answers, and the notifications before an answer.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::objects::{Asker, Client, Departure, Export, Moment, NamedVolume, Operation, Snapshot, Volume};
use crate::error::Error;
use crate::model::{Device, VmId, VolumeId};

/// The result of every change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Changed {
    /// Whether anything was done; none while the operation goes on.
    pub changed: Option<bool>,
    /// The operation; none where none was needed, as for a hold.
    pub operation: Option<Operation>,
    /// The volume as it is now; none where it is gone.
    pub volume: Option<Volume>,
    /// Its export as it is now.
    pub export: Option<Export>,
    /// Sentences that the caller must see: what was chosen, what could not be checked.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Of a dry run: what would be done, a sentence a step, in order; empty where there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Vec<String>>,
    /// Of a detach or an unexport.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub departure: Option<Departure>,
    /// The root disk that made way for a move: detached, and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swapped_root: Option<NamedVolume>,
    /// The snapshot that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// True where the volume of a creation was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existed: Option<bool>,
}

/// The result of `volume.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Volumes {
    /// Newest first, as CloudStack lists them.
    pub volumes: Vec<Volume>,
    /// Why CloudStack's part is stale, where it is.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The result of `volume.get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VolumeShown {
    /// The volume.
    pub volume: Volume,
    /// Why CloudStack's part is stale, where it is.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The result of `device.get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeviceShown {
    /// The volume.
    pub volume_id: VolumeId,
    /// Its device here.
    pub device: Device,
}

/// The result of `device.find`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VmShown {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// `Running`, `Stopped`, ...
    pub state: String,
    /// Its zone.
    #[serde(default)]
    pub zone_id: String,
    /// Whether it is the VM in which the daemon runs; none where that is not known.
    pub this_vm: Option<bool>,
    /// What is attached to it, in device order.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// The result of `vm.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Vms {
    /// By name.
    pub vms: Vec<VmListed>,
}

/// A VM in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VmListed {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// `Running`, `Stopped`, ...
    pub state: String,
    /// Its zone.
    pub zone_id: String,
    /// Whether it is the VM in which the daemon runs; none where that is not known.
    pub this_vm: Option<bool>,
    /// How many volumes are attached to it.
    pub volumes: usize,
}

/// The result of `export.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Exports {
    /// By name.
    pub exports: Vec<Export>,
}

/// The result of `export.kick`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kicked {
    /// The clients that were sent away.
    pub clients: Vec<Client>,
}

/// The result of `export.check`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExportsChecked {
    /// Whether everything could be looked at, and nothing is wrong.
    pub healthy: bool,
    /// By name.
    pub exports: Vec<ExportChecked>,
    /// What could not be looked at.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// An export, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExportChecked {
    /// The export.
    pub export: Export,
    /// A sentence for each thing that is wrong.
    pub findings: Vec<String>,
}

/// The result of `export.prune`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pruned {
    /// Those that ended, could not be ended, or of a dry run, would end.
    pub exports: Vec<ExportPruned>,
    /// Those that would have ended but for the reason given.
    pub left: Vec<ExportPruned>,
    /// What could not be looked at.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What became of one export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExportPruned {
    /// Its name.
    pub name: String,
    /// Its volume.
    pub volume_id: VolumeId,
    /// Why it ends, or stays.
    pub reason: String,
    /// The operation that ended it.
    pub operation: Option<Operation>,
    /// Why it could not be ended.
    pub error: Option<Error>,
}

/// The result of `operation.begin`: what became of each change, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Begun {
    /// As many as there were changes.
    pub results: Vec<BegunOne>,
}

/// What became of one change of a list; nothing of a dry run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BegunOne {
    /// Its operation, which was accepted.
    pub operation: Option<Operation>,
    /// Why it was not.
    pub error: Option<Error>,
}

impl BegunOne {
    /// One that was not begun.
    pub fn refused(error: Error) -> Self {
        Self { operation: None, error: Some(error) }
    }
}

/// The result of `snapshot.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Snapshots {
    /// Newest first, as CloudStack lists them.
    pub snapshots: Vec<Snapshot>,
}

/// The result of `operation.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Operations {
    /// Newest first.
    pub operations: Vec<Operation>,
}

/// The result of `operation.get`, `operation.cancel`, `operation.retry` and `operation.abandon`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

/// The result of `system.drain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Drained {
    /// Since when nothing new is taken; none where it is.
    pub since: Option<Timestamp>,
    /// What has not ended yet, a sentence each.
    pub waiting_for: Vec<String>,
    /// The names of the exports that were ended now.
    pub unexported: Vec<String>,
    /// The volumes that were detached now.
    pub detached: Vec<Volume>,
    /// This VM's data volumes that stay attached.
    pub attached: Vec<Volume>,
}

/// The result of `store.backup`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackedUp {
    /// The file that was written.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// The result of `system.sync`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Synced {
    /// What differed between store, CloudStack, kernel and exports.
    pub differences: Vec<Difference>,
}

/// One thing that differed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    /// The volume that it is about.
    pub volume_id: Option<VolumeId>,
    /// What was found, in words.
    pub found: String,
    /// What was done, in words. Nothing is ever changed in CloudStack.
    pub done: String,
    /// Whether it stands until somebody acts, or the device comes; else it was put right here.
    #[serde(default)]
    pub standing: bool,
}

/// One looked-at part of the whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Health {
    /// Whether each check is.
    pub healthy: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// The result of `system.version`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Version {
    /// The daemon's version.
    pub version: String,
    /// [`SCHEMA`]
    pub schema: u32,
    /// Another program has taken the place of the one that runs: a restart would begin that one.
    #[serde(default)]
    pub replaced: bool,
    /// How many NBD clients a restart would cost their connections; the others do not notice one.
    #[serde(default)]
    pub clients_lost_by_restart: usize,
}

impl Version {
    /// That clients keep a daemon from being restarted which is not the `installed` version; none where it is, or where no
    /// client would notice. The packages' scripts read it.
    pub fn restart_pending(&self, installed: &str) -> Option<String> {
        let is_former = self.replaced || self.version != installed;
        match self.clients_lost_by_restart {
            0 => None,
            _ if !is_former => None,
            1 => Some("restart pending: 1 client".to_owned()),
            clients => Some(format!("restart pending: {clients} clients")),
        }
    }
}

/// The parameters of the `progress` notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Progress {
    /// The caller's.
    pub token: Value,
    /// As it stands now.
    pub operation: Operation,
}

/// The `data` of a JSON-RPC error of ours: the error without its sentence, which is the error object's `message`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
