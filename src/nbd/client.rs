//! One client of an export: who it is, since when, and how to cut it off.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use nix::sys::socket::{Shutdown, shutdown};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::in_flight::Pool;
use super::tls::certificate::{Certificate, Subject};
use super::tls::kernel;
use crate::api;
use crate::model::{clock_time, printable};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

    /// Whether it is this process itself.
    pub fn is_this_process(&self) -> bool {
        matches!(self, Peer::Unix { pid: Some(pid), .. } if u32::try_from(*pid) == Ok(std::process::id()))
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

/// Somebody who has connected: where that is, and whose certificate was proven.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub peer: Peer,
    /// None without TLS: with it, there is none without a certificate.
    pub certificate: Option<Arc<Certificate>>,
}

impl Caller {
    /// Without TLS.
    pub fn plain(peer: Peer) -> Self {
        Self { peer, certificate: None }
    }

    /// The subject of its certificate.
    pub fn subject(&self) -> Option<&Subject> {
        self.certificate.as_ref()?.subject.as_ref()
    }

    /// What all its connections have in common: the subject of its certificate, else its address. On the Unix socket there
    /// is nothing by which clients are told apart.
    pub fn identity(&self) -> Option<Identity> {
        let address = self.peer.ip()?;
        Some(self.subject().map_or(Identity::Address(address), |subject| Identity::Subject(subject.name.clone())))
    }

    /// Whether what both have in flight is one client's: there a process on the Unix socket is one too.
    pub fn shares_with(&self, other: &Self) -> bool {
        match (self.peer, other.peer) {
            (Peer::Unix { pid: Some(pid), .. }, Peer::Unix { pid: other, .. }) => other == Some(pid),
            _ => self.identity().is_some_and(|own| other.identity() == Some(own)),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject() {
            Some(subject) => write!(f, "{} ({})", self.peer, printable(&subject.name)),
            None => write!(f, "{}", self.peer),
        }
    }
}

/// One client, over however many connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Subject(String),
    Address(IpAddr),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Subject(name) => write!(f, "{}", printable(name)),
            Identity::Address(address) => write!(f, "at {address}"),
        }
    }
}

/// A client that is inside an export.
pub(super) struct Client {
    caller: Caller,
    since: Timestamp,
    /// Microseconds since the epoch; 0 before the first.
    last_request: AtomicI64,
    /// That request is not answered yet.
    busy: AtomicBool,
    socket: Arc<OwnedFd>,
    /// What it has in flight, over all its connections.
    pool: Arc<Pool>,
    /// It has to go.
    kicked: AtomicBool,
}

impl Client {
    /// A client that has come in over this socket.
    pub fn new(caller: Caller, since: Timestamp, socket: Arc<OwnedFd>, pool: Arc<Pool>) -> Self {
        let (last_request, busy) = (AtomicI64::new(0), AtomicBool::new(false));
        Self { caller, since, last_request, busy, socket, pool, kicked: AtomicBool::new(false) }
    }

    /// What it has in flight, over all its connections.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Who it is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Notes that a request has come now, to some milliseconds: a clock that is cheap to read at each.
    pub fn note_request(&self) {
        if let Ok(now) = clock_gettime(ClockId::CLOCK_REALTIME_COARSE) {
            self.last_request.store(now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000, Ordering::Relaxed);
        }
        self.busy.store(true, Ordering::Relaxed);
    }

    /// Notes that its last request is answered.
    pub fn note_answer(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    /// Whether its device has not dealt with a request for a second.
    pub fn hangs(&self) -> bool {
        let is_old = |at: Timestamp| Timestamp::now().duration_since(at) > SignedDuration::from_secs(1);
        self.busy.load(Ordering::Relaxed) && self.last_request().is_some_and(is_old)
    }

    /// Whether its connection cannot be handed over.
    pub fn is_tied(&self) -> bool {
        self.is_bound_by_tls() || self.hangs()
    }

    /// Whether it uses TLS, which the kernel cannot go on with.
    pub fn is_bound_by_tls(&self) -> bool {
        self.caller.certificate.is_some() && !(self.caller.peer.ip().is_some() && kernel::is_available())
    }

    /// When it came.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Makes it go: its thread ends after the request that is under way.
    pub fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        // Wakes the thread where it waits for a request.
        if let Err(error) = shutdown(self.socket.as_raw_fd(), Shutdown::Read) {
            tracing::debug!("NBD client {} was gone before it was sent away: {error}", self.caller);
        }
    }

    /// Whether it has to go.
    pub fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::SeqCst)
    }

    /// Whether an address, with or without its port, in brackets or not, is this client's.
    pub fn is_at(&self, address: &str) -> bool {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let is_meant = |ip| bare.parse().is_ok_and(|given: IpAddr| given.to_canonical() == ip);
        self.caller.peer.to_string() == address || self.caller.peer.ip().is_some_and(is_meant)
    }

    /// Cuts its connection, whatever it is doing.
    pub fn cut(&self) {
        if let Err(error) = shutdown(self.socket.as_raw_fd(), Shutdown::Both) {
            tracing::debug!("NBD client {} was gone before it was cut off: {error}", self.caller);
        }
    }

    fn last_request(&self) -> Option<Timestamp> {
        match self.last_request.load(Ordering::Relaxed) {
            0 => None,
            microseconds => Timestamp::from_microsecond(microseconds).ok().map(|at| at.max(self.since)),
        }
    }

    /// When its last request came, or itself.
    pub fn last_heard(&self) -> Timestamp {
        self.last_request().unwrap_or(self.since)
    }

    /// As everybody sees it.
    pub fn shown(&self) -> api::Client {
        api::Client {
            address: self.caller.peer.to_string(),
            subject: self.caller.subject().map(|subject| subject.name.clone()),
            since: self.since,
            last_request: self.last_request(),
        }
    }

    /// As a refusal names it.
    pub fn label(&self) -> String {
        match self.last_request() {
            Some(at) => format!("{} (last request {} UTC)", self.caller, clock_time(at)),
            None => format!("{} (no request yet)", self.caller),
        }
    }
}
