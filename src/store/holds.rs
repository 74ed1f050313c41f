//! The holds: which volumes nobody may take away, who says so, and why.

use rusqlite::{Connection, Row, params};

use super::{Store, execute, parse, row, sql, time_text};
use crate::api::{Hold, OperationKind};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, format_age, printable};

/// A hold and its volume, as the store has them.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldVolume {
    /// The volume.
    pub volume_id: VolumeId,
    /// Its name when it was held.
    pub volume_name: String,
    /// Who holds it, since when, and why.
    pub hold: Hold,
}

impl HeldVolume {
    /// Whether it would change anything where there is a hold already: its holder may give it another note.
    ///
    /// # Errors
    /// `conflict` where somebody else holds the volume.
    pub fn replaces(&self, old: &HeldVolume) -> Result<bool> {
        if old.hold.uid == self.hold.uid { Ok(old.hold.note != self.hold.note) } else { Err(old.refusal()) }
    }

    /// Why an operation does not begin.
    pub fn refusal(&self) -> Error {
        let Hold { holder, since, note, .. } = &self.hold;
        let age = format_age(since.duration_until(jiff::Timestamp::now()));
        let (name, id) = (printable(&self.volume_name), self.volume_id);
        Error::new(
            Kind::Conflict,
            format!(
                "volume {name} ({id}) is held by {} for {age}: \"{}\"; nothing was sent",
                printable(holder),
                printable(note)
            ),
        )
        .hint(format!("`volctl release {id}` ends the hold, once its holder agrees"))
    }
}

impl Store {
    /// All holds, the oldest first.
    pub fn holds(&self) -> Result<Vec<HeldVolume>> {
        self.read(|db| {
            let mut statement = db.prepare_cached(&format!("{SELECT} ORDER BY since")).map_err(sql)?;
            let rows = statement.query_map([], columns).map_err(sql)?;
            rows.map(|row| row.map_err(sql).and_then(held)).collect()
        })
    }

    /// The hold on a volume.
    pub fn hold_on(&self, volume: VolumeId) -> Result<Option<HeldVolume>> {
        self.read(|db| hold_on(db, volume))
    }

    /// Holds a volume, and says whether that changed anything. Its holder may give it another note; for anybody else a
    /// held volume is a conflict.
    pub fn hold(&self, new: &HeldVolume) -> Result<bool> {
        self.write(|db| {
            if let Some(old) = hold_on(db, new.volume_id)?
                && !new.replaces(&old)?
            {
                return Ok(false);
            }
            execute(
                db,
                "INSERT INTO holds (volume_id, volume_name, holder, uid, note, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (volume_id) DO UPDATE SET volume_name = ?2, holder = ?3, note = ?5",
                params![
                    new.volume_id.to_string(),
                    new.volume_name,
                    new.hold.holder,
                    new.hold.uid,
                    new.hold.note,
                    time_text(new.hold.since),
                ],
            )?;
            Ok(true)
        })
    }

    /// Ends the hold on a volume, and says which it was; none where there was none.
    pub fn release(&self, volume: VolumeId) -> Result<Option<HeldVolume>> {
        self.write(|db| {
            let held = hold_on(db, volume)?;
            execute(db, "DELETE FROM holds WHERE volume_id = ?1", [volume.to_string()])?;
            Ok(held)
        })
    }
}

/// Refuses an operation that a hold forbids, looked at where it begins: in the transaction that lets it.
pub(super) fn refuse_if_held(db: &Connection, kind: OperationKind, volume: Option<VolumeId>) -> Result<()> {
    let Some(volume) = volume.filter(|_| kind.is_refused_by_hold()) else { return Ok(()) };
    match hold_on(db, volume)? {
        Some(held) => Err(held.refusal()),
        None => Ok(()),
    }
}

const SELECT: &str = "SELECT volume_id, volume_name, holder, uid, note, since FROM holds";

fn hold_on(db: &Connection, volume: VolumeId) -> Result<Option<HeldVolume>> {
    let query = format!("{SELECT} WHERE volume_id = ?1");
    let found = row(db, &query, [volume.to_string()], columns)?;
    found.map(held).transpose()
}

type Columns = (String, String, String, u32, String, String);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

fn held((volume, volume_name, holder, uid, note, since): Columns) -> Result<HeldVolume> {
    let hold = Hold { holder, uid, note, since: parse(&since)? };
    Ok(HeldVolume { volume_id: parse(&volume)?, volume_name, hold })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_holds_is_a_conflict() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let volume_id = VolumeId::random();
        let by = |uid, note: &str| {
            let hold = Hold { holder: format!("user {uid}"), uid, note: note.into(), since: jiff::Timestamp::now() };
            HeldVolume { volume_id, volume_name: "data1".into(), hold }
        };
        assert!(store.hold(&by(1000, "mine")).unwrap());
        let error = store.hold(&by(1001, "mine")).unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        assert!(error.message.contains("user 1000") && error.message.contains("\"mine\""), "{error}");
        assert!(store.hold(&by(1000, "still mine")).unwrap());
        assert_eq!(store.release(volume_id).unwrap().unwrap().hold.note, "still mine");
        assert_eq!(store.holds().unwrap(), []);
    }
}
