//! The sockets that clients connect to, and one thread for each client that does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};

use super::client::{Caller, Peer};
use super::connection::Connection;
use super::exports::{Exports, Session};
use super::handshake::{Agreed, Visit, handshake};
use super::latch::Latch;
use super::stream::{Stream, Until};
use super::take_over::Estate;
use super::tls::Tls;
use super::transmission::{self, End};
use crate::config::{self, NbdLimits, Network};
use crate::error::{Error, Kind, Result};
use crate::rpc::socket::{SocketFile, listen_on};

/// How long a client that came during a restart waits for the exports to be back.
const OPENING: Duration = Duration::from_secs(3);
/// How long accepting rests after an error: what is short then, file descriptors say, is short for a while.
const REST: Duration = Duration::from_millis(100);
/// Stack of a client's thread, in bytes; its buffers are not on it.
const STACK: usize = 256 << 10;
/// So many bytes may be on their way to a client of the Unix socket.
const SEND_BUFFER: usize = 1 << 20;
/// A TCP peer that is silent for half of its time is asked so many times in the other half.
const PROBES: u32 = 6;

/// What all clients' threads share.
pub(super) struct Hall {
    pub exports: Arc<Exports>,
    /// Raised when all that is to be exported is, unless it cannot be.
    pub opened: Latch,
    /// Raised when the server ends.
    pub stop: Latch,
    /// Where TLS is configured.
    pub tls: Option<Tls>,
    /// The clients that are choosing an export.
    pub choosing: watch::Sender<Vec<Peer>>,
    /// Raised when the clients are to be handed over to another process.
    pub halt: Arc<Latch>,
    /// Those that are.
    pub halted: Mutex<Vec<Connection>>,
    limits: NbdLimits,
    places: Arc<Semaphore>,
}

impl Hall {
    pub fn new(exports: Arc<Exports>, tls: Option<Tls>, limits: NbdLimits) -> io::Result<Self> {
        let places = Arc::new(Semaphore::new(limits.connections as usize));
        let halt = Arc::new(Latch::new()?);
        let (opened, stop, choosing, halted) =
            (Latch::new()?, Latch::new()?, watch::Sender::default(), Mutex::default());
        Ok(Self { exports, opened, stop, tls, choosing, halt, halted, limits, places })
    }

    /// Gives a client a thread, or refuses it.
    fn admit(self: &Arc<Self>, socket: io::Result<OwnedFd>, peer: Peer, must_encrypt: bool) {
        let hall = Arc::clone(self);
        let attended = socket.and_then(|socket| {
            let choice = Choice::begin(self, peer)?;
            self.spawn(peer, move || hall.attend(Arc::new(socket), peer, must_encrypt, choice))
        });
        if let Err(error) = attended {
            tracing::warn!(client = %peer, "NBD client {peer} refused: {error}");
        }
    }

    fn spawn(&self, peer: Peer, attend: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place =
            place.map_err(|_| io::Error::other(format!("there are {} connections", self.limits.connections)))?;
        let thread = std::thread::Builder::new().name("nbd-client".to_owned()).stack_size(STACK);
        let attended = thread.spawn(move || {
            let _place = place;
            if let Err(error) = attend() {
                tracing::debug!("NBD client {peer} is gone: {error}");
            }
        });
        attended.map(drop)
    }

    fn attend(&self, socket: Arc<OwnedFd>, peer: Peer, must_encrypt: bool, choice: Choice) -> io::Result<()> {
        if !peer.is_this_process() {
            self.opened.wait(OPENING)?;
        }
        let mut stream = Stream::new(Arc::clone(&socket), Arc::clone(&self.halt));
        let patience = self.limits.handshake;
        let until = Until { latch: Some(&self.stop), deadline: Some(Instant::now() + patience), ..Until::default() };
        setsockopt(&socket, sockopt::SendTimeout, &send_timeout(patience))?;
        let visit = Visit { exports: &self.exports, tls: self.tls.as_ref(), must_encrypt, until };
        let agreed = handshake(&mut stream, Caller::plain(peer), visit)?;
        drop(choice);
        match agreed {
            Some(agreed) => self.serve(stream, agreed),
            None => stream.end(),
        }
    }

    fn serve(&self, mut stream: Stream, Agreed { session, terms }: Agreed) -> io::Result<()> {
        match transmission::serve(&mut stream, &session, terms)? {
            End::Over => leave(stream, session),
            // What is encrypted here cannot be handed over.
            End::Halted if stream.is_encrypted() && session.client().is_bound_by_tls() => leave(stream, session),
            End::Halted => {
                stream.leave_to_kernel()?;
                let connection = Connection::of(stream, &session, terms);
                // Before the seat is left: whoever finds all seats empty finds all connections here.
                self.halted.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                session.hand_over();
                Ok(())
            }
        }
    }

