//! One client of an export: who it is, since when, and how to cut it off.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use nix::sys::socket::{Shutdown, shutdown};

use crate::api;
use crate::model::clock_time;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    Unix { pid: Option<i32>, uid: u32 },
}

impl Peer {
    /// Its address; none over the Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => write!(f, "{address}"),
            Peer::Unix { pid: Some(pid), uid } => write!(f, "unix:pid={pid},uid={uid}"),
            Peer::Unix { pid: None, uid } => write!(f, "unix:uid={uid}"),
        }
    }
}

/// A client that is inside an export.
pub(super) struct Client {
    peer: Peer,
    since: Timestamp,
    /// Microseconds since the epoch; 0 before the first.
    last_request: AtomicI64,
    socket: Arc<OwnedFd>,
}

impl Client {
    /// A client that comes in now, over this socket.
    pub fn new(peer: Peer, socket: Arc<OwnedFd>) -> Self {
        Self { peer, since: Timestamp::now(), last_request: AtomicI64::new(0), socket }
    }

    /// Who it is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Notes that a request has come now.
    pub fn note_request(&self) {
        self.last_request.store(Timestamp::now().as_microsecond(), Ordering::Relaxed);
    }

    /// Cuts its connection, whatever it is doing.
    pub fn cut(&self) {
        if let Err(error) = shutdown(self.socket.as_raw_fd(), Shutdown::Both) {
            tracing::debug!("NBD client {} was gone before it was cut off: {error}", self.peer);
        }
    }

    fn last_request(&self) -> Option<Timestamp> {
        match self.last_request.load(Ordering::Relaxed) {
            0 => None,
            microseconds => Timestamp::from_microsecond(microseconds).ok(),
        }
    }

    /// When its last request came, or itself.
    pub fn last_heard(&self) -> Timestamp {
        self.last_request().unwrap_or(self.since)
    }

    /// As everybody sees it.
    pub fn shown(&self) -> api::Client {
        api::Client { address: self.peer.to_string(), since: self.since, last_request: self.last_request() }
    }

    /// As a refusal names it.
    pub fn label(&self) -> String {
        match self.last_request() {
            Some(at) => format!("{} (last request {} UTC)", self.peer, clock_time(at)),
            None => format!("{} (no request yet)", self.peer),
        }
    }
}
