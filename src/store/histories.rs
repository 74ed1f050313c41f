//! The history of one volume, also of one that is no more.

use jiff::Timestamp;
use rusqlite::params;

use super::events::select;
use super::row::{OperationRow, many};
use super::{Store, parse, sql, time_text};
use crate::api::Event;
use crate::error::Result;
use crate::model::VolumeId;

/// At most so many events are one volume's history, and so many operations: the newest.
const MOST_EVENTS: u32 = 2000;
const MOST_OPERATIONS: u32 = 500;

impl Store {
    /// The volumes that the history knows by an id or a name, with their last names there; by
    /// a name only those whose last one it is.
    pub fn volumes_of_the_past(&self, word: &str) -> Result<Vec<(VolumeId, String)>> {
        self.read(|db| {
            let query = "WITH meant AS (
                             SELECT volume_id FROM events WHERE volume_name = ?1 OR volume_id = lower(?1)
                             UNION SELECT volume_id FROM operations WHERE volume_name = ?1 OR volume_id = lower(?1))
                         SELECT volume_id, volume_name FROM (
                             SELECT volume_id, volume_name, max(seq) FROM (
                                 SELECT volume_id, volume_name, seq FROM events WHERE volume_id IN meant
                                 UNION ALL
                                 SELECT volume_id, volume_name, 0 FROM operations WHERE volume_id IN meant)
                             WHERE volume_id IS NOT NULL AND volume_name IS NOT NULL GROUP BY volume_id)
                         WHERE volume_name = ?1 OR volume_id = lower(?1) LIMIT 20";
            let mut statement = db.prepare_cached(query).map_err(sql)?;
            let rows = statement.query_map([word], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).map_err(sql)?;
            rows.map(|row| {
                let (id, name) = row.map_err(sql)?;
                Ok((parse(&id)?, name))
            })
            .collect()
        })
    }

    /// A volume's operations, those that it made way for, and those that were to create one of its name and never learned which; oldest first.
    pub fn operations_about(&self, volume: Option<VolumeId>, name: &str) -> Result<Vec<OperationRow>> {
        let id = volume.map(|id| id.to_string());
        let rest = "WHERE volume_id = ?1 OR displaced_id = ?1 OR (volume_id IS NULL AND new_name = ?2) ORDER BY seq DESC LIMIT ?3";
        let mut rows = self.read(|db| many(db, rest, params![id, name, MOST_OPERATIONS]))?;
        rows.reverse();
        Ok(rows)
    }

    /// A volume's events in a span of time, oldest first: its own, its device's, those of its operations, and whether
    /// CloudStack answered while one was under way.
    pub fn events_of(
        &self,
        volume: Option<VolumeId>,
        name: &str,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Vec<Event>> {
        let (id, serial) = (volume.map(|id| id.to_string()), volume.map(|id| id.serial().as_str().to_owned()));
        let mut events = self.read(|db| {
            select(
                db,
                "WHERE events.seq IN (
                    WITH mine AS (SELECT id, created_at, finished_at FROM operations
                                  WHERE volume_id = ?1 OR displaced_id = ?1 OR (volume_id IS NULL AND new_name = ?3))
                    SELECT seq FROM events WHERE volume_id = ?1
                    UNION SELECT seq FROM events WHERE serial = ?2
                    UNION SELECT seq FROM events JOIN mine ON mine.id = events.operation
                    UNION SELECT seq FROM events JOIN mine ON events.at BETWEEN created_at AND coalesce(finished_at, '9')
                          WHERE operation IS NULL
                            AND kind IN ('cloudstack_away', 'cloudstack_back', 'key_refused', 'key_accepted'))
                   AND (?4 IS NULL OR events.at >= ?4) AND (?5 IS NULL OR events.at <= ?5)
                 ORDER BY events.seq DESC LIMIT ?6",
                params![id, serial, name, since.map(time_text), until.map(time_text), MOST_EVENTS],
            )
        })?;
        events.reverse();
        Ok(events)
    }
}
