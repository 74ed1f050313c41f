//! A row of the journal, as it is written and read.

use jiff::Timestamp;
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use super::{from_json, parse, sql};
use crate::api::{Asker, Departure, NamedVolume, Operation, OperationKind, Snapshot, Status};
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, VmId, VolumeId};

/// What an operation has come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether anything was done.
    pub changed: bool,
    /// What the caller must see.
    pub notes: Vec<String>,
    /// The device's last moments here.
    pub departure: Option<Departure>,
    /// The root disk that made way for a move.
    #[serde(default)]
    pub swapped_root: Option<NamedVolume>,
    /// The snapshot that was taken.
    #[serde(default)]
    pub snapshot: Option<Snapshot>,
    /// The volume of a creation was there before.
    #[serde(default)]
    pub existed: bool,
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
    /// What of it cannot be read; the other fields are what can be. Such a row is for a human.
    pub unreadable: Option<Error>,
}

impl OperationRow {
    /// Why it failed, or what holds it up; what is stuck is for a human, who learns both ways on.
    pub fn failure(&self) -> Option<Error> {
        let error = self.error.clone()?;
        if self.status != Status::Stuck {
            return Some(error);
        }
        let found = error.hint.as_ref().map_or_else(String::new, |hint| format!("{hint}; "));
        let ways = format!(
            "`volctl ops retry {id}` looks again; `volctl ops abandon {id} --reason TEXT --yes` ends it",
            id = self.id
        );
        Some(Error { kind: Kind::Stuck, ..error }.hint(format!("{found}{ways}")))
    }

    /// As everybody sees it.
    pub fn shown(&self) -> Operation {
        Operation {
            id: self.id,
            kind: self.kind,
            status: self.status,
            step: match self.status {
                Status::Queued => "waiting in line for its volume".to_owned(),
                _ => self.step_words.clone(),
            },
            volume_id: self.volume_id,
            volume_name: self.volume_name.clone(),
            vm_id: self.vm_id,
            error: self.failure(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            usual: None,
            finished_at: self.finished_at,
        }
    }
}

const COLUMNS: &str = "id, kind, status, step, step_words, volume_id, volume_name, vm_id, request, asker, story, outcome, error, \
                       deadline, created_at, updated_at, finished_at";

/// The statuses that have not ended.
pub(super) const UNFINISHED: &str = "status IN ('queued', 'running', 'unwinding', 'stuck')";

/// The statuses that hold a volume.
pub(super) const HOLDS: &str = "status IN ('running', 'unwinding', 'stuck')";

/// One row that fulfils a condition on `?1`.
pub(super) fn one(db: &Connection, condition: &str, value: &str) -> Result<Option<OperationRow>> {
    let query = format!("SELECT {COLUMNS} FROM operations WHERE {condition} LIMIT 1");
    let row = super::row(db, &query, [value], raw)?;
    row.map(operation).transpose()
}

/// The rows that the rest of a query gives.
pub(super) fn many(db: &Connection, rest: &str, params: impl rusqlite::Params) -> Result<Vec<OperationRow>> {
    let query = format!("SELECT {COLUMNS} FROM operations {rest}");
    let mut statement = db.prepare_cached(&query).map_err(sql)?;
    let rows = statement.query_map(params, raw).map_err(sql)?;
    let mut read = Vec::new();
    for row in rows {
        match operation(row.map_err(sql)?) {
            Ok(row) => read.push(row),
            Err(error) => tracing::error!(%error, "an operation that cannot even be named is passed over"),
        }
    }
    Ok(read)
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
    let mut unreadable = None;
    Ok(OperationRow {
        id: parse(&id.unwrap_or_default())?,
        kind: from_json(&format!("\"{}\"", kind.unwrap_or_default()))?,
        status: from_json(&format!("\"{}\"", status.unwrap_or_default()))?,
        step: step.unwrap_or_default(),
        step_words: step_words.unwrap_or_default(),
        volume_id: as_far_as(volume_id.as_deref().map(parse).transpose(), &mut unreadable),
        volume_name,
        vm_id: as_far_as(vm_id.as_deref().map(parse).transpose(), &mut unreadable),
        request: request.unwrap_or_default(),
        asker: as_far_as(from_json(&asker.unwrap_or_default()), &mut unreadable),
        story: story.unwrap_or_default(),
        outcome: as_far_as(outcome.as_deref().map(from_json).transpose(), &mut unreadable),
        error: as_far_as(error.as_deref().map(from_json).transpose(), &mut unreadable),
        deadline: as_far_as(parse(&deadline.unwrap_or_default()), &mut unreadable),
        created_at: as_far_as(parse(&created_at.unwrap_or_default()), &mut unreadable),
        updated_at: as_far_as(parse(&updated_at.unwrap_or_default()), &mut unreadable),
        finished_at: as_far_as(finished_at.as_deref().map(parse).transpose(), &mut unreadable),
        unreadable,
    })
}

/// What was read, or nothing and the note that it could not be.
fn as_far_as<T: Default>(read: Result<T>, unreadable: &mut Option<Error>) -> T {
    read.unwrap_or_else(|error| {
        *unreadable = Some(error);
        T::default()
    })
}

/// The wire name of a kind or a status.
pub(super) fn name(value: impl Serialize) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(Error::new(Kind::Internal, "a kind or status has no name")),
    }
}
