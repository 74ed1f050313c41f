//! Resize: a volume grows, its device here shows the new size, and its export follows.
//!
//! CloudStack calls the job done also where the guest could not be told (facts sheet, 6.1). So the device is waited for
//! as an attach waits for one: the caller is told after `[device] timeout`, and the operation goes on until the kernel
//! shows the new size, or the volume is detached.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::dry_run;
use super::job::{End, Job, Sent, refuse_if_busy};
use super::lane::Turn;
use super::place::{refuse_vm_snapshots, vm_snapshots};
use super::request::{Draft, Subject};
use super::resolve::{self, Meaning};
use super::world::{Backoff, Cx, World};
use super::{Halt, Next, Story};
use crate::api::{OperationKind, VolumeResize};
use crate::cloudstack::Request;
use crate::error::{Error, Kind, Result};
use crate::model::{GIB, VmId, VolumeId, VolumeRecord, clock_time, format_size, printable, whole_gib};
use crate::store::Outcome;

/// The words that a detach looks for: a resize that only waits for its device makes way for it.
pub(super) const WAITING_FOR_SIZE: &str = "waiting for the device to show the new size";

/// How often CloudStack is asked whether the volume is still attached while its device has not grown.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What a resize has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Resize {
    volume: VolumeRecord,
    /// The size before, bytes.
    from_bytes: u64,
    /// The size that is wanted, bytes: whole GiB, unless it is the present one.
    to_bytes: u64,
    this_vm: VmId,
    job: Job,
    changed: bool,
    notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Send,
    Await,
    Device,
    Export,
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Send => "send",
            Step::Await => "await",
            Step::Device => "device",
            Step::Export => "export",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the volume",
            Step::Send => "asking CloudStack to resize",
            Step::Await => "waiting for CloudStack to resize",
            Step::Device => WAITING_FOR_SIZE,
            Step::Export => "letting the export follow",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &VolumeResize) -> Result<Draft<Resize>> {
    super::create::check_size(params.size_bytes)?;
    let this_vm = world.prove_this_vm().await?;
    let volume = resolve::volume(world, &params.volume, Meaning::Any).await?;
    world.refuse_if_held(volume.id)?;
    world.refuse_own_root(&volume)?;
    let story = Resize::new(this_vm, volume, params.size_bytes)?;
    story.refuse_if_wrong(&story.volume)?;
    if story.grows() {
        story.refuse_strict_offering(world).await?;
        world.refuse_unfinished_snapshot(&story.volume).await?;
        story.refuse_with_vm_snapshots(world).await?;
    }
    Ok(Draft { subject: Some(Subject::of(&story.volume)), vm_id: story.volume.vm_id, ..Draft::of(story) })
}

impl Resize {
    fn new(this_vm: VmId, volume: VolumeRecord, asked: u64) -> Result<Self> {
        let present = volume.size_bytes;
        let whole = whole_gib(asked).saturating_mul(GIB);
        let to_bytes = if asked == present { present } else { whole };
        let mut notes = Vec::new();
        if asked != to_bytes {
            notes.push(format!("{asked} bytes asked for; CloudStack makes whole GiB: {}", format_size(to_bytes)));
        }
        if volume.vm_id.is_some_and(|vm| vm != this_vm) {
            notes.push("it is attached to another VM: whether its device there has grown is not known here".to_owned());
        }
        let story = Self { from_bytes: present, to_bytes, this_vm, job: Job::default(), changed: false, notes, volume };
        story.refuse_smaller()?;
        Ok(story)
    }

    fn is_here(&self) -> bool {
        self.volume.vm_id == Some(self.this_vm)
    }

    fn grows(&self) -> bool {
        self.to_bytes > self.volume.size_bytes
    }

