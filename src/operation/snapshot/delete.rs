//! Snapshot delete: for ever. The volume, if it is still there, is not touched.

use serde::{Deserialize, Serialize};

use super::super::job::{End, Job, Sent};
use super::super::request::Draft;
use super::super::world::{Cx, World};
use super::super::{Halt, Next, Story, dry_run};
use super::{GENERIC, named, refuse_unfinished, subject};
use crate::api::{self, OperationKind};
use crate::cloudstack::Request;
use crate::error::{Error, Kind, Result};
use crate::model::{SnapshotRecord, VolumeId};
use crate::store::Outcome;

/// What a deletion has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct SnapshotDelete {
    snapshot: SnapshotRecord,
    job: Job,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Step {
    Check,
    Send,
    Await,
}

impl super::super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Send => "send",
            Step::Await => "await",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the snapshot",
            Step::Send => "asking CloudStack to delete the snapshot",
            Step::Await => "waiting for CloudStack to delete the snapshot",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(in super::super) async fn ask(world: &World, params: &api::SnapshotDelete) -> Result<Draft<SnapshotDelete>> {
    world.prove_this_vm().await?;
    let snapshot = named(world, &params.snapshot).await?;
    refuse_unfinished(&snapshot)?;
    let subject = subject(world, &snapshot)?;
    Ok(Draft { subject, ..Draft::of(SnapshotDelete { snapshot, job: Job::default(), changed: false }) })
}

fn is_gone(found: Option<&SnapshotRecord>) -> bool {
    found.is_none_or(|snapshot| snapshot.state == "Destroyed")
}

impl SnapshotDelete {
    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let id = self.snapshot.id;
        let found = cx.patiently(&self.doing(), || cx.world.cloud.snapshot(id)).await?;
        if is_gone(found.as_ref()) {
            return Ok(Next::Done);
        }
        found.as_ref().map_or(Ok(()), refuse_unfinished)?;
        self.job.choose(cx);
        Ok(Next::On)
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, id) = (self.doing(), self.snapshot.id);
        let sent = self
            .job
            .send(cx, &doing, |intent| async move { cx.world.cloud.delete_snapshot(&intent, id).await })
            .await?;
        match sent {
            Sent::Accepted(_) => Ok(Next::On),
            Sent::Refused(error) => Err(Halt::Fail(error.into_error(&doing))),
            Sent::Never => Ok(Next::Back(Step::Check)),
            Sent::Forgotten => self.judge(cx, None).await,
        }
    }

    async fn wait(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        match self.job.end(cx, &self.doing()).await {
            End::Succeeded(_) | End::Forgotten => self.judge(cx, None).await,
            End::Failed(error) => self.judge(cx, Some(error.hint(GENERIC))).await,
        }
    }

    /// The job has ended or is forgotten: the snapshot itself says whether it is gone.
    async fn judge(&mut self, cx: &Cx, error: Option<Error>) -> Result<Next<Step>, Halt> {
        let id = self.snapshot.id;
        let found = cx.persistently(|| cx.world.cloud.snapshot(id)).await;
        if is_gone(found.as_ref()) {
            self.changed = true;
            return Ok(Next::Done);
        }
        let found = || {
            let what = format!("{}: CloudStack's job has ended and it is still there", self.doing());
            Error::new(Kind::CloudstackRefused, what)
        };
        Err(Halt::Fail(error.unwrap_or_else(found)))
    }

    fn doing(&self) -> String {
        format!("deleting snapshot {}", self.snapshot.label())
    }
}

impl Story for SnapshotDelete {
    const KIND: OperationKind = OperationKind::SnapshotDelete;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::Check, Step::Send, Step::Await];
    const LOOKING: &'static [Step] = &[Step::Check];

    async fn plan(&self, _: &World) -> Result<Vec<String>> {
        Ok(vec![dry_run::job(&Request::delete_snapshot(self.snapshot.id))])
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => self.check(cx).await,
            Step::Send => self.send(cx).await,
            Step::Await => self.wait(cx).await,
        }
    }

    fn volume_id(&self) -> Option<VolumeId> {
        self.snapshot.volume_id
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, ..Outcome::default() }
    }
}
