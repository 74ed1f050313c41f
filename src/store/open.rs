//! How the store is found: its directory's lock, and the database behind it, made, checked and brought up to date.
//!
//! A database appears whole or not at all, so that one which is empty or cannot be read is always a damaged one. It is
//! refused and left alone. Where nothing can be written the store is opened as it is, to be looked at.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::migrate::{MIGRATIONS, NEWEST, migrate, newer, upgrade};
use super::seal::is_sealed;
use super::{CREATED_AT, sql, time_text};
use crate::error::{Error, Kind, Result};

/// Marks the file as ours: `volc` in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x766f_6c63;

/// An open database.
pub(super) struct Opened {
    pub connection: Connection,
    /// Nothing can be written where it lies.
    pub read_only: bool,
}

/// Takes the directory's lock, which is made where it is missing.
pub(super) fn take_lock(directory: &Path) -> Result<Flock<File>> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| unusable(directory, error))?;
    // The directory itself is locked: that needs no right to write in it.
    let handle = File::open(directory).map_err(|error| unusable(directory, error))?;
    Flock::lock(handle, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => Error::new(Kind::Store, format!("another volctld works with {}", directory.display()))
            .hint("stop it, or give this one another --state-dir"),
        error => unusable(directory, error.into()),
    })
}

/// Opens the database of a directory whose lock is held.
pub(super) fn open_database(directory: &Path, path: &Path) -> Result<Opened> {
    let new = !path.try_exists().map_err(|error| unusable(directory, error))?;
    let read_only = !can_write(directory) || !(new || can_write(path));
    let connection = match (read_only, new) {
        (false, true) => {
            create(path)?;
            writable(path)?
        }
        (false, false) => writable(path)?,
        // Nothing was ever kept here, and nothing will be.
        (true, true) => in_memory()?,
        (true, false) => as_it_is(path)?,
    };
    Ok(Opened { connection, read_only })
}

/// Asked of the kernel, since root may write wherever the file system lets anybody.
fn can_write(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}

/// Makes a new database under another name first.
fn create(path: &Path) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Kind::Store, format!("the database {} cannot be made: {error}", path.display()))
            .hint("look for room and rights in the state directory, or give another --state-dir")
    };
    let draft = beside(path, ".new");
    for leftover in [draft.clone(), beside(path, "-wal"), beside(path, "-shm")] {
        remove(&leftover).map_err(|error| failed(&error))?;
    }
    let mut connection = Connection::open(&draft).map_err(|error| failed(&error))?;
    migrate(&mut connection, 0, &MIGRATIONS)?;
    connection
        .execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [CREATED_AT, &time_text(Timestamp::now())])
        .map_err(sql)?;
    connection.close().map_err(|(_, error)| failed(&error))?;
    let kept = || -> io::Result<()> {
        fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    kept().map_err(|error| failed(&error))?;
    tracing::warn!(path = %path.display(), "a new state store: an earlier one's history and export wishes are not in it");
    Ok(())
}

/// Removes a file that may not be there.
pub(super) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file of the database, by what SQLite adds to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn writable(path: &Path) -> Result<Connection> {
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    if lacks_room(&connection) {
        // The index of the write-ahead log is kept in memory then, and nobody else can look into the database.
        connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(sql)?;
    }
    let version = check(&connection, path)?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(|error| unreadable(path, &error))?;
    if version < NEWEST {
        upgrade(&mut connection, path, version, &MIGRATIONS)?;
    }
    Ok(connection)
}

/// Whether the disk is so full that not even a file to share the database by can be made.
fn lacks_room(connection: &Connection) -> bool {
    let looked = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let code = looked.err().and_then(|error| error.sqlite_error_code());
    matches!(code, Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen))
}

/// What an earlier daemon left, with its write-ahead log if that was not taken in any more.
fn as_it_is(path: &Path) -> Result<Connection> {
    let log_is_empty = beside(path, "-wal").metadata().map_or(true, |log| log.len() == 0);
    let connection = if log_is_empty {
        // SQLite would want to make a log, if it were not told that nobody writes.
        let uri = url::Url::from_file_path(path).map_err(|()| damaged(path, "its path is not absolute"))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        open(Path::new(&format!("{uri}?immutable=1")), flags)?
    } else {
        open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?
    };
    if check(&connection, path)? < NEWEST {
        return Err(Error::new(
            Kind::Store,
            format!("{} was written by an older volctld, and cannot be brought up to date there", path.display()),
        )
        .hint("make the state directory writable"));
    }
    Ok(connection)
}

