//! The service manager's end of the notification socket: readiness, the watchdog, and the descriptor store, in which
//! what must outlive this process waits for the next one.
//!
//! systemd hands all that is stored over to the next process of the service, whatever ended this one, and closes it once
//! the service has stopped and is not about to start again.

use std::env::var_os;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::pipe2;

use super::STORED;

/// One message carries 253 descriptors at most (`SCM_MAX_FD`).
const OF_A_MESSAGE: usize = 200;
/// How long a manager that is busy is waited for when it is to keep something.
const PATIENCE: Duration = Duration::from_secs(2);

/// The service manager, where it wants to be told.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    keeps_nothing: bool,
}

impl ServiceManager {
    /// As the environment names it. One that cannot be reached is logged, and told nothing.
    pub fn from_environment() -> Self {
        let socket = var_os("NOTIFY_SOCKET").and_then(|address| {
            let socket = notify_socket(&address);
            socket.inspect_err(|error| tracing::warn!(%error, "cannot reach the socket that NOTIFY_SOCKET names")).ok()
        });
        let watchdog = watchdog_interval(var_os("WATCHDOG_PID"), var_os("WATCHDOG_USEC"), std::process::id());
        // Set since systemd 254 only.
        let keeps_nothing = var_os("FDSTORE").is_some_and(|most| most == "0");
        Self { socket, watchdog, keeps_nothing }
    }

    /// The daemon serves.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The daemon is leaving.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The daemon is alive; to be said every [`ServiceManager::watchdog_interval`].
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often to say so: half the time after which systemd would kill it. None where there is no watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Whether it keeps descriptors for the next process, as far as can be known: systemd does where the unit has
    /// `FileDescriptorStoreMax=`.
    pub fn keeps_descriptors(&self) -> bool {
        self.socket.is_some() && !self.keeps_nothing
    }

    /// Has it keep descriptors under a name, which several may have: up to 200 ASCII characters without `:`. Waits for two
    /// seconds at most.
    pub fn store(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let state = format!("FDSTORE=1\nFDNAME={STORED}{name}");
        descriptors.chunks(OF_A_MESSAGE).try_for_each(|some| self.send(&state, some))
    }

    /// Has it close all that it keeps under a name. What this process has of it stays.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={STORED}{name}"), &[])
    }

    /// Waits until it has dealt with all that it was told before, for two seconds at most.
    pub fn settled(&self) -> io::Result<()> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        self.send("BARRIER=1", &[write.as_fd()])?;
        drop(write);
        // It closes its end when it comes to the message.
        wait_for(read.as_fd(), PollFlags::empty(), Instant::now() + PATIENCE)
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(%error, state, "cannot tell systemd");
        }
    }

    /// Sends a message that must arrive.
    fn send(&self, state: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &[] } else { &rights[..] };
        let until = Instant::now() + PATIENCE;
        loop {
            let message = [IoSlice::new(state.as_bytes())];
            match sendmsg::<()>(socket.as_raw_fd(), &message, rights, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => wait_for(socket.as_fd(), PollFlags::POLLOUT, until)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Waits until something can be done with a descriptor, or its other end is closed.
fn wait_for(fd: BorrowedFd<'_>, what: PollFlags, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(fd, what)], PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}

/// Never waits: a manager that does not read loses messages.
fn notify_socket(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn watchdog_interval(pid: Option<OsString>, usec: Option<OsString>, own_pid: u32) -> Option<Duration> {
    let number = |value: OsString| value.to_str()?.parse::<u64>().ok();
    if pid.is_some_and(|pid| number(pid) != Some(own_pid.into())) {
        return None;
    }
    let usec = usec.and_then(number).filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec) / 2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("volctl-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (receiver, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}").into()),
        ] {
            let manager =
                ServiceManager { socket: Some(notify_socket(&address).unwrap()), ..ServiceManager::default() };
            manager.ready();
            manager.alive();
            manager.stopping();
            for expected in ["READY=1", "WATCHDOG=1", "STOPPING=1"] {
                let mut buffer = [0; 64];
                let length = receiver.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], expected.as_bytes());
            }
        }
    }

    #[test]
    fn a_manager_that_has_gone_is_told_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        assert!(notify_socket(path.as_os_str()).is_err());
        let receiver = UnixDatagram::bind(&path).unwrap();
        let manager =
            ServiceManager { socket: Some(notify_socket(path.as_os_str()).unwrap()), ..ServiceManager::default() };
        drop(receiver);
        manager.stopping();
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time() {
        let text = |value: &str| Some(OsString::from(value));
        assert_eq!(watchdog_interval(None, text("30000000"), 17), Some(Duration::from_secs(15)));
        assert_eq!(watchdog_interval(text("17"), text("30000000"), 17), Some(Duration::from_secs(15)));
        assert_eq!(watchdog_interval(text("18"), text("30000000"), 17), None);
        assert_eq!(watchdog_interval(None, None, 17), None);
        assert_eq!(watchdog_interval(None, text("0"), 17), None);
    }
}
