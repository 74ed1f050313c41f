//! The client: blocking, without a runtime. One connection, several requests at a time.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memchr::memchr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use serde_json::Value;

use super::json::Json;
use super::message::{ErrorObject, FromServer, parse_from_server, request};
use crate::config::SYSTEM_SOCKET;
use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// The longest answer that is taken: the list of a very large cloud's volumes.
const MAX_ANSWER: usize = 64 << 20;
/// How long the daemon may leave a connection or a request untaken; it never does while it lives.
const SEND_TIMEOUT: TimeVal = TimeVal::new(10, 0);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    next_id: u64,
    /// What was read and not understood yet.
    buffer: Vec<u8>,
    /// How much of it is known to hold no newline.
    searched: usize,
}

/// How long to wait for what comes next; by default as long as it takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait<'a> {
    /// Give up then.
    pub deadline: Option<Instant>,
    /// Stop waiting when this becomes readable: a `signalfd` or the end of a pipe, so that no signal can come between a
    /// look and the wait. It is not read here.
    pub interrupt: Option<BorrowedFd<'a>>,
}

/// What came next.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// The answer to the request that [`Client::send`] gave this id.
    Answer {
        /// That id.
        id: u64,
        /// What came of it.
        outcome: Result<Json, ErrorObject>,
    },
    /// A notification.
    Notification {
        /// What it is about.
        method: String,
        /// What it says.
        params: Json,
    },
    /// [`Wait::interrupt`] became readable.
    Interrupted,
    /// [`Wait::deadline`] passed.
    TimedOut,
}

/// Why a call has no result.
#[derive(Debug, PartialEq)]
pub enum CallFailure {
    /// The daemon answered an error.
    Remote(ErrorObject),
    /// The connection is of no more use, and whether the request was carried out is not known.
    Lost(Error),
    /// [`Wait::interrupt`] became readable.
    Interrupted,
    /// [`Wait::deadline`] passed.
    TimedOut,
}

impl Client {
    /// Connects to the daemon's socket. `daemon_unreachable` where there is none or nobody listens, `not_permitted`
    /// where the caller has no right on it.
    pub fn connect(path: &Path) -> Result<Self> {
        match open(path) {
            Ok(stream) => Ok(Self { stream, path: path.to_owned(), next_id: 1, buffer: Vec::new(), searched: 0 }),
            Err(errno) => Err(unreachable(path, errno)),
        }
    }

    /// Sends a request and returns its id. An error means that the connection is of no more use.
    pub fn send(&mut self, method: &str, params: &Value) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let line = format!("{}\n", request(Some(id), method, params));
        match self.stream.write_all(line.as_bytes()) {
            Ok(()) => Ok(id),
            Err(error) => Err(self.last_words().unwrap_or_else(|| self.lost(error))),
        }
    }

    /// Waits for what comes next. An error means that the connection is of no more use.
    pub fn next(&mut self, wait: &Wait<'_>) -> Result<Incoming> {
        loop {
            if let Some(line) = self.buffered_line() {
                return self.understand(&line);
            }
            match self.wait(wait) {
                Ok(Ready::Input) => self.fill()?,
                Ok(Ready::Interrupt) => return Ok(Incoming::Interrupted),
                Ok(Ready::Deadline) => return Ok(Incoming::TimedOut),
                Err(errno) => return Err(self.lost(errno.into())),
            }
        }
    }

    /// Sends a request and waits for its answer; notifications that come before it are handed over. Not to be used
    /// while answers of [`Client::send`] are still to come.
    pub fn call(
        &mut self,
        method: &str,
        params: &Value,
        wait: &Wait<'_>,
        mut on_notification: impl FnMut(&str, Json),
    ) -> Result<Json, CallFailure> {
        let sent = self.send(method, params).map_err(CallFailure::Lost)?;
        loop {
            match self.next(wait).map_err(CallFailure::Lost)? {
                Incoming::Answer { id, outcome } if id == sent => return outcome.map_err(CallFailure::Remote),
                Incoming::Answer { .. } => {}
                Incoming::Notification { method, params } => on_notification(&method, params),
                Incoming::Interrupted => return Err(CallFailure::Interrupted),
                Incoming::TimedOut => return Err(CallFailure::TimedOut),
            }
        }
    }

    fn buffered_line(&mut self) -> Option<Vec<u8>> {
        let Some(offset) = memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(self.searched + offset + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    fn understand(&self, line: &[u8]) -> Result<Incoming> {
        match parse_from_server(line) {
            Some(FromServer::Answer { id: Some(id), outcome }) => Ok(Incoming::Answer { id, outcome }),
            Some(FromServer::Notification { method, params }) => Ok(Incoming::Notification { method, params }),
            Some(FromServer::Answer { id: None, outcome: Err(error) }) => Err(refused(error)),
            Some(FromServer::Answer { id: None, outcome: Ok(_) }) | None => Err(Error::new(
                Kind::DaemonUnreachable,
                format_args!("what answers on {} is not volctld", shown(&self.path)),
            )
            .hint("say where the daemon's socket is with --socket or VOLCTL_SOCKET")
            .retryable(false)),
        }
    }

    fn wait(&self, wait: &Wait<'_>) -> Result<Ready, Errno> {
        let mut fds = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        fds.extend(wait.interrupt.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        loop {
            match poll(&mut fds, until(wait.deadline)) {
                Ok(0) if wait.deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Ok(Ready::Deadline);
                }
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) if fds[0].any() == Some(false) => return Ok(Ready::Interrupt),
                Ok(_) => return Ok(Ready::Input),
                Err(errno) => return Err(errno),
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) if self.buffer.len() > MAX_ANSWER => Err(Error::new(
                Kind::Internal,
                format_args!("the daemon's answer is longer than {} MiB", MAX_ANSWER >> 20),
            )),
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Why the daemon closed a connection, where it said so before.
    fn last_words(&mut self) -> Option<Error> {
        let at_once = Wait { deadline: Some(Instant::now()), interrupt: None };
        loop {
            match self.next(&at_once) {
                Ok(Incoming::Interrupted | Incoming::TimedOut) => return None,
                Ok(_) => {}
                Err(error) => return Some(error),
            }
        }
    }

    fn lost(&self, error: io::Error) -> Error {
        let path = shown(&self.path);
        let message = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                format!("the daemon on {path} closed the connection before it had answered")
            }
            io::ErrorKind::WouldBlock => format!("the daemon on {path} takes no requests: it has not read for 10 s"),
            _ => format!("the connection to the daemon on {path} broke: {error}"),
        };
        Error::new(Kind::DaemonUnreachable, message).hint(
            "`systemctl status volctld` says how the service is; an operation that it had accepted goes on: volctl ops",
        )
    }
}

