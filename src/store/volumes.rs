//! What CloudStack said last of each volume, and when.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Row, params};

use super::{Store, execute, from_json, parse, row, sql, time_text, to_json};
use crate::error::Result;
use crate::model::{VmId, VolumeId, VolumeRecord};

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

    /// The volumes that a word may mean: those of this name, and those whose id it is or begins.
    pub fn volumes_like(&self, word: &str) -> Result<Vec<CachedVolume>> {
        self.read(|db| {
            let query = "SELECT record, as_of FROM volumes
                         WHERE record ->> 'name' = ?1 OR substr(id, 1, length(?1)) = lower(?1) ORDER BY position";
            let mut statement = db.prepare_cached(query).map_err(sql)?;
            let rows = statement.query_map([word], columns).map_err(sql)?;
            rows.map(|row| row.map_err(sql).and_then(cached)).collect()
        })
    }

    /// One volume.
    pub fn volume(&self, id: VolumeId) -> Result<Option<CachedVolume>> {
        self.read(|db| {
            let found = row(db, "SELECT record, as_of FROM volumes WHERE id = ?1", [id.to_string()], columns)?;
            found.map(cached).transpose()
        })
    }

    /// Takes a whole list of CloudStack's, asked for at `as_of`: what is not in it is gone. What was said of a volume
    /// since then is newer, and stays.
    pub fn replace_volumes(&self, records: &[VolumeRecord], as_of: Timestamp) -> Result<()> {
        self.remember(|db| {
            // A clock that was set back makes no row newer than now.
            execute(
                db,
                "DELETE FROM volumes WHERE NOT (as_of > ?1 AND as_of <= ?2)",
                [time_text(as_of), time_text(Timestamp::now())],
            )?;
            let mut insert = db
                .prepare_cached(
                    "INSERT INTO volumes (id, record, position, as_of) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (id) DO UPDATE SET position = excluded.position",
                )
                .map_err(sql)?;
            let mut seen = HashSet::new();
            for (position, record) in records.iter().enumerate().filter(|(_, record)| seen.insert(record.id)) {
                let row = params![record.id.to_string(), to_json(record)?, position as i64, time_text(as_of)];
                insert.execute(row).map_err(sql)?;
            }
            execute(db, "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [LISTED_AT, &time_text(as_of)])?;
            Ok(())
        })
    }

    /// How many data disks CloudStack last had on a VM.
    pub fn count_data_disks(&self, vm: VmId) -> Result<u64> {
        self.read(|db| {
            let query =
                "SELECT count(*) FROM volumes WHERE record ->> 'vm_id' = ?1 AND record ->> 'volume_type' = 'DATADISK'";
            db.query_row(query, [vm.to_string()], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).map_err(sql)
        })
    }

    /// When CloudStack last listed all of them.
    pub fn listed_at(&self) -> Result<Option<Timestamp>> {
        self.meta(LISTED_AT)?.as_deref().map(parse).transpose()
    }

    /// Takes what CloudStack said of one volume; a new one stands first, as in CloudStack's list.
    pub fn put_volume(&self, record: &VolumeRecord, as_of: Timestamp) -> Result<()> {
        self.remember(|db| {
            execute(
                db,
                "INSERT INTO volumes (id, record, position, as_of)
                 VALUES (?1, ?2, (SELECT coalesce(min(position), 0) - 1 FROM volumes), ?3)
                 ON CONFLICT (id) DO UPDATE SET record = excluded.record, as_of = excluded.as_of",
                params![record.id.to_string(), to_json(record)?, time_text(as_of)],
            )?;
            Ok(())
        })
    }

    /// Forgets a volume that is no more.
    pub fn forget_volume(&self, id: VolumeId) -> Result<()> {
        self.write(|db| {
            execute(db, "DELETE FROM volumes WHERE id = ?1", [id.to_string()])?;
            execute(db, "DELETE FROM former_exports WHERE volume_id = ?1", [id.to_string()])?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Owner, VolumeId, VolumeType};

    fn record(id: VolumeId, name: &str) -> VolumeRecord {
        VolumeRecord {
            id,
            name: name.into(),
            volume_type: VolumeType::DataDisk,
            state: "Ready".into(),
            size_bytes: 1 << 30,
            zone_id: "z".into(),
            zone_name: None,
            offering_id: None,
            vm_id: None,
            vm_name: None,
            vm_state: None,
            device_id: None,
            job_id: None,
            owner: Owner::default(),
            hypervisor: None,
            tags: Vec::new(),
        }
    }

    #[test]
    fn a_list_does_not_undo_what_was_said_since_it_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let [changed, new, gone] = [(); 3].map(|()| VolumeId::random());
        store.replace_volumes(&[record(changed, "old"), record(gone, "gone")], Timestamp::now()).unwrap();
        let asked = Timestamp::now();
        store.put_volume(&record(changed, "changed"), Timestamp::now()).unwrap();
        store.put_volume(&record(new, "new"), Timestamp::now()).unwrap();
        store.replace_volumes(&[record(changed, "old")], asked).unwrap();
        let name = |id| store.volume(id).unwrap().map(|cached| cached.record.name);
        assert_eq!(name(changed).as_deref(), Some("changed"));
        assert_eq!(name(new).as_deref(), Some("new"));
        assert_eq!(name(gone), None);
        store.replace_volumes(&[record(changed, "again")], Timestamp::now()).unwrap();
        assert_eq!((name(changed).as_deref(), name(new)), (Some("again"), None));
    }
}
