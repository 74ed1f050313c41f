//! A restart that no client notices, its second half: listeners and clients of the process before (see
//! [`super::hand_over`]).
//!
//! A client is served only where a letter came with its connection, once the service manager has confirmed that it
//! keeps neither any more, and once its export is served again, which takes the same proof of the device as ever.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::client::Peer;
use super::connection::Connection;
use super::hand_over::{self, CLIENT, LETTER, LISTENER};
use super::listen::admits;
use crate::config::Network;
use crate::rpc::socket::SocketFile;
use crate::systemd::{ServiceManager, Stored};

/// What the process before has left.
#[derive(Default)]
pub(super) struct Estate {
    tcp: Vec<(TcpListener, SocketAddr)>,
    unix: Vec<UnixListener>,
    clients: Vec<OwnedFd>,
    letter: Option<OwnedFd>,
}

impl Estate {
    /// Sorts what was stored.
    pub fn of(stored: Vec<Stored>) -> Self {
        let mut estate = Self::default();
        for Stored { name, descriptor } in stored {
            match name.as_str() {
                LISTENER => estate.take_listener(descriptor),
                CLIENT => estate.clients.push(descriptor),
                LETTER => estate.letter = Some(descriptor),
                _ => tracing::warn!("systemd has kept {name}, which this version does not know"),
            }
        }
        estate
    }

    fn take_listener(&mut self, descriptor: OwnedFd) {
        let listener = TcpListener::from(descriptor);
        match listener.local_addr() {
            Ok(address) => self.tcp.push((listener, address)),
            Err(_) => self.unix.push(OwnedFd::from(listener).into()),
        }
    }

    /// The listener of an address; port 0 is any.
    pub fn tcp(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let is_wanted =
            |address: &SocketAddr| address.ip() == wanted.ip() && [0, address.port()].contains(&wanted.port());
        let index = self.tcp.iter().position(|(_, address)| is_wanted(address))?;
        Some(self.tcp.swap_remove(index).0)
    }

    /// The listener of a path, with its file, where that is still there.
    pub fn unix(&mut self, path: &Path) -> Option<(UnixListener, SocketFile)> {
        let is_wanted =
            |listener: &UnixListener| listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path));
        let index = self.unix.iter().position(is_wanted)?;
        Some((self.unix.swap_remove(index), SocketFile::of_listener(path)?))
    }

    /// Has the manager keep the listeners of this process, and nothing else of what it kept; gives the clients that go on.
    pub fn settle(self, manager: &ServiceManager, listeners: &[BorrowedFd<'_>]) -> Vec<Connection> {
        if !manager.keeps_descriptors() {
            return Vec::new();
        }
        let settled = [LISTENER, CLIENT, LETTER]
            .iter()
            .try_for_each(|name| manager.forget(name))
            .and_then(|()| manager.store(LISTENER, listeners));
        if let Err(error) = &settled {
            tracing::warn!("the NBD listeners do not outlive a restart: systemd cannot be told: {error}");
        }
        let clients = self.clients.len();
        match settled.and_then(|()| self.connections(manager)) {
            Ok(connections) => connections,
            Err(error) => {
                tracing::warn!(clients, "the NBD clients of the process before are closed: {error}");
                Vec::new()
            }
        }
    }

    fn connections(self, manager: &ServiceManager) -> io::Result<Vec<Connection>> {
        let Some(letter) = self.letter else {
            if self.clients.is_empty() {
                return Ok(Vec::new());
            }
            return Err(io::Error::other("it did not get as far as to hand them over"));
        };
        manager.settled()?;
        hand_over::read(letter, self.clients)
    }
}

/// Whether a client would still be let in by the listeners that there are now; `bound` says of each whether nobody is
/// without TLS.
pub(super) fn is_admitted(connection: &Connection, bound: &[(SocketAddr, bool)], allow: &[Network]) -> bool {
    let Peer::Tcp(peer) = connection.state.peer else { return true };
    let local = connection.socket.try_clone().and_then(|socket| TcpStream::from(socket).local_addr());
    let Ok(local) = local else { return false };
    let is_of = |(bound, _): &&(SocketAddr, bool)| {
        let [bound, local] = [*bound, local].map(|address| (address.ip().to_canonical(), address.port()));
        bound.1 == local.1 && (bound.0.is_unspecified() || bound.0 == local.0)
    };
    let is_encrypted = connection.state.certificate.is_some();
    bound.iter().filter(is_of).any(|(bound, must_encrypt)| {
        (is_encrypted || !must_encrypt) && admits((bound.ip(), *must_encrypt), allow, peer.ip())
    })
}
