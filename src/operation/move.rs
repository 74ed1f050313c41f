//! Move: the forward cut-over of a volume from this VM to another one, as one operation under one lock: its export is
//! ended, it is detached here safely, and attached there.
//!
//! It is a [`Detach`] here, where asked a second one of the root disk that makes way there, and an [`Attach`] there, in
//! that order, so that the other VM is as it was until the volume has left this one. All of it that can be refused is
//! refused before the first of them begins. Once the volume has left this VM nothing is undone: what fails then says
//! where the volume is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attach::{self, Attach};
use super::detach::{self, Detach};
use super::lane::Turn;
use super::place::{Place, Target, refuse_unfit, whereabouts};
use super::request::{Draft, Subject};
use super::resolve::{self, Meaning, is_deleted};
use super::withdraw::Terms;
use super::world::{Cx, World};
use super::{Halt, Next, Story};
use crate::api::{NamedVolume, OperationKind, Status, VolumeMove};
use crate::error::{Error, Kind, Result};
use crate::model::{VmRecord, VolumeId, VolumeRecord, printable};
use crate::store::{OperationRow, Outcome};

/// What a move has learned.
#[derive(Serialize, Deserialize)]
pub(super) struct Move {
    volume: VolumeRecord,
    to: VmRecord,
    place: Place,
    swap_root: bool,
    detach: Detach,
    /// Something of the volume is here: its device, its export, or CloudStack says so.
    leaves: bool,
    /// The root disk that makes way.
    root: Option<Root>,
    attach: Attach,
}

/// The root disk of the other VM, and its leave.
#[derive(Serialize, Deserialize)]
struct Root {
    disk: Subject,
    detach: Detach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Detach(detach::Step),
    Root(detach::Step),
    Attach(attach::Step),
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Detach(step) => step.name_in_another(),
            Step::Root(detach::Step::Look) => "root_look",
            Step::Root(detach::Step::Send) => "root_send",
            Step::Root(_) => "root_await",
            Step::Attach(step) => step.name_in_another(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the volume and where it goes",
            Step::Detach(step) => step.words(),
            Step::Root(detach::Step::Look) => "looking at the root disk that makes way",
            Step::Root(detach::Step::Send) => "asking CloudStack to detach the root disk that makes way",
            Step::Root(_) => "waiting for CloudStack to detach the root disk that makes way",
            Step::Attach(step) => step.words(),
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &VolumeMove) -> Result<Draft<Move>> {
    if params.swap_root && !params.root {
        return Err(Error::new(Kind::Usage, "swap_root makes way for a root disk: ask for root as well"));
    }
    let this = world.this_vm_record().await?;
    let volume = resolve::volume(world, &params.volume, Meaning::Exact).await?;
    world.refuse_if_held(volume.id)?;
    world.refuse_own_root(&volume)?;
    let to = resolve::vm(world, &params.to).await?;
    if to.id == this.id {
        return Err(Error::new(
            Kind::Conflict,
            format!("volume {} cannot be moved to VM {}: that is this VM", volume.label(), to.label()),
        )
        .hint("`volctl attach` attaches here, `volctl reclaim` brings back from another VM"));
    }
    let terms = Terms { drain_seconds: params.drain_seconds, force: params.force };
    let place = Place::of(params.root);
    let mut story = Move {
        detach: Detach::new(volume.clone(), &this, true, terms),
        attach: Attach::later(volume.clone(), to.clone(), false, place, None),
        leaves: false,
        root: None,
        swap_root: params.swap_root,
        volume,
        to,
        place,
    };
    if !story.is_there(&story.volume)? {
        detach::refuse_wrong_vm(&story.volume, &this)?;
        let target = Target::look_closely(&world.cloud, &story.to).await;
        story.aim(
            world,
            &target.map_err(|error| error.into_error(&format!("{}; nothing was sent", story.looking_at_target())))?,
        )?;
    }
    let supersedes = detach::waiting_for_device(world, story.volume.id)?;
    Ok(Draft {
        subject: Some(Subject::of(&story.volume)),
        vm_id: Some(story.to.id),
        supersedes,
        drain: Duration::from_secs(params.drain_seconds.unwrap_or_default()),
        takes: (story.volume.vm_id != Some(story.to.id)).then_some(place),
        ..Draft::of(story)
    })
}

impl Move {
    /// Whether the volume is where it is to go; there as something else it is in the way of itself.
    fn is_there(&self, volume: &VolumeRecord) -> Result<bool> {
        self.attach.refuse_as_other_kind(volume)?;
        Ok(volume.vm_id == Some(self.to.id))
    }

