//! Reclaim: a volume comes back from another VM to this one, with its former export: that VM is stopped, the volume
//! detached there, attached here and exported, and where asked the VM is destroyed, once this kernel has the disk.
//!
//! Each part looks first whether it is done already, so that it can be run again from wherever it stopped, by a restart or
//! by whoever asks again. Nothing is undone: what fails says where the volume is.

use serde::{Deserialize, Serialize};

use super::attach::{self, Attach};
use super::detach::{self, Detach};
use super::lane::Turn;
use super::place::{Place, Target, is_root_disk, takes_roots, whereabouts};
use super::request::{Draft, Subject};
use super::resolve::{self, Meaning, is_deleted};
use super::share::Share;
use super::vm_change::{self, VmChange, Wanted};
use super::withdraw::Terms;
use super::world::{Cx, World};
use super::{Halt, Next, Story};
use crate::api::{OperationKind, Status, VolumeReclaim};
use crate::cloudstack::CallError;
use crate::error::{Error, Kind, Result};
use crate::model::{VmRecord, VolumeId, VolumeRecord, VolumeType, printable};
use crate::store::{OperationRow, Outcome};

/// What a reclaim has learned.
#[derive(Serialize, Deserialize)]
pub(super) struct Reclaim {
    volume: VolumeRecord,
    from: VmRecord,
    /// This VM.
    to: VmRecord,
    /// How the volume was exported here before.
    share: Option<Share>,
    force_stop: bool,
    /// CloudStack had it attached to that VM when this began.
    is_there: bool,
    stop: VmChange,
    detach: Detach,
    attach: Attach,
    destroy: Option<VmChange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Stop(vm_change::Step),
    Detach(detach::Step),
    Attach(attach::Step),
    Destroy(vm_change::Step),
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Stop(vm_change::Step::Look) => "stop_look",
            Step::Stop(vm_change::Step::Send) => "stop_send",
            Step::Stop(vm_change::Step::Await) => "stop_await",
            Step::Detach(step) => step.name_in_another(),
            Step::Attach(step) => step.name_in_another(),
            Step::Destroy(vm_change::Step::Look) => "destroy_look",
            Step::Destroy(vm_change::Step::Send) => "destroy_send",
            Step::Destroy(vm_change::Step::Await) => "destroy_await",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the volume and both VMs",
            Step::Stop(vm_change::Step::Look) => "looking whether the VM runs",
            Step::Stop(vm_change::Step::Send) => "asking CloudStack to stop the VM",
            Step::Stop(vm_change::Step::Await) => "waiting for the VM to stop",
            Step::Detach(step) => step.words(),
            Step::Attach(step) => step.words(),
            Step::Destroy(vm_change::Step::Look) => "looking at what the VM still has",
            Step::Destroy(vm_change::Step::Send) => "asking CloudStack to destroy the VM",
            Step::Destroy(vm_change::Step::Await) => "waiting for CloudStack to destroy the VM",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &VolumeReclaim) -> Result<Draft<Reclaim>> {
    let to = world.this_vm_record().await?;
    let volume = resolve::volume(world, &params.volume, Meaning::Exact).await?;
    world.refuse_if_held(volume.id)?;
    world.refuse_own_root(&volume)?;
    let from = vm_or_what_it_was(world, &volume, &params.from).await?;
    if from.id == to.id {
        return Err(Error::new(
            Kind::Conflict,
            format!("volume {} cannot be reclaimed from VM {}: that is this VM", volume.label(), from.label()),
        ));
    }
    refuse_other_name(&from, params.destroy_vm.as_deref())?;
    let share = former_share(world, volume.id)?;
    let mut story = Reclaim {
        stop: VmChange::new(from.clone(), Wanted::Stopped),
        destroy: params.destroy_vm.as_ref().map(|_| VmChange::new(from.clone(), Wanted::Destroyed)),
        detach: elsewhere(&volume, &from),
        attach: Attach::later(volume.clone(), to.clone(), true, Place::Data, share.clone()),
        force_stop: params.force_stop,
        is_there: false,
        share,
        volume,
        from,
        to,
    };
    let looked = Both::look(world, &story).await;
    let both = looked.map_err(|error| error.into_error(&format!("{}; nothing was sent", story.looking())))?;
    story.aim(world, &both)?;
    Ok(Draft { subject: Some(Subject::of(&story.volume)), vm_id: Some(story.from.id), ..Draft::of(story) })
}