    fn refuse_smaller(&self) -> Result<()> {
        if self.to_bytes >= self.volume.size_bytes {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "volume {} has {} ({} bytes): it is not made smaller, to {}; nothing was sent",
                self.volume.label(),
                format_size(self.volume.size_bytes),
                self.volume.size_bytes,
                format_size(self.to_bytes)
            ),
        )
        .hint("create a smaller volume and copy what is needed"))
    }

    /// The rules of the facts sheet (4.6) that a volume shows by itself.
    fn refuse_if_wrong(&self, volume: &VolumeRecord) -> Result<()> {
        let is_settled = matches!(volume.state.as_str(), "Ready" | "Allocated") || volume.job_id.is_some();
        if is_settled || !self.grows() {
            return Ok(());
        }
        let state = printable(&volume.state);
        Err(Error::new(
            Kind::Conflict,
            format!("volume {} is in state {state}: it is not resized; nothing was sent", volume.label()),
        )
        .hint("ask again when it is Ready"))
    }

    /// A volume of an offering with strict sizes keeps its size; CloudStack would say so only in the job.
    async fn refuse_strict_offering(&self, world: &World) -> Result<()> {
        let Some(id) = &self.volume.offering_id else { return Ok(()) };
        let offerings = world.cloud.disk_offerings().await;
        let offerings = offerings.map_err(|error| error.into_error("looking at the offering; nothing was sent"))?;
        match offerings.iter().find(|offering| offering.id == *id && offering.strict_size) {
            None => Ok(()),
            Some(offering) => Err(Error::new(
                Kind::Conflict,
                format!(
                    "volume {} cannot be resized: its disk offering {} has strict sizes; nothing was sent",
                    self.volume.label(),
                    printable(&offering.name)
                ),
            )),
        }
    }

    /// Those without memory do not forbid it everywhere on KVM (facts sheet, 4.6): there CloudStack says it in the job.
    async fn refuse_with_vm_snapshots(&self, world: &World) -> Result<()> {
        let Some(vm) = self.volume.vm_id else { return Ok(()) };
        let mut snapshots = vm_snapshots(&world.cloud, vm).await;
        if self.volume.hypervisor.as_deref().is_none_or(|name| name.eq_ignore_ascii_case("KVM")) {
            snapshots.retain(|snapshot| !snapshot.is_disk_only);
        }
        let name = self.volume.vm_name.as_deref().map(printable).unwrap_or_default();
        let forbidden = format!("does not resize volume {}", self.volume.label());
        refuse_vm_snapshots(&format!("{name} ({vm})"), &snapshots, &forbidden)
    }

    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let (doing, id) = (format!("looking at volume {}", self.volume.label()), self.volume.id);
        let Some(volume) = cx.patiently(&doing, || cx.world.look_up(id)).await? else {
            return Err(Halt::Fail(self.gone()));
        };
        self.volume = volume;
        self.refuse_smaller()?;
        if self.grows() {
            self.refuse_if_wrong(&self.volume)?;
            refuse_if_busy(&self.volume)?;
            self.from_bytes = self.volume.size_bytes;
            self.job.choose(cx);
        }
        Ok(Next::On)
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, id, gib) = (self.doing(), self.volume.id, whole_gib(self.to_bytes));
        let sent = self
            .job
            .send(cx, &doing, |intent| async move { cx.world.cloud.resize_volume(&intent, id, gib).await })
            .await?;
        match sent {
            Sent::Accepted(_) => {
                self.changed = true;
                Ok(Next::On)
            }
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

    /// The job has ended or is forgotten: the volume itself says what its size is.
    async fn judge(&mut self, cx: &Cx, error: Option<Error>) -> Result<Next<Step>, Halt> {
        let id = self.volume.id;
        loop {
            let Some(volume) = cx.persistently(|| cx.world.look_up(id)).await else {
                return Err(Halt::Fail(self.gone()));
            };
            if volume.job_id.is_some() || volume.state == "Resizing" {
                Backoff::default().wait(Some(Duration::from_secs(1))).await;
                continue;
            }
            self.volume = volume;
            if !self.grows() {
                self.changed = true;
                return Ok(Next::On);
            }
            self.changed = false;
            let found = || {
                let size = format_size(self.volume.size_bytes);
                Error::new(
                    Kind::CloudstackRefused,
                    format!("{}: CloudStack's job has ended and it still has {size}", self.doing()),
                )
            };
            return Err(Halt::Fail(error.unwrap_or_else(found)));
        }
    }

    async fn device(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let told = Instant::now() + cx.world.config.device.timeout;
        if !self.shows_by(cx, told).await? {
            self.late_device(cx).await?;
        }
        Ok(Next::On)
    }

    async fn shows_by(&self, cx: &Cx, deadline: Instant) -> Result<bool> {
        let serial = self.volume.id.serial();
        let device = cx.world.devices.wait_for_size(&serial, self.volume.size_bytes, Some(deadline)).await;
        Ok(device.map_err(|error| error.doing(self.stands()))?.is_some())
    }

    /// Tells the caller, and goes on waiting for as long as CloudStack says that the volume is attached here.
    async fn late_device(&mut self, cx: &Cx) -> Result<(), Halt> {
        let id = self.volume.id;
        let size = match cx.world.devices.find(&id.serial())? {
            Some(device) => {
                format!("its device still shows {} ({} bytes)", format_size(device.size_bytes), device.size_bytes)
            }
            None => "its device is not here".to_owned(),
        };
        let seconds = cx.world.config.device.timeout.as_secs();
        let what = format!("{}, but after {seconds}s {size}", self.stands());
        cx.overdue(Error::new(Kind::Timeout, what).hint(format!(
            "CloudStack may have failed to tell the guest: detach and attach it, or stop and start the VM; the operation \
             goes on: `volctl ops wait {}`",
            cx.row.id
        )));
        loop {
            if self.shows_by(cx, Instant::now() + LOOK_AGAIN).await? {
                self.notes
                    .push(format!("its device showed the new size late, at {}", clock_time(jiff::Timestamp::now())));
                return Ok(());
            }
            let Some(volume) = cx.persistently(|| cx.world.look_up(id)).await else {
                return Err(Halt::Fail(self.gone()));
            };
            self.volume = volume;
            if !self.is_here() {
                self.notes.push("it was detached before its device here showed the new size".to_owned());
                return Ok(());
            }
        }
    }

    /// New clients are told the new size; who is connected keeps the one that it was told.
    async fn follow(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let _serving = cx.world.serving.lock().await;
        let Some(export) = cx.world.nbd.of_volume(self.volume.id) else { return Ok(Next::On) };
        let served = cx.world.nbd.grow(&export.name).map_err(|error| error.doing(self.stands()))?;
        let name = printable(&export.name);
        self.notes.push(match export.clients.len() {
            0 => format!("export {name} has {} now", format_size(served)),
            clients => format!(
                "export {name} has {} for clients that come from now on; {clients} connected ones keep the size that they \
                 were told",
                format_size(served)
            ),
        });
        Ok(Next::On)
    }

    fn gone(&self) -> Error {
        Error::new(Kind::NotFound, format!("volume {} is no longer there", self.volume.label()))
    }

    fn stands(&self) -> String {
        let size = self.volume.size_bytes;
        format!("volume {} has {} ({size} bytes) in CloudStack", self.volume.label(), format_size(size))
    }

    fn doing(&self) -> String {
        let (from, to) = (format_size(self.from_bytes), format_size(self.to_bytes));
        format!("resizing volume {} from {from} to {to}", self.volume.label())
    }
}

