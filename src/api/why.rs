//! What happened to a volume and why, as one timeline.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::objects::Volume;
use crate::model::{JobId, OperationId, VolumeId};

/// `volume.why`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeWhy {
    /// Volume: id, unique name, or unique id prefix; of one that is no more, its id or last name.
    pub volume: String,
    /// Only what happened at this moment or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only what happened at this moment or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The result of `volume.why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Why {
    /// The volume; none of a creation that never learned it.
    pub volume_id: Option<VolumeId>,
    /// Its last known name.
    pub volume_name: String,
    /// The volume as it is now; none where it is gone.
    pub volume: Option<Volume>,
    /// Cause and effect, newest last.
    pub timeline: Vec<Cause>,
    /// What it is waiting for, or how it stands, in a sentence.
    pub summary: String,
    /// Since when that is so.
    pub since: Option<Timestamp>,
    /// What can be done, where something can.
    pub hint: Option<String>,
    /// What is missing from the timeline, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Where something on a timeline comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Somebody asked for an operation, or held or released the volume.
    Asked,
    /// A step of an operation.
    Step,
    /// The end of an operation, or that it waits for a human.
    End,
    /// A call to CloudStack, or its job.
    Call,
    /// This machine's kernel.
    Device,
    /// The NBD server.
    Export,
    /// An NBD client.
    Client,
    /// Something that no operation of ours did.
    Outside,
    /// Whether CloudStack answers.
    Cloudstack,
}

/// Something on a timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cause {
    /// When.
    pub at: Timestamp,
    /// Where it comes from.
    pub source: Source,
    /// What happened, in words.
    pub text: String,
    /// The number of the event; none of what CloudStack tells.
    pub seq: Option<u64>,
    /// The operation that it belongs to.
    pub operation_id: Option<OperationId>,
    /// CloudStack's job.
    pub job_id: Option<JobId>,
}