/// The VM that a word means. One that a reclaim of this volume has destroyed before may not be shown any more.
async fn vm_or_what_it_was(world: &World, volume: &VolumeRecord, word: &str) -> Result<VmRecord> {
    let error = match resolve::vm(world, word).await {
        Err(error) if error.kind == Kind::NotFound => error,
        found => return found,
    };
    let before = world.store.operations_of(volume.id)?.into_iter().filter(|row| row.kind == OperationKind::Reclaim);
    let mut stories = before.filter_map(|row| serde_json::from_str::<Reclaim>(&row.story).ok());
    let same = stories.find(|story| story.from.name == word || story.from.id.to_string() == word.to_lowercase());
    same.map(|story| story.from).ok_or(error)
}

/// A VM is destroyed only where whoever asks has repeated its name.
fn refuse_other_name(vm: &VmRecord, repeated: Option<&str>) -> Result<()> {
    match repeated {
        Some(name) if name != vm.name => Err(Error::new(
            Kind::Usage,
            format!("{} is not the name of VM {}: nothing was sent", printable(name), vm.label()),
        )
        .hint("to have it destroyed, repeat its name")),
        _ => Ok(()),
    }
}

/// A VM that CloudStack will not destroy is not stopped for it either.
fn refuse_protected(vm: &VmRecord) -> Result<()> {
    if !vm.is_protected || vm.state == "Destroyed" {
        return Ok(());
    }
    let what = format!("VM {} is not destroyed: it has delete protection", vm.label());
    Err(Error::new(Kind::Conflict, what).hint("leave --destroy-vm away, or end its protection in CloudStack first"))
}

/// How a volume is exported here, or was before.
fn former_share(world: &World, volume: VolumeId) -> Result<Option<Share>> {
    if let Some(wish) = world.store.wish_of(volume)? {
        return Ok(Some(Share::like(wish.name, wish.read_only, wish.shared, wish.access)));
    }
    let former = world.store.former_export(volume)?;
    Ok(former.map(|former| Share::like(former.name, former.read_only, former.shared, former.access)))
}

fn elsewhere(volume: &VolumeRecord, vm: &VmRecord) -> Detach {
    Detach::new(volume.clone(), vm, false, Terms { drain_seconds: None, force: false })
}

/// Both VMs, as they are looked at before anything is sent.
struct Both {
    from: Target,
    to: Target,
}

impl Both {
    async fn look(world: &World, story: &Reclaim) -> Result<Self, CallError> {
        let from = Target::look_closely(&world.cloud, &story.from).await?;
        Ok(Self { from, to: Target::look_closely(&world.cloud, &story.to).await? })
    }
}

impl Reclaim {
    /// Refuses what CloudStack would refuse on the way, and what would be lost.
    fn aim(&mut self, world: &World, both: &Both) -> Result<()> {
        let volume = &self.volume.clone();
        let conflict = |what: String| Err(Error::new(Kind::Conflict, format!("volume {} {what}", volume.label())));
        if is_deleted(volume) {
            return conflict(format!("is deleted (state {})", printable(&volume.state)));
        }
        self.is_there = volume.vm_id == Some(self.from.id);
        if self.is_there {
            self.refuse_to_leave(&both.from)?;
        }
        let is_here = volume.vm_id == Some(self.to.id);
        if !is_here {
            detach::refuse_wrong_vm(volume, &self.from)?;
            both.to.refuse(volume, Place::Data, &world.config)?;
        }
        if let Some(name) = self.share.as_ref().and_then(|share| share.name.as_deref()) {
            world.check_name(volume, name)?;
        }
        if self.destroy.is_some() {
            refuse_protected(&both.from.vm)?;
            self.refuse_company(world, &both.from.disks)?;
        }
        self.stop = VmChange::new(both.from.vm.clone(), Wanted::Stopped);
        self.destroy = self.destroy.as_ref().map(|_| VmChange::new(both.from.vm.clone(), Wanted::Destroyed));
        self.detach = elsewhere(volume, &both.from.vm);
        self.attach = Attach::later(volume.clone(), self.to.clone(), true, Place::Data, self.share.clone());
        Ok(())
    }

