//! The journal: each transition saved whole, together with its event.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::events::note_transition;
use super::row::{HOLDS, OperationRow, Outcome, UNFINISHED, many, name, one};
use super::{Store, sql, time_text, to_json};
use crate::api::Status;
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, VolumeId, VolumeRecord};

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
            let saved = db
                .execute(
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
                )
                .map_err(sql)?;
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
            let freed = db
                .execute(
                    "UPDATE operations SET status = iif(unwinding, 'unwinding', 'running'),
                            error = iif(unwinding, error, NULL), updated_at = ?2
                     WHERE id = ?1 AND status = 'stuck'",
                    params![id.to_string(), time_text(Timestamp::now())],
                )
                .map_err(sql)?;
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
        self.read(|db| many(db, "WHERE substr(id, 1, length(?1)) = ?1 ORDER BY seq LIMIT 10", prefix))
    }

    /// The newest operations, newest first.
    pub fn operations(&self, limit: u32) -> Result<Vec<OperationRow>> {
        self.read(|db| many(db, "ORDER BY seq DESC LIMIT ?1", limit))
    }

    /// What has not ended, oldest first: recovery's input.
    pub fn unfinished(&self) -> Result<Vec<OperationRow>> {
        self.read(|db| many(db, &format!("WHERE {UNFINISHED} AND ?1 ORDER BY seq"), true))
    }

    /// What holds a volume now, if anything does.
    pub fn operation_on(&self, volume: VolumeId) -> Result<Option<OperationRow>> {
        self.read(|db| one(db, &format!("{HOLDS} AND volume_id = ?1"), &volume.to_string()))
    }

    /// Whether an operation is at work on a volume, or on a creation of its name.
    pub fn is_at_work_on(&self, volume: &VolumeRecord) -> Result<bool> {
        self.read(|db| {
            let query = "SELECT EXISTS (SELECT 1 FROM operations WHERE status IN ('running', 'unwinding')
                                        AND (volume_id = ?1 OR new_name = ?2))";
            db.query_row(query, [&volume.id.to_string(), &volume.name], |row| row.get(0)).map_err(sql)
        })
    }

    /// Deletes ended operations that ended before a moment.
    pub fn prune_operations(&self, before: Timestamp) -> Result<usize> {
        self.write(|db| db.execute("DELETE FROM operations WHERE finished_at < ?1", [time_text(before)]).map_err(sql))
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
    db.execute(
        "UPDATE operations SET status = ?2, error = ?3, updated_at = ?4, finished_at = ?4 WHERE id = ?1",
        params![id.to_string(), name(status)?, to_json(error)?, now],
    )
    .map_err(sql)?;
    note_transition(db, id)
}
