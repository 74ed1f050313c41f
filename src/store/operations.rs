//! The journal: each transition saved whole, together with its event.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::events::note_transition;
use super::row::{HOLDS, OperationRow, Outcome, UNFINISHED, many, name, one};
use super::{Store, execute, from_json, row, sql, time_text, to_json};
use crate::api::{Asker, OperationList, Status};
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, VmId, VolumeId, VolumeRecord};

/// How many operations are deleted in one transaction: others wait for its end.
const PRUNED_AT_ONCE: u32 = 200;

/// Shorter beginnings of a volume's id are taken for names only.
const SHORTEST_PREFIX: usize = 6;

/// What is saved of a transition.
#[derive(Clone, Debug)]
pub struct Transition {
    /// The new status.
    pub status: Status,
    /// The new step, by name and in words.
    pub step: (String, String),
    /// All that was learned.
    pub story: String,
    /// The volume, once a creation has learned it.
    pub volume_id: Option<VolumeId>,
    /// The outcome, at the end.
    pub outcome: Option<Outcome>,
    /// Why it unwinds, failed or is stuck.
    pub error: Option<Error>,
}

/// What an operation does something to: its own volume, and one that makes way for it.
const WORKS_ON: &str = "(volume_id = ?1 OR displaced_id = ?1)";

/// So many rows are read at a time.
const PART: u32 = 500;

impl Store {
    /// Saves a transition and returns the row, or none where the operation was ended meanwhile by somebody else. `busy`
    /// where a creation has learned its volume and another operation has that already.
    pub fn transition(&self, id: OperationId, to: &Transition) -> Result<Option<OperationRow>> {
        self.write(|db| {
            if let Some(volume) = to.volume_id {
                refuse_if_held(db, id, volume)?;
            }
            let now = time_text(Timestamp::now());
            let finished = to.status.ended().then(|| now.clone());
            let saved = execute(
                db,
                "UPDATE operations SET status = ?2, step = ?3, step_words = ?4, story = ?5,
                            volume_id = coalesce(?6, volume_id), outcome = ?7, error = ?8, updated_at = ?9,
                            finished_at = ?10,
                            unwinding = CASE ?2 WHEN 'stuck' THEN unwinding ELSE ?2 = 'unwinding' END
                     WHERE id = ?1 AND status IN ('queued', 'running', 'unwinding', 'stuck')",
                params![
                    id.to_string(),
                    name(to.status)?,
                    to.step.0,
                    to.step.1,
                    to.story,
                    to.volume_id.map(|id| id.to_string()),
                    to.outcome.as_ref().map(to_json).transpose()?,
                    to.error.as_ref().map(to_json).transpose()?,
                    now,
                    finished,
                ],
            )?;
            if saved == 0 {
                return Ok(None);
            }
            note_transition(db, id)?;
            one(db, "id = ?1", &id.to_string())
        })
    }

    /// Ends an operation from outside, provided that it still waits in line or stands at one of `steps`: then it has
    /// changed nothing.
    pub fn end_early(
        &self,
        id: OperationId,
        steps: &[&str],
        status: Status,
        error: &Error,
    ) -> Result<Option<OperationRow>> {
        self.write(|db| {
            let Some(row) = one(db, "id = ?1", &id.to_string())? else { return Ok(None) };
            let changed_nothing = match row.status {
                Status::Queued => true,
                Status::Running => steps.contains(&row.step.as_str()),
                _ => false,
            };
            if !changed_nothing {
                return Ok(None);
            }
            end(db, id, status, error)?;
            one(db, "id = ?1", &id.to_string())
        })
    }

    /// Ends an operation on a human's word; its outcome is not known. None where it has ended already.
    pub fn abandon(&self, id: OperationId, error: &Error) -> Result<Option<OperationRow>> {
        self.write(|db| {
            let unfinished = format!("id = ?1 AND {UNFINISHED}");
            if one(db, &unfinished, &id.to_string())?.is_none() {
                return Ok(None);
            }
            end(db, id, Status::Abandoned, error)?;
            one(db, "id = ?1", &id.to_string())
        })
    }

