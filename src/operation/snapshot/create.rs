//! Snapshot create: ends when the snapshot is `BackedUp`.
//!
//! While CloudStack takes it the volume is `Snapshotting`; during the copy to secondary storage, which can be long, the
//! volume can be used again but is neither deleted nor resized (facts sheet, 4.8). Only a snapshot that is backed up can
//! be reverted to, so only then is it done.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::job::{End, Job, Sent, refuse_if_busy};
use super::super::lane::Turn;
use super::super::request::{Draft, Subject};
use super::super::resolve::{self, Meaning};
use super::super::world::{Backoff, Cx, World};
use super::super::{Halt, Next, Story, dry_run, tags};
use super::GENERIC;
use crate::api::{self, OperationKind};
use crate::cloudstack::{NewSnapshot, Request};
use crate::error::{Error, Kind, Result};
use crate::model::{SnapshotId, SnapshotRecord, VolumeId, VolumeRecord, printable};
use crate::store::Outcome;

/// The longest name, in UTF-16 units as CloudStack counts them (facts sheet, 1.2).
const LONGEST_NAME: usize = 255;

/// How often a snapshot that is being made is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often a snapshot that should be there, or whose job failed, is looked at before a human is asked.
const LOOKS: u32 = 10;

/// What the taking of a snapshot has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct SnapshotCreate {
    volume: VolumeRecord,
    new: NewSnapshot,
    job: Job,
    snapshot_id: Option<SnapshotId>,
    snapshot: Option<api::Snapshot>,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Step {
    Check,
    Send,
    Take,
    Copy,
}

impl super::super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Send => "send",
            Step::Take => "take",
            Step::Copy => "copy",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the volume",
            Step::Send => "asking CloudStack for a snapshot",
            Step::Take => "waiting for CloudStack to take the snapshot",
            Step::Copy => "waiting for the copy to secondary storage; the volume can be used, not resized or deleted",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(in super::super) async fn ask(world: &World, params: &api::SnapshotCreate) -> Result<Draft<SnapshotCreate>> {
    world.prove_this_vm().await?;
    tags::check(&params.tags)?;
    params.name.as_deref().map_or(Ok(()), check_name)?;
    let volume = resolve::volume(world, &params.volume, Meaning::Any).await?;
    refuse_state(&volume)?;
    let name = params.name.clone().unwrap_or_else(|| default_name(&volume));
    let new = NewSnapshot { volume_id: volume.id, name, tags: params.tags.clone() };
    let story = SnapshotCreate { volume, new, job: Job::default(), snapshot_id: None, snapshot: None, changed: false };
    let doing = format!("{}; nothing was sent", story.doing());
    let existing = world.cloud.snapshots(Some(story.volume.id)).await.map_err(|error| error.into_error(&doing))?;
    story.refuse_namesake(&existing)?;
    Ok(Draft { subject: Some(Subject::of(&story.volume)), vm_id: story.volume.vm_id, ..Draft::of(story) })
}

fn check_name(name: &str) -> Result<()> {
    let characters = name.encode_utf16().count();
    if name.trim().is_empty() || characters > LONGEST_NAME || name.chars().any(char::is_control) {
        let what = format!(
            "a snapshot's name has 1 to {LONGEST_NAME} characters and no control characters: {} does not do",
            printable(&name.chars().take(60).collect::<String>())
        );
        return Err(Error::new(Kind::Usage, what));
    }
    Ok(())
}

/// No other snapshot of the volume has it, so that it says what became of a request whose answer was lost.
fn default_name(volume: &VolumeRecord) -> String {
    let of: String = volume.name.chars().filter(|c| !c.is_control()).take(100).collect();
    format!("{of}-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ"))
}

fn refuse_state(volume: &VolumeRecord) -> Result<()> {
    if volume.state == "Ready" || (volume.job_id.is_some() && !volume.never_created()) {
        return Ok(());
    }
    let state = printable(&volume.state);
    let error = Error::new(
        Kind::Conflict,
        format!(
            "volume {} is in state {state}: only of a Ready one a snapshot is taken; nothing was sent",
            volume.label()
        ),
    );
    Err(match volume.never_created() {
        true => error.hint("it was never created on storage, and holds nothing"),
        false => error.hint("ask again when it is Ready"),
    })
}

