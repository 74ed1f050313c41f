//! The journal: one row an operation, saved whole at each step, and its transitions for people.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{Store, from_json, parse, sql, time_text, to_json};
use crate::api::{Asker, Departure, Moment, Operation, OperationKind, Status};
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, VmId, VolumeId, printable};

/// What an operation has come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether anything was done.
    pub changed: bool,
    /// What the caller must see.
    pub notes: Vec<String>,
    /// The device's last moments here.
    pub departure: Option<Departure>,
}

/// An operation that is asked for.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// Its id.
    pub id: OperationId,
    /// Its kind.
    pub kind: OperationKind,
    /// Its first step, by name and in words.
    pub step: (String, String),
    /// Its volume, which it locks.
    pub volume_id: Option<VolumeId>,
    /// The volume's name, for people.
    pub volume_name: Option<String>,
    /// The name that a creation locks.
    pub new_name: Option<String>,
    /// The VM that it is about.
    pub vm_id: Option<VmId>,
    /// The caller's id.
    pub request_id: Option<String>,
    /// What was asked for, JSON.
    pub request: String,
    /// Who asks.
    pub asker: Asker,
    /// JSON of what is known so far.
    pub story: String,
    /// What has sent nothing by then never starts.
    pub deadline: Timestamp,
    /// Wait in line where the volume is taken.
    pub queue: bool,
    /// Ends that operation, if it still stands at that step, and takes its place.
    pub supersedes: Option<(OperationId, String)>,
}