    /// Goes on with a client of another process.
    pub fn resume(self: &Arc<Self>, connection: Connection) {
        let peer = connection.state.peer;
        let hall = Arc::clone(self);
        let resumed = connection.enter(&self.exports, &self.halt).and_then(|(stream, agreed)| {
            self.spawn(peer, move || hall.serve(stream, agreed)).map_err(|error| error.to_string())
        });
        if let Err(why) = resumed {
            tracing::warn!(client = %peer, "NBD client {peer} is closed after the restart: {why}");
        }
    }
}

/// Ends a connection. The seat is free once the answers are sent: whoever reads to the end finds it so.
fn leave(mut stream: Stream, session: Session) -> io::Result<()> {
    stream.send()?;
    drop(session);
    stream.end()
}

/// A client that is choosing an export.
struct Choice {
    hall: Arc<Hall>,
    peer: Peer,
}

impl Choice {
    /// Lets a client choose, where not as many of its address do as one client may have connections: who it is by its
    /// certificate is not known yet.
    fn begin(hall: &Arc<Hall>, peer: Peer) -> io::Result<Self> {
        let most = hall.limits.connections_per_client as usize;
        let begun = hall.choosing.send_if_modified(|clients| {
            let alike = clients.iter().filter(|other| peer.ip().is_some() && other.ip() == peer.ip()).count();
            let has_room = alike < most;
            if has_room {
                clients.push(peer);
            }
            has_room
        });
        if !begun {
            return Err(io::Error::other(format!("{most} connections from its address are choosing an export")));
        }
        Ok(Self { hall: Arc::clone(hall), peer })
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.hall.choosing.send_modify(|clients| {
            if let Some(index) = clients.iter().position(|peer| *peer == self.peer) {
                clients.swap_remove(index);
            }
        });
    }
}

/// As the kernel takes it, for which none at all is for ever.
fn send_timeout(duration: Duration) -> TimeVal {
    let duration = duration.max(Duration::from_micros(1));
    TimeVal::new(duration.as_secs().try_into().unwrap_or(i64::MAX), duration.subsec_micros().into())
}

/// Listens on a TCP address, as the process before may have done already; the address that was bound comes back with the
/// listener.
pub(super) async fn bind_tcp(address: SocketAddr, estate: &mut Estate) -> Result<(TcpListener, SocketAddr)> {
    let refused = |error: io::Error| {
        // An address that is taken or not there yet may be free or there a moment later.
        let kind = match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Kind::Internal,
            _ => Kind::Config,
        };
        Error::new(kind, format!("NBD cannot listen on {address}: {error}"))
            .hint("see what has the port with `ss -ltnp`, or change [nbd] listen")
    };
    let listener = match estate.tcp(address) {
        Some(listener) => TcpListener::from_std(listener).map_err(refused)?,
        None => TcpListener::bind(address).await.map_err(refused)?,
    };
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Whether nobody gets in without TLS at a bound address, however it came to be bound: everywhere but on loopback, unless
/// networks were named that may.
///
/// # Errors
/// `config` where neither TLS nor such networks are configured.
pub(super) fn must_encrypt(bound: SocketAddr, config: &config::Nbd) -> Result<bool> {
    if bound.ip().to_canonical().is_loopback() || config.plain_public && !config.allow.is_empty() {
        return Ok(false);
    }
    if config.tls_certificates.is_some() {
        return Ok(true);
    }
    let message = format!("NBD does not listen on {bound}, which is reached from other machines, without TLS");
    Err(Error::new(Kind::Config, message)
        .hint("set [nbd] tls_certificates, or plain_public = true and allow = [networks that you trust]"))
}

/// Accepts TCP clients that are allowed, for ever.
pub(super) async fn accept_tcp(
    listener: TcpListener,
    (bound, must_encrypt): (SocketAddr, bool),
    allow: Vec<Network>,
    hall: Arc<Hall>,
) {
    loop {
        match listener.accept().await {
            Ok((client, from)) => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                if admits((bound.ip(), must_encrypt), &allow, from.ip()) {
                    hall.admit(tcp_socket(client, hall.limits.keepalive), Peer::Tcp(from), must_encrypt);
                } else {
                    tracing::warn!(client = %from, "NBD client {from} refused: it is in no network of [nbd] allow");
                }
            }
            Err(error) => rest(error).await,
        }
    }
}

/// Accepts clients of the Unix socket, for ever.
pub(super) async fn accept_unix(listener: UnixListener, hall: Arc<Hall>) {
    loop {
        let accepted = match listener.accept().await {
            Ok((client, _)) => client.peer_cred().map(|credentials| (client, credentials)),
            Err(error) => Err(error),
        };
        match accepted {
            Ok((client, credentials)) => {
                let peer = Peer::Unix { pid: credentials.pid(), uid: credentials.uid() };
                hall.admit(client.into_std().and_then(unix_socket), peer, false);
            }
            Err(error) => rest(error).await,
        }
    }
}

