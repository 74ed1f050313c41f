//! systemd's side of sd_notify(3) and sd_listen_fds(3): a notification socket, the descriptors that are stored through
//! it, and how they come to the next process.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

type Stored = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// A service manager that keeps descriptors.
pub struct DescriptorStore {
    path: PathBuf,
    stored: Stored,
}

impl DescriptorStore {
    /// Listens at a path, for as long as the test runs.
    pub fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let stored = Stored::default();
        let keeper = Arc::clone(&stored);
        std::thread::spawn(move || while receive(&socket, &keeper).is_some() {});
        Self { path: path.to_owned(), stored }
    }

    /// The names of what is stored, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.stored.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Forgets what has a name.
    pub fn lose(&self, name: &str) {
        self.stored.lock().unwrap().retain(|(stored, _)| stored != name);
    }

    /// Hands all that is stored over to a command that is about to be started.
    #[expect(unsafe_code, reason = "the protocol has descriptors at numbers of its own")]
    pub fn hand_over(&self, command: &mut Command) {
        let stored = self.stored.lock().unwrap();
        let names: Vec<&str> = stored.iter().map(|(name, _)| name.as_str()).collect();
        command.env("NOTIFY_SOCKET", &self.path);
        if names.is_empty() {
            return;
        }
        // Far from where they go; the command has them until it is dropped.
        let high = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(500)).unwrap();
        // SAFETY: fcntl has just made it, and nobody else knows it.
        let copies: Vec<OwnedFd> = stored.iter().map(|(_, fd)| unsafe { OwnedFd::from_raw_fd(high(fd)) }).collect();
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let place = move || {
            for (copy, number) in copies.iter().zip(3..) {
                // SAFETY: the numbers are this protocol's, and the process is about to be another program.
                if unsafe { libc::dup2(copy.as_raw_fd(), number) } < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: dup2 may be called between fork and exec.
        unsafe {
            command.pre_exec(place);
        }
    }
}

/// Deals with one message; nothing where the socket is closed.
fn receive(socket: &UnixDatagram, stored: &Stored) -> Option<()> {
    let mut text = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; 253]);
    let (length, descriptors) = {
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
        let rights = message.cmsgs().unwrap().filter_map(|message| match message {
            ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        #[expect(unsafe_code, reason = "the message carries bare numbers")]
        // SAFETY: the kernel has just made them for this process, and nobody else knows them.
        let own = |fd: RawFd| unsafe { OwnedFd::from_raw_fd(fd) };
        (message.bytes, rights.flatten().map(own).collect::<Vec<_>>())
    };
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let name = value("FDNAME").unwrap_or("stored").to_owned();
    let mut stored = stored.lock().unwrap();
    if value("FDSTORE") == Some("1") {
        stored.extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
    } else if value("FDSTOREREMOVE") == Some("1") {
        stored.retain(|(other, _)| *other != name);
    }
    // Else they are closed here, which is what BARRIER=1 waits for.
    Some(())
}