/// A row of the journal.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the columns are explained in the migration")]
pub struct OperationRow {
    pub id: OperationId,
    pub kind: OperationKind,
    pub status: Status,
    pub step: String,
    pub step_words: String,
    pub volume_id: Option<VolumeId>,
    pub volume_name: Option<String>,
    pub vm_id: Option<VmId>,
    pub request: String,
    pub asker: Asker,
    pub story: String,
    pub outcome: Option<Outcome>,
    pub error: Option<Error>,
    pub deadline: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

impl OperationRow {
    /// As everybody sees it.
    pub fn shown(&self) -> Operation {
        Operation {
            id: self.id,
            kind: self.kind,
            status: self.status,
            step: self.step_words.clone(),
            volume_id: self.volume_id,
            volume_name: self.volume_name.clone(),
            vm_id: self.vm_id,
            error: self.error.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            finished_at: self.finished_at,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// A new row; it runs or waits in line, as its status says.
    New(OperationRow),
    /// The request was made before: its operation.
    Same(OperationRow),
}

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

const COLUMNS: &str = "id, kind, status, step, step_words, volume_id, volume_name, vm_id, request, asker, story, outcome, error, \
                       deadline, created_at, updated_at, finished_at";
const UNFINISHED: &str = "status IN ('queued', 'running', 'unwinding', 'stuck')";

impl Store {
    /// Accepts an operation: from here on it has an outcome. A volume that is taken is `busy`, or the operation waits
    /// in line.
    pub fn accept(&self, new: &NewOperation) -> Result<Accepted> {
        self.write(|db| {
            if let Some(request) = &new.request_id
                && let Some(row) = one(db, "request_id = ?1", request)?
            {
                return same_request(row, &new.request).map(Accepted::Same);
            }
            if let Some((id, step)) = &new.supersedes {
                supersede(db, *id, step, new.id)?;
            }
            let holder = holder(db, new)?;
            let status = match holder {
                None => Status::Running,
                Some(_) if new.queue => Status::Queued,
                Some(holder) => return Err(busy(new, &holder)),
            };
            insert(db, new, status)?;
            one(db, "id = ?1", &new.id.to_string())?
                .map(Accepted::New)
                .ok_or_else(|| Error::new(Kind::Internal, "an accepted operation is not in the store"))
        })
    }

    /// Starts an operation that waits in line, if it is its turn.
    pub fn start_queued(&self, id: OperationId) -> Result<bool> {
        self.write(|db| {
            let started = db
                .execute(
                    "UPDATE operations SET status = 'running', updated_at = ?2 WHERE id = ?1 AND status = 'queued'
                       AND NOT EXISTS (SELECT 1 FROM operations AS other
                            WHERE (other.volume_id = operations.volume_id OR other.new_name = operations.new_name)
                              AND (other.status IN ('running', 'unwinding', 'stuck')
                                   OR (other.status = 'queued' AND other.seq < operations.seq)))",
                    params![id.to_string(), time_text(Timestamp::now())],
                )
                .map_err(sql)?;
            if started == 1 {
                note_transition(db, id)?;
            }
            Ok(started == 1)
        })
    }

    /// Saves a transition and returns the row, or none where the operation was ended meanwhile by somebody else.
    pub fn transition(&self, id: OperationId, to: &Transition) -> Result<Option<OperationRow>> {
        self.write(|db| {
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

    /// Adds to an operation's history what was found out.
    pub fn note(&self, id: OperationId, note: &str) -> Result<()> {
        self.write(|db| {
            db.execute(
                "INSERT INTO transitions (operation, at, status, step_words, note)
                 SELECT id, ?2, status, step_words, ?3 FROM operations WHERE id = ?1",
                params![id.to_string(), time_text(Timestamp::now()), note],
            )
            .map_err(sql)?;
            Ok(())
        })
    }

    /// An operation's history, oldest first.
    pub fn history(&self, id: OperationId) -> Result<Vec<Moment>> {
        self.read(|db| {
            let mut statement = db
                .prepare_cached(
                    "SELECT at, status, step_words, note FROM transitions WHERE operation = ?1 ORDER BY rowid",
                )
                .map_err(sql)?;
            let rows = statement
                .query_map([id.to_string()], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?))
                })
                .map_err(sql)?;
            rows.map(|row| {
                let (at, status, step, note) = row.map_err(sql)?;
                Ok(Moment { at: parse(&at)?, status: from_json(&format!("\"{status}\""))?, step, note })
            })
            .collect()
        })
    }

    /// How many operations have not ended.
    pub fn count_unfinished(&self) -> Result<usize> {
        self.read(|db| {
            let query = format!("SELECT count(*) FROM operations WHERE {UNFINISHED}");
            db.query_row(&query, [], |row| row.get::<_, i64>(0)).map(|count| count as usize).map_err(sql)
        })
    }

    /// The operation that a request was made for before; `conflict` where that asked for something else.
    pub fn operation_of_request(&self, id: &str, request: &str) -> Result<Option<OperationRow>> {
        let row = self.read(|db| one(db, "request_id = ?1", id))?;
        row.map(|row| same_request(row, request)).transpose()
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

    /// What has not ended, oldest first: recovery's input. An unreadable row is given by its id and what is wrong.
    pub fn unfinished(&self) -> Result<Vec<OperationRow>> {
        self.read(|db| many(db, &format!("WHERE {UNFINISHED} AND ?1 ORDER BY seq"), true))
    }

    /// What holds a volume now, if anything does.
    pub fn operation_on(&self, volume: VolumeId) -> Result<Option<OperationRow>> {
        self.read(|db| one(db, "volume_id = ?1 AND status IN ('running', 'unwinding', 'stuck')", &volume.to_string()))
    }

    /// Deletes ended operations that ended before a moment.
    pub fn prune_operations(&self, before: Timestamp) -> Result<usize> {
        self.write(|db| db.execute("DELETE FROM operations WHERE finished_at < ?1", [time_text(before)]).map_err(sql))
    }
}

fn same_request(row: OperationRow, request: &str) -> Result<OperationRow> {
    if row.request == request {
        return Ok(row);
    }
    Err(Error::new(
        Kind::Conflict,
        format!("the request id was used before, to ask for something else: operation {}", row.id),
    )
    .hint("use a new --request-id"))
}

fn supersede(db: &Transaction<'_>, id: OperationId, step: &str, by: OperationId) -> Result<()> {
    let stands: bool = db
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM operations WHERE id = ?1 AND status = 'running' AND step = ?2)",
            [&id.to_string(), step],
            |row| row.get(0),
        )
        .map_err(sql)?;
    if stands {
        let error = Error::new(Kind::Cancelled, format!("superseded by operation {by}"));
        end(db, id, Status::Cancelled, &error)?;
    }
    Ok(())
}

fn end(db: &Transaction<'_>, id: OperationId, status: Status, error: &Error) -> Result<()> {
    let now = time_text(Timestamp::now());
    db.execute(
        "UPDATE operations SET status = ?2, error = ?3, updated_at = ?4, finished_at = ?4 WHERE id = ?1",
        params![id.to_string(), name(status)?, to_json(error)?, now],
    )
    .map_err(sql)?;
    note_transition(db, id)
}

/// Whoever has the volume or the name, or stands in line for it before `new`.
fn holder(db: &Transaction<'_>, new: &NewOperation) -> Result<Option<OperationRow>> {
    let by = |column: &str, value: Option<String>| match value {
        Some(value) => one(db, &format!("{UNFINISHED} AND {column} = ?1 ORDER BY status = 'queued', seq"), &value),
        None => Ok(None),
    };
    match by("volume_id", new.volume_id.map(|id| id.to_string()))? {
        None => by("new_name", new.new_name.clone()),
        holder => Ok(holder),
    }
}

fn busy(new: &NewOperation, holder: &OperationRow) -> Error {
    let what = match (&new.volume_name, new.volume_id) {
        (Some(name), Some(id)) => format!("volume {} ({id})", printable(name)),
        _ => format!("the name {}", printable(new.new_name.as_deref().unwrap_or_default())),
    };
    let verb = match name(holder.kind) {
        Ok(kind) => kind,
        Err(_) => "other".to_owned(),
    };
    Error::new(Kind::Busy, format!("{what} is busy: {verb} operation {} is {}", holder.id, holder.step_words))
        .hint(format!("`volctl ops wait {}` waits for it; --queue takes a place in line", holder.id))
}

fn insert(db: &Transaction<'_>, new: &NewOperation, status: Status) -> Result<()> {
    let now = time_text(Timestamp::now());
    db.execute(
        "INSERT INTO operations (id, kind, status, step, step_words, volume_id, volume_name, new_name, vm_id, request_id,
                                 request, asker, story, deadline, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15)",
        params![
            new.id.to_string(),
            name(new.kind)?,
            name(status)?,
            new.step.0,
            new.step.1,
            new.volume_id.map(|id| id.to_string()),
            new.volume_name,
            new.new_name,
            new.vm_id.map(|id| id.to_string()),
            new.request_id,
            new.request,
            to_json(&new.asker)?,
            new.story,
            time_text(new.deadline),
            now,
        ],
    )
    .map_err(sql)?;
    note_transition(db, new.id)
}

fn note_transition(db: &Transaction<'_>, id: OperationId) -> Result<()> {
    db.execute(
        "INSERT INTO transitions (operation, at, status, step_words)
         SELECT id, updated_at, status, step_words FROM operations WHERE id = ?1",
        [id.to_string()],
    )
    .map_err(sql)?;
    Ok(())
}

fn one(db: &Connection, condition: &str, value: &str) -> Result<Option<OperationRow>> {
    let query = format!("SELECT {COLUMNS} FROM operations WHERE {condition} LIMIT 1");
    let row = db.prepare_cached(&query).map_err(sql)?.query_row([value], raw).optional().map_err(sql)?;
    row.map(operation).transpose()
}

fn many(db: &Connection, rest: &str, value: impl rusqlite::ToSql) -> Result<Vec<OperationRow>> {
    let query = format!("SELECT {COLUMNS} FROM operations {rest}");
    let mut statement = db.prepare_cached(&query).map_err(sql)?;
    let rows = statement.query_map([value], raw).map_err(sql)?;
    rows.map(|row| row.map_err(sql).and_then(operation)).collect()
}

type Raw = [Option<String>; 17];

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    let mut columns = Raw::default();
    for (index, column) in columns.iter_mut().enumerate() {
        *column = row.get(index)?;
    }
    Ok(columns)
}

