//! The embedded SQLite store: a journal of operations and a cache of what was said. One file a table.
//!
//! WAL with `synchronous=FULL`: a transaction that has been committed survives a power cut. A database that is newer,
//! damaged or not ours is refused with a sentence; it is never replaced by an empty one.

mod accept;
mod exports;
mod operations;
mod row;
mod volumes;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};

pub use accept::{Accepted, NewOperation};
pub use exports::Wish;
pub use operations::Transition;
pub use row::{OperationRow, Outcome};
pub use volumes::CachedVolume;

/// Migration N brings a database from version N-1 to N. Released ones are never edited.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_initial.sql")];

/// Marks the file as ours: `volc` in ASCII.
const APPLICATION_ID: i32 = 0x766f_6c63;

/// The store, and with it the right to be the one daemon of its directory.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
    _lock: Arc<Flock<File>>,
}

impl Store {
    /// Takes the directory's lock and opens `volctl.db` in it; both are made where they are missing.
    pub fn open(directory: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| unusable(directory, error))?;
        let lock = take_lock(directory)?;
        let path = directory.join("volctl.db");
        let connection = open_database(&path)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), path, _lock: Arc::new(lock) })
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One transaction: all of it or nothing is on disk when this returns.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        off_the_runtime(|| {
            let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
            let value = change(&transaction)?;
            transaction.commit().map_err(sql)?;
            Ok(value)
        })
    }

    fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        off_the_runtime(|| look(&self.connection.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Copies the whole store to a file that is not there yet, while it is in use; gives the copy's size in bytes.
    pub fn backup(&self, to: &Path) -> Result<u64> {
        let failed = |error: String| {
            Error::new(Kind::Store, format!("the state store could not be copied to {}: {error}", to.display()))
                .hint("choose a path that volctld may write to, at which nothing is yet")
        };
        // Created by us and empty: what was there before is never written over.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .map_err(|error| failed(error.to_string()))?;
        let copied = self.read(|db| db.backup(rusqlite::MAIN_DB, to, None).map_err(sql));
        copied.map_err(|error| failed(error.message))?;
        std::fs::metadata(to).map(|copy| copy.len()).map_err(|error| failed(error.to_string()))
    }

    /// A value that belongs to the store as a whole, such as the VM it is bound to.
    pub fn meta(&self, key: &str) -> Result<Option<String>> {
        self.read(|db| {
            db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional().map_err(sql)
        })
    }

    /// Sets such a value.
    pub fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        self.write(|db| {
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [key, value]).map_err(sql)?;
            Ok(())
        })
    }
}

fn take_lock(directory: &Path) -> Result<Flock<File>> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| unusable(directory, error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => {
            Error::new(Kind::Store, format!("another volctld works with {}", directory.display()))
                .hint("stop it, or give this one another --state-dir")
        }
        error => unusable(directory, error.into()),
    })
}

fn open_database(path: &Path) -> Result<Connection> {
    let mut connection = Connection::open(path).map_err(|error| damaged(path, &error))?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(|error| damaged(path, &error))?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let pragma = |name: &str| -> Result<i32> {
        connection.pragma_query_value(None, name, |row| row.get(0)).map_err(|error| damaged(path, &error))
    };
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let empty: bool = connection
        .query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(|error| damaged(path, &error))?;
    if !empty && application != APPLICATION_ID {
        return Err(Error::new(Kind::Store, format!("{} is not a volctl database", path.display()))
            .hint("give another --state-dir; nothing was changed in it"));
    }
    let newest = MIGRATIONS.len() as i32;
    if version > newest {
        return Err(Error::new(
            Kind::Store,
            format!(
                "{} was written by a newer volctld (version {version}; this one reads up to {newest})",
                path.display()
            ),
        )
        .hint("install the newer package again; nothing was changed in it"));
    }
    let transaction = connection.transaction().map_err(sql)?;
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        transaction.execute_batch(migration).map_err(sql)?;
        transaction.pragma_update(None, "user_version", index as i32 + 1).map_err(sql)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql)?;
    transaction.commit().map_err(sql)
}

/// A commit waits for the disk: the other tasks of this thread go to another one meanwhile.
fn off_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

fn unusable(directory: &Path, error: std::io::Error) -> Error {
    Error::new(Kind::Store, format!("the state directory {} cannot be used: {error}", directory.display()))
        .hint("give volctld's user the right to write there, or another --state-dir")
}

fn damaged(path: &Path, error: &rusqlite::Error) -> Error {
    Error::new(Kind::Store, format!("the database {} cannot be read: {error}", path.display()))
        .hint("put a backup in its place, or move it away to begin anew (history and export wishes are lost then)")
}

/// An SQLite error as ours.
fn sql(error: rusqlite::Error) -> Error {
    Error::new(Kind::Store, format!("the state store failed: {error}"))
        .hint("check the disk that holds the state directory")
        .retryable(true)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::new(Kind::Store, format!("a row of the state store cannot be read: {error}")))
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(Kind::Internal, format!("a row cannot be written: {error}")))
}

/// Sorts as text in the order of time.
fn time_text(at: Timestamp) -> String {
    format!("{at:.6}")
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Error::new(Kind::Store, format!("a row of the state store cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Store::open(directory.path()).unwrap();
        let Err(error) = Store::open(directory.path()) else { panic!("two stores in one directory") };
        assert!(error.message.contains("another volctld"), "{error}");
    }

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let path = directory.path().join("volctl.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let Err(error) = Store::open(directory.path()) else { panic!("opened") };
        assert!(error.message.contains("newer volctld"), "{error}");
        let version: i32 =
            Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 99);
    }

    #[test]
    fn a_damaged_database_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("volctl.db");
        let garbage = vec![0x5a; 8192];
        std::fs::write(&path, &garbage).unwrap();
        let Err(error) = Store::open(directory.path()) else { panic!("opened") };
        assert_eq!(error.kind, Kind::Store);
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }

    #[test]
    fn a_foreign_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("volctl.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let Err(error) = Store::open(directory.path()) else { panic!("opened") };
        assert!(error.message.contains("not a volctl database"), "{error}");
    }
}
