//! The embedded SQLite store: a journal of operations and a cache of what was said. One file a table.
//!
//! WAL with `synchronous=FULL`: a transaction that has been committed survives a power cut, except for the cache and the
//! counters, which are on disk with the next one that must be. A database that is newer,
//! damaged or not ours is refused with a sentence; it is never replaced by an empty one.

mod accept;
mod backlog;
mod counters;
mod events;
mod exports;
mod histories;
mod holds;
mod migrate;
mod open;
mod operations;
mod row;
mod seal;
mod usual;
mod volumes;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use nix::fcntl::Flock;
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use backlog::Backlog;

use crate::blocking::off_the_runtime;
use crate::error::{Error, Kind, Result};

pub use accept::{Accepted, InLine, NewOperation};
pub use counters::{Counter, STEP_BOUNDS_MS, StepTime};
pub use events::NewEvent;
pub use exports::{FormerExport, Wish};
pub use holds::HeldVolume;
pub use operations::Transition;
pub use row::{OperationRow, Outcome};
pub use volumes::CachedVolume;

/// The key under which the time of the store's making stands.
const CREATED_AT: &str = "created_at";
/// The key under which the time of the first reconciliation stands.
const RECONCILED_AT: &str = "reconciled_at";
/// The key under which stands since when nothing new is taken.
const DRAINING: &str = "draining";

/// So many statements are kept: more than there are.
const STATEMENTS: usize = 128;

/// The store, and with it the right to be the one daemon of its directory.
#[derive(Clone)]
pub struct Store {
    database: Arc<Mutex<Database>>,
    path: PathBuf,
    read_only: bool,
    /// Events that are not written yet.
    backlog: Arc<Mutex<Backlog>>,
    recorded: Arc<Notify>,
    written: Arc<watch::Sender<()>>,
    _lock: Arc<Flock<File>>,
}

/// The database, and how it commits.
struct Database {
    connection: Connection,
    /// Whether what it commits is on disk then.
    is_full: bool,
}

