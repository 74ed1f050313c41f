//! How an operation is accepted: atomically, once for a request, one at a time for a volume, in line where it may wait.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::events::note_transition;
use super::holds::refuse_if_held;
use super::operations::end;
use super::row::{OperationRow, UNFINISHED, name, one};
use super::{Store, execute, parse, row, time_text, to_json};
use crate::api::{Asker, OperationKind, Status};
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, VmId, VolumeId, printable};

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
    /// The VM whose place for a root disk it locks.
    pub root_of: Option<VmId>,
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

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// A new row; it runs or waits in line, as its status says.
    New(OperationRow),
    /// The request was made before: its operation.
    Same(OperationRow),
}

/// How far an operation that waits in line is.
#[derive(Clone, Debug, PartialEq)]
pub enum InLine {
    /// It waits no more: it runs, or has ended.
    Started(Box<OperationRow>),
    /// Its turn comes when this one has ended, at the earliest.
    Behind(OperationId),
    /// It does not stand in line any more.
    Gone,
}

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
            refuse_if_held(db, new.kind, new.volume_id)?;
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

    /// Whom an operation would have to wait for in line; `busy` where it would not wait. Accepts nothing.
    pub fn in_line_behind(&self, new: &NewOperation) -> Result<Option<OperationRow>> {
        let superseded = new.supersedes.as_ref().map(|(id, _)| *id);
        match self.read(|db| refuse_if_held(db, new.kind, new.volume_id).and_then(|()| holder(db, new)))? {
            Some(holder) if Some(holder.id) == superseded => Ok(None),
            Some(holder) if !new.queue => Err(busy(new, &holder)),
            holder => Ok(holder),
        }
    }

    /// Starts an operation that waits in line, if it is its turn. One whose volume was held meanwhile ends.
    pub fn start_queued(&self, id: OperationId) -> Result<InLine> {
        self.write(|db| {
            let started =
                |row: Option<OperationRow>| Ok(row.map_or(InLine::Gone, |row| InLine::Started(Box::new(row))));
            if let Some(before) = before(db, id)? {
                return Ok(InLine::Behind(before));
            }
            let now = time_text(Timestamp::now());
            let start = "UPDATE operations SET status = 'running', updated_at = ?2 WHERE id = ?1 AND status = 'queued'";
            if execute(db, start, params![id.to_string(), now])? == 0 {
                return Ok(InLine::Gone);
            }
            note_transition(db, id)?;
            let running = one(db, "id = ?1", &id.to_string())?;
            let Some(row) = &running else { return Ok(InLine::Gone) };
            match refuse_if_held(db, row.kind, row.volume_id) {
                Err(held) if held.kind == Kind::Conflict => end(db, id, Status::Failed, &held)?,
                looked => return looked.and_then(|()| started(running)),
            }
            started(one(db, "id = ?1", &id.to_string())?)
        })
    }

    /// The operation that a request was made for before; `conflict` where that asked for something else.
    pub fn operation_of_request(&self, id: &str, request: &str) -> Result<Option<OperationRow>> {
        let row = self.read(|db| one(db, "request_id = ?1", id))?;
        row.map(|row| same_request(row, request)).transpose()
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
    let query = "SELECT 1 FROM operations WHERE id = ?1 AND status = 'running' AND step = ?2";
    if row(db, query, [&id.to_string(), step], |_| Ok(()))?.is_some() {
        let error = Error::new(Kind::Cancelled, format!("superseded by operation {by}"));
        end(db, id, Status::Cancelled, &error)?;
    }
    Ok(())
}

/// Whoever has the volume, the name or the VM's place for a root disk, or stands in line for it before `new`.
fn holder(db: &Connection, new: &NewOperation) -> Result<Option<OperationRow>> {
    let locks = [
        ("volume_id", new.volume_id.map(|id| id.to_string())),
        ("new_name", new.new_name.clone()),
        ("root_of", new.root_of.map(|id| id.to_string())),
    ];
    for (column, value) in locks {
        let Some(value) = value else { continue };
        let holder = one(db, &format!("{UNFINISHED} AND {column} = ?1 ORDER BY status = 'queued', seq"), &value)?;
        if holder.is_some() {
            return Ok(holder);
        }
    }
    Ok(None)
}

/// The one before an operation in its line: the next that was accepted before it, or whoever has what it waits for.
fn before(db: &Connection, id: OperationId) -> Result<Option<OperationId>> {
    for column in ["volume_id", "new_name", "root_of"] {
        // The plus: sorted, the few that are unfinished are found sooner than by a walk through all there ever were.
        let query = format!(
            "SELECT other.id FROM operations AS mine JOIN operations AS other ON other.{column} = mine.{column}
             WHERE mine.id = ?1 AND other.id <> mine.id
               AND other.status IN ('queued', 'running', 'unwinding', 'stuck')
               AND (other.status <> 'queued' OR other.seq < mine.seq)
             ORDER BY +other.seq DESC LIMIT 1"
        );
        if let Some(before) = row(db, &query, [id.to_string()], |row| row.get::<_, String>(0))? {
            return parse(&before).map(Some);
        }
    }
    Ok(None)
}

fn busy(new: &NewOperation, holder: &OperationRow) -> Error {
    let what = match (new.root_of, &new.volume_name, new.volume_id) {
        (Some(vm), ..) if holder.volume_id != new.volume_id => format!("the place for the root disk of VM {vm}"),
        (_, Some(name), Some(id)) => format!("volume {} ({id})", printable(name)),
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
    execute(db, "INSERT INTO operations (id, kind, status, step, step_words, volume_id, volume_name, new_name, vm_id, root_of, request_id,
                                 request, asker, story, deadline, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?16)",
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
            new.root_of.map(|id| id.to_string()),
            new.request_id,
            new.request,
            to_json(&new.asker)?,
            new.story,
            time_text(new.deadline),
            now,
        ],
    )?;
    note_transition(db, new.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Transition;

    fn new(volume: VolumeId) -> NewOperation {
        NewOperation {
            id: OperationId::random(),
            kind: OperationKind::Attach,
            step: ("check".into(), "looking at the volume".into()),
            volume_id: Some(volume),
            volume_name: Some("data1".into()),
            new_name: None,
            vm_id: None,
            root_of: None,
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
        assert_eq!(store.start_queued(second.id).unwrap(), InLine::Behind(first.id));
        assert_eq!(store.start_queued(third.id).unwrap(), InLine::Behind(second.id));
        store.transition(first.id, &ended(Status::Failed)).unwrap().unwrap();
        assert_eq!(store.accept(&new(volume)).unwrap_err().kind, Kind::Busy, "nobody passes the line");
        assert_eq!(store.start_queued(third.id).unwrap(), InLine::Behind(second.id));
        assert!(matches!(store.start_queued(second.id).unwrap(), InLine::Started(row) if row.id == second.id));
        assert_eq!(store.start_queued(third.id).unwrap(), InLine::Behind(second.id));
        assert_eq!(store.start_queued(second.id).unwrap(), InLine::Gone, "it runs");
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
