//! Attach: a volume to a VM; on this VM also its device, and its export where that was asked for.
//!
//! Once CloudStack has attached it nothing is undone: what follows (the device, the export) can fail, and the error then
//! says what stands. A device that does not come is waited for without end; the caller is told after `[device] timeout`.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::dry_run;
use super::engine::Note;
use super::export;
use super::exports::check_size;
use super::job::{End, Job, Sent, at_work, refuse_if_busy};
use super::lane::Turn;
use super::place::{Place, Target, is_root_disk};
use super::request::{Draft, Subject};
use super::resolve::{self, Meaning, is_deleted};
use super::share::Share;
use super::tags::{self, Tagging};
use super::world::{Backoff, Cx, World};
use super::{Halt, Next, Step as _, Story};
use crate::api::{OperationKind, VolumeAttach};
use crate::cloudstack::Request;
use crate::error::{Error, Kind, Result};
use crate::model::{Device, VmRecord, VolumeId, VolumeRecord, printable};
use crate::store::Outcome;

/// What an attach has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Attach {
    volume: VolumeRecord,
    vm: VmRecord,
    place: Place,
    /// The VM is this one.
    here: bool,
    export: Option<Share>,
    job: Job,
    /// CloudStack has it attached.
    attached: bool,
    /// CloudStack's job did not fail for certain: the volume may have been attached, written to, and detached since.
    perhaps_written: bool,
    changed: bool,
    notes: Vec<String>,
    tagging: Tagging,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Send,
    Await,
    Device,
    Export,
    Tag(tags::Step),
}

impl Step {
    /// Its name in a story that an attach is a part of.
    pub fn name_in_another(self) -> &'static str {
        match self {
            Step::Check => "attach_check",
            Step::Send => "attach_send",
            Step::Await => "attach_await",
            Step::Device => "attach_device",
            Step::Export => "attach_export",
            Step::Tag(step) => step.name(),
        }
    }
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Send => "send",
            Step::Await => "await",
            Step::Device => "device",
            Step::Export => "export",
            Step::Tag(step) => step.name(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the volume",
            Step::Send => "asking CloudStack to attach",
            Step::Await => "waiting for CloudStack to attach",
            Step::Device => WAITING_FOR_DEVICE,
            Step::Export => "exporting",
            Step::Tag(step) => step.words(),
        }
    }
}

/// The words that operators look for.
pub(super) const WAITING_FOR_DEVICE: &str = "waiting for device";

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &VolumeAttach) -> Result<Draft<Attach>> {
    if params.read_only && !params.export {
        return Err(Error::new(Kind::Usage, "read_only is a property of an export: ask for the export as well"));
    }
    tags::check(&params.tags)?;
    let volume = resolve::volume(world, &params.volume, Meaning::Any).await?;
    let vm = match &params.vm {
        Some(word) => resolve::vm(world, word).await?,
        None => world.this_vm_record().await?,
    };
    let share = params.export.then_some(Share { read_only: params.read_only, ..Share::default() });
    let mut story = Attach::new(world, volume, vm, Place::of(params.root), share).await?;
    tags::refuse_other_values(&story.volume, &params.tags)?;
    story.tagging = Tagging::of(params.tags.clone());
    Ok(Draft {
        subject: Some(Subject::of(&story.volume)),
        vm_id: Some(story.vm.id),
        takes: (!story.attached_there(&story.volume)).then_some(story.place),
        ..Draft::of(story)
    })
}

