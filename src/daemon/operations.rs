//! The operations as they change, for whoever watches all of them.

use std::collections::HashMap;
use std::time::Duration;

use super::events::nobody_follows;
use crate::api::{Operation, OperationWatch, Progress, method};
use crate::error::{Error, Kind, Result};
use crate::model::OperationId;
use crate::operation::Engine;
use crate::rpc::json::Json;
use crate::rpc::server::Caller;

/// What a step waits for is no event: it is looked for so often.
const TICK: Duration = Duration::from_secs(1);
/// How many events are read at once.
const STRIDE: u32 = 100;

/// `operation.watch`: goes on until the client has gone, or the store fails.
pub(super) async fn watch(engine: &Engine, params: OperationWatch, caller: Caller) -> Error {
    let mut gone = caller.gone.clone();
    tokio::select! {
        error = follow(engine, params, &caller) => error,
        () = gone.wait() => nobody_follows(),
    }
}

async fn follow(engine: &Engine, params: OperationWatch, caller: &Caller) -> Error {
    let mut watched = match Watched::new(engine, params.known) {
        Ok(watched) => watched,
        Err(error) => return error,
    };
    let mut written = engine.world().store.written();
    loop {
        written.mark_unchanged();
        let changed = match watched.changed(engine) {
            Ok(changed) => changed,
            Err(error) => return error,
        };
        for operation in changed {
            let progress = Progress { token: params.token.clone().unwrap_or_default(), operation };
            let progress = match Json::of(&progress) {
                Ok(progress) => progress,
                Err(error) => return Error::new(Kind::Internal, format!("an operation cannot be written: {error}")),
            };
            if !caller.notify.send(method::PROGRESS, &progress).await {
                return nobody_follows();
            }
        }
        tokio::select! {
            _ = written.changed() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// What was told, and up to which event.
struct Watched {
    after: u64,
    /// Of what has not ended.
    told: HashMap<OperationId, Operation>,
    /// What was told over an earlier connection, and is to be told once more.
    known: Vec<OperationId>,
}

impl Watched {
    fn new(engine: &Engine, known: Vec<OperationId>) -> Result<Self> {
        Ok(Self { after: engine.world().store.newest_event()?, told: HashMap::new(), known })
    }

    /// What stands otherwise than it was told: those that have not ended, and those that have ended since.
    fn changed(&mut self, engine: &Engine) -> Result<Vec<Operation>> {
        let mut ids: Vec<OperationId> = engine.world().store.unfinished()?.into_iter().map(|row| row.id).collect();
        ids.extend(self.told.keys());
        ids.append(&mut self.known);
        loop {
            let events = engine.world().store.events_after(self.after, STRIDE)?;
            let Some(last) = events.last() else { break };
            self.after = last.seq;
            ids.extend(events.iter().filter_map(|event| event.operation_id));
        }
        ids.sort_unstable();
        ids.dedup();
        let mut changed = Vec::new();
        for id in ids {
            let operation = match engine.operation(id) {
                // It was forgotten meanwhile.
                Err(error) if error.kind == Kind::NotFound => continue,
                stands => stands?,
            };
            if self.told.get(&id) == Some(&operation) {
                continue;
            }
            if operation.status.ended() {
                self.told.remove(&id);
            } else {
                self.told.insert(id, operation.clone());
            }
            changed.push(operation);
        }
        changed.sort_by_key(|operation| operation.updated_at);
        Ok(changed)
    }
}
