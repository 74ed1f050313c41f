//! One CloudStack job, from the choice of its id to its end: the part that makes a lost answer harmless.
//!
//! The job's id is ours, and on disk before the send. So whatever happened to the answer there is one question,
//! `queryAsyncJobResult`, and its answer says *never accepted*, *running*, or how it ended (facts sheet, 4.1).

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Halt;
use super::world::{Backoff, Cx, PATIENCE};
use crate::cloudstack::{Accepted, CallError, Intent, JobAnswer, Sight};
use crate::error::{Error, Kind};
use crate::model::{JobId, VolumeId, VolumeRecord};

/// How far CloudStack's clock must be past a request's `expires` before the request counts as dead: its servers'
/// clocks differ among themselves.
pub(super) const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(10);

/// Finished jobs are purged a day after their end (facts sheet, 2.1). Well before that, "unknown" still means "never".
const UNKNOWN_MEANS_NEVER: SignedDuration = SignedDuration::from_hours(12);

/// How long CloudStack is left alone where it did not say.
const SHORT_REST: Duration = Duration::from_millis(500);

/// The bounds of the time after which a job is first asked for.
const SHORTEST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// A job of ours.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Job {
    intent: Option<Intent>,
    /// On CloudStack's clock.
    chosen_at: Option<Timestamp>,
    /// What CloudStack calls it; the id that we chose.
    accepted: Option<JobId>,
    /// It completes what was sent before: it is never too late for it.
    completes: bool,
    /// CloudStack turned the last one away unread: how long it is left alone before the next.
    rest: Option<Duration>,
    /// Since when no connection for it has come about.
    #[serde(skip)]
    unconnected_since: Option<Instant>,
}

/// What became of a send.
pub(super) enum Sent {
    /// CloudStack has the job.
    Accepted(Accepted),
    /// It said no; nothing was accepted.
    Refused(CallError),
    /// It never got it: look again and choose a new job.
    Never,
    /// So long ago that it cannot say any more: ask the object itself.
    Forgotten,
}

/// Refuses a volume on which somebody's job is under way.
pub(super) fn refuse_if_busy(volume: &VolumeRecord) -> Result<(), Error> {
    let Some(job) = volume.job_id else { return Ok(()) };
    Err(Error::new(
        Kind::Busy,
        format!("volume {} is busy with CloudStack job {job}; nothing was sent", volume.label()),
    )
    .hint("ask again when that job has ended"))
}

/// What CloudStack still does with a volume, in words.
pub(super) fn at_work(volume: &VolumeRecord) -> Option<String> {
    match volume.job_id {
        Some(job) => Some(format!("CloudStack's job {job} is still at work on the volume")),
        None if matches!(volume.state.as_str(), "Attaching" | "Creating") => {
            Some(format!("CloudStack has the volume in state {}", volume.state))
        }
        None => None,
    }
}

/// How a job ended.
pub(super) enum End {
    /// With this result.
    Succeeded(serde_json::Value),
    /// With this error, already in our words.
    Failed(Error),
    /// CloudStack knows no such job (any more).
    Forgotten,
}

/// How long a job is left alone at first: as long as the step usually takes, where that is known.
fn first_look(cx: &Cx) -> Duration {
    let usual = cx.shown.borrow().usual.as_ref().map(|usual| Duration::from_millis(usual.median_ms));
    match usual {
        _ if cx.resumed => Duration::ZERO,
        Some(usual) => usual.clamp(SHORTEST_LOOK, LONGEST_LOOK),
        None => SHORTEST_LOOK,
    }
}

impl Job {
    /// A job that completes what was sent before; its id is yet to be chosen.
    pub fn completing() -> Self {
        Self { completes: true, ..Self::default() }
    }

    /// Whether it completes what was sent before.
    pub fn completes(&self) -> bool {
        self.completes
    }

