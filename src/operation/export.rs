//! Export: the device of a volume that is attached here, over NBD. CloudStack is not asked.

use serde::{Deserialize, Serialize};

use super::request::{Draft, Subject};
use super::share::{Settled, Share};
use super::world::{Cx, World};
use super::{Halt, Next, Story};
use crate::api::{ExportCreate, ExportState, OperationKind};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, VolumeRecord, printable};
use crate::store::Outcome;

/// What an export has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Export {
    volume: VolumeRecord,
    share: Share,
    /// The volume was not exported when this began.
    is_new: bool,
    changed: bool,
    notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Serve,
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Serve => "serve",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the device",
            Step::Serve => "exporting",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &ExportCreate) -> Result<Draft<Export>> {
    let (volume, notes) = world.local_volume(&params.volume).await?;
    let cloudstack_answers = notes.is_empty();
    if cloudstack_answers {
        world.prove_this_vm().await?;
    }
    world.refuse_own_root(&volume)?;
    if params.shared == Some(true) && params.read_only {
        return Err(Error::new(Kind::Usage, "shared lets several clients write, and read_only lets none"));
    }
    let share = Share {
        name: params.name.clone(),
        read_only: params.read_only,
        shared: params.shared,
        tls: params.tls,
        clients: params.clients.clone(),
    };
    world.nbd.check_access(&world.settled(volume.id, &share)?.access)?;
    let story = Export { volume, share, is_new: false, changed: false, notes };
    Ok(Draft { subject: Some(Subject::of(&story.volume)), ..Draft::of(story) })
}

/// How far a volume is served as it is wanted.
enum Served {
    /// Not at all, or not yet.
    No,
    /// But others may open it, or several write where one alone may, or the other way round.
    ForOthers {
        was_shared: bool,
    },
    Yes,
}

/// The export that a volume has, unless it failed.
fn existing(world: &World, volume: &VolumeRecord) -> Option<crate::api::Export> {
    world.export_of(volume.id).filter(|export| export.state != ExportState::Failed)
}

/// Whether a volume is served this way already; `conflict` where it is served in a way that cannot be changed.
fn served(world: &World, volume: &VolumeRecord, share: &Share) -> Result<Served> {
    let Some(export) = existing(world, volume) else { return Ok(Served::No) };
    let wanted = world.settled(volume.id, share)?;
    if wanted.name == export.name && share.read_only == export.read_only {
        let is_same = (wanted.shared, &wanted.access) == (export.shared, &export.access);
        return Ok(match (export.state, is_same) {
            (ExportState::Pending, _) => Served::No,
            (_, true) => Served::Yes,
            (_, false) => Served::ForOthers { was_shared: export.shared },
        });
    }
    let (mode, name) = (mode(export.read_only, export.shared), printable(&export.name));
    let kept = match (wanted.name == export.name, export.read_only) {
        (false, _) => "leave --name away to change that export",
        (true, true) => "say --read-only to change who may open it",
        (true, false) => "leave --read-only away to change who may open it",
    };
    Err(Error::new(Kind::Conflict, format!("volume {} is exported already, {mode}, as {name}", volume.label()))
        .hint(format!("{kept}; `volctl unexport {}` ends it", volume.id)))
}

fn mode(read_only: bool, shared: bool) -> &'static str {
    match (read_only, shared) {
        (true, _) => "read-only",
        (false, false) => "writable",
        (false, true) => "writable by several clients",
    }
}

/// What serving a volume would take; of a device that is here already it is proven that it could be served.
pub(super) async fn plan(world: &World, volume: &VolumeRecord, share: &Share, is_here: bool) -> Result<Vec<String>> {
    let Settled { name, shared, access } = world.settled(volume.id, share)?;
    match served(world, volume, share)? {
        Served::Yes => return Ok(Vec::new()),
        Served::ForOthers { was_shared } => {
            let writers = match (was_shared, shared) {
                (false, true) => "let several clients write at a time, ",
                (true, false) => {
                    world.nbd.check_one_writer(&name, &access)?;
                    "let one client alone write, "
                }
                _ => "",
            };
            let name = printable(&name);
            return Ok(vec![format!("{writers}change who may open export {name}, and send away who may not")]);
        }
        Served::No => {}
    }
    if is_here {
        world.free_device(volume).await?;
    }
    Ok(vec![sentence(&name, share)])
}

/// The plan of an export.
pub(super) fn sentence(name: &str, share: &Share) -> String {
    let mode = mode(share.read_only, share.shared.unwrap_or_default());
    format!("export it over NBD as {}, {mode}", printable(name))
}

/// Serves a volume unless it is served the same way already; says whether it had to. One that was not exported before is not
/// afterwards where this fails.
pub(super) async fn serve_once(cx: &Cx, volume: &VolumeRecord, share: &Share, is_new: bool) -> Result<bool> {
    let _serving = cx.world.serving.lock().await;
    match served(&cx.world, volume, share)? {
        Served::Yes => return Ok(false),
        Served::ForOthers { .. } => return cx.world.serve_others(volume, share).await.map(|()| true),
        Served::No => {}
    }
    if let Some(failed) = cx.world.nbd.of_volume(volume.id) {
        cx.world.nbd.remove(&failed.name, crate::nbd::Clients::Close).await?;
    }
    match cx.world.serve(volume, share).await {
        // The wish of the daemon that was killed after it had served: what fails leaves none.
        Err(error) if cx.resumed && is_new => {
            cx.stored(|store| store.forget_wish(volume.id)).await;
            Err(error)
        }
        served => served.map(|_| true),
    }
}

impl Story for Export {
    const KIND: OperationKind = OperationKind::Export;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::Check, Step::Serve];
    const LOOKING: &'static [Step] = &[Step::Check];

    async fn plan(&self, world: &World) -> Result<Vec<String>> {
        plan(world, &self.volume, &self.share, true).await
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => {
                self.is_new = existing(&cx.world, &self.volume).is_none();
                cx.world.check_name(&self.volume, &cx.world.settled(self.volume.id, &self.share)?.name)?;
            }
            Step::Serve => self.changed |= serve_once(cx, &self.volume, &self.share, self.is_new).await?,
        }
        Ok(Next::On)
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, notes: self.notes.clone(), ..Outcome::default() }
    }
}