    /// Refuses what CloudStack would not detach from that VM, even once it is stopped.
    fn refuse_to_leave(&self, from: &Target) -> Result<()> {
        let is_root = is_root_disk(&self.volume);
        let conflict = |what: String| {
            Err(Error::new(Kind::Conflict, format!("volume {} {what}; nothing was sent", self.volume.label())))
        };
        if let Some(job) = self.volume.job_id {
            let what = format!("volume {} is busy with CloudStack job {job}; nothing was sent", self.volume.label());
            return Err(Error::new(Kind::Busy, what));
        }
        let state = printable(&from.vm.state);
        match from.vm.state.as_str() {
            "Running" | "Stopped" => {}
            "Destroyed" if !is_root => {}
            "Destroyed" => {
                return conflict(format!(
                    "is the root disk of VM {}, which is {state}: it is detached from a stopped VM only",
                    from.vm.label()
                ));
            }
            _ => return conflict(format!("cannot be detached: VM {} is {state}", from.vm.label())),
        }
        if is_root && !takes_roots(&from.vm) {
            let hypervisor = from.vm.hypervisor.as_deref().map(printable).unwrap_or_default();
            return conflict(format!(
                "is the root disk of VM {}, and {hypervisor} does not let go of one",
                from.vm.label()
            ));
        }
        from.refuse_snapshots()
    }

