//! The operation engine: the journal rule that makes every change survive whatever is killed or cut off, and the only
//! room in which the store, the cloud, the devices and the exports meet.
//!
//! An operation is a [`Story`]: steps in a row, and a struct of what it has learned. One loop, [`drive`], walks all of
//! them by one rule: *the row that makes a step repeatable is committed before the step runs*. So whatever ends the
//! daemon, the next one finds the step that was under way and walks on from there; each step first looks whether it is
//! done already.
//!
//! ```text
//!                       run: next step                undo: step before
//!                        ┌──────┐                         ┌──────┐
//!            its turn    │      ▼     run: fails          │      ▼     nothing left to undo
//!   queued ───────────▶ running ──────────────────────▶ unwinding ─────────────────────────▶ failed
//!     │                  │  │  │                            │
//!     │ cancel           │  │  └─ run: cannot be known ─────┴─ undo fails ──▶ stuck ──▶ (a human)
//!     ▼                  │  └──── run: last step ───────────────────────────▶ succeeded
//!   cancelled ◀──────────┘ cancel or superseded, before an effect was sent or while only waiting
//! ```
//!
//! One story a file: what it is about, its steps, and how each is done, seen to be done, and undone.

mod attach;
mod begin;
mod check;
mod chronicle;
mod create;
mod deadline;
mod delete;
mod detach;
mod direct;
mod drain;
mod dry_run;
mod engine;
mod export;
mod exports;
mod exports_check;
mod filter;
mod hold;
mod job;
mod kept;
mod lane;
mod look;
mod r#move;
mod offering;
mod outside;
pub mod pause;
mod place;
mod prune;
mod reclaim;
mod recover;
mod recovery;
mod request;
mod resize;
mod resolve;
mod room;
mod share;
mod snapshot;
mod sync;
mod synced;
mod tags;
pub mod tally;
mod this_vm;
mod unexport;
mod vm;
mod vm_change;
mod why;
mod withdraw;
mod world;

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{OperationKind, Status};
use crate::error::{Error, Kind, Result};
use crate::model::VolumeId;
use crate::store::{OperationRow, Outcome, Transition};

pub use begin::Listed;
pub use check::check;
pub use chronicle::keep_history;
pub use engine::{Engine, Shown};
pub use exports::keep as keep_exports;
pub use hold::Holder;
pub use request::{Request, Taken};
pub use sync::keep_in_step;
pub use synced::SyncLog;
pub use tally::keep as keep_tally;
pub use world::World;

use lane::{Entered, Turn};
use world::Cx;

/// A step of a story: a name that is kept for ever in the journal, and words for people.
trait Step: Copy + Eq + Send + Sync + 'static {
    /// The name in the journal.
    fn name(self) -> &'static str;
    /// What is under way, for people.
    fn words(self) -> &'static str;
}

/// Where a story goes after a step.
enum Next<S> {
    /// To the step after it.
    On,
    /// Back to an earlier step, to look again.
    Back(S),
    /// To its end: there is nothing more to do.
    Done,
}

impl<S> Next<S> {
    /// The same for the story that this one is a part of.
    fn of_part<T>(self, whole: impl FnOnce(S) -> T) -> Next<T> {
        match self {
            Next::On => Next::On,
            Next::Back(step) => Next::Back(whole(step)),
            Next::Done => Next::Done,
        }
    }
}

/// Why a story cannot go on.
#[derive(Debug)]
enum Halt {
    /// The effect is known not to be there: undo what was done before, and end as `failed`.
    Fail(Error),
    /// What is the case cannot be found out from here.
    Stuck(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt::Fail(error)
    }
}

/// One kind of operation.
trait Story: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Which kind.
    const KIND: OperationKind;
    /// Its steps.
    type Step: Step;
    /// Their order.
    const STEPS: &'static [Self::Step];
    /// The steps in which nothing is changed anywhere: there it simply ends when it is cancelled or too late.
    const LOOKING: &'static [Self::Step];

    /// Whether this one takes a step.
    fn takes(&self, _step: Self::Step) -> bool {
        true
    }

    /// What is still to be done once the looking steps have passed, for a dry run: a sentence a step, in order, with each
    /// CloudStack command as it would be sent; none where there is nothing to do. Refuses what the steps would refuse as
    /// far as that can be seen, and changes nothing.
    fn plan(&self, world: &World) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Does a step. `cx.resumed` says that an earlier daemon may have done it, or part of it.
    fn run(&mut self, step: Self::Step, cx: &Cx) -> impl Future<Output = Result<Next<Self::Step>, Halt>> + Send;

    /// Whether at a step after those nothing was sent to CloudStack yet: there it is undone when it is cancelled or too
    /// late.
    fn is_reversible(&self, _step: Self::Step) -> bool {
        false
    }

    /// The lane in which it is at a step, because CloudStack may have its job of that VM then: from the step that sends to
    /// the one that awaits the end. It may have to wait before it enters, and does so before the last step that only
    /// looks; where that step leads to another lane than was seen ahead, it is then done once more.
    fn turn(&self, _step: Self::Step) -> Option<Turn> {
        None
    }

    /// Undoes a step that may or may not have been done. Touches only what this operation itself made; by itself,
    /// nothing.
    fn undo(&mut self, _step: Self::Step, _cx: &Cx) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Prepares the story to do again, on a human's word, what it only waits for at a step, or is stuck at; gives the
    /// step to go back to.
    fn again(&mut self, _step: Self::Step, _status: Status) -> Option<Self::Step> {
        None
    }

    /// The volume, once known.
    fn volume_id(&self) -> Option<VolumeId>;

    /// What it has come to so far.
    fn outcome(&self) -> Outcome;
}