impl Attach {
    /// An attach of a volume that is known to be there. Everything that can be refused is refused here.
    pub async fn new(
        world: &World,
        volume: VolumeRecord,
        vm: VmRecord,
        place: Place,
        export: Option<Share>,
    ) -> Result<Self> {
        let this = world.prove_this_vm().await?;
        let here = vm.id == this;
        if export.is_some() && !here {
            return Err(Error::new(
                Kind::Usage,
                format!(
                    "volume {} cannot be exported: on VM {} this machine does not see it",
                    volume.label(),
                    vm.label()
                ),
            )
            .hint("leave --export away, or attach it to this VM"));
        }
        world.refuse_own_root(&volume)?;
        if here && place == Place::Root {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "volume {} cannot become the root disk of this VM, {}: it runs, and only a stopped VM takes one; \
                     nothing was sent",
                    volume.label(),
                    vm.label()
                ),
            )
            .hint("name a stopped VM with --vm"));
        }
        let notes = match here {
            true => Vec::new(),
            false => vec![format!("VM {} is not this VM: no device is looked for here", vm.label())],
        };
        let story = Self { notes, ..Self::later(volume, vm, here, place, export) };
        story.refuse_if_wrong(world, &story.volume)?;
        if !story.attached_there(&story.volume) {
            let doing = format!("looking at VM {}; nothing was sent", story.vm.label());
            let target = Target::look(&world.cloud, &story.vm, place).await;
            target.map_err(|error| error.into_error(&doing))?.refuse(&story.volume, place, &world.config)?;
        }
        Ok(story)
    }

    /// The attach to this VM of a volume that was just made: what could be refused was, before it was made.
    pub fn of_new(volume: VolumeRecord, vm: VmRecord, export: Option<Share>) -> Self {
        Self { job: Job::completing(), ..Self::later(volume, vm, true, Place::Data, export) }
    }

    /// The attach of a volume that is still elsewhere, as a part of another story: it looks when its turn comes.
    pub fn later(volume: VolumeRecord, vm: VmRecord, here: bool, place: Place, export: Option<Share>) -> Self {
        Self {
            volume,
            vm,
            place,
            here,
            export,
            job: Job::default(),
            attached: false,
            perhaps_written: false,
            changed: false,
            notes: Vec::new(),
            tagging: Tagging::default(),
        }
    }

    /// Whether it completes an operation that has sent something before.
    pub fn completes(&self) -> bool {
        self.job.completes()
    }

    /// It completes an operation that has sent something before: it is never too late for it.
    pub fn complete(&mut self) {
        if !self.job.completes() {
            self.job = Job::completing();
        }
    }

    /// Whether it is done, and was not done before.
    pub fn has_attached(&self) -> bool {
        self.attached && self.changed
    }

    /// Whether the volume is, or ever may have been, attached for this operation: then it is nobody's to undo.
    pub fn perhaps_written(&self) -> bool {
        self.attached || self.perhaps_written
    }

    fn attached_there(&self, volume: &VolumeRecord) -> bool {
        volume.vm_id == Some(self.vm.id)
    }

    fn refuse_if_wrong(&self, world: &World, volume: &VolumeRecord) -> Result<()> {
        let conflict = |what: String| {
            Err(Error::new(Kind::Conflict, format!("volume {} {what}; nothing was sent", volume.label())))
        };
        if is_deleted(volume) {
            return conflict(format!("is deleted (state {})", printable(&volume.state)));
        }
        if let Some(share) = &self.export {
            world.check_name(volume, &world.settled(volume.id, share)?.name)?;
        }
        self.refuse_as_other_kind(volume)?;
        if self.attached_there(volume) {
            return Ok(());
        }
        if let Some(other) = volume.vm_id {
            if world.is_here(other) {
                return conflict("is attached to this VM".to_owned())
                    .map_err(|error: Error| error.hint(format!("`volctl detach {}` detaches it here", volume.id)));
            }
            let name = volume.vm_name.as_deref().map(printable).unwrap_or_default();
            return conflict(format!("is attached elsewhere, to VM {name} ({other})")).map_err(|error: Error| {
                error.hint(format!("`volctl detach {} --from {other}` detaches it there", volume.id))
            });
        }
        Ok(())
    }

    /// Refuses a volume that is to be the root disk of the VM, and is a data disk there.
    pub fn refuse_as_other_kind(&self, volume: &VolumeRecord) -> Result<()> {
        if !self.attached_there(volume) || self.place == Place::Data || is_root_disk(volume) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "volume {} is attached to VM {} as a data disk, not as its root disk; nothing was sent",
                volume.label(),
                self.vm.label()
            ),
        )
        .hint(format!("`volctl detach {} --from {}` first", volume.id, self.vm.id)))
    }

    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let doing = format!("looking at volume {}", self.volume.label());
        let id = self.volume.id;
        let found = cx.asking(self.job.completes(), &doing, || cx.world.look_up(id)).await?;
        let volume = found.ok_or_else(|| gone(&self.volume))?;
        self.refuse_if_wrong(&cx.world, &volume)?;
        self.volume = volume;
        if self.attached_there(&self.volume) {
            self.attached = true;
            return Ok(Next::On);
        }
        if let Err(busy) = refuse_if_busy(&self.volume) {
            if !self.job.completes() {
                return Err(Halt::Fail(busy));
            }
            cx.note(Some(Note::Text(busy.message)));
            Backoff::default().wait(Some(Duration::from_secs(1))).await;
            return Ok(Next::Back(Step::Check));
        }
        let (vm, place) = (&self.vm, self.place);
        let target = cx.asking(self.job.completes(), &doing, || Target::look(&cx.world.cloud, vm, place)).await?;
        target.refuse(&self.volume, place, &cx.world.config)?;
        self.job.choose(cx);
        Ok(Next::On)
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        if self.export.is_some() {
            cx.world.keep_hands_off(self.volume.id);
        }
        let doing = self.doing();
        let (volume, vm, device_id) = (self.volume.id, self.vm.id, self.place.device_id());
        let sent = self
            .job
            .send(
                cx,
                &doing,
                |intent| async move { cx.world.cloud.attach_volume(&intent, volume, vm, device_id).await },
            )
            .await?;
        match sent {
            Sent::Accepted(_) => Ok(Next::On),
            Sent::Refused(error) => Err(Halt::Fail(error.into_error(&doing))),
            Sent::Never => Ok(Next::Back(Step::Check)),
            Sent::Forgotten => self.judge_unknown(cx).await,
        }
    }

    async fn wait(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        if self.attached {
            return Ok(Next::On);
        }
        let shows = |volume: &VolumeRecord| self.attached_there(volume);
        match self.job.effect_or_end(cx, &self.doing(), self.volume.id, shows).await {
            Ok(volume) => Ok(self.is_done(volume)),
            Err(End::Succeeded(_) | End::Forgotten) => self.judge_unknown(cx).await,
            Err(End::Failed(error)) => self.judge(cx, Some(error)).await,
        }
    }

    fn is_done(&mut self, volume: VolumeRecord) -> Next<Step> {
        self.volume = volume;
        (self.attached, self.changed) = (true, true);
        Next::On
    }

    /// The job was done, or CloudStack no longer knows: whatever the volume says now, it may have been attached.
    async fn judge_unknown(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.perhaps_written = true;
        self.judge(cx, None).await
    }

    /// The job has ended or is forgotten: the volume itself says whether it is attached.
    async fn judge(&mut self, cx: &Cx, error: Option<Error>) -> Result<Next<Step>, Halt> {
        let found = at_rest(cx, self.volume.id, |volume| self.attached_there(volume)).await;
        let volume = found.ok_or_else(|| gone(&self.volume))?;
        if self.attached_there(&volume) {
            return Ok(self.is_done(volume));
        }
        let what = match volume.vm_id {
            Some(other) => format!("it is attached to another VM, {other}"),
            None => "it is not attached".to_owned(),
        };
        let found =
            || Error::new(Kind::CloudstackRefused, format!("{}: CloudStack's job has ended and {what}", self.doing()));
        Err(Halt::Fail(error.unwrap_or_else(found)))
    }

    async fn device(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let serial = self.volume.id.serial();
        let told = Instant::now() + cx.world.config.device.timeout;
        let label = self.volume.label();
        let stands = |error: Error| error.doing(format!("volume {label} is attached and stays so"));
        let device = match cx.world.devices.wait_for(&serial, Some(told)).await.map_err(stands)? {
            Some(device) => device,
            None => self.late_device(cx).await?,
        };
        cx.note(None);
        check_size(&self.volume, &device).map_err(stands)?;
        Ok(Next::On)
    }

    /// Tells the caller, and goes on waiting for as long as CloudStack says that the volume is attached.
    async fn late_device(&mut self, cx: &Cx) -> Result<Device, Halt> {
        let (timeout, serial, label) = (cx.world.config.device.timeout, self.volume.id.serial(), self.volume.label());
        let stands = |error: Error| error.doing(format!("volume {label} is attached and stays so"));
        let seen = cx.world.devices_seen();
        let what = format!(
            "volume {} is attached, but its device has not appeared within {}s; {seen}",
            self.volume.label(),
            timeout.as_secs()
        );
        cx.overdue(Error::new(Kind::Timeout, what).hint(format!(
            "the operation goes on: `volctl ops wait {}`; `volctl detach {}` ends it",
            cx.row.id, self.volume.id
        )));
        loop {
            let look_again = Instant::now() + timeout.max(Duration::from_secs(10));
            if let Some(device) = cx.world.devices.wait_for(&serial, Some(look_again)).await.map_err(stands)? {
                self.notes.push(format!("its device appeared late, at {}", crate::model::clock_time(Timestamp::now())));
                return Ok(device);
            }
            let id = self.volume.id;
            let volume = cx.persistently(|| cx.world.look_up(id)).await;
            if !volume.as_ref().is_some_and(|volume| self.attached_there(volume)) {
                let what = format!(
                    "volume {} was detached by somebody else before its device appeared here",
                    self.volume.label()
                );
                return Err(Halt::Fail(Error::new(Kind::Conflict, what)));
            }
        }
    }

    async fn share(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let Some(share) = &self.export else { return Ok(Next::On) };
        let served = export::serve_once(cx, &self.volume, share, true).await;
        let stands =
            |error: Error| error.doing(format!("volume {} is attached, but it is not exported", self.volume.label()));
        self.changed |= served.map_err(stands)?;
        Ok(Next::On)
    }

    async fn tag(&mut self, step: tags::Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        let stands = format!("volume {} is attached, but it is not tagged", self.volume.label());
        let next = self.tagging.run(step, cx, self.volume.id, &stands).await?;
        self.changed |= self.tagging.changed();
        Ok(next.of_part(Step::Tag))
    }

    /// What would be done here once CloudStack has it attached.
    pub async fn plan_here(&self, world: &World) -> Result<Vec<String>> {
        let mut plan = Vec::new();
        if !self.here {
            return Ok(plan);
        }
        let device = world.devices.find(&self.volume.id.serial())?;
        match &device {
            Some(device) => check_size(&self.volume, device)?,
            None => plan.push(wait_for_device(self.volume.id.serial())),
        }
        if let Some(share) = &self.export {
            plan.extend(export::plan(world, &self.volume, share, device.is_some()).await?);
        }
        Ok(plan)
    }

    fn doing(&self) -> String {
        let role = if self.place == Place::Root { " as its root disk" } else { "" };
        format!("attaching volume {} to VM {}{role}", self.volume.label(), self.vm.label())
    }
}