fn operation(columns: Raw) -> Result<OperationRow> {
    let [
        id,
        kind,
        status,
        step,
        step_words,
        volume_id,
        volume_name,
        vm_id,
        request,
        asker,
        story,
        outcome,
        error,
        deadline,
        created_at,
        updated_at,
        finished_at,
    ] = columns;
    Ok(OperationRow {
        id: parse(&id.unwrap_or_default())?,
        kind: from_json(&format!("\"{}\"", kind.unwrap_or_default()))?,
        status: from_json(&format!("\"{}\"", status.unwrap_or_default()))?,
        step: step.unwrap_or_default(),
        step_words: step_words.unwrap_or_default(),
        volume_id: volume_id.as_deref().map(parse).transpose()?,
        volume_name,
        vm_id: vm_id.as_deref().map(parse).transpose()?,
        request: request.unwrap_or_default(),
        asker: from_json(&asker.unwrap_or_default())?,
        story: story.unwrap_or_default(),
        outcome: outcome.as_deref().map(from_json).transpose()?,
        error: error.as_deref().map(from_json).transpose()?,
        deadline: parse(&deadline.unwrap_or_default())?,
        created_at: parse(&created_at.unwrap_or_default())?,
        updated_at: parse(&updated_at.unwrap_or_default())?,
        finished_at: finished_at.as_deref().map(parse).transpose()?,
    })
}

