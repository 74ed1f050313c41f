//! The descriptors that systemd hands over when it starts the daemon: the control socket, and what an earlier process of
//! the service has stored.

use std::env::var_os;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};
use nix::unistd::close;

use super::STORED;
use crate::error::{Error, Kind, Result};

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// More than the control socket and all that the unit's `FileDescriptorStoreMax=` allows.
const MOST: u32 = 4096;

/// What was handed over; nothing without systemd.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The listening Unix socket of the .socket unit.
    pub control: Option<UnixListener>,
    /// What an earlier process of the service has stored.
    pub stored: Vec<Stored>,
}

/// A descriptor that an earlier process has stored with [`super::ServiceManager::store`].
#[derive(Debug)]
pub struct Stored {
    /// The name under which it was stored.
    pub name: String,
    /// The descriptor, for this process alone: no child gets it.
    pub descriptor: OwnedFd,
}

/// What systemd has handed over to this process. It is handed over once: asked again, this gives nothing.
///
/// # Errors
/// Where it is not what [`Inherited`] has; nothing of it can be used then.
pub fn inherited() -> Result<Inherited> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Inherited::default());
    }
    let count = inherited_count(var_os("LISTEN_PID"), var_os("LISTEN_FDS"), std::process::id())?;
    let names = var_os("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.to_str().unwrap_or_default().split(':').collect();
    let mut inherited = Inherited::default();
    for (index, fd) in (FIRST..).take(count as usize).enumerate() {
        let descriptor = adopt(fd)?;
        match names.get(index).and_then(|name| name.strip_prefix(STORED)) {
            Some(name) => inherited.stored.push(Stored { name: name.to_owned(), descriptor }),
            None if inherited.control.is_none() => inherited.control = Some(listener(fd, descriptor)?),
            None => return Err(too_many()),
        }
    }
    Ok(inherited)
}

fn too_many() -> Error {
    Error::new(Kind::Config, "systemd handed over several sockets; volctld takes one, on which it is asked")
        .hint("let the .socket unit have one ListenStream=")
}

/// The variables stay in the environment, so they are believed only where they are meant for this process.
fn inherited_count(pid: Option<OsString>, count: Option<OsString>, own_pid: u32) -> Result<u32> {
    let number = |name: &str, value: &OsString| {
        let number = value.to_str().and_then(|text| text.parse::<u32>().ok());
        number.ok_or_else(|| Error::new(Kind::Config, format_args!("{name} in the environment is not a number")))
    };
    match (pid, count) {
        (Some(pid), Some(count)) if number("LISTEN_PID", &pid)? == own_pid => {
            Ok(number("LISTEN_FDS", &count)?.min(MOST))
        }
        _ => Ok(0),
    }
}

/// Takes a descriptor over that systemd opened. Its number is free afterwards, and no child gets the new one.
fn adopt(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: systemd opened it before this process began, and nobody else knows the number; it is borrowed for this
    // function, which alone closes it. Were it not open, the calls below would fail with EBADF.
    #[expect(unsafe_code, reason = "the protocol hands over a bare number")]
    let handed = unsafe { BorrowedFd::borrow_raw(fd) };
    let adopted = fcntl(handed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(std::io::Error::from)
        .and_then(|_| handed.try_clone_to_owned())
        .and_then(|owned| close(fd).map_err(std::io::Error::from).map(|()| owned));
    adopted.map_err(|error| unusable(fd, &format!("cannot be used: {error}")))
}

fn unusable(fd: RawFd, why: &str) -> Error {
    Error::new(Kind::Config, format_args!("descriptor {fd} from systemd {why}"))
}

/// The control socket; `fd` is the number under which it was handed over.
fn listener(fd: RawFd, descriptor: OwnedFd) -> Result<UnixListener> {
    let failed = |error: std::io::Error| unusable(fd, &format!("cannot be used: {error}"));
    if !is_listening_unix_stream(&descriptor).map_err(|error| failed(error.into()))? {
        return Err(unusable(fd, "is not a listening Unix stream socket")
            .hint("give the .socket unit ListenStream=/run/volctl/volctld.sock"));
    }
    let listener = UnixListener::from(descriptor);
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn is_listening_unix_stream(fd: &OwnedFd) -> nix::Result<bool> {
    match getsockopt(fd, sockopt::SockType) {
        Err(nix::errno::Errno::ENOTSOCK) => return Ok(false),
        kind if kind? != SockType::Stream => return Ok(false),
        _ => {}
    }
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    Ok(address.family() == Some(AddressFamily::Unix) && getsockopt(fd, sockopt::AcceptConn)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::process::{Command, Output, Stdio};

    use super::*;

    /// This test binary again, with a descriptor handed over as systemd does.
    fn activated(handed: OwnedFd) -> std::process::Child {
        Command::new("sh")
            .args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 0</dev/null"#])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "systemd::inherited::tests::child_that_is_activated", "--ignored", "--nocapture"])
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
        let listener = match inherited() {
            Ok(inherited) => inherited.control.expect("nothing was handed over"),
            Err(error) => return println!("refused: {error}"),
        };
        let socket = format!("socket:[{}]", nix::sys::stat::fstat(&listener).unwrap().st_ino);
        let of_child = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
        assert!(!String::from_utf8(of_child.stdout).unwrap().contains(&socket));
        listener.set_nonblocking(false).unwrap();
        listener.accept().unwrap().0.write_all(b"served").unwrap();
        assert!(inherited().unwrap().control.is_none(), "it is handed over once");
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
}
