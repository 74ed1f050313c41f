//! Detach: from this VM safely, or from another VM on the word of whoever asks.
//!
//! Here the order is fixed (design, 7): refuse new clients, let the present ones finish or go, flush, check again,
//! detach in CloudStack, wait until the kernel has let the device go, forget. From the check to the kernel's letting go
//! the device is held exclusively, so that nobody can begin to use it in between.
//!
//! CloudStack gives up after ten seconds when the guest holds the disk, and the guest may let go hours later (facts
//! sheet, 4.4). So a detach that CloudStack calls failed goes on for as long as the disk is here; once the kernel has
//! let go and CloudStack still lists it attached, one more detach corrects CloudStack.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::attach::{WAITING_FOR_DEVICE, at_rest};
use super::dry_run;
use super::engine::Note;
use super::job::{End, Job, Sent};
use super::lane::Turn;
use super::place::{refuse_vm_snapshots, vm_snapshots};
use super::request::{Draft, Subject};
use super::resize::WAITING_FOR_SIZE;
use super::resolve::{self, Meaning};
use super::withdraw::{self, Terms, give_back, withdraw};
use super::world::{Cx, World};
use super::{Halt, Next, Story};
use crate::api::{Departure, OperationKind, Status, VolumeDetach};
use crate::cloudstack::Request;
use crate::device::Held;
use crate::error::{Error, Kind, Result};
use crate::model::{Device, OperationId, VmId, VmRecord, VolumeId, VolumeRecord, clock_time, printable};
use crate::store::Outcome;

/// What a detach has learned.
#[derive(Serialize, Deserialize)]
pub(super) struct Detach {
    volume: VolumeRecord,
    vm_id: VmId,
    vm_label: String,
    here: bool,
    terms: Terms,
    /// CloudStack had it attached when it was last looked at.
    attached: bool,
    job: Job,
    /// CloudStack has called a detach failed, and the guest may still let go.
    gave_up: Option<GaveUp>,
    /// What was sent may still happen: there is no way back, and it is never too late to go on.
    committed: bool,
    /// The one more detach that corrects CloudStack was chosen.
    corrected: bool,
    changed: bool,
    notes: Vec<String>,
    departure: Departure,
    #[serde(skip)]
    held: Option<Held>,
}

/// A detach that came to nothing so far.
#[derive(Serialize, Deserialize)]
struct GaveUp {
    at: Timestamp,
    /// What CloudStack said, or what keeps it from being asked again.
    why: String,
}

impl GaveUp {
    fn now(why: String) -> Option<Self> {
        Some(Self { at: Timestamp::now(), why })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Withdraw,
    Hold,
    Look,
    Send,
    Await,
    Gone,
    Forget,
}

impl Step {
    /// Its name in a story that a detach is a part of.
    pub fn name_in_another(self) -> &'static str {
        match self {
            Step::Check => "detach_check",
            Step::Withdraw => "detach_withdraw",
            Step::Hold => "detach_hold",
            Step::Look => "detach_look",
            Step::Send => "detach_send",
            Step::Await => "detach_await",
            Step::Gone => "detach_gone",
            Step::Forget => "detach_forget",
        }
    }
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Withdraw => "withdraw",
            Step::Hold => "hold",
            Step::Look => "look",
            Step::Send => "send",
            Step::Await => "await",
            Step::Gone => "gone",
            Step::Forget => "forget",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the volume",
            Step::Withdraw => "ending the export",
            Step::Hold => "flushing the device",
            Step::Look => "looking at the volume once more",
            Step::Send => "asking CloudStack to detach",
            Step::Await => "waiting for CloudStack to detach",
            Step::Gone => "waiting for the guest to let go",
            Step::Forget => "forgetting the device",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &VolumeDetach) -> Result<Draft<Detach>> {
    let this = world.prove_this_vm().await?;
    let volume = resolve::volume(world, &params.volume, Meaning::Exact).await?;
    world.refuse_own_root(&volume)?;
    world.refuse_if_held(volume.id)?;
    let vm = match &params.from {
        Some(word) => resolve::vm(world, word).await?,
        None => world.this_vm_record().await?,
    };
    refuse_wrong_vm(&volume, &vm)?;
    let here = vm.id == this;
    let attached = volume.vm_id.is_some();
    if !here && attached && vm.state != "Stopped" && !params.confirmed {
        return Err(Error::new(
            Kind::Usage,
            format!(
                "VM {} is {}: whether it uses volume {} cannot be checked from here",
                vm.label(),
                printable(&vm.state),
                volume.label()
            ),
        )
        .hint("make sure that it is not used there, then say --yes"));
    }
    let terms = Terms { drain_seconds: params.drain_seconds, force: params.force };
    let notes = notes(&volume, &vm, here);
    let story = Detach { notes, ..Detach::new(volume, &vm, here, terms) };
    let supersedes = waiting_for_device(world, story.volume.id)?;
    let drain = Duration::from_secs(params.drain_seconds.unwrap_or_default());
    Ok(Draft { subject: Some(Subject::of(&story.volume)), vm_id: Some(vm.id), supersedes, drain, ..Draft::of(story) })
}