    /// Refuses to destroy a VM with what is not its own: CloudStack would detach other data disks, and its root disk goes
    /// with it.
    fn refuse_company(&self, world: &World, disks: &[VolumeRecord]) -> Result<()> {
        let others = || disks.iter().filter(|disk| disk.id != self.volume.id);
        let data: Vec<String> = others()
            .filter(|disk| disk.volume_type == VolumeType::DataDisk)
            .take(10)
            .map(VolumeRecord::label)
            .collect();
        if !data.is_empty() {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "VM {} is not destroyed: it has other volumes, which would be detached from it: {}",
                    self.from.label(),
                    data.join(", ")
                ),
            )
            .hint("detach or reclaim them first"));
        }
        for root in others().filter(|disk| is_root_disk(disk)) {
            let brought = |row: &OperationRow| {
                matches!(row.kind, OperationKind::Create | OperationKind::Attach | OperationKind::Move)
            };
            if world.store.operations_of(root.id)?.iter().any(brought) {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "VM {} is not destroyed: volume {}, which volctl brought there, is its root disk and would be \
                         destroyed with it",
                        self.from.label(),
                        root.label()
                    ),
                )
                .hint("reclaim that one first"));
            }
        }
        Ok(())
    }

    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, id) = (format!("looking at volume {}", self.volume.label()), self.volume.id);
        let found = cx.patiently(&doing, || cx.world.look_up(id)).await?;
        self.volume = found
            .ok_or_else(|| Error::new(Kind::NotFound, format!("volume {} is no longer there", self.volume.label())))?;
        let both = cx.patiently(&self.looking(), || Both::look(&cx.world, self)).await?;
        self.aim(&cx.world, &both)?;
        Ok(Next::On)
    }

    /// What comes after another part has changed something is never too late.
    fn complete(&mut self) {
        let stopped = self.stop.is_done();
        if stopped {
            self.detach.complete();
        }
        if stopped || self.detach.has_detached() {
            self.attach.complete();
        }
        if let Some(destroy) = self.destroy.as_mut().filter(|_| self.attach.has_attached()) {
            destroy.complete();
        }
    }

    /// The guest did not stop; where that was asked for, and only then, it is stopped by force.
    fn by_force(&mut self, halt: Halt) -> Result<Next<Step>, Halt> {
        match halt {
            Halt::Fail(error) if error.kind == Kind::CloudstackRefused && self.stop.wanted() == Wanted::Stopped => {
                if !self.force_stop {
                    let hint = error.hint.clone().map_or_else(String::new, |hint| format!("{hint}; "));
                    return Err(Halt::Fail(error.hint(format!("{hint}--force-stop then stops it by force"))));
                }
                self.stop = VmChange::new(self.from.clone(), Wanted::StoppedByForce);
                self.stop.complete();
                Ok(Next::Back(Step::Stop(vm_change::Step::Look)))
            }
            halt => Err(halt),
        }
    }

    /// Somebody may have started the VM since it was seen stopped: nothing is taken from under its guest.
    async fn runs(&self, cx: &Cx) -> Result<bool> {
        let from = self.from.id;
        let found = cx.asking(self.stop.is_done(), &self.looking(), || cx.world.cloud.vm(from)).await?;
        Ok(found.is_some_and(|vm| vm.state == "Running"))
    }

    /// Looks once more, with the disk here, at what would go with the VM.
    async fn before_destroying(&self, cx: &Cx) -> Result<(), Halt> {
        if cx.world.devices.find(&self.volume.id.serial())?.is_none() {
            let what =
                format!("no disk here has the serial {} of volume {}", self.volume.id.serial(), self.volume.label());
            return Err(Halt::Fail(Error::new(Kind::DeviceMissing, what)));
        }
        let from = self.from.id;
        let disks = cx.persistently(|| cx.world.cloud.volumes_of_vm(from)).await;
        Ok(self.refuse_company(&cx.world, &disks)?)
    }

    /// Says what was changed already, and where the volume is now.
    async fn stranded(&self, cx: &Cx, step: Step, error: Error) -> Error {
        let (volume, from) = (self.volume.label(), self.from.label());
        if matches!(step, Step::Destroy(_)) {
            return error.doing(format!("volume {volume} is back on this VM, but VM {from} was not destroyed"));
        }
        if self.detach.has_detached() {
            let place = whereabouts(cx, self.volume.id).await;
            return error.doing(format!("volume {volume} was detached from VM {from}, and is now {place}"));
        }
        if self.stop.is_done() {
            return error.doing(format!("VM {from} was stopped, and volume {volume} is still attached to it"));
        }
        error
    }

    fn looking(&self) -> String {
        format!("looking at VM {} and at this one", self.from.label())
    }

    fn notes(&self) -> Vec<String> {
        let vm = self.from.label();
        let mut notes = Vec::new();
        match (self.stop.is_done(), self.stop.wanted()) {
            (false, _) => {}
            (true, Wanted::StoppedByForce) => {
                notes.push(format!("VM {vm} did not stop by itself, and was stopped by force"));
            }
            (true, _) => notes.push(format!("VM {vm} was stopped")),
        }
        if self.share.is_none() {
            notes.push(format!("volume {} was not exported here before, and is not now", self.volume.label()));
        }
        if self.destroy.as_ref().is_some_and(VmChange::is_done) {
            notes.push(format!("VM {vm} was destroyed, and not expunged: CloudStack can recover it until it is"));
        }
        notes
    }
}