impl Story for Resize {
    const KIND: OperationKind = OperationKind::Resize;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::Check, Step::Send, Step::Await, Step::Device, Step::Export];
    const LOOKING: &'static [Step] = &[Step::Check];

    fn takes(&self, step: Step) -> bool {
        match step {
            Step::Check => true,
            Step::Send | Step::Await => self.grows(),
            Step::Device | Step::Export => self.is_here(),
        }
    }

    async fn plan(&self, world: &World) -> Result<Vec<String>> {
        if !self.grows() {
            return Ok(Vec::new());
        }
        let request = Request::resize_volume(self.volume.id, whole_gib(self.to_bytes));
        let mut plan = vec![dry_run::job(&request)];
        if self.is_here() {
            plan.push(format!("wait until its device here shows {}", format_size(self.to_bytes)));
        }
        if let Some(export) = world.nbd.of_volume(self.volume.id) {
            plan.push(format!("let export {} show the new size to new clients", printable(&export.name)));
        }
        Ok(plan)
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => self.check(cx).await,
            Step::Send => self.send(cx).await,
            Step::Await => self.wait(cx).await,
            Step::Device => self.device(cx).await,
            Step::Export => self.follow(cx).await,
        }
    }

    fn turn(&self, step: Step) -> Option<Turn> {
        let vm = self.volume.vm_id.filter(|_| matches!(step, Step::Send | Step::Await))?;
        Some(Turn::of(vm, self.volume.vm_name.as_deref()))
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, notes: self.notes.clone(), ..Outcome::default() }
    }
}
