//! Create: a volume, and where asked its attachment to this VM and its export.
//!
//! If CloudStack refuses the attachment, the volume that nobody has ever written to is deleted again. Once it is attached
//! nothing is undone, and the error says what stands.

use serde::{Deserialize, Serialize};

use super::attach::{self, Attach};
use super::dry_run;
use super::export;
use super::job::{End, Job, Sent};
use super::lane::Turn;
use super::offering::{offering, zone};
use super::place::{Place, Target};
use super::request::{Draft, Subject};
use super::resolve::is_deleted;
use super::share::Share;
use super::tags::{self, Tagging};
use super::world::{Backoff, Cx, World};
use super::{Halt, Next, Story};
use crate::api::{OperationKind, VolumeCreate};
use crate::cloudstack::{CallError, NewVolume, Request};
use crate::error::{Error, Kind, Result};
use crate::model::{GIB, VmRecord, VolumeId, VolumeRecord, format_size, printable, whole_gib};
use crate::store::Outcome;

/// One EiB, in bytes; CloudStack's own limit is far below (`storage.max.volume.size`, 2000 GiB by default).
const LARGEST: u64 = 1 << 60;

/// What a creation has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Create {
    new: NewVolume,
    /// The size that the volume will have, bytes.
    size_bytes: u64,
    exists_ok: bool,
    job: Job,
    volume: Option<VolumeRecord>,
    volume_id: Option<VolumeId>,
    /// It was there before.
    existed: bool,
    /// This VM, where it is to be attached.
    vm: Option<VmRecord>,
    export: bool,
    attach: Option<Attach>,
    tagging: Tagging,
    notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Send,
    Await,
    Attach(attach::Step),
    Tag(tags::Step),
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Send => "send",
            Step::Await => "await",
            Step::Attach(step) => step.name_in_another(),
            Step::Tag(step) => step.name(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at zone and offering",
            Step::Send => "asking CloudStack to create",
            Step::Await => "waiting for CloudStack to create",
            Step::Attach(step) => step.words(),
            Step::Tag(step) => step.words(),
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &VolumeCreate) -> Result<Draft<Create>> {
    check_name(&params.name)?;
    tags::check(&params.tags)?;
    params.size_bytes.map_or(Ok(()), check_size)?;
    let mut notes = Vec::new();
    let zone = zone(world, params, &mut notes).await?;
    let offering = offering(world, params, &zone, &mut notes).await?;
    let size_gib = params.size_bytes.map(whole_gib);
    let size_bytes = size_gib.map_or(offering.size_bytes, |gib| gib.saturating_mul(GIB));
    if let Some(asked) = params.size_bytes
        && asked != size_bytes
    {
        notes.push(format!("{asked} bytes asked for; CloudStack makes whole GiB: {}", format_size(size_bytes)));
    }
    let wants_attach = params.attach || params.export;
    let vm = if wants_attach { Some(world.this_vm_record().await?) } else { None };
    if let Some(vm) = vm.as_ref().filter(|vm| vm.zone_id != zone.id) {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "a volume in zone {} cannot be attached to VM {}, which is in zone {}; nothing was sent",
                printable(&zone.name),
                vm.label(),
                vm.zone_id
            ),
        )
        .hint("choose the VM's zone with --zone"));
    }
    let new = NewVolume { name: params.name.clone(), size_gib, offering_id: offering.id, zone_id: zone.id };
    let story = Create {
        new,
        size_bytes,
        exists_ok: params.exists_ok,
        job: Job::default(),
        volume: None,
        volume_id: None,
        existed: false,
        vm,
        export: params.export,
        attach: None,
        tagging: Tagging::of(params.tags.clone()),
        notes,
    };
    world.prove_this_vm().await?;
    let existing = story
        .existing(world)
        .await
        .map_err(|error| error.into_error("looking whether the name is free; nothing was sent"))?;
    let volume = story.agreeing(existing)?;
    match (&story.vm, &volume) {
        (Some(vm), None) => {
            let doing = format!("counting the disks of VM {}; nothing was sent", vm.label());
            let target = Target::look(&world.cloud, vm, Place::Data).await;
            let target = target.map_err(|error| error.into_error(&doing))?;
            target.refuse_occupied(Place::Data, &world.config)?;
            target.refuse_snapshots()?;
        }
        (Some(vm), Some(volume)) => {
            drop(Attach::new(world, volume.clone(), vm.clone(), Place::Data, story.share()).await?)
        }
        (None, _) => {}
    }
    Ok(Draft {
        subject: volume.as_ref().map(Subject::of),
        new_name: Some(params.name.clone()),
        vm_id: story.vm.as_ref().map(|vm| vm.id),
        takes: (story.vm.is_some() && volume.as_ref().is_none_or(|volume| volume.vm_id.is_none()))
            .then_some(Place::Data),
        ..Draft::of(story)
    })
}

