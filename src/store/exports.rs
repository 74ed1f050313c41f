//! The exports that are wished for: what is served again after a restart; and how a volume was exported last.

use std::path::PathBuf;

use rusqlite::types::FromSql;
use rusqlite::{Row, Transaction, params};

use super::row::name;
use super::{Store, execute, from_json, parse, sql, time_text, to_json, whole};
use crate::api::{Access, LastClient, Leaving, Usage};
use crate::error::{Error, Kind, Result};
use crate::model::VolumeId;

/// An export that is wished for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Its volume.
    pub volume_id: VolumeId,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether several clients may write at a time.
    pub shared: bool,
    /// Who may open it.
    pub access: Access,
    /// The device's stable path.
    pub device_path: PathBuf,
    /// What the device must still be when it is served again.
    pub identity: String,
    /// Its device failed under it: it does not come back by itself.
    pub failed: bool,
    /// What clients did with it, as of some seconds ago.
    pub usage: Usage,
}

const COLUMNS: &str = "name, volume_id, read_only, device_path, identity, failed, created_at, bytes_read, bytes_written, \
                       last_client, last_client_at, last_client_left, shared, access";

/// How a volume was exported before its export was ended.
#[derive(Clone, Debug, PartialEq)]
pub struct FormerExport {
    /// Its name.
    pub name: String,
    /// Whether writes were refused.
    pub read_only: bool,
    /// Whether several clients could write.
    pub shared: bool,
    /// Who could open it.
    pub access: Access,
}

impl Store {
    /// All wishes, by name.
    pub fn wishes(&self) -> Result<Vec<Wish>> {
        self.read(|db| {
            let query = format!("SELECT {COLUMNS} FROM exports ORDER BY name");
            let mut statement = db.prepare_cached(&query).map_err(sql)?;
            let mut rows = statement.query([]).map_err(sql)?;
            let mut wishes = Vec::new();
            while let Some(row) = rows.next().map_err(sql)? {
                wishes.push(wish(row)?);
            }
            Ok(wishes)
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
            execute(db, "DELETE FROM exports WHERE volume_id = ?1", [wish.volume_id.to_string()])?;
            execute(db, "INSERT INTO exports (name, volume_id, read_only, shared, access, device_path, identity, failed, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    wish.name,
                    wish.volume_id.to_string(),
                    wish.read_only,
                    wish.shared,
                    to_json(&wish.access)?,
                    wish.device_path.to_string_lossy(),
                    wish.identity,
                    wish.failed,
                    time_text(wish.usage.since),
                ],
            )?;
            put_usage(db, wish.volume_id, &wish.usage)
        })
    }

    /// Changes who may open an export, and whether several clients may write at a time.
    pub fn put_access(&self, volume: VolumeId, access: &Access, shared: bool) -> Result<()> {
        let access = to_json(access)?;
        self.write(|db| {
            execute(
                db,
                "UPDATE exports SET access = ?2, shared = ?3 WHERE volume_id = ?1",
                params![volume.to_string(), access, shared],
            )?;
            Ok(())
        })
    }

    /// Marks a wish as failed.
    pub fn fail_wish(&self, volume: VolumeId) -> Result<()> {
        self.write(|db| {
            execute(db, "UPDATE exports SET failed = 1 WHERE volume_id = ?1", [volume.to_string()])?;
            Ok(())
        })
    }

    /// Ends a wish that was fulfilled, and remembers how the volume was exported.
    pub fn end_wish(&self, volume: VolumeId) -> Result<()> {
        self.write(|db| {
            let id = volume.to_string();
            execute(
                db,
                "INSERT OR REPLACE INTO former_exports (volume_id, name, read_only, shared, access)
                 SELECT volume_id, name, read_only, shared, access FROM exports WHERE volume_id = ?1",
                [&id],
            )?;
            execute(db, "DELETE FROM exports WHERE volume_id = ?1", [&id])?;
            Ok(())
        })
    }

    /// How a volume was exported before its last export was ended.
    pub fn former_export(&self, volume: VolumeId) -> Result<Option<FormerExport>> {
        self.read(|db| {
            let mut statement = db
                .prepare_cached("SELECT name, read_only, shared, access FROM former_exports WHERE volume_id = ?1")
                .map_err(sql)?;
            let mut rows = statement.query([volume.to_string()]).map_err(sql)?;
            let Some(row) = rows.next().map_err(sql)? else { return Ok(None) };
            Ok(Some(FormerExport {
                name: column(row, 0)?,
                read_only: column(row, 1)?,
                shared: column(row, 2)?,
                access: from_json(&column::<String>(row, 3)?)?,
            }))
        })
    }

    /// Takes a wish back that was not fulfilled.
    pub fn forget_wish(&self, volume: VolumeId) -> Result<()> {
        self.write(|db| {
            execute(db, "DELETE FROM exports WHERE volume_id = ?1", [volume.to_string()])?;
            Ok(())
        })
    }
}

/// Keeps what clients have done with an export.
pub(super) fn put_usage(db: &Transaction<'_>, volume: VolumeId, usage: &Usage) -> Result<()> {
    let last = usage.last_client.as_ref();
    // One that is there now is cut off, should this be the last that is known of it.
    let left = last.map(|last| name(last.left.unwrap_or(Leaving::CutOff))).transpose()?;
    execute(
        db,
        "UPDATE exports SET bytes_read = ?2, bytes_written = ?3, last_client = ?4, last_client_at = ?5,
                last_client_left = ?6
         WHERE volume_id = ?1
           AND (bytes_read, bytes_written, last_client, last_client_at, last_client_left) IS NOT (?2, ?3, ?4, ?5, ?6)",
        params![
            volume.to_string(),
            whole(usage.bytes_read),
            whole(usage.bytes_written),
            last.map(|last| last.address.as_str()),
            last.map(|last| time_text(last.at)),
            left,
        ],
    )?;
    Ok(())
}

fn wish(row: &Row<'_>) -> Result<Wish> {
    Ok(Wish {
        name: column(row, 0)?,
        volume_id: parse(&column::<String>(row, 1)?)?,
        read_only: column(row, 2)?,
        shared: column(row, 12)?,
        access: from_json(&column::<String>(row, 13)?)?,
        device_path: PathBuf::from(column::<String>(row, 3)?),
        identity: column(row, 4)?,
        failed: column(row, 5)?,
        usage: Usage {
            since: parse(&column::<String>(row, 6)?)?,
            bytes_read: column::<i64>(row, 7)?.unsigned_abs(),
            bytes_written: column::<i64>(row, 8)?.unsigned_abs(),
            last_client: last_client(row)?,
        },
    })
}

fn last_client(row: &Row<'_>) -> Result<Option<LastClient>> {
    let (Some(address), Some(at)) = (column(row, 9)?, column::<Option<String>>(row, 10)?) else { return Ok(None) };
    let left = column::<Option<String>>(row, 11)?.map(|word| from_json(&format!("\"{word}\""))).transpose()?;
    Ok(Some(LastClient { address, at: parse(&at)?, left }))
}

fn column<T: FromSql>(row: &Row<'_>, index: usize) -> Result<T> {
    row.get(index).map_err(sql)
}
