//! A restart that no client notices, its first half: the clients are halted between two requests, and their connections
//! and the listeners are left with the service manager, in whose descriptor store they outlive this process.
//!
//! The listeners are stored for as long as they are listened on. The connections are stored only now, and with them,
//! last of all, a letter that says what was agreed with each client: it is the mark of a clean hand-over. Like the
//! store itself it outlives neither a full stop of the service nor a reboot, and the next process takes it out before
//! it serves anybody (see [`super::take_over`]). A process that is killed stores none of this: its connections are
//! closed by the kernel.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::connection::{Connection, State};
use super::exports::Exports;
use super::listen::Hall;
use super::removal::flush;
use super::stream::{OUTPUT_LIMIT, Rest};
use crate::model::VolumeId;
use crate::systemd::ServiceManager;

/// The names of what is stored.
pub(super) const LISTENER: &str = "nbd-listener";
pub(super) const CLIENT: &str = "nbd-client";
pub(super) const LETTER: &str = "nbd-letter";

/// How long those may take who are choosing an export; the others are served meanwhile.
const LAST_CHOICE: Duration = Duration::from_millis(100);
/// How long the requests that are under way may take. It is a few milliseconds unless a device is in trouble, and whoever
/// is not done by then is cut off.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long whoever was cut off may take to notice.
const LAST_NOTICE: Duration = Duration::from_millis(50);
/// How long the flush may take. This process could not end before its end anyway.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// What a version writes that the others may not be able to read.
const VERSION: u32 = 1;
/// The longest of the two parts of [`Rest`], in bytes.
const LONGEST_REST: usize = OUTPUT_LIMIT;
/// The longest first line of a letter, in bytes: some hundred for each client.
const LONGEST_HEAD: u64 = 1 << 20;

/// Halts all clients, flushes their devices, and stores what can go on. Whoever cannot is closed.
pub(super) async fn hand_over(hall: &Hall, manager: &ServiceManager) {
    hall.opened.raise();
    let mut choosing = hall.choosing.subscribe();
    let _ = tokio::time::timeout(LAST_CHOICE, choosing.wait_for(Vec::is_empty)).await;
    hall.halt.raise();
    if !hall.exports.wait_all_idle(Instant::now() + LAST_ANSWERS).await {
        hall.exports.cut(None);
        hall.exports.wait_all_idle(Instant::now() + LAST_NOTICE).await;
    }
    let flushed = flush_all(&hall.exports).await;
    let mut connections = mem::take(&mut *hall.halted.lock().unwrap_or_else(PoisonError::into_inner));
    connections.retain(|connection| flushed.contains(&connection.state.volume_id));
    if connections.is_empty() {
        return;
    }
    match store(manager, &connections) {
        Ok(()) => tracing::info!(clients = connections.len(), "NBD clients are left for the next process"),
        Err(error) => tracing::error!("NBD clients are closed: the service manager does not keep them: {error}"),
    }
}

/// Flushes all exports, and gives the volumes of which everything is on stable storage.
async fn flush_all(exports: &Exports) -> HashSet<VolumeId> {
    let mut flushes = JoinSet::new();
    for served in exports.all_served() {
        let volume = served.volume_id;
        flushes.spawn(async move { flush(served).await.map(|_| volume) });
    }
    let mut flushed = HashSet::new();
    let until = Instant::now() + LAST_FLUSH;
    while let Ok(Some(ended)) = tokio::time::timeout_at(until.into(), flushes.join_next()).await {
        match ended {
            Ok(Ok(volume)) => drop(flushed.insert(volume)),
            Ok(Err(error)) => tracing::error!("{error}: its clients are closed"),
            Err(error) => tracing::error!("a device could not be flushed: {error}"),
        }
    }
    flushed
}

fn store(manager: &ServiceManager, connections: &[Connection]) -> io::Result<()> {
    let letter = write(connections)?;
    let sockets: Vec<_> = connections.iter().map(|connection| connection.socket.as_fd()).collect();
    manager.store(CLIENT, &sockets)?;
    manager.store(LETTER, &[letter.as_fd()])?;
    manager.settled()
}

/// The first line of a letter, as JSON. The rests of all connections follow it, in their order.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    connections: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// The socket's inode, which tells it from the others that are stored with it.
    socket: u64,
    #[serde(flatten)]
    state: State,
    /// Bytes of each part of its rest.
    unread: usize,
    unsent: usize,
    #[serde(default)]
    begun: Vec<(u64, u64)>,
}

