//! A change of another VM through a job: it is stopped, or destroyed. The VM is looked at before the send and when the job
//! has ended, so that what is so already is not asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dry_run;
use super::engine::Note;
use super::job::{End, Job, Sent};
use super::lane::Turn;
use super::world::{Backoff, Cx};
use super::{Halt, Next};
use crate::cloudstack::{CallError, Request};
use crate::error::{Error, Kind, Result};
use crate::model::{VmRecord, printable};

/// What a VM is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    /// Stopped, by its guest.
    Stopped,
    /// Stopped, even where its host does not answer.
    StoppedByForce,
    /// Destroyed, and not expunged.
    Destroyed,
}

/// A change of a VM.
#[derive(Serialize, Deserialize)]
pub(super) struct VmChange {
    vm: VmRecord,
    wanted: Wanted,
    /// It was not so when it was last looked at.
    needed: bool,
    job: Job,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Look,
    Send,
    Await,
}

impl VmChange {
    /// A change that is yet to be looked at.
    pub fn new(vm: VmRecord, wanted: Wanted) -> Self {
        Self { vm, wanted, needed: true, job: Job::default(), changed: false }
    }

    /// It completes an operation that has sent something before: it is never too late for it.
    pub fn complete(&mut self) {
        if !self.job.completes() {
            self.job = Job::completing();
        }
    }

    /// Whether it completes such an operation.
    pub fn completes(&self) -> bool {
        self.job.completes()
    }

    /// What the VM is to be.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Whether it is done, and was not done before.
    pub fn is_done(&self) -> bool {
        self.changed && !self.needed
    }

    /// Whether it takes a step.
    pub fn takes(&self, step: Step) -> bool {
        match step {
            Step::Look => true,
            Step::Send => self.needed,
            Step::Await => self.job.is_accepted(),
        }
    }

    /// The lane in which it is at a step.
    pub fn turn(&self, step: Step) -> Option<Turn> {
        (step != Step::Look).then(|| Turn::of(self.vm.id, Some(&self.vm.name)))
    }

    /// What would be sent, where it is not so already.
    pub fn plan(&self) -> Option<String> {
        (!self.is_so(&self.vm.state)).then(|| dry_run::job(&self.request()))
    }

    /// Does a step.
    pub async fn run(&mut self, step: Step, cx: &Cx) -> Result<Next<Step>, Halt> {
        match step {
            Step::Look => self.look(cx).await,
            Step::Send => self.send(cx).await,
            Step::Await => match self.job.end(cx, &self.doing()).await {
                End::Succeeded(_) | End::Forgotten => self.judge(cx, None).await,
                End::Failed(error) => self.judge(cx, Some(error)).await,
            },
        }
    }

    async fn look(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let doing = self.doing();
        let state = cx.asking(self.job.completes(), &doing, || self.state(cx)).await?;
        self.needed = !self.is_so(&state);
        if self.needed && is_moving(&state) {
            if self.job.completes() {
                self.wait_for_it(cx, &state).await;
                return Ok(Next::Back(Step::Look));
            }
            let what = format!("{doing}: it is {}; nothing was sent", printable(&state));
            return Err(Halt::Fail(Error::new(Kind::Conflict, what).hint("ask again when that has ended")));
        }
        self.job.choose(cx);
        Ok(Next::On)
    }

    async fn send(&mut self, cx: &Cx) -> Result<Next<Step>, Halt> {
        let (doing, vm, wanted) = (self.doing(), self.vm.id, self.wanted);
        let sent = self.job.send(cx, &doing, |intent| async move {
            match wanted {
                Wanted::Stopped => cx.world.cloud.stop_vm(&intent, vm, false).await,
                Wanted::StoppedByForce => cx.world.cloud.stop_vm(&intent, vm, true).await,
                Wanted::Destroyed => cx.world.cloud.destroy_vm(&intent, vm).await,
            }
        });
        let sent = sent.await?;
        match sent {
            Sent::Accepted(_) => {
                self.changed = true;
                Ok(Next::On)
            }
            Sent::Refused(error) => self.judge(cx, Some(error.into_error(&doing))).await,
            Sent::Never => Ok(Next::Back(Step::Look)),
            Sent::Forgotten => self.judge(cx, None).await,
        }
    }

    /// The job has ended or is forgotten: the VM itself says what it is.
    async fn judge(&mut self, cx: &Cx, error: Option<Error>) -> Result<Next<Step>, Halt> {
        loop {
            let state = cx.persistently(|| self.state(cx)).await;
            if self.is_so(&state) {
                (self.needed, self.changed) = (false, true);
                return Ok(Next::On);
            }
            if !is_moving(&state) {
                let what = format!("{}: CloudStack's job has ended and it is {}", self.doing(), printable(&state));
                return Err(Halt::Fail(error.unwrap_or_else(|| Error::new(Kind::CloudstackRefused, what))));
            }
            self.wait_for_it(cx, &state).await;
        }
    }

    async fn wait_for_it(&self, cx: &Cx, state: &str) {
        cx.note(Some(Note::Text(format!("VM {} is {}", self.vm.label(), printable(state)))));
        Backoff::default().wait(Some(Duration::from_secs(1))).await;
    }

    /// The VM's state now; one that CloudStack does not show any more is expunged.
    async fn state(&self, cx: &Cx) -> Result<String, CallError> {
        let found = cx.world.cloud.vm(self.vm.id).await?;
        Ok(found.map_or_else(|| "Expunged".to_owned(), |vm| vm.state))
    }

    fn is_so(&self, state: &str) -> bool {
        let is_destroyed = matches!(state, "Destroyed" | "Expunging" | "Expunged");
        is_destroyed || (self.wanted != Wanted::Destroyed && state == "Stopped")
    }

    fn request(&self) -> Request {
        match self.wanted {
            Wanted::Stopped => Request::stop_vm(self.vm.id, false),
            Wanted::StoppedByForce => Request::stop_vm(self.vm.id, true),
            Wanted::Destroyed => Request::destroy_vm(self.vm.id),
        }
    }

    fn doing(&self) -> String {
        let verb = match self.wanted {
            Wanted::Stopped => "stopping",
            Wanted::StoppedByForce => "stopping by force",
            Wanted::Destroyed => "destroying",
        };
        format!("{verb} VM {}", self.vm.label())
    }
}

/// A state that ends by itself.
fn is_moving(state: &str) -> bool {
    matches!(state, "Starting" | "Stopping" | "Migrating" | "Restoring")
}