fn in_memory() -> Result<Connection> {
    let mut connection = Connection::open_in_memory().map_err(sql)?;
    migrate(&mut connection, 0, &MIGRATIONS)?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection> {
    Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(|error| unreadable(path, &error))
}

/// Proves that a database is whole and ours, and gives its version; nothing is changed in one that is not. What was sealed
/// when it was last closed is whole.
fn check(connection: &Connection, path: &Path) -> Result<i32> {
    let pragma = |name: &str| -> Result<i32> {
        connection.pragma_query_value(None, name, |row| row.get(0)).map_err(|error| unreadable(path, &error))
    };
    if !is_sealed(path) {
        let found: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| unreadable(path, &error))?;
        if found != "ok" {
            return Err(damaged(path, &found));
        }
    }
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    if application != APPLICATION_ID {
        if path.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            return Err(damaged(path, "the file is empty"));
        }
        return Err(Error::new(Kind::Store, format!("{} is not a volctl database", path.display()))
            .hint("give another --state-dir; nothing was changed in it"));
    }
    if version > NEWEST {
        return Err(newer(path, version));
    }
    Ok(version)
}

fn unusable(directory: &Path, error: io::Error) -> Error {
    Error::new(Kind::Store, format!("the state directory {} cannot be used: {error}", directory.display()))
        .hint("give volctld's user the right to use it, or give another --state-dir")
}

/// Why SQLite cannot read it: only what is damaged wants a backup.
fn unreadable(path: &Path, error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, &error.to_string()),
        _ => Error::new(Kind::Store, format!("the database {} cannot be opened: {error}", path.display()))
            .hint("look for room and rights in the state directory, and at its disk"),
    }
}

fn damaged(path: &Path, found: &str) -> Error {
    Error::new(Kind::Store, format!("the database {} is damaged: {found}", path.display()))
        .hint("put a backup in its place, or move it away to begin anew (history and export wishes are lost then)")
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    fn refusal(directory: &Path) -> Error {
        let Err(error) = Store::open(directory) else { panic!("opened") };
        assert_eq!(error.kind, Kind::Store);
        error
    }

    #[test]
    fn a_second_daemon_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Store::open(directory.path()).unwrap();
        let error = refusal(directory.path());
        assert!(error.message.contains("another volctld"), "{error}");
    }

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let path = directory.path().join("volctl.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = refusal(directory.path());
        assert!(error.message.contains("newer volctld"), "{error}");
        let version: i32 =
            Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 99);
    }

    #[test]
    fn a_damaged_database_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let path = directory.path().join("volctl.db");
        let whole = fs::read(&path).unwrap();
        let mut spoiled = whole.clone();
        spoiled[4096..8192].fill(0x5a);
        for damage in [vec![0x5a; 8192], Vec::new(), whole[..whole.len() / 2].to_vec(), spoiled] {
            fs::write(&path, &damage).unwrap();
            let error = refusal(directory.path());
            assert!(error.message.contains("damaged"), "{error}");
            assert!(error.hint.unwrap().contains("backup"));
            assert!(fs::read(&path).unwrap() == damage, "it was changed");
        }
    }

    #[test]
    fn a_seal_is_broken_by_whatever_writes_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let path = directory.path().join("volctl.db");
        store.set_meta("kept", "yes").unwrap();
        assert!(!is_sealed(&path), "not closed in order yet");
        store.settle().unwrap();
        drop(store);
        assert!(is_sealed(&path));
        drop(Store::open(directory.path()).unwrap());
        let mut spoiled = fs::read(&path).unwrap();
        spoiled[4096..8192].fill(0x5a);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, &spoiled).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(refusal(directory.path()).message.contains("damaged"), "its size and time are as before");
    }

    #[test]
    fn a_foreign_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("volctl.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let error = refusal(directory.path());
        assert!(error.message.contains("not a volctl database"), "{error}");
    }

    #[test]
    fn a_creation_that_was_broken_off_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("volctl.db.new"), [0x5a; 100]).unwrap();
        fs::write(directory.path().join("volctl.db-wal"), [0x5a; 100]).unwrap();
        let created = Store::open(directory.path()).unwrap().created_at().unwrap();
        assert_eq!(Store::open(directory.path()).unwrap().created_at().unwrap(), created);
        assert!(!directory.path().join("volctl.db.new").exists());
    }
}
