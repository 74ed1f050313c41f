//! The exports that are wished for: what is served again after a restart.

use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::{Store, parse, sql, time_text};
use crate::error::{Error, Kind, Result};
use crate::model::VolumeId;

/// An export that is wished for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Its volume.
    pub volume_id: VolumeId,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether several clients may write at a time.
    pub shared: bool,
    /// The device's stable path.
    pub device_path: PathBuf,
    /// What the device must still be when it is served again.
    pub identity: String,
    /// Its device failed under it: it does not come back by itself.
    pub failed: bool,
}

impl Store {
    /// All wishes, by name.
    pub fn wishes(&self) -> Result<Vec<Wish>> {
        self.read(|db| {
            let mut statement = db
                .prepare_cached(
                    "SELECT name, volume_id, read_only, shared, device_path, identity, failed FROM exports ORDER BY name",
                )
                .map_err(sql)?;
            let rows = statement.query_map([], columns).map_err(sql)?;
            rows.map(|row| row.map_err(sql).and_then(wish)).collect()
        })
    }

    /// The wish for a volume.
    pub fn wish_of(&self, volume: VolumeId) -> Result<Option<Wish>> {
        Ok(self.wishes()?.into_iter().find(|wish| wish.volume_id == volume))
    }

    /// Wishes for an export; the same name or volume again is a conflict unless it is the same wish.
    pub fn put_wish(&self, wish: &Wish) -> Result<()> {
        self.write(|db| {
            let others: i64 = db
                .query_row(
                    "SELECT count(*) FROM exports WHERE name = ?1 AND volume_id <> ?2",
                    [&wish.name, &wish.volume_id.to_string()],
                    |row| row.get(0),
                )
                .map_err(sql)?;
            if others > 0 {
                return Err(Error::new(Kind::Conflict, format!("another volume is exported as {}", wish.name))
                    .hint("choose another --name; `volctl exports` lists them"));
            }
            db.execute("DELETE FROM exports WHERE volume_id = ?1", [wish.volume_id.to_string()]).map_err(sql)?;
            db.execute(
                "INSERT INTO exports (name, volume_id, read_only, shared, device_path, identity, failed, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    wish.name,
                    wish.volume_id.to_string(),
                    wish.read_only,
                    wish.shared,
                    wish.device_path.to_string_lossy(),
                    wish.identity,
                    wish.failed,
                    time_text(Timestamp::now()),
                ],
            )
            .map_err(sql)?;
            Ok(())
        })
    }

    /// Marks a wish as failed.
    pub fn fail_wish(&self, volume: VolumeId) -> Result<()> {
        self.write(|db| {
            db.execute("UPDATE exports SET failed = 1 WHERE volume_id = ?1", [volume.to_string()]).map_err(sql)?;
            Ok(())
        })
    }

    /// Takes a wish back.
    pub fn forget_wish(&self, volume: VolumeId) -> Result<()> {
        self.write(|db| {
            db.execute("DELETE FROM exports WHERE volume_id = ?1", [volume.to_string()]).map_err(sql)?;
            Ok(())
        })
    }
}

type Columns = (String, String, bool, bool, String, String, bool);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
}

fn wish((name, volume, read_only, shared, device_path, identity, failed): Columns) -> Result<Wish> {
    let (volume_id, device_path) = (parse(&volume)?, PathBuf::from(device_path));
    Ok(Wish { name, volume_id, read_only, shared, device_path, identity, failed })
}
