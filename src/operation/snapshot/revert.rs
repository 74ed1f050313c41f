//! Snapshot revert: a volume has again what it had when the snapshot was taken, its size too.
//!
//! What was written since is lost. So it must be nobody's at that moment: not exported, not held, without a disk in this
//! kernel, detached or on a stopped VM. Of CloudStack's job nothing but its end can be seen afterwards: where that is not
//! known, neither is what the volume holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::job::{End, Job, Sent, refuse_if_busy};
use super::super::place::{refuse_vm_snapshots, vm_snapshots};
use super::super::request::Draft;
use super::super::world::{Backoff, Cx, World};
use super::super::{Halt, Next, Story, dry_run};
use super::{GENERIC, named, refuse_unfinished, subject};
use crate::api::{self, OperationKind};
use crate::cloudstack::Request;
use crate::error::{Error, Kind, Result};
use crate::model::{SnapshotRecord, VolumeId, VolumeRecord, format_size, printable};
use crate::store::Outcome;

/// What a revert has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct SnapshotRevert {
    snapshot: SnapshotRecord,
    volume: VolumeRecord,
    job: Job,
    changed: bool,
    notes: Vec<String>,
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
            Step::Check => "looking at the snapshot and its volume",
            Step::Send => "asking CloudStack to revert",
            Step::Await => "waiting for CloudStack to revert",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(in super::super) async fn ask(world: &World, params: &api::SnapshotRevert) -> Result<Draft<SnapshotRevert>> {
    world.prove_this_vm().await?;
    let snapshot = named(world, &params.snapshot).await?;
    refuse_unusable(&snapshot)?;
    let gone = || {
        Error::new(
            Kind::Conflict,
            format!("the volume of snapshot {} is no longer there; nothing was sent", snapshot.label()),
        )
        .hint("CloudStack can create another volume from the snapshot")
    };
    let id = snapshot.volume_id.ok_or_else(gone)?;
    let doing = format!("looking up the volume of snapshot {}; nothing was sent", snapshot.label());
    let volume = world.look_up(id).await.map_err(|error| error.into_error(&doing))?.ok_or_else(gone)?;
    world.refuse_if_held(volume.id)?;
    refuse_used(world, &volume).await?;
    let notes = size_note(&snapshot, &volume).into_iter().collect();
    let (subject, vm_id) = (subject(world, &snapshot)?, volume.vm_id);
    let story = SnapshotRevert { snapshot, volume, job: Job::default(), changed: false, notes };
    Ok(Draft { subject, vm_id, ..Draft::of(story) })
}

fn refuse_unusable(snapshot: &SnapshotRecord) -> Result<()> {
    refuse_unfinished(snapshot)?;
    if snapshot.state == "BackedUp" {
        return Ok(());
    }
    let state = printable(&snapshot.state);
    Err(Error::new(Kind::Conflict, format!("snapshot {} is in state {state}; nothing was sent", snapshot.label())))
}

fn size_note(snapshot: &SnapshotRecord, volume: &VolumeRecord) -> Option<String> {
    let (then, now) = (snapshot.size_bytes, volume.size_bytes);
    (then != 0 && then != now).then(|| format!("its size goes back from {} to {}", format_size(now), format_size(then)))
}

/// Refuses a volume that somebody may be using.
async fn refuse_used(world: &World, volume: &VolumeRecord) -> Result<()> {
    world.refuse_own_root(volume)?;
    let conflict = |what: String| {
        Error::new(Kind::Conflict, format!("volume {} is not reverted: {what}; nothing was sent", volume.label()))
    };
    if let Some(export) = world.export_of(volume.id) {
        return Err(conflict(format!("it is exported as {}", printable(&export.name)))
            .hint(format!("`volctl unexport {}` first", volume.id)));
    }
    if let Some(id) = volume.vm_id {
        refuse_vm(world, volume, id).await?;
    } else if !world.devices.wait_gone(&volume.id.serial(), Some(Instant::now())).await? {
        return Err(conflict("it is detached, but this kernel still has its disk".to_owned())
            .hint("`volctl sync` shows what differs"));
    }
    if volume.state != "Ready" && volume.job_id.is_none() {
        return Err(conflict(format!("it is in state {}", printable(&volume.state))));
    }
    Ok(())
}

