//! The history of everything: append-only, numbered, for people. Transitions are written together with their rows;
//! everything else when it can be, and never at the cost of what it is about.

use std::time::Instant;

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use tokio::sync::watch;

use super::backlog::Backlog;
use super::row::name;
use super::{Store, execute, from_json, parse, row, sql, time_text};
use crate::api::{Event, EventKind, Moment};
use crate::error::Result;
use crate::model::{JobId, OperationId, Serial, VolumeId};

/// So many events of no operation are kept, however young: some 60 MB.
const MOST_KEPT: u32 = 300_000;
/// How many are deleted in one transaction: others wait for its end.
const PRUNED_AT_ONCE: u32 = 2000;

/// Something that happened beside the transitions.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// When.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: EventKind,
    /// The volume that it is about.
    pub volume_id: Option<VolumeId>,
    /// That volume's name, where the store may not know it yet.
    pub volume_name: Option<String>,
    /// The device's serial: the volume is found by it where it is known.
    pub serial: Option<Serial>,
    /// The operation that it belongs to.
    pub operation: Option<OperationId>,
    /// CloudStack's job.
    pub job_id: Option<JobId>,
    /// In words.
    pub text: String,
}

impl NewEvent {
    /// Something that happens now, and is about nothing in particular.
    pub fn new(kind: EventKind, text: String) -> Self {
        let (at, volume_id, volume_name) = (Timestamp::now(), None, None);
        Self { at, kind, volume_id, volume_name, serial: None, operation: None, job_id: None, text }
    }
}

impl Store {
    /// Takes an event down. It is written with the next transaction, or by [`Self::write_events`]; never waits.
    pub fn record(&self, event: NewEvent) {
        if self.read_only {
            return;
        }
        self.backlog().add(event, Instant::now());
        self.recorded.notify_one();
    }

    /// Writes what was taken down and is not written yet.
    pub fn write_events(&self) -> Result<()> {
        self.backlog().close_windows(Instant::now());
        if self.backlog().is_empty() { Ok(()) } else { self.write(|_| Ok(())) }
    }

    /// Writes everything, and how much was left out, before the end.
    pub(super) fn write_last_events(&self) -> Result<()> {
        self.backlog().close();
        self.write_events()
    }

    /// Returns when there is something to write.
    pub async fn recorded(&self) {
        let next = self.backlog().next_summary();
        let summary = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.recorded.notified() => {}
            () = summary => {}
        }
    }

    /// Changes whenever something may have been written.
    pub fn written(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }

    /// Events with numbers above `after`, oldest first.
    pub fn events_after(&self, after: u64, limit: u32) -> Result<Vec<Event>> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.read(|db| select(db, "WHERE events.seq > ?1 ORDER BY events.seq LIMIT ?2", params![after, limit]))
    }

    /// The number of the newest event that was ever written; 0 where there was none.
    pub fn newest_event(&self) -> Result<u64> {
        self.read(|db| {
            let newest = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'";
            let newest = row(db, newest, [], |row| row.get::<_, i64>(0))?;
            Ok(newest.unwrap_or_default().unsigned_abs())
        })
    }

    /// The devices that came last and did not leave since, as far as was written.
    pub fn devices_noted(&self) -> Result<Vec<Serial>> {
        self.read(|db| {
            let query = "SELECT serial FROM (SELECT serial, kind, max(seq) FROM events WHERE serial IS NOT NULL
                         GROUP BY serial) WHERE kind = 'device_arrived'";
            let mut statement = db.prepare_cached(query).map_err(sql)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(sql)?;
            rows.map(|serial| parse(&serial.map_err(sql)?)).collect()
        })
    }

    /// Deletes some of the events of no operation that are older than a moment, or more than are kept; how many.
    pub fn prune_events(&self, before: Timestamp) -> Result<usize> {
        self.write(|db| {
            execute(
                db,
                "DELETE FROM events WHERE seq IN (
                    SELECT seq FROM events WHERE operation IS NULL AND at < max(?1, coalesce(
                        (SELECT at FROM events WHERE operation IS NULL ORDER BY at DESC LIMIT 1 OFFSET ?2), ''))
                    LIMIT ?3)",
                params![time_text(before), MOST_KEPT, PRUNED_AT_ONCE],
            )
        })
    }

    /// An operation's history, oldest first.
    pub fn history(&self, id: OperationId) -> Result<Vec<Moment>> {
        self.read(|db| {
            let query = "SELECT at, status, step_words, iif(kind = 'note', text, NULL) FROM events
                         WHERE operation = ?1 AND kind IN ('transition', 'note') ORDER BY seq";
            let mut statement = db.prepare_cached(query).map_err(sql)?;
            let rows = statement
                .query_map([id.to_string()], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?))
                })
                .map_err(sql)?;
            rows.map(|row| {
                let (at, status, step, note) = row.map_err(sql)?;
                Ok(Moment { at: parse(&at)?, status: word(&status)?, step, note })
            })
            .collect()
        })
    }

    /// Adds to an operation's history what was found out.
    pub fn note(&self, id: OperationId, note: &str) -> Result<()> {
        self.write(|db| note_operation(db, id, EventKind::Note, Some(note)))
    }

    pub(super) fn backlog(&self) -> std::sync::MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Adds the row of an operation as it stands now to the history.
