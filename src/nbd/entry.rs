//! One export in the table: how far it is on its way, who may enter, and who is inside.

use std::sync::Arc;

use super::access::{Access, Verdict};
use super::client::{Caller, Client, Identity};
use super::protocol::Headers;
use super::served::{Offer, Served};
use crate::api::{self, LastClient, Usage};
use crate::error::{Error, Kind, Result as Checked};
use crate::model::printable;

/// Connections that one export takes.
const MAXIMUM_CLIENTS: usize = 256;

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Leaving,
    Full,
    /// It has as many connections as one may have: so many.
    Crowded(u32),
    /// Nobody like it gets in without TLS.
    NeedsTls,
    /// It is not among those who may.
    NotAllowed,
    /// Its device is gone.
    Gone,
    /// It is writable, and this client was there first.
    Taken(Identity),
}

impl Refusal {
    /// What an operator is told, in words that follow on the export's name; nothing of what clients run into every day.
    pub fn why(&self) -> Option<String> {
        match self {
            Refusal::Unknown | Refusal::Leaving | Refusal::NeedsTls | Refusal::Gone => None,
            Refusal::Full => Some(format!("has {MAXIMUM_CLIENTS} clients")),
            Refusal::Crowded(most) => Some(format!("is not for more than its {most} connections")),
            Refusal::NotAllowed => Some("is not for it".to_owned()),
            Refusal::Taken(first) => Some(format!("is written by the client {first}")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not proven to be reachable yet: answers INFO, lets nobody in.
    Pending,
    Active,
    Draining,
    /// On its way out, for good once its clients were told.
    Closing,
}

pub(super) struct Entry {
    pub served: Arc<Served>,
    pub phase: Phase,
    pub access: Access,
    /// Several clients may write at a time.
    pub shared: bool,
    pub clients: Vec<Arc<Client>>,
    /// The last one that left.
    pub last_client: Option<LastClient>,
}

impl Entry {
    /// What clients have done with it.
    pub fn usage(&self) -> Usage {
        let (before, moved) = (&self.served.before, self.served.traffic.moved());
        let present = self.clients.iter().max_by_key(|client| client.last_heard()).map(|client| LastClient {
            address: client.caller().peer.to_string(),
            at: client.last_heard(),
            left: None,
        });
        Usage {
            since: before.since,
            bytes_read: before.bytes_read.saturating_add(moved.read),
            bytes_written: before.bytes_written.saturating_add(moved.written),
            last_client: present.or_else(|| self.last_client.clone()),
        }
    }

    /// What a client with such headers would be let in to.
    pub fn offer(&self, headers: Headers, caller: &Caller) -> Result<Offer, Refusal> {
        self.admit(caller)?;
        match self.phase {
            _ if self.served.is_gone() => Err(Refusal::Gone),
            Phase::Pending | Phase::Active => Ok(self.served.offer(headers)),
            Phase::Draining | Phase::Closing => Err(Refusal::Leaving),
        }
    }

    /// Refuses whoever may not come in now.
    pub fn let_in(&self, caller: &Caller) -> Result<(), Refusal> {
        self.admit(caller)?;
        match self.phase {
            Phase::Pending => Err(Refusal::Unknown),
            Phase::Draining | Phase::Closing => Err(Refusal::Leaving),
            Phase::Active if self.served.is_gone() => Err(Refusal::Gone),
            Phase::Active if self.clients.len() >= MAXIMUM_CLIENTS => Err(Refusal::Full),
            Phase::Active => self.other_writer(caller).map_or(Ok(()), |first| Err(Refusal::Taken(first))),
        }
    }

    /// Refuses whoever may not open it.
    pub fn admit(&self, caller: &Caller) -> Result<(), Refusal> {
        match self.access.judge(caller) {
            Verdict::Open => Ok(()),
            Verdict::NeedsTls => Err(Refusal::NeedsTls),
            Verdict::Closed => Err(Refusal::NotAllowed),
        }
    }

    /// The client that has a writable export already, if it is another one: one client writes at a time, over as many
    /// connections as it likes. Those on the Unix socket are not told apart.
    fn other_writer(&self, caller: &Caller) -> Option<Identity> {
        let own = caller.identity().filter(|_| !self.served.read_only && !self.shared)?;
        self.clients.iter().filter_map(|client| client.caller().identity()).find(|other| *other != own)
    }

    /// Refuses to be for one writer where several are inside whom this access lets stay. Those on the Unix socket do not
    /// count.
    pub fn check_one_writer(&self, access: &Access) -> Checked<()> {
        let stays = |client: &&Arc<Client>| access.judge(client.caller()) == Verdict::Open;
        let stay =
            || self.clients.iter().filter(stays).filter_map(|client| Some((client.caller().identity()?, client)));
        let first = stay().next().map(|(identity, _)| identity);
        if self.served.read_only || stay().all(|(identity, _)| Some(identity) == first) {
            return Ok(());
        }
        let name = printable(&self.served.name);
        let clients: Vec<String> = stay().map(|(_, client)| client.label()).collect();
        let message = format!("export {name} is open to several clients: {}; nothing was changed", clients.join(", "));
        Err(Error::new(Kind::InUse, message).hint("disconnect all but one, or name the one that stays with --client"))
    }

    pub fn state(&self) -> api::ExportState {
        match self.phase {
            _ if self.served.failed() => api::ExportState::Failed,
            Phase::Pending => api::ExportState::Pending,
            Phase::Active => api::ExportState::Active,
            Phase::Draining | Phase::Closing => api::ExportState::Draining,
        }
    }
}