/// The plan of a wait for a device.
pub(super) fn wait_for_device(serial: impl std::fmt::Display) -> String {
    format!("wait until this kernel has the disk with the serial {serial}")
}

/// The volume once no job of CloudStack's is at work on it, be it ours or another's, or it shows already what was waited
/// for. It may take for ever, and says so.
pub(super) async fn at_rest(cx: &Cx, id: VolumeId, shows: impl Fn(&VolumeRecord) -> bool) -> Option<VolumeRecord> {
    loop {
        let volume = cx.persistently(|| cx.world.look_up(id)).await?;
        let at_work = match at_work(&volume) {
            Some(at_work) if !shows(&volume) => at_work,
            _ => return Some(volume),
        };
        cx.note(Some(Note::Text(at_work)));
        Backoff::default().wait(Some(Duration::from_secs(1))).await;
    }
}

fn gone(volume: &VolumeRecord) -> Error {
    Error::new(Kind::NotFound, format!("volume {} is no longer there", volume.label()))
}

impl Story for Attach {
    const KIND: OperationKind = OperationKind::Attach;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::Check,
        Step::Send,
        Step::Await,
        Step::Device,
        Step::Export,
        Step::Tag(tags::Step::Look),
        Step::Tag(tags::Step::Send),
        Step::Tag(tags::Step::Await),
    ];
    const LOOKING: &'static [Step] = &[Step::Check];

    fn takes(&self, step: Step) -> bool {
        match step {
            Step::Check => true,
            Step::Send | Step::Await => !self.attached || self.changed,
            Step::Device => self.here,
            Step::Export => self.export.is_some(),
            Step::Tag(step) => self.tagging.takes(step),
        }
    }

    async fn plan(&self, world: &World) -> Result<Vec<String>> {
        let mut plan = Vec::new();
        if !self.attached_there(&self.volume) {
            plan.push(dry_run::job(&Request::attach_volume(self.volume.id, self.vm.id, self.place.device_id())));
        }
        plan.extend(self.plan_here(world).await?);
        plan.extend(self.tagging.plan(&self.volume));
        Ok(plan)
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => self.check(cx).await,
            Step::Send => self.send(cx).await,
            Step::Await => self.wait(cx).await,
            Step::Device => self.device(cx).await,
            Step::Export => self.share(cx).await,
            Step::Tag(step) => self.tag(step, cx).await,
        }
    }

    fn turn(&self, step: Step) -> Option<Turn> {
        let sends = matches!(step, Step::Send | Step::Await) && !self.attached_there(&self.volume);
        sends.then(|| Turn::of(self.vm.id, Some(&self.vm.name)))
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, notes: self.notes.clone(), ..Outcome::default() }
    }
}