/// The step that this story takes after another.
fn after<S: Story>(story: &S, step: S::Step) -> Option<S::Step> {
    S::STEPS.iter().copied().skip_while(|other| *other != step).skip(1).find(|other| story.takes(*other))
}

/// The step that this story took before another.
fn before<S: Story>(story: &S, step: S::Step) -> Option<S::Step> {
    S::STEPS.iter().copied().take_while(|other| *other != step).filter(|other| story.takes(*other)).last()
}

/// Walks a story from where its row stands to an end.
async fn drive<S: Story>(row: OperationRow, mut cx: Cx) {
    let read = row.unreadable.clone().map_or_else(|| read_row::<S>(&row), Err);
    let (mut story, mut step) = match read {
        Ok(read) => read,
        Err(error) => return cx.mark_unreadable(&row, error).await,
    };
    let mut status = row.status;
    let mut why = row.error.clone();
    while status == Status::Running || status == Status::Unwinding {
        let transition = if status == Status::Running {
            pause::here(S::KIND, step.name(), pause::Moment::BeforeRun).await;
            let ran = match cx.take_turn_ahead(&story, step).await.and_then(|()| refuse_too_late::<S>(step, &cx)) {
                Err(error) => Err(Halt::Fail(error)),
                Ok(()) => story.run(step, &cx).await,
            };
            pause::here(S::KIND, step.name(), pause::Moment::AfterRun).await;
            let to = after_run(&story, step, ran);
            let sends = story.turn(to.1).filter(|_| to.0 == Status::Running);
            match cx.take_turn::<S>(&story, step, sends).await {
                Ok(Entered::AtOnce) => to,
                Ok(Entered::AfterWaiting) => continue,
                Err(error) => after_run(&story, step, Err(Halt::Fail(error))),
            }
        } else {
            pause::here(S::KIND, step.name(), pause::Moment::BeforeUndo).await;
            let undone = story.undo(step, &cx).await;
            pause::here(S::KIND, step.name(), pause::Moment::AfterUndo).await;
            after_undo(&story, step, why.take(), undone)
        };
        (status, step, why) = (transition.0, transition.1, transition.2);
        if !cx.save(&story, status, step, why.as_ref()).await {
            return;
        }
        cx.resumed = false;
        if status != Status::Running || story.turn(step).is_none() {
            cx.pass = None;
        }
    }
}

/// Status and step, and why it does not go on.
type At<S> = (Status, S, Option<Error>);

fn after_run<S: Story>(story: &S, step: S::Step, ran: Result<Next<S::Step>, Halt>) -> At<S::Step> {
    match ran {
        Ok(Next::On) => match after(story, step) {
            Some(next) => (Status::Running, next, None),
            None => (Status::Succeeded, step, None),
        },
        Ok(Next::Back(earlier)) => (Status::Running, earlier, None),
        Ok(Next::Done) => (Status::Succeeded, step, None),
        Err(Halt::Fail(error)) if S::LOOKING.contains(&step) => (Status::Failed, step, Some(error)),
        Err(Halt::Fail(error)) => (Status::Unwinding, step, Some(error)),
        Err(Halt::Stuck(error)) => (Status::Stuck, step, Some(error)),
    }
}

/// Between why an operation was undone and why that failed, of which only the last time is told.
const UNDOING_FAILED: &str = "; and undoing it failed: ";

fn after_undo<S: Story>(story: &S, step: S::Step, why: Option<Error>, undone: Result<()>) -> At<S::Step> {
    match undone {
        Ok(()) => match before(story, step) {
            Some(earlier) if !S::LOOKING.contains(&earlier) => (Status::Unwinding, earlier, why),
            _ if why.as_ref().is_some_and(|why| why.kind == Kind::Cancelled) => (Status::Cancelled, step, why),
            _ => (Status::Failed, step, why),
        },
        Err(error) => {
            let cause = why.as_ref().map(|why| why.message.split(UNDOING_FAILED).next().unwrap_or_default());
            let message = format!("{}{UNDOING_FAILED}{}", cause.unwrap_or("it failed"), error.message);
            (Status::Stuck, step, Some(Error { message, ..error }))
        }
    }
}

/// What has not begun by its deadline never does.
fn refuse_too_late<S: Story>(step: S::Step, cx: &Cx) -> Result<()> {
    if S::LOOKING.contains(&step) && cx.past_deadline() {
        return Err(cx.nothing_was_sent("its time had passed before it began"));
    }
    Ok(())
}

