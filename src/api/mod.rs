//! The contract: each method's name, parameters and result, and the notifications. Knows no transport.
//!
//! The parameters of a change are those of its struct and, beside them in the same object, those of [`Change`].
//! Times are RFC 3339 UTC, sizes bytes. An unknown parameter is refused.

mod check;
mod events;
mod metrics;
mod objects;
pub mod openrpc;
mod params;
mod results;
mod tls;
mod why;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use check::*;
pub use events::*;
pub use metrics::*;
pub use objects::*;
pub use params::*;
pub use results::*;
pub use tls::*;
pub use why::*;

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
    pub const VOLUME_MOVE: &str = "volume.move";
    pub const VOLUME_RECLAIM: &str = "volume.reclaim";
    pub const VOLUME_DELETE: &str = "volume.delete";
    pub const VOLUME_RECOVER: &str = "volume.recover";
    pub const VOLUME_RESIZE: &str = "volume.resize";
    pub const VOLUME_HOLD: &str = "volume.hold";
    pub const VOLUME_RELEASE: &str = "volume.release";
    pub const VOLUME_WHY: &str = "volume.why";
    pub const DEVICE_GET: &str = "device.get";
    pub const DEVICE_FIND: &str = "device.find";
    pub const VM_LIST: &str = "vm.list";
    pub const VM_GET: &str = "vm.get";
    pub const EXPORT_CREATE: &str = "export.create";
    pub const EXPORT_DELETE: &str = "export.delete";
    pub const EXPORT_LIST: &str = "export.list";
    pub const EXPORT_KICK: &str = "export.kick";
    pub const EXPORT_CHECK: &str = "export.check";
    pub const EXPORT_PRUNE: &str = "export.prune";
    pub const OPERATION_BEGIN: &str = "operation.begin";
    pub const SNAPSHOT_CREATE: &str = "snapshot.create";
    pub const SNAPSHOT_LIST: &str = "snapshot.list";
    pub const SNAPSHOT_REVERT: &str = "snapshot.revert";
    pub const SNAPSHOT_DELETE: &str = "snapshot.delete";
    pub const OPERATION_GET: &str = "operation.get";
    pub const OPERATION_LIST: &str = "operation.list";
    pub const OPERATION_WATCH: &str = "operation.watch";
    pub const OPERATION_WAIT: &str = "operation.wait";
    pub const OPERATION_CANCEL: &str = "operation.cancel";
    pub const OPERATION_RETRY: &str = "operation.retry";
    pub const OPERATION_ABANDON: &str = "operation.abandon";
    pub const EVENT_LIST: &str = "event.list";
    pub const EVENT_WATCH: &str = "event.watch";
    pub const STORE_BACKUP: &str = "store.backup";
    pub const TLS_ISSUE: &str = "tls.issue";
    pub const SYSTEM_DRAIN: &str = "system.drain";
    pub const SYSTEM_SYNC: &str = "system.sync";
    pub const SYSTEM_HEALTH: &str = "system.health";
    pub const SYSTEM_METRICS: &str = "system.metrics";
    pub const SYSTEM_VERSION: &str = "system.version";
    pub const RPC_DISCOVER: &str = "rpc.discover";
    /// The notification that comes before the answer of a change that waits.
    pub const PROGRESS: &str = "progress";
    /// The notification of `event.watch`.
    pub const EVENT: &str = "event";
}

/// What every change takes beside its own parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Answer at once with what would be done, and do nothing: all is looked at and refused as it would be, and nothing
    /// is sent to CloudStack, changed here or journaled.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl Change {
    /// The names of its fields, which a caller may put beside a change's own parameters.
    pub const FIELDS: [&'static str; 7] =
        ["wait", "queue", "timeout_seconds", "request_id", "reason", "token", "dry_run"];
}