fn notes(volume: &VolumeRecord, vm: &VmRecord, here: bool) -> Vec<String> {
    if here || volume.vm_id.is_none() {
        return Vec::new();
    }
    vec![format!("whether VM {} ({}) uses it could not be checked from here", vm.label(), printable(&vm.state))]
}

/// An attach, a creation with one or a resize that only waits for its device makes way for a detach.
pub(super) fn waiting_for_device(world: &World, volume: VolumeId) -> Result<Option<(OperationId, String)>> {
    let holder = world.store.operation_on(volume)?;
    let waiting = holder.filter(|row| {
        row.status == Status::Running && [WAITING_FOR_DEVICE, WAITING_FOR_SIZE].contains(&row.step_words.as_str())
    });
    Ok(waiting.map(|row| (row.id, row.step)))
}

pub(super) fn refuse_wrong_vm(volume: &VolumeRecord, vm: &VmRecord) -> Result<()> {
    match volume.vm_id {
        Some(other) if other != vm.id => {
            let name = volume.vm_name.as_deref().map(printable).unwrap_or_default();
            Err(Error::new(
                Kind::Conflict,
                format!(
                    "volume {} is attached elsewhere, to VM {name} ({other}), not to VM {}; nothing was sent",
                    volume.label(),
                    vm.label()
                ),
            )
            .hint(format!("`volctl detach {} --from {other}` detaches it there", volume.id)))
        }
        _ => Ok(()),
    }
}

impl Detach {
    /// A detach of a volume that is attached to this VM, or to another one.
    pub fn new(volume: VolumeRecord, vm: &VmRecord, here: bool, terms: Terms) -> Self {
        Self {
            vm_id: vm.id,
            vm_label: vm.label(),
            here,
            terms,
            attached: true,
            job: Job::default(),
            gave_up: None,
            committed: false,
            corrected: false,
            changed: false,
            notes: Vec::new(),
            departure: Departure::default(),
            held: None,
            volume,
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
    pub fn has_detached(&self) -> bool {
        self.changed && !self.attached
    }

    fn is_attached(&self, volume: &VolumeRecord) -> bool {
        volume.vm_id == Some(self.vm_id)
    }

    fn device_is_here(&self, cx: &Cx) -> Result<bool> {
        Ok(self.here && cx.world.devices.find(&self.volume.id.serial())?.is_some())
    }

    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, id) = (format!("looking at volume {}", self.volume.label()), self.volume.id);
        let Some(volume) = cx.patiently(&doing, || cx.world.look_up(id)).await? else {
            return Err(Halt::Fail(Error::new(
                Kind::NotFound,
                format!("volume {} is no longer there", self.volume.label()),
            )));
        };
        self.volume = volume;
        if self.volume.vm_id.is_none() {
            let is_wished = self.here && cx.world.store.wish_of(id)?.is_some();
            let nothing_here = !is_wished && !self.device_is_here(cx)?;
            return Ok(if nothing_here { Next::Done } else { Next::On });
        }
        if !self.is_attached(&self.volume) {
            return Err(Halt::Fail(Error::new(
                Kind::Conflict,
                format!("volume {} was attached to another VM meanwhile; nothing was sent", self.volume.label()),
            )));
        }
        let snapshots = vm_snapshots(&cx.world.cloud, self.vm_id).await;
        let forbidden = format!("does not detach volume {}", self.volume.label());
        refuse_vm_snapshots(&self.vm_label, &snapshots, &forbidden)?;
        if self.here {
            self.refuse_if_used(cx).await?;
        }
        Ok(Next::On)
    }