impl Story for Reclaim {
    const KIND: OperationKind = OperationKind::Reclaim;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::Check,
        Step::Stop(vm_change::Step::Look),
        Step::Stop(vm_change::Step::Send),
        Step::Stop(vm_change::Step::Await),
        Step::Detach(detach::Step::Look),
        Step::Detach(detach::Step::Send),
        Step::Detach(detach::Step::Await),
        Step::Attach(attach::Step::Check),
        Step::Attach(attach::Step::Send),
        Step::Attach(attach::Step::Await),
        Step::Attach(attach::Step::Device),
        Step::Attach(attach::Step::Export),
        Step::Destroy(vm_change::Step::Look),
        Step::Destroy(vm_change::Step::Send),
        Step::Destroy(vm_change::Step::Await),
    ];
    const LOOKING: &'static [Step] = &[Step::Check];

    fn takes(&self, step: Step) -> bool {
        match step {
            Step::Check => true,
            Step::Stop(step) => self.is_there && self.stop.takes(step),
            Step::Detach(step) => self.is_there && self.detach.takes(step),
            Step::Attach(step) => self.attach.takes(step),
            Step::Destroy(step) => self.destroy.as_ref().is_some_and(|destroy| destroy.takes(step)),
        }
    }

    async fn plan(&self, world: &World) -> Result<Vec<String>> {
        let mut plan = Vec::new();
        if self.is_there {
            let stop = self.stop.plan();
            let by_force = VmChange::new(self.from.clone(), Wanted::StoppedByForce).plan().filter(|_| self.force_stop);
            plan.extend(stop);
            plan.extend(by_force.map(|ask| format!("where it does not stop by itself, {ask}")));
            plan.extend(self.detach.plan(world).await?);
        }
        plan.extend(self.attach.plan(world).await?);
        plan.extend(self.destroy.as_ref().and_then(VmChange::plan));
        Ok(plan)
    }

    /// Where nothing was sent yet there is nothing to undo either.
    fn is_reversible(&self, step: Step) -> bool {
        match step {
            Step::Stop(vm_change::Step::Look) => !self.stop.completes(),
            Step::Detach(detach::Step::Look) => !self.detach.completes(),
            Step::Attach(attach::Step::Check) => !self.attach.completes(),
            Step::Destroy(vm_change::Step::Look) => self.destroy.as_ref().is_some_and(|destroy| !destroy.completes()),
            _ => false,
        }
    }

    fn turn(&self, step: Step) -> Option<Turn> {
        match step {
            Step::Check => None,
            Step::Stop(step) => self.stop.turn(step),
            Step::Detach(step) => self.detach.turn(step),
            Step::Attach(step) => self.attach.turn(step),
            Step::Destroy(step) => self.destroy.as_ref()?.turn(step),
        }
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.complete();
        if step == Step::Destroy(vm_change::Step::Look)
            && let Err(Halt::Fail(error)) = self.before_destroying(cx).await
        {
            return Err(Halt::Fail(self.stranded(cx, step, error).await));
        }
        if step == Step::Detach(detach::Step::Look) && self.runs(cx).await? {
            return Ok(Next::Back(Step::Stop(vm_change::Step::Look)));
        }
        let ran = match (step, &mut self.destroy) {
            (Step::Check, _) => return self.check(cx).await,
            (Step::Stop(step), _) => match self.stop.run(step, cx).await {
                Ok(next) => Ok(next.of_part(Step::Stop)),
                Err(halt) => self.by_force(halt),
            },
            (Step::Detach(step), _) => self.detach.run(step, cx).await.map(|next| next.of_part(Step::Detach)),
            (Step::Attach(step), _) => self.attach.run(step, cx).await.map(|next| next.of_part(Step::Attach)),
            (Step::Destroy(step), Some(destroy)) => destroy.run(step, cx).await.map(|next| next.of_part(Step::Destroy)),
            (Step::Destroy(_), None) => Ok(Next::On),
        };
        match ran {
            Err(Halt::Fail(error)) => Err(Halt::Fail(self.stranded(cx, step, error).await)),
            Err(Halt::Stuck(error)) => Err(Halt::Stuck(self.stranded(cx, step, error).await)),
            ran => ran,
        }
    }

    fn again(&mut self, step: Step, status: Status) -> Option<Step> {
        match step {
            Step::Detach(step) => self.detach.again(step, status).map(Step::Detach),
            _ => None,
        }
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        let changed = self.stop.is_done()
            || self.detach.has_detached()
            || self.attach.outcome().changed
            || self.destroy.as_ref().is_some_and(VmChange::is_done);
        Outcome { changed, notes: self.notes(), ..Outcome::default() }
    }
}
