//! A client's connection between two processes: all that the next one needs to go on where this one stopped.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::client::{Caller, Peer};
use super::exports::{Exports, Session};
use super::handshake::{Agreed, Terms};
use super::latch::Latch;
use super::served::Offer;
use super::stream::{Rest, Stream};
use super::tls::certificate::Certificate;
use crate::model::VolumeId;

/// A connection between two of its requests. Where it is encrypted, the kernel does that.
pub(super) struct Connection {
    pub socket: Arc<OwnedFd>,
    pub state: State,
    /// What the client has sent, and what it has not been able to take.
    pub rest: Rest,
}

/// What was agreed with a client. What one version writes the next ones must read: later fields need a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub export: String,
    pub volume_id: VolumeId,
    pub peer: Peer,
    /// What was proven by TLS.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    pub since: Timestamp,
    pub offer: Offer,
    pub terms: Terms,
}

impl Connection {
    /// Of a client that is halted.
    pub fn of(stream: Stream, session: &Session, terms: Terms) -> Self {
        let served = session.served();
        let state = State {
            export: served.name.clone(),
            volume_id: served.volume_id,
            peer: session.client().caller().peer,
            certificate: session.client().caller().certificate.as_deref().cloned(),
            since: session.client().since(),
            offer: session.offer(terms.headers),
            terms,
        };
        Self { socket: Arc::clone(stream.socket()), state, rest: stream.into_rest() }
    }

    /// Takes the client's place in its export again, where that is still what the client was told; else says why not.
    pub fn enter(self, exports: &Arc<Exports>, halt: &Arc<Latch>) -> Result<(Stream, Agreed), String> {
        let Self { socket, state: State { export, volume_id, peer, certificate, since, offer, terms }, rest } = self;
        let client = (Caller { peer, certificate: certificate.map(Arc::new) }, since, Arc::clone(&socket));
        let session = exports.enter_again((&export, volume_id), &offer, terms.headers, client)?;
        Ok((Stream::resumed(socket, Arc::clone(halt), rest), Agreed { session, terms }))
    }
}