    /// The device, where it is here. A disk that is here without a path yet could not be checked, and is a refusal.
    async fn device(&self, cx: &Cx) -> Result<Option<Device>> {
        let (devices, serial) = (&cx.world.devices, self.volume.id.serial());
        let found = devices.find(&serial)?;
        if found.is_some() || devices.wait_gone(&serial, Some(Instant::now())).await? {
            return Ok(found);
        }
        Err(Error::new(
            Kind::InUse,
            format!(
                "whether volume {} is in use here cannot be checked: its disk is here, but has no by-id link; {}",
                self.volume.label(),
                devices.seen()
            ),
        )
        .hint("`udevadm settle` waits for udevd to make it; look at `systemctl status systemd-udevd`")
        .retryable(true))
    }

    /// Who uses the device here, beside the clients of its export.
    async fn refuse_if_used(&self, cx: &Cx) -> Result<()> {
        let Some(device) = self.device(cx).await? else { return Ok(()) };
        let users = cx.world.devices.users(&device).await?;
        if users.is_empty() { Ok(()) } else { Err(users.into_error(&self.volume.label())) }
    }

    async fn withdraw(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.departure = withdraw(cx, &Subject::of(&self.volume), self.terms).await?;
        Ok(Next::On)
    }

    /// Holds the device, looks again who uses it, and flushes it. The look before the hold is for the names: who holds it
    /// exclusively keeps us from it.
    async fn hold(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.held = None;
        if let Some(device) = self.device(cx).await? {
            self.refuse_if_used(cx).await?;
            let held = cx.world.devices.open_exclusive(&device, true)?;
            self.refuse_if_used(cx).await?;
            flush(&held, &self.volume).await?;
            self.departure.flushed_at = Some(Timestamp::now());
            self.held = Some(held);
        }
        Ok(Next::On)
    }

    /// Looks immediately before a send whether it is still to be sent, and chooses the job.
    async fn look(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.hold_again(cx);
        if cx.resumed && self.here && self.held.is_none() && !self.committed {
            // Somebody may have begun to use the device while nobody held it.
            return Ok(Next::Back(Step::Hold));
        }
        self.job.rest().await;
        let (doing, id) = (self.doing(), self.volume.id);
        let volume = cx.asking(self.committed || self.job.completes(), &doing, || cx.world.look_up(id)).await?;
        self.attached = volume.is_some_and(|volume| self.is_attached(&volume));
        if self.attached
            && self.committed
            && self.held.is_none()
            && let Err(used) = self.refuse_if_used(cx).await
        {
            // What was sent before may still be followed, but nothing is added to it while somebody uses the disk.
            cx.world.store.note(cx.row.id, &used.message)?;
            self.gave_up = GaveUp::now(used.message);
            return Ok(Next::Back(Step::Gone));
        }
        self.job.choose(cx);
        Ok(Next::On)
    }

    /// A daemon that came after the one which held the device takes the hold over, as far as the device is still here.
    fn hold_again(&mut self, cx: &Cx) {
        if self.here
            && self.held.is_none()
            && let Ok(Some(device)) = cx.world.devices.find(&self.volume.id.serial())
        {
            self.held = cx.world.devices.open_exclusive(&device, true).ok();
        }
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.hold_again(cx);
        let (doing, id) = (self.doing(), self.volume.id);
        let sent =
            self.job.send(cx, &doing, |intent| async move { cx.world.cloud.detach_volume(&intent, id).await }).await?;
        match sent {
            Sent::Accepted(_) => {
                self.changed = true;
                Ok(Next::On)
            }
            Sent::Refused(error) => self.judge(cx, Some(error.into_error(&doing))).await,
            // Somebody may have begun to use the device meanwhile.
            Sent::Never => Ok(Next::Back(if self.here && !self.committed { Step::Hold } else { Step::Look })),
            Sent::Forgotten => self.judge(cx, None).await,
        }
    }