/// Refuses what no volume can be, in bytes.
pub(super) fn check_size(bytes: u64) -> Result<()> {
    match bytes {
        0 => Err(Error::new(Kind::Usage, "the size must be at least 1 byte")),
        1..=LARGEST => Ok(()),
        _ => Err(Error::new(Kind::Usage, "the size is over an exbibyte, which no CloudStack makes")),
    }
}

fn check_name(name: &str) -> Result<()> {
    let characters = name.encode_utf16().count();
    if name.trim().is_empty() || characters > 255 {
        return Err(Error::new(Kind::Usage, format!("a volume's name has 1 to 255 characters, not {characters}")));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::new(
            Kind::Usage,
            format!("the name {} has control characters, which CloudStack refuses", printable(name)),
        ));
    }
    Ok(())
}

impl Create {
    fn share(&self) -> Option<Share> {
        self.export.then_some(Share::default())
    }

    /// Volumes that have the name.
    async fn existing(&self, world: &World) -> Result<Vec<VolumeRecord>, CallError> {
        let named = world.cloud.volumes_named(&self.new.name).await?;
        Ok(named.into_iter().filter(|volume| volume.name == self.new.name && !is_deleted(volume)).collect())
    }

    /// The existing volume that can be taken, if the caller said so and it is what was asked for.
    fn agreeing(&self, existing: Vec<VolumeRecord>) -> Result<Option<VolumeRecord>> {
        let volume = match existing.as_slice() {
            [] => return Ok(None),
            [one] if self.exists_ok => one,
            [one] => {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("volume {} is there already; nothing was sent", one.label()),
                )
                .hint("choose another name, or --exists-ok takes it if it is the same"));
            }
            many => {
                let list: Vec<String> = many.iter().take(10).map(VolumeRecord::label).collect();
                return Err(Error::new(
                    Kind::Conflict,
                    format!("{} volumes have the name: {}; nothing was sent", many.len(), list.join(", ")),
                )
                .hint("choose another name"));
            }
        };
        let mut differs = Vec::new();
        if volume.size_bytes != self.size_bytes {
            differs.push(format!(
                "its size is {}, not {}",
                format_size(volume.size_bytes),
                format_size(self.size_bytes)
            ));
        }
        if volume.offering_id.as_ref() != Some(&self.new.offering_id) {
            differs.push("it has another offering".to_owned());
        }
        if volume.zone_id != self.new.zone_id {
            differs.push("it is in another zone".to_owned());
        }
        if differs.is_empty() {
            tags::refuse_other_values(volume, self.tagging.wanted())?;
            return Ok(Some(volume.clone()));
        }
        Err(Error::new(
            Kind::Conflict,
            format!("volume {} is there already and differs: {}", volume.label(), differs.join(", ")),
        )
        .hint("choose another name"))
    }

    async fn check(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let doing = self.doing();
        let existing = cx.patiently(&doing, || self.existing(&cx.world)).await?;
        match self.agreeing(existing)? {
            Some(volume) => {
                self.existed = true;
                self.notes.push("it was there already, and is what was asked for".to_owned());
                self.attach = match &self.vm {
                    Some(vm) => {
                        Some(Attach::new(&cx.world, volume.clone(), vm.clone(), Place::Data, self.share()).await?)
                    }
                    None => None,
                };
                self.know(&cx.world, volume);
            }
            None => self.job.choose(cx),
        }
        Ok(Next::On)
    }

    /// The volume is there.
    fn know(&mut self, world: &World, volume: VolumeRecord) {
        if let Err(error) = world.store.put_volume(&volume, jiff::Timestamp::now()) {
            tracing::warn!(volume = %volume.id, %error, "what CloudStack said could not be kept");
        }
        self.volume_id = Some(volume.id);
        self.volume = Some(volume);
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, new) = (self.doing(), self.new.clone());
        let sent = self
            .job
            .send(cx, &doing, |intent| async move { cx.world.cloud.create_volume(&intent, &new).await })
            .await?;
        match sent {
            Sent::Accepted(accepted) => {
                self.volume_id = match (accepted.volume_id, self.job.id()) {
                    (None, Some(job)) => cx.persistently(|| cx.world.cloud.volume_of_job(job)).await,
                    (told, _) => told,
                };
                Ok(Next::On)
            }
            Sent::Refused(error) => Err(Halt::Fail(error.into_error(&doing))),
            Sent::Never => Ok(Next::Back(Step::Check)),
            Sent::Forgotten => Err(self.unknown(cx).await),
        }
    }

    async fn wait(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        match self.job.end(cx, &self.doing()).await {
            End::Succeeded(result) => {
                let id = result["volume"]["id"].as_str().and_then(|id| id.parse().ok()).or(self.volume_id);
                self.volume_id = id;
            }
            End::Failed(error) => return Err(Halt::Fail(error)),
            End::Forgotten => {}
        }
        let Some(id) = self.volume_id else { return Err(self.unknown(cx).await) };
        let Some(volume) = cx.persistently(|| cx.world.look_up(id)).await else {
            let what = format!("{}: volume {id} was deleted by somebody else", self.doing());
            return Err(Halt::Fail(Error::new(Kind::NotFound, what)));
        };
        let attach = |vm: &VmRecord| Attach::of_new(volume.clone(), vm.clone(), self.share());
        self.attach = self.vm.as_ref().map(attach);
        self.know(&cx.world, volume);
        Ok(Next::On)
    }

    /// Too long ago for CloudStack to say: a volume of the name may be this one's, or somebody else's.
    async fn unknown(&self, cx: &Cx) -> Halt {
        if cx.persistently(|| self.existing(&cx.world)).await.is_empty() {
            let what = format!("{}: CloudStack has no volume of that name; the request never arrived", self.doing());
            return Halt::Fail(Error::new(Kind::CloudstackUnreachable, what).hint("ask again if it is still wanted"));
        }
        Halt::Stuck(
            Error::new(Kind::Stuck, format!("{}: CloudStack no longer knows whether it was done", self.doing()))
                .hint(format!("look for a volume named {} with `volctl ls`", printable(&self.new.name))),
        )
    }

    /// Deletes the volume that this creation made and that was never attached for certain, so never written.
    async fn delete_again(&mut self, cx: &Cx) -> Result<()> {
        let Some(id) = self.volume_id.filter(|_| !self.existed) else { return Ok(()) };
        if self.attach.as_ref().is_some_and(Attach::perhaps_written) {
            return Ok(());
        }
        cx.prove_this_vm(true).await?;
        let doing = format!("deleting the new volume {} again", printable(&self.new.name));
        let mut refused = None;
        let mut backoff = Backoff::default();
        loop {
            match cx.persistently(|| cx.world.look_up(id)).await {
                None => return Ok(()),
                Some(volume) if volume.state == "Expunged" || volume.state == "Expunging" => return Ok(()),
                Some(volume) if volume.vm_id.is_some() => return Ok(()),
                Some(_) => {}
            }
            // After the look: it can be refused because it was done.
            if let Some(error) = refused.take() {
                return Err(CallError::Refused(error).into_error(&doing));
            }
            match cx.world.cloud.delete_volume(id).await {
                Ok(()) => backoff.wait(None).await,
                Err(CallError::Refused(fault)) => refused = Some(fault),
                Err(error) => {
                    cx.trouble(&error);
                    backoff.wait(error.retry_after()).await;
                }
            }
        }
    }

    /// Where it fails a volume that nobody can have written to is deleted again.
    async fn tag(&mut self, step: tags::Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        let Some(volume) = &self.volume else { return Err(self.unknown(cx).await) };
        let label = volume.label();
        let stands = match &self.attach {
            Some(_) => format!("volume {label} is created and attached, but it is not tagged"),
            None if self.existed => format!("volume {label} is there, but it is not tagged"),
            None => format!("tagging volume {label}; it is deleted again"),
        };
        Ok(self.tagging.run(step, cx, volume.id, &stands).await?.of_part(Step::Tag))
    }

    fn doing(&self) -> String {
        format!("creating volume {}", printable(&self.new.name))
    }
}

