//! The service manager: the socket that it hands over, and what it is told of this daemon's life.
//!
//! The protocols are sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3). Without systemd all of it does nothing.

use std::env::var_os;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};

use crate::error::{Error, Kind, Result};

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// The listening Unix socket that systemd handed over; none where it handed over nothing to this process.
pub fn inherited_listener() -> Result<Option<UnixListener>> {
    match inherited_count(var_os("LISTEN_PID"), var_os("LISTEN_FDS"), std::process::id())? {
        0 => Ok(None),
        1 => adopt(FIRST).map(Some),
        many => Err(Error::new(
            Kind::Config,
            format_args!("systemd handed over {many} sockets; volctld takes one, on which it is asked"),
        )
        .hint("let the .socket unit have one ListenStream=")),
    }
}

/// The variables stay in the environment, so they are believed only where they are meant for this process.
fn inherited_count(pid: Option<OsString>, count: Option<OsString>, own_pid: u32) -> Result<u32> {
    let number = |name: &str, value: &OsString| {
        let number = value.to_str().and_then(|text| text.parse::<u32>().ok());
        number.ok_or_else(|| Error::new(Kind::Config, format_args!("{name} in the environment is not a number")))
    };
    match (pid, count) {
        (Some(pid), Some(count)) if number("LISTEN_PID", &pid)? == own_pid => number("LISTEN_FDS", &count),
        _ => Ok(0),
    }
}

/// A descriptor of our own for a socket that systemd opened. The handed one stays open, but no child gets either.
fn adopt(fd: RawFd) -> Result<UnixListener> {
    let unusable = |why: &str| Error::new(Kind::Config, format_args!("descriptor {fd} from systemd {why}"));
    // SAFETY: systemd opened it before this process began, and nothing here ever closes it. Were that not so, the
    // calls below would fail with EBADF or find that it is no listening socket.
    #[expect(unsafe_code, reason = "the protocol hands over a bare number")]
    let handed = unsafe { BorrowedFd::borrow_raw(fd) };
    let adopt = || -> io::Result<Option<UnixListener>> {
        fcntl(handed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        if !is_listening_unix_stream(handed)? {
            return Ok(None);
        }
        let listener = UnixListener::from(handed.try_clone_to_owned()?);
        listener.set_nonblocking(true)?;
        Ok(Some(listener))
    };
    let wanted = || {
        unusable("is not a listening Unix stream socket")
            .hint("give the .socket unit ListenStream=/run/volctl/volctld.sock")
    };
    adopt().map_err(|error| unusable(&format!("cannot be used: {error}")))?.ok_or_else(wanted)
}

fn is_listening_unix_stream(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    match getsockopt(&fd, sockopt::SockType) {
        Err(nix::errno::Errno::ENOTSOCK) => return Ok(false),
        kind if kind? != SockType::Stream => return Ok(false),
        _ => {}
    }
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    Ok(address.family() == Some(AddressFamily::Unix) && getsockopt(&fd, sockopt::AcceptConn)?)
}

/// The service manager, where it wants to be told.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment names it. One that cannot be reached is logged, and told nothing.
    pub fn from_environment() -> Self {
        let socket = var_os("NOTIFY_SOCKET").and_then(|address| {
            let socket = notify_socket(&address);
            socket.inspect_err(|error| tracing::warn!(%error, "cannot reach the socket that NOTIFY_SOCKET names")).ok()
        });
        let watchdog = watchdog_interval(var_os("WATCHDOG_PID"), var_os("WATCHDOG_USEC"), std::process::id());
        Self { socket, watchdog }
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

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(%error, state, "cannot tell systemd");
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
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Output, Stdio};

    use super::*;

    /// This test binary again, with a descriptor handed over as systemd does.
    fn activated(handed: OwnedFd) -> std::process::Child {
        Command::new("sh")
            .args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 0</dev/null"#])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "systemd::tests::child_that_is_activated", "--ignored", "--nocapture"])
            .stdin(Stdio::from(handed))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Serves one client on what it was given, unless a child of its own gets it too.
    #[test]
    #[ignore = "the child of the tests of activation; needs LISTEN_FDS"]
    fn child_that_is_activated() {
        let listener = match inherited_listener() {
            Ok(listener) => listener.expect("nothing was handed over"),
            Err(error) => return println!("refused: {error}"),
        };
        let socket = format!("socket:[{}]", nix::sys::stat::fstat(&listener).unwrap().st_ino);
        let of_child = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
        assert!(!String::from_utf8(of_child.stdout).unwrap().contains(&socket));
        listener.set_nonblocking(false).unwrap();
        listener.accept().unwrap().0.write_all(b"served").unwrap();
        assert!(inherited_listener().unwrap().is_some(), "asked twice, it answers twice");
    }

    fn output(child: std::process::Child) -> String {
        let Output { stdout, .. } = child.wait_with_output().unwrap();
        String::from_utf8(stdout).unwrap()
    }

    #[test]
    fn a_socket_is_taken_over_and_not_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let child = activated(UnixListener::bind(&path).unwrap().into());
        let mut answer = String::new();
        UnixStream::connect(&path).unwrap().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "served");
        assert!(output(child).contains("1 passed"));
    }

    #[test]
    fn what_is_no_listening_unix_stream_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let handed: [OwnedFd; 4] = [
            File::open("/dev/null").unwrap().into(),
            UnixDatagram::bind(dir.path().join("datagram")).unwrap().into(),
            UnixStream::pair().unwrap().0.into(),
            TcpListener::bind("127.0.0.1:0").unwrap().into(),
        ];
        for handed in handed {
            let output = output(activated(handed));
            let refusal = "refused: descriptor 3 from systemd is not a listening Unix stream socket";
            assert!(output.contains(refusal), "{output}");
        }
    }

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        let text = |value: &str| Some(OsString::from(value));
        assert_eq!(inherited_count(text("17"), text("1"), 17), Ok(1));
        assert_eq!(inherited_count(text("17"), text("1"), 18), Ok(0));
        assert_eq!(inherited_count(None, text("1"), 17), Ok(0));
        assert_eq!(inherited_count(text("17"), None, 17), Ok(0));
        let error = inherited_count(text("17"), text("one"), 17).unwrap_err();
        assert_eq!(error.message, "LISTEN_FDS in the environment is not a number");
    }

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
            let manager = ServiceManager { socket: Some(notify_socket(&address).unwrap()), watchdog: None };
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
        let manager = ServiceManager { socket: Some(notify_socket(path.as_os_str()).unwrap()), watchdog: None };
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