    async fn wait(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.hold_again(cx);
        let shows = |volume: &VolumeRecord| !self.is_attached(volume);
        match self.job.effect_or_end(cx, &self.doing(), self.volume.id, shows).await {
            Ok(_) => Ok(self.is_done()),
            Err(End::Succeeded(_) | End::Forgotten) => self.judge(cx, None).await,
            Err(End::Failed(error)) => self.judge(cx, Some(error)).await,
        }
    }

    fn is_done(&mut self) -> Next<Step> {
        (self.attached, self.changed) = (false, true);
        Next::On
    }

    /// The job has ended or is forgotten: the volume says whether it is attached, the kernel whether it is here.
    async fn judge(&mut self, cx: &Cx, error: Option<Error>) -> Result<Next<Step>, Halt> {
        let volume = at_rest(cx, self.volume.id, |_| false).await;
        let Some(volume) = volume.filter(|volume| self.is_attached(volume)) else {
            return Ok(self.is_done());
        };
        let error = error.unwrap_or_else(|| {
            Error::new(
                Kind::CloudstackRefused,
                format!("{}: CloudStack's job has ended and it is still attached", self.doing()),
            )
        });
        // In a stopped VM there is no guest that could let go later.
        let has_guest = volume.vm_state.as_deref() != Some("Stopped");
        let may_still_happen = has_guest && error.cloudstack.as_ref().is_some_and(|fault| fault.code == 530);
        if may_still_happen && !self.corrected && self.here {
            self.gave_up = GaveUp::now(error.message);
            self.committed = true;
            return Ok(Next::On);
        }
        if self.corrected {
            let stuck =
                error.doing("this machine's kernel has let go of the disk, but CloudStack still lists it attached");
            return Err(Halt::Stuck(stuck));
        }
        if self.committed {
            return Err(Halt::Stuck(error.doing("an earlier request to detach may still be followed")));
        }
        if may_still_happen {
            let stuck =
                error.doing("the guest of the other VM may still let go of the disk, which cannot be seen from here");
            return Err(Halt::Stuck(stuck));
        }
        Err(Halt::Fail(error))
    }

    /// Waits until the kernel has let go; then CloudStack must agree, or is asked once more.
    async fn gone(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        if !self.here {
            return Ok(Next::On);
        }
        self.hold_again(cx);
        if let Some(gave_up) = &self.gave_up {
            cx.note(Some(Note::Text(format!("CloudStack gave up {}", clock_time(gave_up.at)))));
        }
        let serial = self.volume.id.serial();
        let told = Instant::now() + cx.world.config.device.timeout;
        // A look that failed has not seen it go.
        if !matches!(cx.world.devices.wait_gone(&serial, Some(told)).await, Ok(true)) {
            cx.overdue(self.still_here(cx.row.id));
            cx.world.devices.wait_gone(&serial, None).await?;
        }
        self.held = None;
        self.departure.device_gone_at.get_or_insert_with(Timestamp::now);
        if self.gave_up.is_none() || self.corrected {
            return Ok(Next::On);
        }
        let id = self.volume.id;
        let volume = cx.persistently(|| cx.world.look_up(id)).await;
        if volume.is_some_and(|volume| self.is_attached(&volume)) {
            self.corrected = true;
            self.job = Job::completing();
            return Ok(Next::Back(Step::Look));
        }
        self.attached = false;
        Ok(Next::On)
    }