impl Store {
    /// Takes the directory's lock and opens `volctl.db` in it; both are made where they are missing. In a directory in
    /// which nothing can be written the store is read-only.
    pub fn open(directory: &Path) -> Result<Self> {
        let directory = &std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let lock = open::take_lock(directory)?;
        let path = directory.join("volctl.db");
        let open::Opened { connection, read_only } = open::open_database(directory, &path)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self {
            database: Arc::new(Mutex::new(Database { connection, is_full: true })),
            path,
            read_only,
            backlog: Arc::default(),
            recorded: Arc::default(),
            written: Arc::default(),
            _lock: Arc::new(lock),
        })
    }

    /// Since when this store keeps history and wishes for exports; what was before was lost with another one.
    pub fn created_at(&self) -> Result<Option<Timestamp>> {
        self.meta(CREATED_AT)?.as_deref().map(parse).transpose()
    }

    /// Whether what it has was ever compared with CloudStack, the kernel and the exports.
    pub fn is_reconciled(&self) -> Result<bool> {
        Ok(self.meta(RECONCILED_AT)?.is_some())
    }

    /// It was, for the first time.
    pub fn set_reconciled(&self) -> Result<()> {
        self.set_meta(RECONCILED_AT, &time_text(Timestamp::now()))
    }

    /// Since when the daemon takes nothing new; none where it does.
    pub fn draining(&self) -> Result<Option<Timestamp>> {
        self.meta(DRAINING)?.as_deref().map(parse).transpose()
    }

    /// The daemon takes nothing new from now on, also the next one.
    pub fn set_draining(&self, since: Timestamp) -> Result<Timestamp> {
        self.set_meta(DRAINING, &time_text(since))?;
        Ok(since)
    }

    /// It takes again what comes.
    pub fn end_draining(&self) -> Result<()> {
        self.write(|db| {
            execute(db, "DELETE FROM meta WHERE key = ?1", [DRAINING])?;
            Ok(())
        })
    }

    /// Refuses what would have to be written where nothing can be.
    pub fn refuse_if_read_only(&self) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        Err(Error::new(
            Kind::Store,
            format!("{} cannot be written: volctld changes nothing, and serves what was exported", self.path.display()),
        )
        .hint("make its directory writable, and restart volctld"))
    }

    /// Takes the write-ahead log into the database, so that the one file is all there is, and seals it: nothing is
    /// written any more.
    pub fn settle(&self) -> Result<()> {
        self.refuse_if_read_only()?;
        self.write_last_events()?;
        self.read(|db| {
            let is_busy =
                db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0)).map_err(sql)?;
            if !is_busy && let Err(error) = seal::seal(&self.path) {
                tracing::debug!(%error, "the store is not sealed: the next start reads it through");
            }
            Ok(())
        })
    }

    /// Gives back what SQLite keeps in memory of the database: the next look reads it again.
    pub fn forget_pages(&self) {
        let forgotten = self.read(|db| {
            db.flush_prepared_statement_cache();
            db.execute_batch("PRAGMA shrink_memory")
        });
        if let Err(error) = forgotten {
            tracing::debug!(%error, "the store keeps its pages");
        }
    }

    /// How large it is on its disk, with its write-ahead log.
    pub fn size_bytes(&self) -> u64 {
        let log = open::beside(&self.path, "-wal");
        [&self.path, &log].into_iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One transaction: all of it or nothing is on disk when this returns. The events that wait come with it.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.write_as(true, change)
    }

    /// As [`Self::write`], for what can be learned again: a power cut may take it back, with all that was remembered
    /// since the last [`Self::write`], and nothing else. With events that wait it is as [`Self::write`]: once somebody has
    /// read the number of one, no other may get it.
    fn remember<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.write_as(false, change)
    }

    fn write_as<T>(&self, is_full: bool, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.refuse_if_read_only()?;
        off_the_runtime(|| {
            let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
            let events = self.backlog().take();
            let written = database.transaction(is_full || !events.is_empty(), |transaction| {
                events::insert(transaction, &events);
                change(transaction)
            });
            drop(database);
            if written.is_ok() {
                self.written.send_replace(());
            } else {
                self.backlog().put_back(events);
            }
            written
        })
    }

    fn read<T, E>(&self, look: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        off_the_runtime(|| look(&self.database.lock().unwrap_or_else(PoisonError::into_inner).connection))
    }

    /// Copies the whole store to a file that is not there yet, while it is in use; gives the copy's size in bytes.
    pub fn backup(&self, to: &Path) -> Result<u64> {
        let failed = |error: String| {
            Error::new(Kind::Store, format!("the state store could not be copied to {}: {error}", to.display()))
                .hint("choose a path that volctld may write to, at which nothing is yet")
        };
        // Written through the file that was made here: nothing that takes its place meanwhile is written over.
        let mut copy = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .map_err(|error| failed(error.to_string()))?;
        let written = self
            .read(|db| match db.serialize(rusqlite::MAIN_DB) {
                Ok(image) => copy.write_all(&image).map(|()| image.len() as u64).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            })
            .and_then(|bytes| copy.sync_all().map(|()| bytes).map_err(|error| error.to_string()));
        written.map_err(|error| {
            // Half a copy is worse than none.
            let _ = fs::remove_file(to);
            failed(error)
        })
    }

    /// A value that belongs to the store as a whole, such as the VM it is bound to.
    pub fn meta(&self, key: &str) -> Result<Option<String>> {
        self.read(|db| row(db, "SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)))
    }

    /// Sets such a value.
    pub fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        self.write(|db| {
            execute(db, "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [key, value])?;
            Ok(())
        })
    }
}

impl Database {
    fn transaction<T>(&mut self, is_full: bool, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        if self.is_full != is_full {
            let synchronous = if is_full { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", synchronous).map_err(sql)?;
            self.is_full = is_full;
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let value = change(&transaction)?;
        transaction.commit().map_err(sql)?;
        Ok(value)
    }
}

/// Runs a statement that is kept: SQLite takes longer to understand most of them than to run them.
fn execute(db: &Connection, statement: &str, params: impl Params) -> Result<usize> {
    db.prepare_cached(statement).and_then(|mut kept| kept.execute(params)).map_err(sql)
}

/// The one row that such a statement gives, if it gives one.
fn row<T>(
    db: &Connection,
    statement: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    db.prepare_cached(statement).and_then(|mut kept| kept.query_row(params, read).optional()).map_err(sql)
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

/// A count as SQLite has it.
fn whole(count: u64) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
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
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::api::EventKind;

    #[test]
    fn an_event_that_may_have_been_read_outlives_a_power_cut() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        // 1 is NORMAL, 2 is FULL; it stays as the last transaction had it.
        let synchronous =
            || store.read(|db| db.pragma_query_value(None, "synchronous", |row| row.get::<_, i32>(0))).unwrap();
        let event = || store.record(NewEvent::new(EventKind::DeviceLeft, "came".to_owned()));
        store.keep_tally(&[], &[]).unwrap();
        assert_eq!(synchronous(), 1);
        event();
        store.keep_tally(&[], &[]).unwrap();
        assert_eq!(synchronous(), 2);
        store.keep_tally(&[], &[]).unwrap();
        event();
        store.write_events().unwrap();
        assert_eq!((synchronous(), store.newest_event().unwrap()), (2, 2));
    }
}
