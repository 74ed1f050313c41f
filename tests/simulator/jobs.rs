//! Asynchronous jobs: submitted, queued per VM, carried out, kept until they expire (facts sheet, 2.1, 4.1 and 5).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::ApiError;
use crate::events;
use crate::simulator::Simulator;
use crate::world::World;
use crate::world::objects::random_id;

/// What a job does; its value is the `jobresult`.
pub type Work = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send>>;

/// A job's row.
#[derive(Serialize)]
pub struct Job {
    /// Its id, the server's or the caller's (`customjobid`).
    pub id: String,
    /// The command that made it.
    pub command: &'static str,
    /// The object that it works on.
    pub instance: Option<Instance>,
    /// How it stands.
    pub status: Status,
    /// `jobresultcode`
    pub result_code: u16,
    /// `jobresult`
    pub result: Option<Value>,
    /// When it was submitted.
    pub created: Timestamp,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Kept from ending, by a fault.
    pub held: bool,
}

/// The object that a job works on.
#[derive(Clone, Serialize)]
pub struct Instance {
    /// `Volume`, ...
    pub kind: &'static str,
    /// Its id.
    pub id: String,
}

impl Instance {
    /// A virtual machine.
    pub fn virtual_machine(id: &str) -> Self {
        Self { kind: "VirtualMachine", id: id.to_owned() }
    }

    /// A volume.
    pub fn volume(id: &str) -> Self {
        Self { kind: "Volume", id: id.to_owned() }
    }

    /// A snapshot of a volume.
    pub fn snapshot(id: &str) -> Self {
        Self { kind: "Snapshot", id: id.to_owned() }
    }
}

/// How a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Queued or running: the API does not tell them apart.
    Pending,
    /// Ended well.
    Succeeded,
    /// Ended with an error.
    Failed,
}

/// What a fault has in store for a job.
pub enum Fate {
    /// Nothing.
    Normal,
    /// It fails.
    Fails {
        /// `errorcode`
        code: u16,
        /// `errortext`
        text: Option<String>,
        /// Whether it had its effect before.
        after_effect: bool,
    },
    /// It waits until it is released.
    Held,
}

/// A job that a command wants.
pub struct NewJob {
    /// The object that it works on.
    pub instance: Option<Instance>,
    /// The VM in whose queue it works.
    pub queue: Option<String>,
    /// The work, or the error that the job finds at its start.
    pub start: Result<Work, ApiError>,
}

impl Job {
    /// Whether it has not ended.
    pub fn is_pending(&self) -> bool {
        self.status == Status::Pending
    }

    /// Whether it works on this object.
    pub fn instance_is(&self, kind: &str, id: &str) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.kind == kind && instance.id == id)
    }

    fn end(&mut self, status: Status, result_code: u16, result: Option<Value>, now: Timestamp) {
        self.status = status;
        self.result_code = result_code;
        self.result = result;
        self.completed = Some(now);
    }
}

/// For each VM the way into its queue; the work in it is done one at a time, in the order of submission.
#[derive(Default)]
pub struct Queues(Mutex<HashMap<String, mpsc::UnboundedSender<Task>>>);

struct Task {
    job: String,
    work: Work,
}

impl Queues {
    fn push(&self, vm: &str, task: Task, simulator: &Arc<Simulator>) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(vm.to_owned()).or_insert_with(|| {
            let (sender, mut tasks) = mpsc::unbounded_channel();
            let simulator = simulator.clone();
            tokio::spawn(async move {
                while let Some(task) = tasks.recv().await {
                    run(&simulator, task).await;
                }
            });
            sender
        });
        // The receiver lives as long as the program.
        let _ = queue.send(task);
    }
}

/// Accepts a job and answers its id; refuses an id that is taken.
pub fn submit(
    simulator: &Arc<Simulator>,
    world: &mut World,
    command: &'static str,
    new: NewJob,
    custom_id: Option<&str>,
    fate: Fate,
) -> Result<String, ApiError> {
    let id = match custom_id {
        Some(id) => free_id(id, world)?,
        None => random_id(),
    };
    events::enter(world, command, new.instance.as_ref(), "Scheduled", None);
    world.jobs.push(Job {
        id: id.clone(),
        command,
        instance: new.instance,
        status: Status::Pending,
        result_code: 0,
        result: None,
        created: world.now(),
        completed: None,
        held: matches!(fate, Fate::Held),
    });
    let latency = world.settings.job_latency(command);
    let (queue, work) = match new.start {
        Ok(work) => (new.queue, work),
        Err(error) => (None, failing(latency, error)),
    };
    let work = match fate {
        Fate::Normal => work,
        Fate::Held => released(simulator.clone(), id.clone(), work),
        Fate::Fails { code, text, after_effect } => {
            let error = ApiError::new(code, text.unwrap_or_default());
            if after_effect { failing_after(work, error) } else { failing(latency, error) }
        }
    };
    let task = Task { job: id.clone(), work };
    match queue {
        Some(vm) => simulator.queues.push(&vm, task, simulator),
        None => drop(tokio::spawn({
            let simulator = simulator.clone();
            async move { run(&simulator, task).await }
        })),
    }
    Ok(id)
}

