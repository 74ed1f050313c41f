//! What CloudStack has in its own books about a volume: `listEvents` (facts sheet, 4.1; 4.17 and later).

use jiff::Timestamp;
use serde::Deserialize;

use super::CloudStack;
use super::error::CallError;
use super::request::Request;
use super::wire::Scalar;
use crate::model::VolumeId;

/// How many are asked for: the newest.
const NEWEST: usize = 200;

/// An entry of CloudStack's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    /// By CloudStack's clock, to the second.
    pub created: Timestamp,
    /// `VOLUME.ATTACH`, ...
    pub kind: String,
    /// `Created`, `Scheduled`, `Started`, `Completed`.
    pub state: String,
    /// Whether its level is `ERROR`.
    pub is_error: bool,
    /// What CloudStack says of it.
    pub description: String,
    /// Who did it.
    pub username: Option<String>,
    /// For which account.
    pub account: Option<String>,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    event: Vec<Wire>,
}

#[derive(Deserialize)]
struct Wire {
    created: Option<Scalar>,
    r#type: Option<Scalar>,
    state: Option<Scalar>,
    level: Option<Scalar>,
    description: Option<Scalar>,
    username: Option<Scalar>,
    account: Option<Scalar>,
    resourceid: Option<Scalar>,
}

impl CloudStack {
    /// The newest entries about a volume, oldest first; also of one that is no more.
    ///
    /// # Errors
    /// As each call: `Refused` or `Auth` too where CloudStack is older than 4.17 or the role lacks `listEvents`.
    pub async fn volume_events(&self, volume: VolumeId) -> Result<Vec<CloudEvent>, CallError> {
        let request = Request::new("listEvents").with("resourceid", volume).with("resourcetype", "Volume");
        let request = self.in_project(request.with("listall", true)).await?;
        let listing: Listing = self.call(&request.with("page", 1).with("pagesize", NEWEST)).await?;
        let mut events = Vec::new();
        for (about, event) in listing.event.into_iter().take(NEWEST).filter_map(read) {
            match about {
                None if !is_of_volumes(&event.kind) => {
                    return Err(CallError::unusable("it has the events of everything, as before CloudStack 4.17"));
                }
                Some(other) if !other.eq_ignore_ascii_case(&volume.to_string()) => {}
                _ => events.push(event),
            }
        }
        events.sort_by_key(|event| event.created);
        Ok(events)
    }
}

/// A server that knows no `resourceid` gives what was not asked for, and does not say what it is about.
fn is_of_volumes(kind: &str) -> bool {
    kind.is_empty() || kind.starts_with("VOLUME.") || kind.starts_with("SNAPSHOT.")
}

/// An entry and what it is about, where that is said; none where it does not say when.
fn read(wire: Wire) -> Option<(Option<String>, CloudEvent)> {
    let text = |scalar: Option<Scalar>| scalar.and_then(Scalar::text);
    let event = CloudEvent {
        created: Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text(wire.created)?).ok()?,
        kind: text(wire.r#type).unwrap_or_default(),
        state: text(wire.state).unwrap_or_default(),
        is_error: text(wire.level).as_deref() == Some("ERROR"),
        description: text(wire.description).unwrap_or_default(),
        username: text(wire.username),
        account: text(wire.account),
    };
    Some((text(wire.resourceid), event))
}