    /// Lets a stuck operation go on from the step at which it is; none where it is not stuck.
    pub fn unstick(&self, id: OperationId) -> Result<Option<OperationRow>> {
        self.write(|db| {
            let freed = execute(
                db,
                "UPDATE operations SET status = iif(unwinding, 'unwinding', 'running'),
                            error = iif(unwinding, error, NULL), updated_at = ?2
                     WHERE id = ?1 AND status = 'stuck'",
                params![id.to_string(), time_text(Timestamp::now())],
            )?;
            if freed == 0 {
                return Ok(None);
            }
            note_transition(db, id)?;
            one(db, "id = ?1", &id.to_string())
        })
    }

    /// How many operations have not ended.
    pub fn count_unfinished(&self) -> Result<usize> {
        self.read(|db| {
            let query = format!("SELECT count(*) FROM operations WHERE {UNFINISHED}");
            db.query_row(&query, [], |row| row.get::<_, i64>(0)).map(|count| count as usize).map_err(sql)
        })
    }

    /// One operation.
    pub fn operation(&self, id: OperationId) -> Result<Option<OperationRow>> {
        self.read(|db| one(db, "id = ?1", &id.to_string()))
    }

    /// The operations whose id begins so.
    pub fn operations_like(&self, prefix: &str) -> Result<Vec<OperationRow>> {
        self.read(|db| many(db, "WHERE substr(id, 1, length(?1)) = ?1 ORDER BY seq LIMIT 10", [prefix]))
    }

    /// The newest operations that fulfil each condition that is given, and pass a test, newest first and at most so many;
    /// `vm` in place of its word. They are read in parts, so that a long history is never in memory as a whole.
    pub fn operations(
        &self,
        wanted: &OperationList,
        vm: Option<VmId>,
        limit: u32,
        test: impl Fn(&OperationRow) -> Result<bool>,
    ) -> Result<Vec<OperationRow>> {
        let mut passed = Vec::new();
        for part in 0_u32.. {
            let rows = self.part_of_operations(wanted, vm, part.saturating_mul(PART))?;
            let was_last = rows.len() < PART as usize;
            for row in rows {
                if passed.len() < limit as usize && test(&row)? {
                    passed.push(row);
                }
            }
            if was_last || passed.len() >= limit as usize {
                break;
            }
        }
        Ok(passed)
    }

    fn part_of_operations(&self, wanted: &OperationList, vm: Option<VmId>, offset: u32) -> Result<Vec<OperationRow>> {
        let prefix = wanted.volume.as_ref().filter(|word| word.len() >= SHORTEST_PREFIX);
        let prefix = prefix.map(|word| word.to_ascii_lowercase());
        let time = |at: Option<Timestamp>| at.map(time_text);
        self.read(|db| {
            many(
                db,
                "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR status = ?2)
                   AND (?3 IS NULL OR volume_name = ?3 OR new_name = ?3 OR substr(volume_id, 1, length(?4)) = ?4)
                   AND (?5 IS NULL OR vm_id = ?5)
                   AND (?6 IS NULL OR (json_valid(asker) AND ?6 IN (asker ->> '$.uid', asker ->> '$.login_uid')))
                   AND (?7 IS NULL OR created_at >= ?7) AND (?8 IS NULL OR created_at <= ?8)
                 ORDER BY seq DESC LIMIT ?9 OFFSET ?10",
                params![
                    wanted.kind.map(name).transpose()?,
                    wanted.status.map(name).transpose()?,
                    wanted.volume,
                    prefix,
                    vm.map(|vm| vm.to_string()),
                    wanted.user,
                    time(wanted.since),
                    time(wanted.until),
                    PART,
                    offset,
                ],
            )
        })
    }