    /// Why it takes so long.
    fn still_here(&self, id: OperationId) -> Error {
        let what = "this machine's kernel still has the disk";
        let (message, again) = match &self.gave_up {
            None => (format!("{}: {what}", self.doing()), String::new()),
            Some(GaveUp { at, why }) => (
                format!("{why} (at {}); {what}", clock_time(*at)),
                format!("it goes on when the guest lets go; `volctl ops retry {id}` asks CloudStack again; "),
            ),
        };
        Error::new(Kind::Timeout, message).hint(format!("{again}the operation goes on: `volctl ops wait {id}`"))
    }

    fn doing(&self) -> String {
        format!("detaching volume {} from VM {}", self.volume.label(), self.vm_label)
    }
}

/// Everything that this machine still has of the volume goes to stable storage.
async fn flush(held: &Held, volume: &VolumeRecord) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::Internal, format!("volume {} cannot be flushed: {error}; nothing was sent", volume.label()))
            .hint("look at `dmesg`; the disk keeps what was not written until it can be")
    };
    let file = held.file.try_clone().map_err(failed)?;
    let flushed = tokio::task::spawn_blocking(move || file.sync_all()).await;
    flushed.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)
}

impl Story for Detach {
    const KIND: OperationKind = OperationKind::Detach;
    type Step = Step;
    const STEPS: &'static [Step] =
        &[Step::Check, Step::Withdraw, Step::Hold, Step::Look, Step::Send, Step::Await, Step::Gone, Step::Forget];
    const LOOKING: &'static [Step] = &[Step::Check];

    fn is_reversible(&self, step: Step) -> bool {
        matches!(step, Step::Withdraw | Step::Hold | Step::Look) && !self.committed
    }

    fn takes(&self, step: Step) -> bool {
        match step {
            Step::Withdraw | Step::Hold | Step::Gone | Step::Forget => self.here,
            Step::Await => self.job.is_accepted(),
            Step::Send => self.attached,
            Step::Check | Step::Look => true,
        }
    }

    async fn plan(&self, world: &World) -> Result<Vec<String>> {
        let mut plan = Vec::new();
        let device = if self.here { world.devices.find(&self.volume.id.serial())? } else { None };
        if self.here {
            plan.extend(withdraw::plan(world, &Subject::of(&self.volume), self.terms)?);
        }
        if let Some(device) = &device {
            plan.push(format!("flush {}, and keep everybody here from opening it", device.path.display()));
        }
        if self.is_attached(&self.volume) {
            plan.push(dry_run::job(&Request::detach_volume(self.volume.id)));
        }
        plan.extend(device.map(|_| "wait until this kernel has let go of the disk".to_owned()));
        Ok(plan)
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => self.check(cx).await,
            Step::Withdraw => self.withdraw(cx).await,
            Step::Hold => self.hold(cx).await,
            Step::Look => self.look(cx).await,
            Step::Send => self.send(cx).await,
            Step::Await => self.wait(cx).await,
            Step::Gone => self.gone(cx).await,
            Step::Forget => {
                cx.stored(|store| store.end_wish(self.volume.id)).await;
                Ok(Next::On)
            }
        }
    }

    fn turn(&self, step: Step) -> Option<Turn> {
        let vm_name = self.volume.vm_name.as_deref();
        matches!(step, Step::Send | Step::Await).then(|| Turn::of_detach(self.vm_id, vm_name))
    }

    async fn undo(&mut self, step: Step, cx: &Cx) -> Result<()> {
        self.held = None;
        if step == Step::Withdraw { give_back(cx, self.volume.id).await } else { Ok(()) }
    }

    /// CloudStack gave up, and a human says that the guest would let go of the disk now.
    fn again(&mut self, step: Step, status: Status) -> Option<Step> {
        let gave_up = match status {
            Status::Running => step == Step::Gone && self.gave_up.is_some(),
            Status::Stuck => matches!(step, Step::Send | Step::Await),
            _ => false,
        };
        if !gave_up {
            return None;
        }
        self.gave_up = None;
        self.job = Job::completing();
        Some(Step::Look)
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            changed: self.changed,
            notes: self.notes.clone(),
            departure: Some(self.departure.clone()),
            ..Outcome::default()
        }
    }
}