    /// Chooses an id, the first one or another after it was proven that the last never arrived. The caller commits it
    /// before it sends.
    pub fn choose(&mut self, cx: &Cx) {
        let cloud = &cx.world.cloud;
        let (intent, chosen_at) = (Some(cloud.intend()), Some(cloud.now()));
        let Self { completes, unconnected_since, .. } = *self;
        *self = Self { intent, chosen_at, completes, unconnected_since, ..Self::default() };
    }

    /// CloudStack has it.
    pub fn is_accepted(&self) -> bool {
        self.accepted.is_some()
    }

    /// The id, for people.
    pub fn id(&self) -> Option<JobId> {
        self.accepted.or(self.intent.as_ref().map(|intent| intent.job_id))
    }

    fn intent(&self) -> Result<&Intent, Halt> {
        self.intent
            .as_ref()
            .ok_or_else(|| Halt::Stuck(Error::new(Kind::Internal, "a job is sent that was never chosen")))
    }

    /// Sends the call, unless an earlier daemon may have: then it is found out what became of it.
    pub async fn send<F>(&mut self, cx: &Cx, doing: &str, call: impl FnOnce(Intent) -> F) -> Result<Sent, Halt>
    where
        F: Future<Output = Result<Accepted, CallError>>,
    {
        if cx.resumed {
            return self.settle(cx).await;
        }
        if cx.past_deadline() && !self.completes {
            return Err(Halt::Fail(cx.nothing_was_sent("its time had passed before CloudStack could be asked")));
        }
        let proven = cx.prove_this_vm(self.completes).await;
        proven.map_err(|error| if self.completes { Halt::Stuck(error) } else { Halt::Fail(error) })?;
        let error = match call(*self.intent()?).await {
            Ok(accepted) => {
                self.accepted = accepted.job_id.or(self.id());
                cx.called(self.id(), "CloudStack accepted the job");
                return Ok(Sent::Accepted(accepted));
            }
            Err(error) => error,
        };
        let found = if error.accepted_unknown() { "may have the job or not" } else { "did not accept the job" };
        cx.called(self.id(), format!("CloudStack {found}: {error}"));
        match error {
            // An internal error can come after the job was queued: the job itself says whether it was.
            CallError::Refused(ref fault) if fault.code == 530 => match cx.persistently(|| self.ask(cx)).await {
                JobAnswer::Unknown => Ok(Sent::Refused(error)),
                _ => Ok(self.known()),
            },
            // A key or a role that comes and goes says nothing about the volume: what completes a change outlasts it.
            CallError::Refused(ref fault) if fault.code != 401 || !self.completes => Ok(Sent::Refused(error)),
            CallError::Auth { .. } | CallError::Project(_) if !self.completes => {
                Err(Halt::Fail(error.into_error(&format!("{doing}; nothing was sent"))))
            }
            CallError::NoAnswer { .. } => {
                cx.trouble(&error);
                self.settle(cx).await
            }
            _ => {
                // Looks may have connections that are open already; a change has to get one.
                if error.nothing_sent() && !self.completes {
                    let since = *self.unconnected_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(Halt::Fail(error.into_error(&format!("{doing}; nothing was sent"))));
                    }
                }
                cx.trouble(&error);
                self.rest = Some(error.retry_after().unwrap_or(SHORT_REST));
                Ok(Sent::Never)
            }
        }
    }

    /// Leaves CloudStack alone for as long as it asked to be, after it turned a request away.
    pub async fn rest(&mut self) {
        if let Some(rest) = self.rest.take() {
            tokio::time::sleep(rest).await;
        }
    }

    /// Finds out what became of a request whose answer is not known.
    async fn settle(&mut self, cx: &Cx) -> Result<Sent, Halt> {
        let (cloud, dead) = (&cx.world.cloud, self.intent()?.expires + EXPIRY_MARGIN);
        loop {
            // In this order: what arrived at the last moment is known by the time that it is asked for.
            let is_dead = cx.persistently(|| cloud.has_passed(dead)).await;
            if cx.persistently(|| self.ask(cx)).await != JobAnswer::Unknown {
                cx.called(self.id(), "CloudStack has the job");
                return Ok(self.known());
            }
            if is_dead {
                let age = self.chosen_at.unwrap_or(Timestamp::UNIX_EPOCH).duration_until(cloud.now());
                if age > UNKNOWN_MEANS_NEVER {
                    return Ok(Sent::Forgotten);
                }
                cx.called(self.id(), "CloudStack never got the job");
                return Ok(Sent::Never);
            }
            cx.note(Some(super::engine::Note::Text(
                "CloudStack's answer was lost; finding out whether it has the request".to_owned(),
            )));
            Backoff::default().wait(Some(Duration::from_secs(1))).await;
        }
    }

    async fn ask(&self, cx: &Cx) -> Result<JobAnswer, CallError> {
        let Some(id) = self.id() else { return Ok(JobAnswer::Unknown) };
        cx.world.cloud.job(id).await
    }

    fn known(&mut self) -> Sent {
        self.accepted = self.id();
        match self.accepted {
            Some(job_id) => Sent::Accepted(Accepted { job_id: Some(job_id), volume_id: None, snapshot_id: None }),
            None => Sent::Forgotten,
        }
    }

    /// Whether it is over, or no longer known; asked once.
    pub async fn has_ended(&self, cx: &Cx) -> bool {
        cx.persistently(|| self.ask(cx)).await != JobAnswer::Pending
    }

    /// Waits for the job's end; the arrival or departure of the volume's device wakes it.
    pub async fn end(&self, cx: &Cx, doing: &str) -> End {
        let unclear = || async { Ok(Sight::Unclear) };
        match self.end_or_sight::<Infallible, _>(cx, doing, unclear).await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    /// As [`Self::end`], unless the volume shows that the job has done what it was to do: whatever the job would say, the
    /// volume decides.
    pub async fn effect_or_end(
        &self,
        cx: &Cx,
        doing: &str,
        volume: VolumeId,
        shows: impl Fn(&VolumeRecord) -> bool,
    ) -> Result<VolumeRecord, End> {
        let look = || async {
            Ok(match cx.world.look_up(volume).await? {
                Some(found) if at_work(&found).is_some() => Sight::AtWork,
                Some(found) if shows(&found) => Sight::Done(found),
                _ => Sight::Unclear,
            })
        };
        self.end_or_sight(cx, doing, look).await
    }

    async fn end_or_sight<T, F>(&self, cx: &Cx, doing: &str, look: impl Fn() -> F) -> Result<T, End>
    where
        F: Future<Output = Result<Sight<T>, CallError>>,
    {
        let Some(id) = self.id() else { return Err(End::Forgotten) };
        let (devices, serial) = (&cx.world.devices, cx.row.volume_id.map(|volume| volume.serial()));
        let turned = async move {
            match serial {
                Some(serial) => devices.wait_turned(&serial).await,
                None => pending().await,
            }
        };
        let trouble = |trouble: Option<&CallError>| cx.outlook(trouble);
        let ended = cx.world.cloud.await_job(id, first_look(cx), turned, look, trouble).await;
        cx.note(None);
        let (text, end) = match ended {
            Ok(seen) => {
                cx.called(Some(id), "CloudStack's job is done: the volume shows it");
                return Ok(seen);
            }
            Err(JobAnswer::Succeeded(result)) => ("CloudStack's job succeeded".to_owned(), End::Succeeded(result)),
            Err(JobAnswer::Failed(fault)) => {
                let error = CallError::Refused(fault);
                (format!("CloudStack's job failed: {error}"), End::Failed(error.into_error(doing)))
            }
            Err(JobAnswer::Unknown | JobAnswer::Pending) => {
                ("CloudStack does not know the job any more".to_owned(), End::Forgotten)
            }
        };
        cx.called(Some(id), text);
        Err(end)
    }
}