    /// Refuses what could not be attached to the VM, and finds the root disk that makes way.
    fn aim(&mut self, world: &World, target: &Target) -> Result<()> {
        if is_deleted(&self.volume) {
            let what = format!("volume {} is deleted (state {})", self.volume.label(), printable(&self.volume.state));
            return Err(Error::new(Kind::Conflict, what));
        }
        self.root = match target.root().filter(|_| self.swap_root) {
            None => {
                target
                    .refuse(&self.volume, self.place, &world.config)
                    .map_err(|error| self.with_swap(target, error))?;
                None
            }
            Some(root) => {
                refuse_unfit(&self.volume, &target.vm, self.place)?;
                target.refuse_snapshots()?;
                world.refuse_if_held(root.id)?;
                let terms = Terms { drain_seconds: None, force: false };
                let detach = Detach::new(root.clone(), &target.vm, false, terms);
                Some(Root { disk: Subject::of(root), detach })
            }
        };
        Ok(())
    }

    fn with_swap(&self, target: &Target, error: Error) -> Error {
        let in_the_way = self.place == Place::Root && target.vm.state == "Stopped" && target.root().is_some();
        if in_the_way { error.hint("--swap-root detaches that one first, and deletes nothing") } else { error }
    }

    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, id) = (format!("looking at volume {}", self.volume.label()), self.volume.id);
        let found = cx.patiently(&doing, || cx.world.look_up(id)).await?;
        self.volume = found
            .ok_or_else(|| Error::new(Kind::NotFound, format!("volume {} is no longer there", self.volume.label())))?;
        if self.is_there(&self.volume)? {
            return Ok(Next::Done);
        }
        let to = &self.to;
        let target = cx.patiently(&self.looking_at_target(), || Target::look_closely(&cx.world.cloud, to)).await?;
        self.aim(&cx.world, &target)?;
        if let Some(root) = target.root().filter(|_| self.root.is_some()) {
            refuse_busy(root)?;
            refuse_in_an_operation(root, cx.stored(|store| store.displace(cx.row.id, root.id)).await)?;
        }
        refuse_busy(&self.volume)?;
        self.leaves = matches!(self.detach.run(detach::Step::Check, cx).await?, Next::On);
        Ok(Next::On)
    }

    /// What comes after another part has changed something is never too late.
    fn complete(&mut self) {
        let has_left = self.detach.has_detached();
        if let Some(root) = self.root.as_mut().filter(|_| has_left) {
            root.detach.complete();
        }
        if has_left || self.root.as_ref().is_some_and(|root| root.detach.has_detached()) {
            self.attach.complete();
        }
    }

    /// Says where the volume is now, where something was changed already, and how to go on from there.
    async fn stranded(&self, cx: &Cx, error: Error) -> Error {
        let freed = self.root.as_ref().filter(|root| root.detach.has_detached()).map(|root| &root.disk);
        let (volume, to) = (self.volume.label(), self.to.label());
        let mut stands = Vec::new();
        let mut ways = Vec::from_iter(error.hint.clone());
        if self.detach.has_detached() {
            stands.push(format!("volume {volume} has left this VM, its export with it"));
            ways.push(format!("`volctl attach {}` brings it back here", self.volume.id));
        }
        if let Some(root) = freed {
            stands.push(format!("volume {}, the root disk of VM {to} until then, is detached and kept", root.label()));
            ways.push(format!("`volctl attach {} --vm {} --root` puts that one back", root.id, self.to.id));
        }
        if stands.is_empty() {
            return error;
        }
        let place = whereabouts(cx, self.volume.id).await;
        error.doing(format!("{}; it is now {place}", stands.join("; "))).hint(ways.join("; "))
    }

    fn looking_at_target(&self) -> String {
        format!("looking at VM {}", self.to.label())
    }
}

/// Refuses a volume that a job is at work on.
fn refuse_busy(volume: &VolumeRecord) -> Result<()> {
    match volume.job_id {
        None => Ok(()),
        Some(job) => Err(Error::new(
            Kind::Busy,
            format!("volume {} is busy with CloudStack job {job}; nothing was sent", volume.label()),
        )),
    }
}

/// Refuses a volume that another operation has.
fn refuse_in_an_operation(volume: &VolumeRecord, other: Option<OperationRow>) -> Result<()> {
    match other {
        None => Ok(()),
        Some(row) => Err(Error::new(
            Kind::Busy,
            format!("volume {} is busy with operation {}; nothing was sent", volume.label(), row.id),
        )
        .hint(format!("`volctl ops wait {}`", row.id))),
    }
}