pub(super) fn write(connections: &[Connection]) -> io::Result<File> {
    let entry = |connection: &Connection| {
        Ok(Entry {
            socket: inode(&connection.socket)?,
            state: connection.state.clone(),
            unread: connection.rest.unread.len(),
            unsent: connection.rest.unsent.len(),
            begun: connection.rest.begun.clone(),
        })
    };
    let connections_of = connections.iter().map(entry).collect::<io::Result<_>>()?;
    let mut head = serde_json::to_vec(&Head { version: VERSION, connections: connections_of })?;
    head.push(b'\n');
    let mut letter = File::from(memfd_create("volctl-nbd", MFdFlags::MFD_CLOEXEC)?);
    letter.write_all(&head)?;
    for Connection { rest, .. } in connections {
        letter.write_all(&rest.unread)?;
        letter.write_all(&rest.unsent)?;
    }
    Ok(letter)
}

/// The connections of a letter, for which there are these sockets. One whose client has gone meanwhile has none.
pub(super) fn read(letter: OwnedFd, sockets: Vec<OwnedFd>) -> io::Result<Vec<Connection>> {
    let unreadable = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut sockets =
        sockets.into_iter().map(|socket| Ok((inode(&socket)?, socket))).collect::<io::Result<Vec<_>>>()?;
    let mut letter = File::from(letter);
    io::Seek::rewind(&mut letter)?;
    let mut letter = BufReader::new(letter);
    let mut head = Vec::new();
    letter.by_ref().take(LONGEST_HEAD).read_until(b'\n', &mut head)?;
    let head: Head = serde_json::from_slice(&head)?;
    if head.version != VERSION {
        return Err(unreadable("another version has written it"));
    }
    let mut part = |length: usize| -> io::Result<Vec<u8>> {
        if length > LONGEST_REST {
            return Err(unreadable("a part of it is too long"));
        }
        let mut bytes = vec![0; length];
        letter.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let mut connections = Vec::new();
    for Entry { socket, state, unread, unsent, begun } in head.connections {
        let rest = Rest { unread: part(unread)?, unsent: part(unsent)?, begun };
        let mut own = sockets.extract_if(.., |(inode, _)| *inode == socket).map(|(_, socket)| socket);
        match (own.next(), own.next()) {
            (Some(socket), None) => connections.push(Connection { socket: Arc::new(socket), state, rest }),
            (Some(_), Some(_)) => return Err(unreadable("it does not tell two sockets apart")),
            (None, _) => {}
        }
    }
    Ok(connections)
}

fn inode(socket: &OwnedFd) -> io::Result<u64> {
    Ok(fstat(socket)?.st_ino)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::net::UnixStream;

    use jiff::Timestamp;

    use super::super::client::Peer;
    use super::super::handshake::Terms;
    use super::super::protocol::{BlockSizes, Headers};
    use super::super::served::Offer;
    use super::*;

    fn connection(unread: &[u8], unsent: &[u8]) -> Connection {
        let state = State {
            export: "disk\n\"1\"".to_owned(),
            volume_id: VolumeId::random(),
            peer: Peer::Tcp("[2001:db8::1]:7".parse().unwrap()),
            certificate: None,
            since: Timestamp::now(),
            offer: Offer { size: 1 << 40, flags: 3, block_sizes: BlockSizes { minimum: 512, preferred: 4096 } },
            terms: Terms { headers: Headers::Structured, allocation: true, block_sizes: false },
        };
        let socket = Arc::new(UnixStream::pair().unwrap().0.into());
        Connection {
            socket,
            state,
            rest: Rest { unread: unread.to_vec(), unsent: unsent.to_vec(), begun: vec![(u64::MAX, 5)] },
        }
    }

    #[test]
    fn a_letter_is_read_as_it_was_written() {
        let written =
            [connection(b"half a re\nquest", b""), connection(b"", &[7; OUTPUT_LIMIT]), connection(b"x", b"y")];
        let letter = || OwnedFd::from(write(&written).unwrap());
        // In another order, and one of them has gone.
        let sockets = [2, 0].map(|index: usize| written[index].socket.try_clone().unwrap());
        let read_again = read(letter(), sockets.into()).unwrap();
        assert_eq!(read_again.len(), 2);
        for (connection, index) in read_again.iter().zip([0, 2]) {
            assert_eq!(inode(&connection.socket).unwrap(), inode(&written[index].socket).unwrap());
            assert_eq!((&connection.state, &connection.rest), (&written[index].state, &written[index].rest));
        }
        let twice = vec![written[0].socket.try_clone().unwrap(), written[0].socket.try_clone().unwrap()];
        assert!(read(letter(), twice).is_err());
    }

    #[test]
    fn what_is_no_letter_is_not_read() {
        for text in ["", "{}\n", "{\"version\":2,\"connections\":[]}\n"] {
            let mut letter = File::from(memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap());
            letter.write_all(text.as_bytes()).unwrap();
            assert!(read(letter.into(), Vec::new()).is_err(), "{text}");
        }
    }
}