/// What ended a wait.
enum Ready {
    Input,
    Interrupt,
    Deadline,
}

fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    // Rounded up, so that the end of the wait is the deadline and not a moment before it.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// `connect` with a limit, which std has not for Unix sockets: it would wait for ever where a daemon accepts nothing.
fn open(path: &Path) -> Result<UnixStream, Errno> {
    let address = UnixAddr::new(path)?;
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::SendTimeout, &SEND_TIMEOUT)?;
    loop {
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn unreachable(path: &Path, errno: Errno) -> Error {
    let shown = shown(path);
    let start = "start it with systemctl start volctld.socket (where there is no systemd: volctld, as root), or say where it \
                 is with --socket or VOLCTL_SOCKET";
    match errno {
        Errno::ENOENT if path != Path::new(SYSTEM_SOCKET) && Path::new(SYSTEM_SOCKET).exists() => {
            Error::new(Kind::DaemonUnreachable, format_args!("there is no daemon's socket at {shown}"))
                .hint(format_args!("the system's daemon is at {SYSTEM_SOCKET}: --socket or VOLCTL_SOCKET"))
        }
        Errno::ENOENT => {
            Error::new(Kind::DaemonUnreachable, format_args!("there is no daemon's socket at {shown}")).hint(start)
        }
        Errno::ECONNREFUSED => {
            Error::new(Kind::DaemonUnreachable, format_args!("no daemon listens on {shown}")).hint(start)
        }
        Errno::EACCES | Errno::EPERM => {
            Error::new(Kind::NotPermitted, format_args!("no right to connect to the daemon's socket {shown}"))
                .hint("members of the group volctl may: usermod -aG volctl USER, then log in again")
        }
        Errno::EAGAIN => {
            Error::new(Kind::DaemonUnreachable, format_args!("the daemon on {shown} accepts no connections"))
                .hint("look at it with systemctl status volctld")
        }
        _ => {
            Error::new(Kind::DaemonUnreachable, format_args!("cannot connect to {shown}: {}", errno.desc())).hint(start)
        }
    }
}

/// An error that answers no request: the daemon refuses the connection.
fn refused(object: ErrorObject) -> Error {
    let ours = object.data.and_then(|data| serde_json::from_value(data).ok());
    ours.unwrap_or_else(|| {
        Error::new(
            Kind::DaemonUnreachable,
            format_args!("the daemon closed the connection: {}", printable(&object.message)),
        )
    })
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn no_right_on_the_socket_is_not_an_unreachable_daemon() {
        let error = unreachable(Path::new(SYSTEM_SOCKET), Errno::EACCES);
        assert_eq!((error.kind, error.kind.exit_code()), (Kind::NotPermitted, 8));
        assert_eq!(error.message, format!("no right to connect to the daemon's socket {SYSTEM_SOCKET}"));
        assert!(error.hint.unwrap().contains("group volctl"));
    }
}