async fn rest(error: io::Error) {
    tracing::warn!("an NBD client could not be accepted: {error}");
    tokio::time::sleep(REST).await;
}

fn tcp_socket(client: TcpStream, keepalive: Duration) -> io::Result<OwnedFd> {
    let client = client.into_std()?;
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    let [idle, interval] = [2, 2 * PROBES].map(|parts| (keepalive / parts).as_secs().max(1) as u32);
    setsockopt(&client, sockopt::KeepAlive, &true)?;
    setsockopt(&client, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(&client, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(&client, sockopt::TcpKeepCount, &PROBES)?;
    // The kernel asks nobody whom it has sent something: what is not acknowledged has its own time.
    setsockopt(&client, sockopt::TcpUserTimeout, &(keepalive.as_millis() as u32))?;
    Ok(client.into())
}

fn unix_socket(client: std::os::unix::net::UnixStream) -> io::Result<OwnedFd> {
    client.set_nonblocking(false)?;
    // As far as the kernel lets it: the server sends the next answers while the client takes the last ones. TCP's buffers
    // grow by themselves.
    setsockopt(&client, sockopt::SndBuf, &SEND_BUFFER)?;
    Ok(client.into())
}

/// Loopback clients of a loopback listener are this machine's; all others need a network that allows them, or a listener
/// that takes nothing but TLS where no network is named.
pub(super) fn admits((listener, must_encrypt): (IpAddr, bool), allow: &[Network], client: IpAddr) -> bool {
    listener.to_canonical().is_loopback() && client.is_loopback()
        || allow.iter().any(|network| network.contains(client))
        || must_encrypt && allow.is_empty()
}

/// Binds the Unix socket, as the process before may have done already.
pub(super) fn bind_unix(path: &Path, estate: &mut Estate) -> Result<(UnixListener, SocketFile)> {
    let (listener, file) = match estate.unix(path) {
        Some(inherited) => inherited,
        None => listen_on(path, "NBD").map_err(|error| error.hint("[nbd] unix_socket names the socket"))?,
    };
    let listener = UnixListener::from_std(listener)
        .map_err(|error| Error::new(Kind::Config, format!("NBD cannot listen on {}: {error}", path.display())))?;
    Ok((listener, file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn network(address: &str, prefix: u8) -> Network {
        Network { address: address.parse().unwrap(), prefix }
    }

    #[test]
    fn only_allowed_networks_come_in() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let allow = [network("192.0.2.0", 24), network("2001:db8::", 32)];
        for (listener, client, admitted) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("0.0.0.0", "127.0.0.1", false),
            ("0.0.0.0", "192.0.2.255", true),
            ("0.0.0.0", "192.0.3.0", false),
            ("::", "2001:db8:ffff::1", true),
            ("::", "2001:db9::1", false),
            ("::", "192.0.2.1", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::ffff:192.0.2.1", "127.0.0.1", false),
        ] {
            assert_eq!(admits((ip(listener), false), &allow, ip(client)), admitted, "{client} at {listener}");
        }
        let to_nobody = |must_encrypt| admits((ip("192.0.2.1"), must_encrypt), &[], ip("192.0.2.2"));
        assert!(!to_nobody(false), "an empty list allows nobody");
        assert!(to_nobody(true), "but those who prove who they are");
    }

    #[test]
    fn what_other_machines_reach_takes_nothing_but_tls() {
        let with = |tls: bool, plain_public, allow: &[Network]| config::Nbd {
            tls_certificates: tls.then(|| "/etc/volctl/tls".into()),
            plain_public,
            allow: allow.to_vec(),
            ..config::Nbd::default()
        };
        let networks = [network("192.0.2.0", 24)];
        for (address, is_public) in [
            ("127.0.0.1:1", false),
            ("127.9.9.9:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("192.0.2.1:1", true),
            ("10.0.0.1:1", true),
            ("169.254.1.1:1", true),
            ("[fe80::1%1]:1", true),
            ("[fd00::1]:1", true),
            ("[::ffff:192.0.2.1]:1", true),
            ("[::ffff:0.0.0.0]:1", true),
        ] {
            let bound: SocketAddr = address.parse().unwrap();
            assert_eq!(must_encrypt(bound, &with(true, false, &[])).unwrap(), is_public, "{address}");
            assert_eq!(must_encrypt(bound, &with(true, true, &[])).unwrap(), is_public, "{address}");
            for config in [with(false, false, &networks), with(false, true, &[])] {
                let judged = must_encrypt(bound, &config).map_err(|error| error.kind);
                assert_eq!(judged, if is_public { Err(Kind::Config) } else { Ok(false) }, "{address}");
            }
            assert!(!must_encrypt(bound, &with(false, true, &networks)).unwrap(), "{address}");
        }
    }
}