/// The wire name of a kind or a status.
fn name(value: impl Serialize) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(Error::new(Kind::Internal, "a kind or status has no name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(volume: VolumeId) -> NewOperation {
        NewOperation {
            id: OperationId::random(),
            kind: OperationKind::Attach,
            step: ("check".into(), "looking at the volume".into()),
            volume_id: Some(volume),
            volume_name: Some("data1".into()),
            new_name: None,
            vm_id: None,
            request_id: None,
            request: "{}".into(),
            asker: Asker::default(),
            story: "{}".into(),
            deadline: Timestamp::now(),
            queue: false,
            supersedes: None,
        }
    }

    fn ended(status: Status) -> Transition {
        Transition {
            status,
            step: ("done".into(), "done".into()),
            story: "{}".into(),
            volume_id: None,
            outcome: None,
            error: None,
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    fn accepted(store: &Store, new: &NewOperation) -> OperationRow {
        match store.accept(new).unwrap() {
            Accepted::New(row) => row,
            Accepted::Same(row) => panic!("accepted before: {row:?}"),
        }
    }

    #[test]
    fn a_volume_has_one_operation_at_a_time() {
        let (_directory, store) = store();
        let volume = VolumeId::random();
        let first = accepted(&store, &new(volume));
        let error = store.accept(&new(volume)).unwrap_err();
        assert_eq!(error.kind, Kind::Busy);
        assert!(error.message.contains(&first.id.to_string()), "{error}");
        store.transition(first.id, &ended(Status::Succeeded)).unwrap().unwrap();
        accepted(&store, &new(volume));
    }

    #[test]
    fn the_line_is_kept_in_order() {
        let (_directory, store) = store();
        let volume = VolumeId::random();
        let first = accepted(&store, &new(volume));
        let second = accepted(&store, &NewOperation { queue: true, ..new(volume) });
        let third = accepted(&store, &NewOperation { queue: true, ..new(volume) });
        assert_eq!((second.status, third.status), (Status::Queued, Status::Queued));
        assert!(!store.start_queued(second.id).unwrap());
        store.transition(first.id, &ended(Status::Failed)).unwrap().unwrap();
        assert_eq!(store.accept(&new(volume)).unwrap_err().kind, Kind::Busy, "nobody passes the line");
        assert!(!store.start_queued(third.id).unwrap());
        assert!(store.start_queued(second.id).unwrap());
        assert!(!store.start_queued(third.id).unwrap());
    }

    #[test]
    fn the_same_request_is_the_same_operation() {
        let (_directory, store) = store();
        let request = NewOperation { request_id: Some("r1".into()), ..new(VolumeId::random()) };
        let first = accepted(&store, &request);
        let again = NewOperation { id: OperationId::random(), ..request.clone() };
        assert!(matches!(store.accept(&again).unwrap(), Accepted::Same(row) if row.id == first.id));
        let other = NewOperation { request: "{1}".into(), ..again };
        assert_eq!(store.accept(&other).unwrap_err().kind, Kind::Conflict);
    }

    #[test]
    fn an_ended_operation_stays_ended() {
        let (_directory, store) = store();
        let row = accepted(&store, &new(VolumeId::random()));
        let cancelled = Error::new(Kind::Cancelled, "cancelled");
        assert!(
            store.end_early(row.id, &["send"], Status::Cancelled, &cancelled).unwrap().is_none(),
            "it stands at another step"
        );
        assert!(store.end_early(row.id, &["check"], Status::Cancelled, &cancelled).unwrap().is_some());
        assert!(store.transition(row.id, &ended(Status::Succeeded)).unwrap().is_none());
        assert_eq!(store.operation(row.id).unwrap().unwrap().status, Status::Cancelled);
    }

    #[test]
    fn a_detach_takes_the_place_of_an_attach_that_waits_for_its_device() {
        let (_directory, store) = store();
        let volume = VolumeId::random();
        let attach = accepted(&store, &new(volume));
        let detach = NewOperation { supersedes: Some((attach.id, "device".into())), ..new(volume) };
        assert_eq!(store.accept(&detach).unwrap_err().kind, Kind::Busy, "it stands at another step");
        let waiting = Transition { step: ("device".into(), "waiting for device".into()), ..ended(Status::Running) };
        store.transition(attach.id, &waiting).unwrap().unwrap();
        accepted(&store, &detach);
        let attach = store.operation(attach.id).unwrap().unwrap();
        assert_eq!(attach.status, Status::Cancelled);
        assert!(attach.error.unwrap().message.contains(&detach.id.to_string()));
    }
}
