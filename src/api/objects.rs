//! The things that answers are about: volumes, exports and their clients, operations.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::tls::Access;
use crate::error::Error;
use crate::model::{Device, OperationId, SnapshotId, Tag, VmId, VolumeId, VolumeType, printable};

/// A volume as everybody sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Whether that VM is the one the daemon runs in; none where it is attached to none, or that is not known.
    #[serde(default)]
    pub this_vm: Option<bool>,
    /// CloudStack's number of the attachment.
    pub device_id: Option<u32>,
    /// Its block device here, read from the kernel for this answer.
    pub device: Option<Device>,
    /// Its export, read from the live server for this answer.
    pub export: Option<Export>,
    /// Its tags, in the order of their keys.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Who holds it, so that nobody takes it away; none where it is free.
    pub hold: Option<Hold>,
    /// When CloudStack said the rest.
    pub cloudstack_as_of: Timestamp,
    /// CloudStack was asked for something newer and did not answer.
    pub stale: bool,
}

/// Somebody's word that a volume stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hold {
    /// The holder's user name, or `user 1000` where it has none.
    pub holder: String,
    /// The holder's user id: who logged in, behind a `sudo` say.
    pub uid: u32,
    /// Why.
    pub note: String,
    /// Since when.
    pub since: Timestamp,
}

/// A volume, by both of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamedVolume {
    /// Its id.
    pub id: VolumeId,
    /// Its name as CloudStack had it; not escaped.
    pub name: String,
}

/// What an export is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Export {
    /// The export name.
    pub name: String,
    /// Its volume.
    pub volume_id: VolumeId,
    /// That volume's name as CloudStack had it last; not escaped. None where it is not known.
    #[serde(default)]
    pub volume_name: Option<String>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What a client can use as it is.
    pub uris: Vec<String>,
    /// Whether several clients may write at a time.
    pub shared: bool,
    /// Who may open it.
    #[serde(default)]
    pub access: Access,
    /// The clients that are connected.
    pub clients: Vec<Client>,
    /// How it serves them now.
    pub traffic: Traffic,
    /// The device's stable path.
    pub device_path: PathBuf,
    /// What it is doing.
    pub state: ExportState,
    /// What clients have done with it.
    #[serde(default)]
    pub usage: Usage,
}

/// What clients have done with an export since it was made, also while earlier daemons served it; of one that was
/// killed, the last seconds may be missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Usage {
    /// When the export was made.
    pub since: Timestamp,
    /// Bytes that clients read.
    pub bytes_read: u64,
    /// Bytes that clients wrote or zeroed.
    pub bytes_written: u64,
    /// The client that was there last, or is there; none where there never was one.
    pub last_client: Option<LastClient>,
}

/// The client of an export that was there last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastClient {
    /// As in [`Client`].
    pub address: String,
    /// When it left; of one that is there, when its last request came, or itself.
    pub at: Timestamp,
    /// How it left; none while it is there.
    pub left: Option<Leaving>,
}

/// How an export serves its clients; counted since this daemon serves it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Requests of the last second.
    pub requests_per_second: u64,
    /// Requests that were refused or failed.
    pub errors: u64,
    /// When all that was written was last brought to stable storage; not yet where absent.
    pub last_flush: Option<Timestamp>,
}

/// A client of an export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Client {
    /// `192.0.2.7:53210`, or `unix:pid=1234,uid=0` on the Unix socket.
    pub address: String,
    /// The subject of its certificate as RFC 4514 writes it; none without TLS.
    #[serde(default)]
    pub subject: Option<String>,
    /// When it connected.
    pub since: Timestamp,
    /// When its last request came; none yet where absent.
    pub last_request: Option<Timestamp>,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its name as CloudStack has it; not escaped.
    pub name: String,
    /// The volume that it is of, which need not be there any more.
    pub volume_id: Option<VolumeId>,
    /// That volume's name, where known.
    pub volume_name: Option<String>,
    /// `BackedUp`, `Creating`, ...
    pub state: String,
    /// The volume's size when it was taken, bytes; 0 where CloudStack does not know it.
    pub size_bytes: u64,
    /// When it was taken.
    pub created_at: Option<Timestamp>,
    /// Its tags, in the order of their keys.
    pub tags: Vec<Tag>,
}

/// What kind of change an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum OperationKind {
    Create,
    Attach,
    Export,
    Unexport,
    Detach,
    Delete,
    Recover,
    Resize,
    SnapshotCreate,
    SnapshotRevert,
    SnapshotDelete,
    Move,
    Reclaim,
}

impl OperationKind {
    /// As people say it: `snapshot create`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Attach => "attach",
            Self::Export => "export",
            Self::Unexport => "unexport",
            Self::Detach => "detach",
            Self::Delete => "delete",
            Self::Recover => "recover",
            Self::Resize => "resize",
            Self::SnapshotCreate => "snapshot create",
            Self::SnapshotRevert => "snapshot revert",
            Self::SnapshotDelete => "snapshot delete",
            Self::Move => "move",
            Self::Reclaim => "reclaim",
        }
    }

    /// Whether it would take a volume away from whoever holds it, or change what is in it: then a hold refuses it.
    pub fn is_refused_by_hold(self) -> bool {
        match self {
            Self::Detach
            | Self::Unexport
            | Self::Delete
            | Self::Move
            | Self::Reclaim
            | Self::Resize
            | Self::SnapshotRevert => true,
            Self::Create
            | Self::Attach
            | Self::Export
            | Self::Recover
            | Self::SnapshotCreate
            | Self::SnapshotDelete => false,
        }
    }
}

/// Where an operation stands. `failed` is a proof: its effect is known not to be there, or was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// How long the step under way usually takes here; none where that is not known.
    pub usual: Option<Usual>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// How long a step took the last times, in milliseconds: four of five lay in this range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Usual {
    /// One of ten was shorter.
    pub from_ms: u64,
    /// Half were shorter.
    pub median_ms: u64,
    /// One of ten was longer.
    pub to_ms: u64,
}

impl Operation {
    /// What it does, for a sentence: `detach of data1`.
    pub fn task(&self) -> String {
        let kind = self.kind.words();
        match (self.volume_name.as_deref().filter(|name| !name.is_empty()), self.volume_id) {
            (Some(name), _) => format!("{kind} of {}", printable(name)),
            (None, Some(id)) => format!("{kind} of {id}"),
            (None, None) => kind.to_owned(),
        }
    }
}

/// How a client of an export left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Leaving {
    /// By itself.
    #[serde(rename = "disconnected")]
    Disconnected,
    /// We closed it (`--force`, the end of `--drain`, or of the daemon).
    #[serde(rename = "cut off")]
    CutOff,
}

/// What a detach (or an unexport) can say of the device's last moments here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Departure {
    /// When everything written was on stable storage.
    pub flushed_at: Option<Timestamp>,
    /// Bytes that clients wrote through the export; none where there was no export.
    pub bytes_written: Option<u64>,
    /// How the last client left; none where there never was one.
    pub last_client: Option<Leaving>,
    /// When this kernel had let the device go.
    pub device_gone_at: Option<Timestamp>,
}

/// Who asked for an operation, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

impl Asker {
    /// Who it was: behind a `sudo` whoever logged in.
    pub fn person(&self) -> Option<u32> {
        self.login_uid.or(self.uid)
    }
}

/// A moment in an operation's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
