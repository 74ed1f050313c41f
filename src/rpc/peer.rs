//! Who is at the other end of a Unix socket, as the kernel noted it when the peer connected. No name service.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt};

/// The most supplementary groups that a process can have (`NGROUPS_MAX`, linux/limits.h).
const MAX_GROUPS: usize = 65_536;

/// The process that connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id then; for the record only, since ids are used again.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Asks the kernel: `SO_PEERCRED` and `SO_PEERGROUPS` (unix(7)).
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        let (pid, uid, gid) = (credentials.pid(), credentials.uid(), credentials.gid());
        Ok(Self { pid, uid, gid, groups: peer_groups(socket)? })
    }
}

/// The usual few first; the kernel refuses with `ERANGE` where they are more.
fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    match read_groups(socket, 64) {
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => read_groups(socket, MAX_GROUPS),
        groups => groups,
    }
}

#[expect(unsafe_code, reason = "neither nix nor tokio has SO_PEERGROUPS")]
fn read_groups(socket: &impl AsFd, room: usize) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; room];
    let mut bytes = (room * size_of::<libc::gid_t>()) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `groups`, which is as long, and the length to `bytes`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(bytes as usize / size_of::<libc::gid_t>());
    Ok(groups)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    use nix::unistd::{getegid, geteuid, getgroups, getpid};

    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut groups: Vec<u32> = getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        groups.sort_unstable();
        let mut peer = Peer::of(&one).unwrap();
        peer.groups.sort_unstable();
        let this = Peer { pid: getpid().as_raw(), uid: geteuid().as_raw(), gid: getegid().as_raw(), groups };
        assert_eq!(peer, this);
    }

    /// A process of its own, since the groups of a connection are those of the process that connected.
    #[test]
    fn many_groups_are_all_seen() {
        assert!(geteuid().is_root(), "needs root: only root may put a process into groups");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let groups: Vec<u32> = (5000..5200).collect();
        let list = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let mut child = Command::new("setpriv")
            .args(["--groups", &list])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "rpc::peer::tests::child_that_connects", "--ignored"])
            .env("PEER_TEST_SOCKET", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(Peer::of(&stream).unwrap().groups, groups);
        drop(stream);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    #[ignore = "the child of many_groups_are_all_seen"]
    fn child_that_connects() {
        let path = std::env::var_os("PEER_TEST_SOCKET").unwrap();
        UnixStream::connect(path).unwrap().read_to_end(&mut Vec::new()).unwrap();
    }
}
