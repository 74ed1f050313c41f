//! Recover: brings back a volume that was deleted and not expunged. `recoverVolume` has no job, and asking again is safe
//! once the volume has been looked at.

use serde::{Deserialize, Serialize};

use super::direct::until_done;
use super::dry_run;
use super::request::{Draft, Subject};
use super::resolve::{self, Meaning, is_deleted};
use super::world::{Cx, World};
use super::{Halt, Next, Story};
use crate::api::{OperationKind, VolumeRecover};
use crate::cloudstack::Request;
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, VolumeRecord, printable};
use crate::store::Outcome;

/// What a recovery has learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Recover {
    volume: VolumeRecord,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Check,
    Bring,
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Bring => "bring",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Check => "looking at the volume",
            Step::Bring => "asking CloudStack to recover",
        }
    }
}

/// Turns a request into an operation, or refuses it.
pub(super) async fn ask(world: &World, params: &VolumeRecover) -> Result<Draft<Recover>> {
    world.prove_this_vm().await?;
    let volume = resolve::volume(world, &params.volume, Meaning::Deleted).await?;
    let story = Recover { volume, changed: false };
    Ok(Draft { subject: Some(Subject::of(&story.volume)), ..Draft::of(story) })
}

impl Recover {
    fn doing(&self) -> String {
        format!("recovering volume {}", self.volume.label())
    }

    /// Whether there is nothing (more) to do.
    fn is_back(&self, found: Option<&VolumeRecord>) -> Result<bool> {
        match found {
            None => Err(Error::new(Kind::NotFound, format!("volume {} is gone for ever", self.volume.label()))),
            Some(volume) if matches!(volume.state.as_str(), "Expunging" | "Expunged" | "Destroying") => {
                Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "volume {} cannot be recovered: it is in state {}",
                        volume.label(),
                        printable(&volume.state)
                    ),
                ))
            }
            Some(volume) => Ok(!is_deleted(volume)),
        }
    }

    async fn bring(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let id = self.volume.id;
        let is_back = |found: Option<&VolumeRecord>| self.is_back(found);
        until_done(cx, id, &self.doing(), is_back, || cx.world.cloud.recover_volume(id)).await?;
        self.changed = true;
        Ok(Next::Done)
    }
}

impl Story for Recover {
    const KIND: OperationKind = OperationKind::Recover;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::Check, Step::Bring];
    const LOOKING: &'static [Step] = &[Step::Check];

    async fn plan(&self, _: &World) -> Result<Vec<String>> {
        Ok(vec![dry_run::call(&Request::recover_volume(self.volume.id))])
    }

    async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Check => {
                let (doing, id) = (self.doing(), self.volume.id);
                let found = cx.patiently(&doing, || cx.world.look_up(id)).await?;
                Ok(if self.is_back(found.as_ref())? { Next::Done } else { Next::On })
            }
            Step::Bring => self.bring(cx).await,
        }
    }

    fn volume_id(&self) -> Option<VolumeId> {
        Some(self.volume.id)
    }

    fn outcome(&self) -> Outcome {
        Outcome { changed: self.changed, ..Outcome::default() }
    }
}
