//! Unexport: the end of an export; the volume stays attached.

use serde::{Deserialize, Serialize};

use super::request::{Draft, Subject};
use super::resolve::not_found;
use super::withdraw::{self, Terms, give_back, withdraw};
use super::world::{Cx, World};
use super::{Halt, Next, Story};
use crate::api::{Departure, ExportDelete, OperationKind};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, printable};
use crate::store::Outcome;

/// What an unexport has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Unexport {
    subject: Subject,
    terms: Terms,
    changed: bool,
    departure: Departure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Withdraw,
    Forget,
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Withdraw => "withdraw",
            Step::Forget => "forget",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the export",
            Step::Withdraw => "ending the export",
            Step::Forget => "forgetting the export",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &ExportDelete) -> Result<Draft<Unexport>> {
    let subject = exported_volume(world, &params.export).await?;
    world.refuse_if_held(subject.id)?;
    let terms = Terms { drain_seconds: params.drain_seconds, force: params.force };
    let story = Unexport { subject, terms, changed: false, departure: Departure::default() };
    Ok(Draft { subject: Some(story.subject.clone()), ..Draft::of(story) })
}

/// The volume that a word means, as an export's name or a volume's.
async fn exported_volume(world: &World, word: &str) -> Result<Subject> {
    let exports = world.exports()?;
    let named = exports
        .iter()
        .find(|export| export.name == word || export.volume_id.to_string() == word.to_lowercase())
        .map(|export| export.volume_id);
    let volume = world.local_volume(word).await;
    match (named, volume) {
        (Some(id), Ok((volume, _))) if volume.id != id => Err(Error::new(
            Kind::Ambiguous,
            format!("{} fits the export of volume {id} and volume {}", printable(word), volume.label()),
        )
        .hint("name the volume by its full id")),
        (_, Err(error)) if error.kind == Kind::Ambiguous => Err(error),
        (Some(id), volume) => match volume {
            Ok((volume, _)) => Ok(Subject::of(&volume)),
            Err(_) => {
                Ok(Subject { id, name: world.store.volume(id)?.map(|cached| cached.record.name).unwrap_or_default() })
            }
        },
        (None, Ok((volume, _))) => Ok(Subject::of(&volume)),
        (None, Err(error)) if error.kind == Kind::NotFound => {
            let volumes = world.store.volumes()?;
            let names = exports.iter().map(|export| export.name.as_str());
            let names = names.chain(volumes.iter().map(|cached| cached.record.name.as_str()));
            Err(not_found("export or volume", word, names, "`volctl exports` lists the exports"))
        }
        (None, Err(error)) => Err(error),
    }
}

impl Story for Unexport {
    const KIND: OperationKind = OperationKind::Unexport;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::Check, Step::Withdraw, Step::Forget];
    const LOOKING: &'static [Step] = &[Step::Check];

    fn is_reversible(&self, step: Step) -> bool {
        step == Step::Withdraw
    }

    async fn plan(&self, world: &World) -> Result<Vec<String>> {
        withdraw::plan(world, &self.subject, self.terms)
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => {
                if cx.world.export_of(self.subject.id).is_none() {
                    return Ok(Next::Done);
                }
                self.changed = true;
            }
            Step::Withdraw => {
                self.departure = withdraw(cx, &self.subject, self.terms).await?;
            }
            Step::Forget => cx.stored(|store| store.end_wish(self.subject.id)).await,
        }
        Ok(Next::On)
    }

    /// What could not be withdrawn, or only began to be, is as it was.
    async fn undo(&mut self, step: Step, cx: &Cx) -> Result<()> {
        self.changed = false;
        if step == Step::Withdraw { give_back(cx, self.subject.id).await } else { Ok(()) }
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.subject.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, departure: Some(self.departure.clone()), ..Outcome::default() }
    }
}