/// 431 while a job has this id, 530 once it ended (the row's unique column).
fn free_id(id: &str, world: &World) -> Result<String, ApiError> {
    let is_uuid = uuid::Uuid::try_parse(id).is_ok_and(|uuid| uuid.to_string() == id);
    match world.job(id) {
        _ if !is_uuid => Err(ApiError::invalid(format!("Invalid customjobid: {id} is not a UUID"))),
        Some(job) if job.is_pending() => Err(ApiError::invalid(format!("Entity with uuid {id} exists already"))),
        Some(_) => Err(ApiError::internal(format!("Duplicate entry '{id}' for key 'uuid'"))),
        None => Ok(id.to_owned()),
    }
}

fn failing(latency: std::time::Duration, error: ApiError) -> Work {
    Box::pin(async move {
        tokio::time::sleep(latency).await;
        Err(error)
    })
}

fn failing_after(work: Work, error: ApiError) -> Work {
    Box::pin(async move {
        work.await?;
        Err(error)
    })
}

fn released(simulator: Arc<Simulator>, id: String, work: Work) -> Work {
    Box::pin(async move {
        simulator.until(|world| world.job(&id).is_none_or(|job| !job.held)).await;
        work.await
    })
}

/// Does the work, unless the job ends in another way before: by a restart of the management server.
async fn run(simulator: &Simulator, task: Task) {
    let Task { job, work } = task;
    let ended = simulator.until(|world| !world.job(&job).is_some_and(Job::is_pending));
    let outcome = tokio::select! {
        biased;
        () = ended => return,
        outcome = work => outcome,
    };
    simulator.change(|world| {
        let now = world.now();
        let Some(job) = world.jobs.iter_mut().find(|candidate| candidate.id == job && candidate.is_pending()) else {
            return;
        };
        let (command, instance) = (job.command, job.instance.clone());
        let error = outcome.as_ref().err().map(|error| error.text.clone());
        match outcome {
            Ok(result) => job.end(Status::Succeeded, 0, Some(result), now),
            Err(error) => job.end(Status::Failed, error.code, Some(failure(&error)), now),
        }
        events::enter(world, command, instance.as_ref(), "Completed", error.as_deref());
    });
}

/// The `jobresult` of a failed job; an exception without a message has no text.
fn failure(error: &ApiError) -> Value {
    if error.text.is_empty() {
        json!({"errorcode": error.code})
    } else {
        json!({"errorcode": error.code, "errortext": error.text})
    }
}

/// What a restart of the management server does: running jobs end without a result, states in transition go back.
pub fn restart_management(world: &mut World) {
    let now = world.now();
    for job in world.jobs.iter_mut().filter(|job| job.is_pending()) {
        job.end(Status::Failed, 530, None, now);
    }
    for volume in world.volumes.iter_mut().filter(|volume| !volume.removed && volume.is_in_transition()) {
        volume.state = if volume.state == "Creating" { "Allocated" } else { "Ready" }.to_owned();
    }
    for snapshot in world.snapshots.iter_mut().filter(|snapshot| snapshot.is_unfinished()) {
        snapshot.state = "Error".to_owned();
    }
    for vm in &mut world.virtual_machines {
        match vm.state.as_str() {
            "Stopping" => vm.state = "Running".to_owned(),
            "Starting" => vm.state = "Stopped".to_owned(),
            _ => {}
        }
    }
}

/// Erases jobs whose time is over.
pub fn expire(world: &mut World) {
    let oldest = world.now() - SignedDuration::from_mins(world.settings.job_expire_minutes);
    world.jobs.retain(|job| job.completed.unwrap_or(job.created) > oldest);
}

/// Erases all ended jobs.
pub fn purge(world: &mut World) {
    world.jobs.retain(Job::is_pending);
}