    /// The volumes whose newest operation that was not in vain a user asked for.
    pub fn volumes_last_changed_by(&self, person: u32) -> Result<HashSet<VolumeId>> {
        self.read(|db| {
            let mut statement = db
                .prepare_cached(
                    "SELECT volume_id, asker, max(seq) FROM operations
                     WHERE volume_id IS NOT NULL AND status NOT IN ('failed', 'cancelled', 'abandoned')
                     GROUP BY volume_id",
                )
                .map_err(sql)?;
            let rows =
                statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).map_err(sql)?;
            let mut volumes = HashSet::new();
            for row in rows {
                let (volume, asker) = row.map_err(sql)?;
                // A row that cannot be read is nobody's.
                if from_json::<Asker>(&asker).is_ok_and(|asker| asker.person() == Some(person)) {
                    volumes.extend(volume.parse::<VolumeId>().ok());
                }
            }
            Ok(volumes)
        })
    }

    /// What has not ended, oldest first: recovery's input.
    pub fn unfinished(&self) -> Result<Vec<OperationRow>> {
        self.read(|db| many(db, &format!("WHERE {UNFINISHED} ORDER BY seq"), []))
    }

    /// Takes another volume down as making way for an operation's own. Nothing is taken down where an unfinished
    /// operation has that volume; which one.
    pub fn displace(&self, id: OperationId, volume: VolumeId) -> Result<Option<OperationRow>> {
        self.write(|db| {
            let other = one(db, &format!("{HOLDS} AND id <> '{id}' AND {WORKS_ON}"), &volume.to_string())?;
            if other.is_none() {
                let displaced = [id.to_string(), volume.to_string()];
                execute(db, "UPDATE operations SET displaced_id = ?2 WHERE id = ?1", displaced)?;
            }
            Ok(other)
        })
    }

    /// What holds a volume now, or has it make way, if anything does.
    pub fn operation_on(&self, volume: VolumeId) -> Result<Option<OperationRow>> {
        self.read(|db| one(db, &format!("{HOLDS} AND {WORKS_ON}"), &volume.to_string()))
    }

    /// What was done to a volume, or is being done: the newest hundred, newest first.
    pub fn operations_of(&self, volume: VolumeId) -> Result<Vec<OperationRow>> {
        self.read(|db| many(db, "WHERE volume_id = ?1 ORDER BY seq DESC LIMIT 100", [volume.to_string()]))
    }

    /// Whether an operation is at work on a volume, or on a creation of its name.
    pub fn is_at_work_on(&self, volume: &VolumeRecord) -> Result<bool> {
        self.read(|db| {
            let query = format!(
                "SELECT 1 FROM operations WHERE {UNFINISHED} AND status IN ('running', 'unwinding')
                    AND (volume_id = ?1 OR displaced_id = ?1 OR new_name = ?2)"
            );
            Ok(row(db, &query, [&volume.id.to_string(), &volume.name], |_| Ok(()))?.is_some())
        })
    }

    /// Deletes some of the operations that ended before a moment, and their events with them; how many.
    pub fn prune_operations(&self, before: Timestamp) -> Result<usize> {
        self.write(|db| {
            execute(
                db,
                "DELETE FROM operations WHERE seq IN (SELECT seq FROM operations WHERE finished_at < ?1 LIMIT ?2)",
                params![time_text(before), PRUNED_AT_ONCE],
            )
        })
    }
}

fn refuse_if_held(db: &Transaction<'_>, id: OperationId, volume: VolumeId) -> Result<()> {
    let Some(holder) = one(db, &format!("{HOLDS} AND volume_id = ?1"), &volume.to_string())?.filter(|row| row.id != id)
    else {
        return Ok(());
    };
    Err(Error::new(Kind::Busy, format!("volume {volume} is busy: operation {} is {}", holder.id, holder.step_words)))
}

/// Ends an operation whose row is known not to have ended.
pub(super) fn end(db: &Transaction<'_>, id: OperationId, status: Status, error: &Error) -> Result<()> {
    let now = time_text(Timestamp::now());
    execute(
        db,
        "UPDATE operations SET status = ?2, error = ?3, updated_at = ?4, finished_at = ?4 WHERE id = ?1",
        params![id.to_string(), name(status)?, to_json(error)?, now],
    )?;
    note_transition(db, id)
}
