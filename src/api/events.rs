//! The history of everything, in numbered events: what happened to operations, devices, exports, clients and CloudStack.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::objects::{OperationKind, Status};
use crate::model::{JobId, OperationId, VolumeId};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An operation came to another step or status.
    Transition,
    /// Something was found out or done about an operation, beside its steps.
    Note,
    /// CloudStack answered, or failed to answer, a call that changes something, or its job ended.
    Call,
    /// Somebody holds a volume, or holds it with another note.
    Held,
    /// Somebody ended the hold on a volume.
    Released,
    /// A volume's disk came to this machine.
    DeviceArrived,
    /// A volume's disk left this machine.
    DeviceLeft,
    /// An export is served from now on.
    ExportServed,
    /// An export's device failed or went away.
    ExportFailed,
    /// An export is served no longer.
    ExportEnded,
    /// An NBD client connected.
    ClientConnected,
    /// An NBD client was refused: the export is not for it, or is another's.
    ClientRefused,
    /// An NBD client left.
    ClientDisconnected,
    /// CloudStack says otherwise of a volume than it last did, and no operation of ours was at work on it.
    ChangedOutside,
    /// CloudStack stopped to answer.
    CloudstackAway,
    /// CloudStack answers again.
    CloudstackBack,
    /// CloudStack refuses the key.
    KeyRefused,
    /// CloudStack accepts the key again.
    KeyAccepted,
    /// More of one kind happened than is written down; how many is said.
    LeftOut,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// Its number: later ones have larger numbers, and none is used twice.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: EventKind,
    /// The volume that it is about.
    pub volume_id: Option<VolumeId>,
    /// That volume's name then.
    pub volume_name: Option<String>,
    /// The operation that it belongs to.
    pub operation_id: Option<OperationId>,
    /// That operation's kind.
    pub operation_kind: Option<OperationKind>,
    /// That operation's status then.
    pub status: Option<Status>,
    /// That operation's step then, in words.
    pub step: Option<String>,
    /// CloudStack's job.
    pub job_id: Option<JobId>,
    /// What happened, in words; of a transition the reason, where it has one.
    pub text: Option<String>,
}

/// `event.list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EventList {
    /// Only what has a larger number; everything where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most so many, oldest first (1000 where absent, which is also the most).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What `event.watch` answers: nothing, it goes on until the client leaves or it fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Endless {}

/// The result of `event.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Event>,
    /// The number of the newest event of all; 0 where nothing ever happened.
    pub newest: u64,
}

/// `event.watch`: answers only when it cannot go on; until then each event comes as an `event` notification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EventWatch {
    /// Only what has a larger number; everything where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Comes back in each notification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Value>,
}

/// The parameters of the `event` notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventNotice {
    /// The caller's.
    pub token: Option<Value>,
    /// What happened.
    pub event: Event,
}
