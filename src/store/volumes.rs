//! What CloudStack said last of each volume, and when.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Store, from_json, parse, sql, time_text, to_json};
use crate::error::Result;
use crate::model::{VolumeId, VolumeRecord};

/// The key under which the time of the last whole list stands.
const LISTED_AT: &str = "volumes_listed_at";

/// A volume as CloudStack had it at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedVolume {
    /// What it said.
    pub record: VolumeRecord,
    /// When.
    pub as_of: Timestamp,
}

impl Store {
    /// All volumes, in CloudStack's order.
    pub fn volumes(&self) -> Result<Vec<CachedVolume>> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT record, as_of FROM volumes ORDER BY position").map_err(sql)?;
            let rows = statement.query_map([], columns).map_err(sql)?;
            rows.map(|row| row.map_err(sql).and_then(cached)).collect()
        })
    }

    /// One volume.
    pub fn volume(&self, id: VolumeId) -> Result<Option<CachedVolume>> {
        self.read(|db| {
            let row = db
                .query_row("SELECT record, as_of FROM volumes WHERE id = ?1", [id.to_string()], columns)
                .optional()
                .map_err(sql)?;
            row.map(cached).transpose()
        })
    }

    /// Takes a whole list of CloudStack's: what is not in it is gone.
    pub fn replace_volumes(&self, records: &[VolumeRecord], as_of: Timestamp) -> Result<()> {
        self.write(|db| {
            db.execute("DELETE FROM volumes", []).map_err(sql)?;
            let mut insert = db
                .prepare_cached("INSERT OR REPLACE INTO volumes (id, record, position, as_of) VALUES (?1, ?2, ?3, ?4)")
                .map_err(sql)?;
            let mut seen = HashSet::new();
            for (position, record) in records.iter().enumerate().filter(|(_, record)| seen.insert(record.id)) {
                let row = params![record.id.to_string(), to_json(record)?, position as i64, time_text(as_of)];
                insert.execute(row).map_err(sql)?;
            }
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [LISTED_AT, &time_text(as_of)])
                .map_err(sql)?;
            Ok(())
        })
    }

    /// When CloudStack last listed all of them.
    pub fn listed_at(&self) -> Result<Option<Timestamp>> {
        self.meta(LISTED_AT)?.as_deref().map(parse).transpose()
    }

    /// Takes what CloudStack said of one volume; a new one stands first, as in CloudStack's list.
    pub fn put_volume(&self, record: &VolumeRecord, as_of: Timestamp) -> Result<()> {
        self.write(|db| {
            db.execute(
                "INSERT INTO volumes (id, record, position, as_of)
                 VALUES (?1, ?2, (SELECT coalesce(min(position), 0) - 1 FROM volumes), ?3)
                 ON CONFLICT (id) DO UPDATE SET record = excluded.record, as_of = excluded.as_of",
                params![record.id.to_string(), to_json(record)?, time_text(as_of)],
            )
            .map_err(sql)?;
            Ok(())
        })
    }

    /// Forgets a volume that is no more.
    pub fn forget_volume(&self, id: VolumeId) -> Result<()> {
        self.write(|db| {
            db.execute("DELETE FROM volumes WHERE id = ?1", [id.to_string()]).map_err(sql)?;
            Ok(())
        })
    }
}

fn columns(row: &Row<'_>) -> rusqlite::Result<(String, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn cached((record, as_of): (String, String)) -> Result<CachedVolume> {
    Ok(CachedVolume { record: from_json(&record)?, as_of: parse(&as_of)? })
}