impl Story for Create {
    const KIND: OperationKind = OperationKind::Create;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::Check,
        Step::Send,
        Step::Await,
        Step::Attach(attach::Step::Check),
        Step::Attach(attach::Step::Send),
        Step::Attach(attach::Step::Await),
        Step::Attach(attach::Step::Device),
        Step::Attach(attach::Step::Export),
        Step::Tag(tags::Step::Look),
        Step::Tag(tags::Step::Send),
        Step::Tag(tags::Step::Await),
    ];
    const LOOKING: &'static [Step] = &[Step::Check];

    fn takes(&self, step: Step) -> bool {
        match step {
            Step::Check => true,
            Step::Send | Step::Await => !self.existed,
            Step::Attach(step) => self.attach.as_ref().is_some_and(|attach| attach.takes(step)),
            Step::Tag(step) => self.tagging.takes(step),
        }
    }

    async fn plan(&self, world: &World) -> Result<Vec<String>> {
        if let Some(volume) = self.volume.as_ref().filter(|_| self.existed) {
            let mut plan = match &self.attach {
                Some(attach) => attach.plan(world).await?,
                None => Vec::new(),
            };
            plan.extend(self.tagging.plan(volume));
            return Ok(plan);
        }
        let failed = |error: CallError| error.into_error(&format!("{}; nothing was sent", self.doing()));
        let request = world.cloud.in_project(Request::create_volume(&self.new)).await.map_err(failed)?;
        let mut plan = vec![dry_run::job(&request)];
        if let Some(vm) = &self.vm {
            plan.push(dry_run::job(&Request::attach_volume("(the new volume's)", vm.id, None)));
            plan.push(attach::wait_for_device("of the new volume"));
        }
        plan.extend(self.share().map(|share| export::sentence("vol-(the new volume's id)", &share)));
        if !self.tagging.wanted().is_empty() {
            plan.push(dry_run::job(&Request::create_tags("(the new volume's)", self.tagging.wanted())));
        }
        Ok(plan)
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match (step, &mut self.attach) {
            (Step::Check, _) => self.check(cx).await,
            (Step::Send, _) => self.send(cx).await,
            (Step::Await, _) => self.wait(cx).await,
            (Step::Attach(step), Some(attach)) => match attach.run(step, cx).await {
                Ok(next) => Ok(next.of_part(Step::Attach)),
                Err(Halt::Fail(error)) if !self.existed && !attach.perhaps_written() => {
                    Err(Halt::Fail(error.doing("the new volume is deleted again")))
                }
                Err(halt) => Err(halt),
            },
            (Step::Attach(_), None) => Ok(Next::Done),
            (Step::Tag(step), _) => self.tag(step, cx).await,
        }
    }

    /// With an attachment it waits before the volume is created: then there is nothing to take back yet.
    fn turn(&self, step: Step) -> Option<Turn> {
        let vm = self.vm.as_ref()?;
        let is_before = step == Step::Check;
        let is_after = matches!(step, Step::Attach(attach::Step::Device | attach::Step::Export) | Step::Tag(_));
        (!is_before && !is_after).then(|| Turn::of(vm.id, Some(&vm.name)))
    }

    async fn undo(&mut self, step: Step, cx: &Cx) -> Result<()> {
        if step == Step::Await { self.delete_again(cx).await } else { Ok(()) }
    }

    fn volume_id(&self) -> Option<VolumeId> {
        self.volume_id
    }

    fn outcome(&self) -> Outcome {
        let attached = self.attach.as_ref().map(Story::outcome).unwrap_or_default();
        Outcome {
            changed: !self.existed || attached.changed || self.tagging.changed(),
            notes: [self.notes.clone(), attached.notes].concat(),
            existed: self.existed,
            ..Outcome::default()
        }
    }
}
