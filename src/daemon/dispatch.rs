//! Method names to functions: one match. Parameters are checked here, rights too; what is done is done elsewhere.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::asker::{asker, holder, person};
use super::events;
use super::health;
use super::idle::Activity;
use super::looks::Looks;
use super::metrics;
use super::operations;
use super::params;
use super::rights::Rights;
use super::version::version;
use crate::api::{self, Change, Failure, Operation, OperationShown, Operations, Progress, Status, method};
use crate::error::{Error, Kind};
use crate::model::{OperationId, printable};
use crate::operation::{Engine, Listed, Request, Shown, Taken};
use crate::rpc::json::Json;
use crate::rpc::message::{self, ErrorObject};
use crate::rpc::peer::Peer;
use crate::rpc::server::{Caller, Handler};

/// For so many seconds CloudStack may leave open whether a change can be accepted.
const ACCEPTANCE: u64 = 28;

/// So much longer for each change of a list.
const EACH_LOOK: Duration = Duration::from_millis(250);

/// So much longer the end of an operation is waited for that is about to give up by itself.
const GRACE: Duration = Duration::from_secs(1);

/// What is shown with its age is shown anew so often.
const TICK: Duration = Duration::from_secs(1);

/// Serves the methods of the contract.
pub(super) struct Dispatch {
    engine: Engine,
    rights: Rights,
    activity: Activity,
    looks: Looks,
}

impl Handler for Dispatch {
    async fn call(&self, method: String, params: Option<Value>, caller: Caller) -> Result<Json, ErrorObject> {
        let _busy = self.activity.begin(&method);
        let params = object(params)?;
        match self.answer(&method, params, caller).await {
            Ok(answer) => Ok(answer),
            Err(Refusal::Params(what)) => Err(ErrorObject::new(message::INVALID_PARAMS, what)),
            Err(Refusal::Method) => {
                Err(ErrorObject::new(message::METHOD_NOT_FOUND, format!("there is no method {}", printable(&method))))
            }
            Err(Refusal::Failed(failure)) => Err(error_object(*failure)),
        }
    }
}

/// Why there is no answer.
enum Refusal {
    Params(String),
    Method,
    Failed(Box<Failure>),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Failed(Box::new(error.into()))
    }
}

type Answer<T = Json> = Result<T, Refusal>;

impl Dispatch {
    pub fn new(engine: Engine, rights: Rights, activity: Activity) -> Self {
        Self { looks: Looks::new(engine.clone()), engine, rights, activity }
    }

    async fn answer(&self, name: &str, params: Map<String, Value>, caller: Caller) -> Answer {
        match name {
            method::VOLUME_HOLD => self.hold(params, &caller.peer).await,
            method::VOLUME_RELEASE => self.release(read(params)?, &caller.peer).await,
            method::EXPORT_KICK => self.kick(read(params)?, &caller.peer).await,
            method::EXPORT_PRUNE => self.prune(read(params)?, &caller.peer).await,
            method::OPERATION_BEGIN => self.begin(read(params)?, &caller.peer).await,
            method::OPERATION_CANCEL => self.cancel(read(params)?, &caller.peer).await,
            method::OPERATION_RETRY => self.retry(read(params)?, &caller.peer).await,
            method::OPERATION_ABANDON => self.abandon(read(params)?, &caller.peer).await,
            method::STORE_BACKUP => self.backup(read(params)?, &caller.peer),
            method::TLS_ISSUE => self.issue(&read(params)?, &caller.peer),
            method::SYSTEM_DRAIN => self.drain(read(params)?, &caller.peer).await,
            method::SYSTEM_SYNC => self.sync(read(params)?, &caller.peer).await,
            method::OPERATION_WATCH => Err(operations::watch(&self.engine, read(params)?, caller).await.into()),
            method::EVENT_WATCH => Err(events::watch(&self.engine.world().store, read(params)?, caller).await.into()),
            method::OPERATION_WAIT => self.wait(read(params)?, caller).await,
            _ => match change_of(name) {
                Some(read) => self.change(read, params, caller).await,
                None => self.look(name, params, &caller.peer).await,
            },
        }
    }

