//! Listening Unix sockets: a file that is there only while somebody listens, and that nobody else can open too early.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};

use crate::error::{Error, Kind, Result};

/// The file of a socket that we listen on.
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Of a listener that another process has begun; none where no socket is at its path any more.
    pub fn of_listener(path: &Path) -> Option<Self> {
        let identity = identity(path).ok().filter(|_| is_socket(path))?;
        Some(Self { path: path.to_owned(), identity })
    }

    /// Removes the file, unless something else has taken its place.
    pub fn remove(&self) {
        if identity(&self.path).ok() == Some(self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}

/// Listens, non-blocking, on a socket that its owner and group can use (0660). Its directory is made where it is
/// missing; a file that a dead process left is replaced.
///
/// # Errors
/// `conflict` where something else is there, another process that answers above all; `config` where the path cannot be
/// used. `purpose` says who wants to listen.
pub fn listen_on(path: &Path, purpose: &str) -> Result<(UnixListener, SocketFile)> {
    let refused = |error: io::Error| {
        Error::new(Kind::Config, format!("{purpose} cannot listen on {}: {error}", path.display()))
            .hint("choose a path in a directory that volctld may write to")
    };
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(refused)?;
    }
    remove_stale(path, purpose)?;
    let listener = UnixListener::from(listening(path).map_err(refused)?);
    listener.set_nonblocking(true).map_err(refused)?;
    let identity = identity(path).map_err(refused)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// Nobody can connect between `bind` and `listen`, so the mode is right before the first client.
fn listening(path: &Path) -> io::Result<OwnedFd> {
    let file = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(file.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    listen(&file, Backlog::MAXCONN)?;
    Ok(file)
}

fn remove_stale(path: &Path, purpose: &str) -> Result<()> {
    let taken = |found: String| {
        Error::new(Kind::Conflict, format!("{purpose} cannot listen on {}: {found}", path.display()))
            .hint("stop what uses it, or choose another path")
    };
    match UnixStream::connect(path) {
        Ok(_) => Err(taken("another process answers there".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
            fs::remove_file(path).map_err(|error| taken(error.to_string()))
        }
        Err(error) => Err(taken(format!("what is there is not a socket of ours ({error})"))),
    }
}

/// A regular file refuses connections too.
fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_owner_and_group_and_goes_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/control.sock");
        let (_listener, file) = listen_on(&path, "a test").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        file.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_living_listener_is_left_alone_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (living, _file) = listen_on(&path, "a test").unwrap();
        assert_eq!(listen_on(&path, "a test").err().unwrap().kind, Kind::Conflict);
        drop(living);
        listen_on(&path, "a test").unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert_eq!(listen_on(&path, "a test").err().unwrap().kind, Kind::Conflict);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