impl SnapshotCreate {
    fn refuse_namesake(&self, existing: &[SnapshotRecord]) -> Result<()> {
        let Some(other) = existing.iter().find(|snapshot| snapshot.name == self.new.name) else { return Ok(()) };
        Err(Error::new(
            Kind::Conflict,
            format!("volume {} has a snapshot {} already; nothing was sent", self.volume.label(), other.label()),
        )
        .hint("choose another --name"))
    }

    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let (doing, id) = (self.doing(), self.volume.id);
        let Some(volume) = cx.patiently(&doing, || cx.world.look_up(id)).await? else {
            let what = format!("volume {} is no longer there", self.volume.label());
            return Err(Halt::Fail(Error::new(Kind::NotFound, what)));
        };
        refuse_if_busy(&volume)?;
        refuse_state(&volume)?;
        let existing = cx.patiently(&doing, || cx.world.cloud.snapshots(Some(id))).await?;
        self.refuse_namesake(&existing)?;
        self.volume = volume;
        self.job.choose(cx);
        Ok(Next::On)
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, new) = (self.doing(), self.new.clone());
        let sent = self
            .job
            .send(cx, &doing, |intent| async move { cx.world.cloud.create_snapshot(&intent, &new).await })
            .await?;
        match sent {
            Sent::Accepted(accepted) => {
                self.changed = true;
                self.snapshot_id = match (accepted.snapshot_id, self.job.id()) {
                    (None, Some(job)) => cx.persistently(|| cx.world.cloud.snapshot_of_job(job)).await,
                    (told, _) => told,
                };
                Ok(Next::On)
            }
            Sent::Refused(error) => Err(Halt::Fail(error.into_error(&doing))),
            Sent::Never => Ok(Next::Back(Step::Check)),
            Sent::Forgotten => self.adopt(cx).await,
        }
    }

    /// Too long ago for CloudStack to say: when it was asked, no snapshot of the volume had this name.
    async fn adopt(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let id = self.volume.id;
        let existing = cx.persistently(|| cx.world.cloud.snapshots(Some(id))).await;
        self.snapshot_id = existing.iter().find(|snapshot| snapshot.name == self.new.name).map(|snapshot| snapshot.id);
        if self.snapshot_id.is_some() {
            self.changed = true;
            return Ok(Next::On);
        }
        let what = format!("{}: CloudStack has no such snapshot; the request never arrived", self.doing());
        Err(Halt::Fail(Error::new(Kind::CloudstackUnreachable, what).hint("ask again if it is still wanted")))
    }

    async fn look(&self, cx: &Cx) -> Option<SnapshotRecord> {
        let id = self.snapshot_id?;
        cx.persistently(|| cx.world.cloud.snapshot(id)).await
    }

    /// The job goes on with the copy: the snapshot itself says when it was taken.
    async fn take(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        loop {
            let is_taken = |snapshot: &SnapshotRecord| !matches!(snapshot.state.as_str(), "Allocated" | "Creating");
            if self.job.has_ended(cx).await || self.look(cx).await.is_some_and(|snapshot| is_taken(&snapshot)) {
                return Ok(Next::On);
            }
            Backoff::default().wait(Some(LOOK_AGAIN)).await;
        }
    }

    async fn copy(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let failed = match self.job.end(cx, &self.doing()).await {
            End::Succeeded(result) => {
                let told = result["snapshot"]["id"].as_str().and_then(|id| id.parse().ok());
                self.snapshot_id = told.or(self.snapshot_id);
                None
            }
            End::Forgotten => None,
            End::Failed(error) => Some(error),
        };
        self.judge(cx, failed).await
    }

    /// The job has ended or is forgotten: the snapshot itself says how it is.
    async fn judge(&mut self, cx: &Cx, failed: Option<Error>) -> Result<Next<Step>, Halt> {
        let mut looks = 0;
        loop {
            let found = self.look(cx).await;
            match &found {
                Some(snapshot) if snapshot.state == "BackedUp" => {
                    self.snapshot = Some(cx.world.shown_snapshot(snapshot.clone())?);
                    return Ok(Next::Done);
                }
                // CloudStack was told to copy in the background.
                Some(snapshot) if snapshot.is_unfinished() && failed.is_none() => {}
                Some(snapshot) if snapshot.is_unfinished() && looks < LOOKS => looks += 1,
                Some(snapshot) if snapshot.is_unfinished() => {
                    return Err(Halt::Stuck(self.failure(failed, Some(snapshot))));
                }
                _ => {
                    self.changed = false;
                    return Err(Halt::Fail(self.failure(failed, found.as_ref())));
                }
            }
            Backoff::default().wait(Some(LOOK_AGAIN)).await;
        }
    }

    fn failure(&self, failed: Option<Error>, left: Option<&SnapshotRecord>) -> Error {
        let error = failed.unwrap_or_else(|| {
            let what = format!("{}: CloudStack's job has ended and it has no such snapshot", self.doing());
            Error::new(Kind::CloudstackRefused, what)
        });
        match left {
            None => error.hint(GENERIC),
            Some(left) => {
                let first = if left.is_unfinished() { "once that has changed " } else { "" };
                error.hint(format!(
                    "snapshot {} is left in state {}: {first}`volctl snapshot delete {}` deletes it; {GENERIC}",
                    left.label(),
                    printable(&left.state),
                    left.id
                ))
            }
        }
    }

    fn doing(&self) -> String {
        format!("taking snapshot {} of volume {}", printable(&self.new.name), self.volume.label())
    }
}

impl Story for SnapshotCreate {
    const KIND: OperationKind = OperationKind::SnapshotCreate;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::Check, Step::Send, Step::Take, Step::Copy];
    const LOOKING: &'static [Step] = &[Step::Check];

    async fn plan(&self, _: &World) -> Result<Vec<String>> {
        Ok(vec![
            dry_run::job(&Request::create_snapshot(&self.new)),
            "wait for the copy to secondary storage".to_owned(),
        ])
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => self.check(cx).await,
            Step::Send => self.send(cx).await,
            Step::Take => self.take(cx).await,
            Step::Copy => self.copy(cx).await,
        }
    }

    /// The copy to secondary storage keeps no other job of the VM waiting.
    fn turn(&self, step: Step) -> Option<Turn> {
        let vm = self.volume.vm_id.filter(|_| matches!(step, Step::Send | Step::Take))?;
        Some(Turn::of(vm, self.volume.vm_name.as_deref()))
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, snapshot: self.snapshot.clone(), ..Outcome::default() }
    }
}