impl Story for Move {
    const KIND: OperationKind = OperationKind::Move;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::Check,
        Step::Detach(detach::Step::Withdraw),
        Step::Detach(detach::Step::Hold),
        Step::Detach(detach::Step::Look),
        Step::Detach(detach::Step::Send),
        Step::Detach(detach::Step::Await),
        Step::Detach(detach::Step::Gone),
        Step::Detach(detach::Step::Forget),
        Step::Root(detach::Step::Look),
        Step::Root(detach::Step::Send),
        Step::Root(detach::Step::Await),
        Step::Attach(attach::Step::Check),
        Step::Attach(attach::Step::Send),
        Step::Attach(attach::Step::Await),
    ];
    const LOOKING: &'static [Step] = &[Step::Check];

    fn is_reversible(&self, step: Step) -> bool {
        match step {
            Step::Detach(step) => self.detach.is_reversible(step),
            Step::Root(detach::Step::Look) => self.root.as_ref().is_some_and(|root| !root.detach.completes()),
            Step::Attach(attach::Step::Check) => !self.attach.completes(),
            _ => false,
        }
    }

    fn takes(&self, step: Step) -> bool {
        match step {
            Step::Check => true,
            Step::Detach(step) => self.leaves && self.detach.takes(step),
            Step::Root(step) => self.root.as_ref().is_some_and(|root| root.detach.takes(step)),
            Step::Attach(step) => self.attach.takes(step),
        }
    }

    async fn plan(&self, world: &World) -> Result<Vec<String>> {
        let mut plan = if self.leaves { self.detach.plan(world).await? } else { Vec::new() };
        if let Some(root) = &self.root {
            let (disk, vm) = (root.disk.label(), self.to.label());
            let named = |step| format!("{step}: volume {disk}, the present root disk of VM {vm}, which is kept");
            plan.extend(root.detach.plan(world).await?.into_iter().map(named));
        }
        plan.extend(self.attach.plan(world).await?);
        Ok(plan)
    }

    fn turn(&self, step: Step) -> Option<Turn> {
        match (step, &self.root) {
            (Step::Detach(step), _) => self.detach.turn(step),
            (Step::Root(step), Some(root)) => root.detach.turn(step),
            (Step::Attach(step), _) => self.attach.turn(step),
            _ => None,
        }
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.complete();
        let ran = match (step, &mut self.root) {
            (Step::Check, _) => return self.check(cx).await,
            (Step::Detach(step), _) => self.detach.run(step, cx).await.map(|next| next.of_part(Step::Detach)),
            (Step::Root(step), Some(root)) => root.detach.run(step, cx).await.map(|next| next.of_part(Step::Root)),
            (Step::Root(_), None) => Ok(Next::On),
            (Step::Attach(step), _) => self.attach.run(step, cx).await.map(|next| next.of_part(Step::Attach)),
        };
        match ran {
            Err(Halt::Fail(error)) => Err(Halt::Fail(self.stranded(cx, error).await)),
            Err(Halt::Stuck(error)) => Err(Halt::Stuck(self.stranded(cx, error).await)),
            ran => ran,
        }
    }

    async fn undo(&mut self, step: Step, cx: &Cx) -> Result<()> {
        match step {
            Step::Detach(step) => self.detach.undo(step, cx).await,
            _ => Ok(()),
        }
    }

    fn again(&mut self, step: Step, status: Status) -> Option<Step> {
        match (step, &mut self.root) {
            (Step::Detach(step), _) => self.detach.again(step, status).map(Step::Detach),
            (Step::Root(step), Some(root)) => root.detach.again(step, status).map(Step::Root),
            _ => None,
        }
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        let left = self.detach.outcome();
        let freed = self.root.as_ref().filter(|root| root.detach.has_detached()).map(|root| &root.disk);
        let note = |root: &Subject| {
            format!(
                "volume {} was the root disk of VM {}: it is detached now, and nothing of it was deleted",
                root.label(),
                self.to.label()
            )
        };
        Outcome {
            changed: left.changed || freed.is_some() || self.attach.outcome().changed,
            notes: freed.map(note).into_iter().collect(),
            departure: left.departure,
            swapped_root: freed.map(|root| NamedVolume { id: root.id, name: root.name.clone() }),
            ..Outcome::default()
        }
    }
}
