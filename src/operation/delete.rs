//! Delete: recoverable, or for ever. A volume that was never made on storage goes at once: there is nothing to recover.

use serde::{Deserialize, Serialize};

use super::direct::until_done;
use super::dry_run;
use super::job::{End, Job, Sent, refuse_if_busy};
use super::request::{Draft, Subject};
use super::resolve::{self, Meaning, is_deleted};
use super::world::{Cx, World};
use super::{Halt, Next, Story};
use crate::api::{OperationKind, VolumeDelete};
use crate::cloudstack::Request;
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, VolumeRecord, printable};
use crate::store::Outcome;

/// What a delete has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Delete {
    volume: VolumeRecord,
    expunge: bool,
    job: Job,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Erase,
    Send,
    Await,
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Erase => "erase",
            Step::Send => "send",
            Step::Await => "await",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the volume",
            Step::Erase | Step::Send => "asking CloudStack to delete",
            Step::Await => "waiting for CloudStack to delete",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &VolumeDelete) -> Result<Draft<Delete>> {
    world.prove_this_vm().await?;
    let meaning = if params.expunge { Meaning::Deleted } else { Meaning::PerhapsDeleted };
    let volume = resolve::volume(world, &params.volume, meaning).await?;
    world.refuse_if_held(volume.id)?;
    let story = Delete { volume, expunge: params.expunge, job: Job::default(), changed: false };
    story.refuse_if_used(world, &story.volume)?;
    Ok(Draft { subject: Some(Subject::of(&story.volume)), ..Draft::of(story) })
}

impl Delete {
    /// `deleteVolume` only removes the row of a volume that was never made; `destroyVolume` refuses it (facts sheet, 4.5).
    fn erases(&self) -> bool {
        self.volume.never_created()
    }

    fn refuse_if_used(&self, world: &World, volume: &VolumeRecord) -> Result<()> {
        world.refuse_own_root(volume)?;
        if let Some(vm) = volume.vm_id {
            let name = volume.vm_name.as_deref().map(printable).unwrap_or_default();
            let from = if world.is_here(vm) { String::new() } else { format!(" --from {vm}") };
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "volume {} is attached to VM {name} ({vm}): it is not deleted; nothing was sent",
                    volume.label()
                ),
            )
            .hint(format!("`volctl detach {}{from}` first", volume.id)));
        }
        if let Some(export) = world.export_of(volume.id) {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "volume {} is exported as {}: it is not deleted; nothing was sent",
                    volume.label(),
                    export.name
                ),
            )
            .hint(format!("`volctl unexport {}` first", volume.id)));
        }
        Ok(())
    }

    fn is_done(&self, volume: Option<&VolumeRecord>) -> bool {
        match volume {
            None => true,
            Some(volume) if self.expunge || self.erases() => matches!(volume.state.as_str(), "Expunged" | "Expunging"),
            Some(volume) => is_deleted(volume),
        }
    }

    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let (doing, id) = (self.doing(), self.volume.id);
        let found = cx.patiently(&doing, || cx.world.look_up(id)).await?;
        if self.is_done(found.as_ref()) {
            return Ok(Next::Done);
        }
        if let Some(volume) = found {
            self.refuse_if_used(&cx.world, &volume)?;
            refuse_if_busy(&volume)?;
            self.volume = volume;
        }
        self.job.choose(cx);
        Ok(Next::On)
    }

    /// `deleteVolume` has no job: after a lost answer the volume itself says whether it is gone, and asking again is safe.
    async fn erase(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, id) = (self.doing(), self.volume.id);
        let is_done = |found: Option<&VolumeRecord>| match found {
            Some(volume) if !self.is_done(found) => self.refuse_if_used(&cx.world, volume).map(|()| false),
            _ => Ok(true),
        };
        until_done(cx, id, &doing, is_done, || cx.world.cloud.delete_volume(id)).await?;
        self.changed = true;
        Ok(Next::Done)
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, id, expunge) = (self.doing(), self.volume.id, self.expunge);
        let sent = self
            .job
            .send(cx, &doing, |intent| async move { cx.world.cloud.destroy_volume(&intent, id, expunge).await })
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
            End::Failed(error) => self.judge(cx, Some(error)).await,
        }
    }

    async fn judge(&mut self, cx: &Cx, error: Option<Error>) -> Result<Next<Step>, Halt> {
        let id = self.volume.id;
        let found = cx.persistently(|| cx.world.look_up(id)).await;
        if self.is_done(found.as_ref()) {
            self.changed = true;
            return Ok(Next::Done);
        }
        let found = || {
            Error::new(
                Kind::CloudstackRefused,
                format!("{}: CloudStack's job has ended and it is still there", self.doing()),
            )
        };
        Err(Halt::Fail(error.unwrap_or_else(found)))
    }

    fn doing(&self) -> String {
        format!("deleting volume {}", self.volume.label())
    }
}

impl Story for Delete {
    const KIND: OperationKind = OperationKind::Delete;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::Check, Step::Erase, Step::Send, Step::Await];
    const LOOKING: &'static [Step] = &[Step::Check];

    fn takes(&self, step: Step) -> bool {
        match step {
            Step::Check => true,
            Step::Erase => self.erases(),
            Step::Send | Step::Await => !self.erases(),
        }
    }

    async fn plan(&self, _: &World) -> Result<Vec<String>> {
        let id = self.volume.id;
        Ok(vec![match self.erases() {
            true => dry_run::call(&Request::delete_volume(id)),
            false => dry_run::job(&Request::destroy_volume(id, self.expunge)),
        }])
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => self.check(cx).await,
            Step::Erase => self.erase(cx).await,
            Step::Send => self.send(cx).await,
            Step::Await => self.wait(cx).await,
        }
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, ..Outcome::default() }
    }
}