pub(super) fn note_transition(db: &Transaction<'_>, id: OperationId) -> Result<()> {
    note_operation(db, id, EventKind::Transition, None)
}

fn note_operation(db: &Transaction<'_>, id: OperationId, kind: EventKind, text: Option<&str>) -> Result<()> {
    let kind = name(kind)?;
    db.prepare_cached(
        "INSERT INTO events (at, kind, volume_id, volume_name, operation, status, step_words, text)
         SELECT ?2, ?3, volume_id, volume_name, id, status, step_words, coalesce(?4, iif(json_valid(error), error ->> '$.message', NULL))
         FROM operations WHERE id = ?1",
    )
    .and_then(|mut insert| insert.execute(params![id.to_string(), time_text(Timestamp::now()), kind, text]))
    .map_err(sql)?;
    Ok(())
}

/// Writes what waited. What cannot be written is dropped: the transaction is about something else.
pub(super) fn insert(db: &Transaction<'_>, events: &[NewEvent]) {
    for event in events {
        if let Err(error) = insert_one(db, event) {
            tracing::warn!(%error, "not in the history: {}", event.text);
        }
    }
}

fn insert_one(db: &Transaction<'_>, event: &NewEvent) -> Result<()> {
    let kind = name(event.kind)?;
    db.prepare_cached(
        "WITH volume AS (
            SELECT coalesce(?3, (SELECT id FROM volumes WHERE ?4 IS NOT NULL AND replace(id, '-', '') LIKE ?4 || '%')) AS id)
         INSERT INTO events (at, kind, volume_id, volume_name, serial, operation, status, step_words, job_id, text)
         SELECT ?1, ?2, coalesce(volume.id, row.volume_id),
                coalesce(?8, (SELECT record ->> '$.name' FROM volumes WHERE volumes.id = volume.id AND json_valid(record)), row.volume_name),
                ?4, row.id, row.status, row.step_words, ?6, ?7
         FROM volume LEFT JOIN operations AS row ON row.id = ?5",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            time_text(event.at),
            kind,
            event.volume_id.map(|id| id.to_string()),
            event.serial.as_ref().map(Serial::as_str),
            event.operation.map(|id| id.to_string()),
            event.job_id.map(|id| id.to_string()),
            event.text,
            event.volume_name,
        ])
    })
    .map_err(sql)?;
    Ok(())
}

/// The events that the rest of a query gives. What an operation has learned of its volume since counts for all of its.
pub(super) fn select(db: &Connection, rest: &str, params: impl rusqlite::Params) -> Result<Vec<Event>> {
    let query = format!(
        "SELECT events.seq, events.at, events.kind, coalesce(events.volume_id, row.volume_id),
                coalesce(events.volume_name, row.volume_name), events.operation, row.kind, events.status,
                events.step_words, events.job_id, events.text
         FROM events LEFT JOIN operations AS row ON row.id = events.operation {rest}"
    );
    let mut statement = db.prepare_cached(&query).map_err(sql)?;
    let rows = statement.query_map(params, raw).map_err(sql)?;
    rows.map(|row| row.map_err(sql).and_then(|(seq, columns)| event(seq, columns))).collect()
}

type Raw = [Option<String>; 10];

fn raw(row: &Row<'_>) -> rusqlite::Result<(i64, Raw)> {
    let mut columns = Raw::default();
    for (index, column) in columns.iter_mut().enumerate() {
        *column = row.get(index + 1)?;
    }
    Ok((row.get(0)?, columns))
}

fn event(seq: i64, columns: Raw) -> Result<Event> {
    let [at, kind, volume_id, volume_name, operation, operation_kind, status, step, job_id, text] = columns;
    Ok(Event {
        seq: seq.unsigned_abs(),
        at: parse(&at.unwrap_or_default())?,
        kind: word(&kind.unwrap_or_default())?,
        volume_id: volume_id.as_deref().map(parse).transpose()?,
        volume_name,
        operation_id: operation.as_deref().map(parse).transpose()?,
        operation_kind: operation_kind.as_deref().map(word).transpose()?,
        status: status.as_deref().map(word).transpose()?,
        step,
        job_id: job_id.as_deref().map(parse).transpose()?,
        text,
    })
}

fn word<T: serde::de::DeserializeOwned>(word: &str) -> Result<T> {
    from_json(&format!("\"{word}\""))
}