/// CloudStack reverts a volume that is attached only where its VM is stopped and has no VM snapshots.
async fn refuse_vm(world: &World, volume: &VolumeRecord, id: crate::model::VmId) -> Result<()> {
    let doing = format!("looking at the VM of volume {}; nothing was sent", volume.label());
    let vm = world.cloud.vm(id).await.map_err(|error| error.into_error(&doing))?;
    let (name, state) = match &vm {
        Some(vm) => (vm.label(), vm.state.as_str()),
        None => (id.to_string(), "unknown"),
    };
    let conflict = |what: String| {
        Error::new(Kind::Conflict, format!("volume {} is not reverted: {what}; nothing was sent", volume.label()))
    };
    if state != "Stopped" {
        let from = if world.is_here(id) { String::new() } else { format!(" --from {id}") };
        return Err(conflict(format!("it is attached to VM {name}, which is {}", printable(state)))
            .hint(format!("`volctl detach {}{from}` first, or stop that VM", volume.id)));
    }
    let forbidden = format!("does not revert volume {}", volume.label());
    refuse_vm_snapshots(&name, &vm_snapshots(&world.cloud, id).await, &forbidden)
}

impl SnapshotRevert {
    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let (doing, id, snapshot) = (self.doing(), self.volume.id, self.snapshot.id);
        let found = cx.patiently(&doing, || cx.world.cloud.snapshot(snapshot)).await?;
        let gone = |what: String| Halt::Fail(Error::new(Kind::NotFound, format!("{what} is no longer there")));
        self.snapshot = found.ok_or_else(|| gone(format!("snapshot {}", self.snapshot.label())))?;
        refuse_unusable(&self.snapshot)?;
        let found = cx.patiently(&doing, || cx.world.look_up(id)).await?;
        self.volume = found.ok_or_else(|| gone(format!("volume {}", self.volume.label())))?;
        refuse_used(&cx.world, &self.volume).await?;
        refuse_if_busy(&self.volume)?;
        self.job.choose(cx);
        Ok(Next::On)
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, id) = (self.doing(), self.snapshot.id);
        let sent = self
            .job
            .send(cx, &doing, |intent| async move { cx.world.cloud.revert_snapshot(&intent, id).await })
            .await?;
        match sent {
            Sent::Accepted(_) => Ok(Next::On),
            Sent::Refused(error) => Err(Halt::Fail(error.into_error(&doing))),
            Sent::Never => Ok(Next::Back(Step::Check)),
            Sent::Forgotten => Err(self.unknown()),
        }
    }

    async fn wait(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let ended = self.job.end(cx, &self.doing()).await;
        self.settle(cx).await;
        match ended {
            End::Succeeded(_) => {
                self.changed = true;
                Ok(Next::Done)
            }
            End::Forgotten => Err(self.unknown()),
            // Without a text it was cut off with its management server (facts sheet, 2.1).
            End::Failed(error) if error.cloudstack.as_ref().is_none_or(|fault| fault.text.is_none()) => {
                Err(Halt::Stuck(error.doing("CloudStack broke the revert off, and how far it got is not known")))
            }
            End::Failed(error) => Err(Halt::Fail(error.hint(GENERIC))),
        }
    }

    /// The volume as it is now goes into the store.
    async fn settle(&self, cx: &Cx) {
        let id = self.volume.id;
        while cx.persistently(|| cx.world.look_up(id)).await.is_some_and(|now| now.state == "RevertSnapshotting") {
            Backoff::default().wait(Some(Duration::from_secs(1))).await;
        }
    }

    fn unknown(&self) -> Halt {
        let what = format!("{}: CloudStack no longer knows whether it was done", self.doing());
        Halt::Stuck(Error::new(Kind::Stuck, what).hint("look at what the volume holds before it is used"))
    }

    fn doing(&self) -> String {
        format!("reverting volume {} to snapshot {}", self.volume.label(), self.snapshot.label())
    }
}

impl Story for SnapshotRevert {
    const KIND: OperationKind = OperationKind::SnapshotRevert;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::Check, Step::Send, Step::Await];
    const LOOKING: &'static [Step] = &[Step::Check];

    async fn plan(&self, _: &World) -> Result<Vec<String>> {
        Ok(vec![dry_run::job(&Request::revert_snapshot(self.snapshot.id))])
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => self.check(cx).await,
            Step::Send => self.send(cx).await,
            Step::Await => self.wait(cx).await,
        }
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, notes: self.notes.clone(), ..Outcome::default() }
    }
}