    async fn look(&self, name: &str, params: Map<String, Value>, peer: &Peer) -> Answer {
        let world = self.engine.world();
        match name {
            method::VOLUME_LIST => answer(world.list_wanted_volumes(&read(params)?, person(peer)).await?),
            method::VOLUME_GET => {
                let params: api::VolumeGet = read(params)?;
                answer(world.show_volume(&params.volume, params.max_age_seconds).await?)
            }
            method::VOLUME_WHY => answer(self.engine.why(&read(params)?).await?),
            method::DEVICE_GET => {
                let params: api::DeviceGet = read(params)?;
                answer(world.show_device(&params.volume, params.wait_seconds.map(Duration::from_secs)).await?)
            }
            method::DEVICE_FIND => {
                let params: api::DeviceFind = read(params)?;
                answer(world.find_device(&params.path).await?)
            }
            method::VM_GET => {
                let params: api::VmGet = read(params)?;
                answer(world.show_vm(params.vm.as_deref()).await?)
            }
            method::VM_LIST => {
                let params: api::VmList = read(params)?;
                answer(world.list_vms(params.max_age_seconds).await?)
            }
            method::EXPORT_LIST => {
                let params: api::ExportList = read(params)?;
                answer(api::Exports { exports: world.list_exports(&params.filter, person(peer))? })
            }
            method::SNAPSHOT_LIST => answer(world.list_snapshots(&read(params)?).await?),
            method::EXPORT_CHECK => {
                read::<Nothing>(params)?;
                answer(world.check_exports().await?)
            }
            method::OPERATION_GET => {
                let params: api::OperationGet = read(params)?;
                answer(self.engine.history(self.operation_id(&params.id)?)?)
            }
            method::OPERATION_LIST => {
                let params: api::OperationList = read(params)?;
                answer(Operations { operations: self.engine.operations(&params, person(peer)).await? })
            }
            method::EVENT_LIST => answer(events::list(&world.store, &read(params)?)?),
            method::SYSTEM_HEALTH => {
                read::<Nothing>(params)?;
                answer(health::check(&self.looks).await)
            }
            method::SYSTEM_METRICS => {
                read::<Nothing>(params)?;
                answer(metrics::gather(&self.looks).await)
            }
            method::SYSTEM_VERSION => {
                read::<Nothing>(params)?;
                answer(version(&world.nbd))
            }
            method::RPC_DISCOVER => {
                read::<Nothing>(params)?;
                answer(api::openrpc::document()?)
            }
            _ => Err(Refusal::Method),
        }
    }

    async fn change(&self, request: ReadRequest, mut params: Map<String, Value>, caller: Caller) -> Answer {
        self.rights.may_change(&caller.peer)?;
        let change: Change = read(split(&mut params))?;
        let request = request(params)?;
        let row = match self.accepted(&request, &change, &caller.peer).await? {
            Taken::Operation(row) => row,
            Taken::Plan(changed) => return answer(changed),
        };
        if !change.wait {
            return answer(self.engine.changed(&row)?);
        }
        let watch = Watch { timeout: change.timeout_seconds, token: change.token, own: true };
        self.follow(row.id, watch, caller).await
    }

    /// Has a request journaled, within the caller's time: until it is, nothing is sent.
    async fn accepted(&self, request: &Request, change: &Change, peer: &Peer) -> Answer<Taken> {
        let accepting = self.engine.request(request, change, asker(peer, change));
        let seconds = change.timeout_seconds.map_or(ACCEPTANCE, |seconds| seconds.min(ACCEPTANCE));
        match tokio::time::timeout(Duration::from_secs(seconds), accepting).await {
            Ok(taken) => Ok(taken?),
            Err(_) => {
                let what = format!("CloudStack has not answered within {seconds}s; nothing was sent");
                Err(Error::new(Kind::CloudstackUnreachable, what)
                    .hint("`volctl health` shows whether it answers")
                    .into())
            }
        }
    }

    async fn prune(&self, params: api::ExportPrune, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        answer(self.engine.prune(&params, &asker(peer, &Change::default())).await?)
    }

    /// Has several changes journaled, or none of them.
    async fn begin(&self, params: api::OperationBegin, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        let count = params.changes.len();
        if count > api::MOST_CHANGES {
            return Err(Refusal::Params(format!("changes: at most {}, not {count}", api::MOST_CHANGES)));
        }
        let listed =
            params.changes.into_iter().map(|listed| listed_change(listed, peer)).collect::<Answer<Vec<_>>>()?;
        // They are looked at side by side, some at a time.
        let limit = Duration::from_secs(ACCEPTANCE) + EACH_LOOK * u32::try_from(count).unwrap_or(u32::MAX);
        match tokio::time::timeout(limit, self.engine.begin(listed)).await {
            Ok(begun) => answer(begun?),
            Err(_) => {
                let what = format!("CloudStack has not answered within {}s; none was begun", limit.as_secs());
                Err(Error::new(Kind::CloudstackUnreachable, what)
                    .hint("`volctl health` shows whether it answers")
                    .into())
            }
        }
    }

    async fn wait(&self, params: api::OperationWait, caller: Caller) -> Answer {
        let id = self.operation_id(&params.id)?;
        let watch = Watch { timeout: params.timeout_seconds, token: params.token, own: false };
        self.follow(id, watch, caller).await
    }