fn read_row<S: Story>(row: &OperationRow) -> Result<(S, S::Step)> {
    let unreadable =
        |what: String| Error::new(Kind::Store, format!("the row of operation {} cannot be read: {what}", row.id));
    let story = serde_json::from_str(&row.story).map_err(|error| unreadable(error.to_string()))?;
    let step = S::STEPS.iter().copied().find(|step| step.name() == row.step);
    Ok((story, step.ok_or_else(|| unreadable(format!("it has no step {:?}", row.step)))?))
}

/// The transition that brings a story to a step.
fn transition<S: Story>(story: &S, status: Status, step: S::Step, error: Option<&Error>) -> Result<Transition> {
    Ok(Transition {
        status,
        step: (step.name().to_owned(), step.words().to_owned()),
        story: to_json(story)?,
        volume_id: story.volume_id(),
        outcome: status.ended().then(|| story.outcome()),
        error: error.cloned(),
    })
}

fn to_json(story: &impl Serialize) -> Result<String> {
    serde_json::to_string(story)
        .map_err(|error| Error::new(Kind::Internal, format!("an operation cannot be saved: {error}")))
}

/// Calls the generic function of each kind's story.
macro_rules! with_story {
    ($kind:expr, $story:ident => $body:expr) => {
        match $kind {
            OperationKind::Create => {
                type $story = create::Create;
                $body
            }
            OperationKind::Attach => {
                type $story = attach::Attach;
                $body
            }
            OperationKind::Export => {
                type $story = export::Export;
                $body
            }
            OperationKind::Unexport => {
                type $story = unexport::Unexport;
                $body
            }
            OperationKind::Detach => {
                type $story = detach::Detach;
                $body
            }
            OperationKind::Move => {
                type $story = r#move::Move;
                $body
            }
            OperationKind::Reclaim => {
                type $story = reclaim::Reclaim;
                $body
            }
            OperationKind::Delete => {
                type $story = delete::Delete;
                $body
            }
            OperationKind::Resize => {
                type $story = resize::Resize;
                $body
            }
            OperationKind::SnapshotCreate => {
                type $story = snapshot::SnapshotCreate;
                $body
            }
            OperationKind::SnapshotRevert => {
                type $story = snapshot::SnapshotRevert;
                $body
            }
            OperationKind::SnapshotDelete => {
                type $story = snapshot::SnapshotDelete;
                $body
            }
            OperationKind::Recover => {
                type $story = recover::Recover;
                $body
            }
        }
    };
}

/// Walks a row of any kind.
async fn drive_any(row: OperationRow, cx: Cx) {
    with_story!(row.kind, S => Box::pin(drive::<S>(row, cx)).await)
}

/// The names of the steps in which a kind has changed nothing.
fn looking(kind: OperationKind) -> Vec<&'static str> {
    with_story!(kind, S => S::LOOKING.iter().map(|step| step.name()).collect())
}

/// The lane in which a row is that stands where it may have sent its job.
fn turn_of(row: &OperationRow) -> Option<Turn> {
    fn of<S: Story>(row: &OperationRow) -> Option<Turn> {
        let (story, step) = read_row::<S>(row).ok()?;
        story.turn(step).filter(|_| row.status == Status::Running)
    }
    with_story!(row.kind, S => of::<S>(row))
}

/// The transition that undoes a row which CloudStack was not asked about yet; none where it was.
fn turn_back(row: &OperationRow, why: &Error) -> Result<Option<Transition>> {
    fn of<S: Story>(row: &OperationRow, why: &Error) -> Result<Option<Transition>> {
        let (story, step) = read_row::<S>(row)?;
        let can = row.status == Status::Running && story.is_reversible(step);
        can.then(|| transition(&story, Status::Unwinding, step, Some(why))).transpose()
    }
    with_story!(row.kind, S => of::<S>(row, why))
}

/// The transition that does again, on a human's word, what a row only waits for.
fn again(row: &OperationRow) -> Result<Option<Transition>> {
    fn of<S: Story>(row: &OperationRow) -> Result<Option<Transition>> {
        let (mut story, step) = read_row::<S>(row)?;
        story.again(step, row.status).map(|back| transition(&story, Status::Running, back, None)).transpose()
    }
    with_story!(row.kind, S => of::<S>(row))
}

/// Every point of every journal, for the crash tests: kind and step.
pub fn journal_points() -> Vec<(OperationKind, &'static str)> {
    use OperationKind::{
        Attach, Create, Delete, Detach, Export, Move, Reclaim, Recover, Resize, SnapshotCreate, SnapshotDelete,
        SnapshotRevert, Unexport,
    };
    [
        Create,
        Attach,
        Export,
        Unexport,
        Resize,
        Detach,
        Move,
        Reclaim,
        Delete,
        Recover,
        SnapshotCreate,
        SnapshotRevert,
        SnapshotDelete,
    ]
    .into_iter()
    .flat_map(|kind| with_story!(kind, S => S::STEPS.iter().map(|step| (kind, step.name())).collect::<Vec<_>>()))
    .collect()
}