    /// Watches an operation to its end and answers with what it came to.
    async fn follow(&self, id: OperationId, watch: Watch, mut caller: Caller) -> Answer {
        let mut watched = self.engine.watch(id)?;
        let mut late = false;
        let mut deadline = watch.timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        loop {
            let shown = watched.borrow_and_update().clone();
            if shown.settled() {
                return self.end(&shown);
            }
            if let Some(error) = shown.overdue.clone().filter(|_| watch.own) {
                return Err(failed(error, shown.operation()));
            }
            if let Some(token) = &watch.token {
                let progress = Progress { token: token.clone(), operation: shown.operation() };
                caller.notify.notify(method::PROGRESS, &answer(progress)?);
            }
            tokio::select! {
                // Nobody drives it any more: its row says why.
                changed = watched.changed() => if changed.is_err() {
                    return self.end(&self.engine.watch(id)?.borrow().clone());
                },
                () = tokio::time::sleep(TICK), if shown.ages() => {}
                () = until(deadline) => {
                    // What has sent nothing ends now, and its end is the answer.
                    if watch.own && self.engine.expire(id).await? {
                        deadline = None;
                    } else if watch.own && !late {
                        // It has the same deadline: where it has sent nothing yet it is about to end.
                        late = true;
                        deadline = Some(Instant::now() + GRACE);
                    } else {
                        return self.out_of_time(&watched.borrow().clone(), &watch);
                    }
                }
                () = caller.gone.wait() => return Err(failed(abandoned(id), shown.operation())),
            }
        }
    }

    fn end(&self, shown: &Shown) -> Answer {
        let row = &shown.row;
        if row.status == Status::Succeeded {
            return answer(self.engine.changed(row)?);
        }
        let error = row.failure().unwrap_or_else(|| self.not_driven(shown));
        Err(failed(error, shown.operation()))
    }

    /// Why an operation that has not ended makes no step.
    fn not_driven(&self, shown: &Shown) -> Error {
        match self.engine.world().store.refuse_if_read_only() {
            Err(error) => error.doing(format!("the operation stays at \"{}\"", shown.row.step_words)),
            Ok(()) => Error::new(Kind::Internal, "the operation has no outcome"),
        }
    }

    /// The caller's time is over, and what it asked for goes on.
    fn out_of_time(&self, shown: &Shown, watch: &Watch) -> Answer {
        if shown.settled() {
            return self.end(shown);
        }
        let (operation, seconds) = (shown.operation(), watch.timeout.unwrap_or_default());
        let error = Error::new(
            Kind::Timeout,
            format!("{} is not done within {seconds}s: {}", operation.task(), operation.step),
        )
        .hint(format!("the operation goes on: `volctl ops wait {}`", operation.id));
        Err(failed(error, operation))
    }

    async fn hold(&self, params: Map<String, Value>, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        answer(self.engine.world().hold(&read(params)?, holder(peer).await).await?)
    }

    async fn release(&self, params: api::VolumeRelease, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        answer(self.engine.world().release(&params, holder(peer).await).await?)
    }

    async fn kick(&self, params: api::ExportKick, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        answer(api::Kicked { clients: self.engine.world().kick(&params, &who(peer)).await? })
    }

    async fn cancel(&self, params: api::OperationGet, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        let id = self.operation_id(&params.id)?;
        shown(self.engine.cancel(id, &who(peer)).await?)
    }

    async fn retry(&self, params: api::OperationGet, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        let id = self.operation_id(&params.id)?;
        shown(self.engine.retry(id, &who(peer)).await?)
    }

    async fn abandon(&self, params: api::OperationAbandon, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        if params.reason.trim().is_empty() {
            return Err(Refusal::Params("reason: say why, for the record".to_owned()));
        }
        let id = self.operation_id(&params.id)?;
        shown(self.engine.abandon(id, &who(peer), &params.reason).await?)
    }

    /// Nothing is journaled: nothing is changed, and nothing of it is kept.
    fn issue(&self, params: &api::TlsIssue, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        answer(self.engine.world().nbd.issue(params)?)
    }

    fn backup(&self, params: api::StoreBackup, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        if !params.path.is_absolute() {
            return Err(Refusal::Params("path: an absolute path is needed".to_owned()));
        }
        let bytes = self.engine.world().store.backup(&params.path)?;
        answer(api::BackedUp { path: params.path, bytes })
    }

    async fn drain(&self, params: api::SystemDrain, peer: &Peer) -> Answer {
        if !params.dry_run {
            self.rights.may_change(peer)?;
        }
        answer(self.engine.drain(&params, &asker(peer, &Change::default())).await?)
    }

    async fn sync(&self, _: Nothing, peer: &Peer) -> Answer {
        self.rights.may_change(peer)?;
        answer(self.engine.world().sync().await?)
    }

    /// The operation that an id or its beginning means.
    fn operation_id(&self, word: &str) -> Answer<OperationId> {
        if let Ok(id) = word.parse() {
            return Ok(id);
        }
        let found = if word.len() < 6 {
            Vec::new()
        } else {
            self.engine.world().store.operations_like(&word.to_lowercase())?
        };
        match found.as_slice() {
            [one] => Ok(one.id),
            [] => Err(Error::new(Kind::NotFound, format!("there is no operation {}", printable(word)))
                .hint("`volctl ops` lists them")
                .into()),
            many => {
                let list: Vec<String> = many.iter().map(|row| row.id.to_string()).collect();
                Err(Error::new(
                    Kind::Ambiguous,
                    format!("{} fits several operations: {}", printable(word), list.join(", ")),
                )
                .into())
            }
        }
    }
}

/// How the parameters of a change are read.
type ReadRequest = fn(Map<String, Value>) -> Answer<Request>;

/// The changes that are operations, by their methods.
fn change_of(name: &str) -> Option<ReadRequest> {
    Some(match name {
        method::VOLUME_CREATE => |params| Ok(Request::Create(read(params)?)),
        method::VOLUME_ATTACH => |params| Ok(Request::Attach(read(params)?)),
        method::VOLUME_DETACH => |params| Ok(Request::Detach(read(params)?)),
        method::VOLUME_MOVE => |params| Ok(Request::Move(read(params)?)),
        method::VOLUME_RECLAIM => |params| Ok(Request::Reclaim(read(params)?)),
        method::VOLUME_DELETE => |params| Ok(Request::Delete(read(params)?)),
        method::VOLUME_RECOVER => |params| Ok(Request::Recover(read(params)?)),
        method::VOLUME_RESIZE => |params| Ok(Request::Resize(read(params)?)),
        method::SNAPSHOT_CREATE => |params| Ok(Request::SnapshotCreate(read(params)?)),
        method::SNAPSHOT_REVERT => |params| Ok(Request::SnapshotRevert(read(params)?)),
        method::SNAPSHOT_DELETE => |params| Ok(Request::SnapshotDelete(read(params)?)),
        method::EXPORT_CREATE => |params| Ok(Request::Export(read(params)?)),
        method::EXPORT_DELETE => |params| Ok(Request::Unexport(read(params)?)),
        _ => return None,
    })
}

fn listed_change(listed: api::ListedChange, peer: &Peer) -> Answer<Listed> {
    let api::ListedChange { method, mut params } = listed;
    let request = change_of(&method)
        .ok_or_else(|| Refusal::Params(format!("changes: {} is no change that is an operation", printable(&method))))?;
    let change: Change = read(split(&mut params))?;
    Ok(Listed { request: request(params)?, asker: asker(peer, &change), change })
}

/// How somebody watches an operation.
struct Watch {
    /// For so many seconds; without it as long as it takes.
    timeout: Option<u64>,
    /// Comes back in each progress notification.
    token: Option<Value>,
    /// Whoever asked for the operation: is told when it takes longer than it should, and may end it by its timeout.
    own: bool,
}

/// For methods without parameters.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn object(params: Option<Value>) -> Result<Map<String, Value>, ErrorObject> {
    match params {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(params)) => Ok(params),
        Some(Value::Array(params)) if params.is_empty() => Ok(Map::new()),
        Some(_) => Err(ErrorObject::new(message::INVALID_PARAMS, "params is an object with named parameters")),
    }
}

/// Takes out of a change's parameters those that every change has.
fn split(params: &mut Map<String, Value>) -> Map<String, Value> {
    Change::FIELDS.iter().filter_map(|field| params.remove_entry(*field)).collect()
}

fn read<T: DeserializeOwned>(params: Map<String, Value>) -> Answer<T> {
    params::read(params).map_err(Refusal::Params)
}

fn answer(value: impl Serialize) -> Answer {
    Json::of(&value)
        .map_err(|error| Error::new(Kind::Internal, format!("the answer cannot be written: {error}")).into())
}

fn shown(operation: Operation) -> Answer {
    answer(OperationShown { operation, asked_by: None, history: Vec::new() })
}

/// A peer, for the record.
fn who(peer: &Peer) -> String {
    format!("user {}", peer.uid)
}

fn failed(error: Error, operation: Operation) -> Refusal {
    Refusal::Failed(Box::new(Failure { error, operation: Some(operation) }))
}

fn abandoned(id: OperationId) -> Error {
    Error::new(Kind::Cancelled, format!("nobody waits for operation {id} any more; it goes on"))
}

fn error_object(failure: Failure) -> ErrorObject {
    let code = failure.error.kind.rpc_code().into();
    let message = failure.error.message.clone();
    let data = serde_json::to_value(&failure).ok();
    ErrorObject { code, message, data }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
