//! Asking for a job, and waiting for its end (facts sheet, 2.1).

use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::CloudStack;
use super::envelope::Fault;
use super::error::CallError;
use super::request::{Request, expiry};
use super::unfinished::Among;
use super::wire::{Scalar, optional_id};
use crate::error::CloudStackFault;
use crate::model::{JobId, SnapshotId, VolumeId};

/// Where the end is expected, and where it is not.
const TIGHT: Duration = Duration::from_millis(250);
const WIDE: Duration = Duration::from_secs(2);
/// The first wait after a failed poll, and the longest.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// What CloudStack says of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobAnswer {
    /// Queued or running; CloudStack does not tell which.
    Pending,
    /// Done; its `jobresult`, or null where it left none.
    Succeeded(Value),
    /// Ended without its effect, as far as CloudStack knows. The code may be 0 and the text missing.
    Failed(CloudStackFault),
    /// Not a job that this key can see: never accepted, or ended more than a day ago.
    Unknown,
}

/// What the thing that a job works on shows of it.
pub enum Sight<T> {
    /// All that the job was to do is done, and no job works on it any more: nobody has to ask for the job.
    Done(T),
    /// A job works on it.
    AtWork,
    /// Only the job itself can tell.
    Unclear,
}

/// Only the outer fields count: the volume in the result still shows its job as pending.
#[derive(Deserialize)]
struct WireJob {
    jobid: Option<Scalar>,
    jobinstanceid: Option<Scalar>,
    jobstatus: Option<Scalar>,
    jobresultcode: Option<Scalar>,
    jobresult: Option<Value>,
}

impl CloudStack {
    /// Asks once for a job (`queryAsyncJobResult`).
    ///
    /// # Errors
    /// As each call; that CloudStack does not know the job is an answer.
    pub async fn job(&self, job: JobId) -> Result<JobAnswer, CallError> {
        let request = Request::new("queryAsyncJobResult").with("jobid", job);
        match self.ask::<WireJob>(&request, expiry()).await {
            Ok(wire) => wire.read(job),
            Err(error) if error.is_refused(431) => Ok(JobAnswer::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The volume that a job works on (`jobinstanceid`): of a creation whose answer was lost, the new one. None where
    /// CloudStack does not tell, or does not know the job.
    ///
    /// # Errors
    /// As each call.
    pub async fn volume_of_job(&self, job: JobId) -> Result<Option<VolumeId>, CallError> {
        self.object_of_job("the job's volume", job).await
    }

    /// The snapshot that a job works on, likewise.
    ///
    /// # Errors
    /// As each call.
    pub async fn snapshot_of_job(&self, job: JobId) -> Result<Option<SnapshotId>, CallError> {
        self.object_of_job("the job's snapshot", job).await
    }

    async fn object_of_job<I: FromStr>(&self, what: &str, job: JobId) -> Result<Option<I>, CallError> {
        let request = Request::new("queryAsyncJobResult").with("jobid", job);
        match self.call::<WireJob>(&request).await {
            Ok(wire) => optional_id(what, wire.jobinstanceid),
            Err(error) if error.is_refused(431) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for a job to end; the error is its end where what it works on does not show that it is done. Never answers
    /// `Pending`, and waits as long as it takes.
    ///
    /// Asks `first` after that long, then more and more rarely; at once and often again when `stir` ends, which is what
    /// may have to do with the job's end. Where that may have come, `look` looks at what it works on. A poll that fails
    /// ends nothing: it is told to `trouble`, and the next comes later. That the job is pending is told too, as no trouble.
    pub async fn await_job<T, F>(
        &self,
        job: JobId,
        first: Duration,
        stir: impl Future<Output = ()>,
        look: impl Fn() -> F,
        mut trouble: impl FnMut(Option<&CallError>),
    ) -> Result<T, JobAnswer>
    where
        F: Future<Output = Result<Sight<T>, CallError>>,
    {
        let _waiter = self.shared.unfinished.wait();
        let (mut stir, mut stirred) = (pin!(stir), false);
        let (mut pace, mut wait, since) = (Pace::new(), first, Instant::now());
        loop {
            let among_others = tokio::select! {
                () = &mut stir, if !stirred => {
                    (stirred, pace) = (true, Pace::new());
                    Ok(Among::Ended)
                }
                () = tokio::time::sleep(wait) => self.job_among_others(job, since, wait / 2).await,
            };
            let sight = match among_others {
                Ok(Among::Unfinished) => Ok(Sight::AtWork),
                Ok(Among::Ended) => look().await,
                Ok(Among::Unknown) => Ok(Sight::Unclear),
                Err(error) => Err(error),
            };
            let answer = match sight {
                Ok(Sight::Done(seen)) => return Ok(seen),
                Ok(Sight::AtWork) => Ok(JobAnswer::Pending),
                Ok(Sight::Unclear) => self.job(job).await,
                Err(error) => Err(error),
            };
            wait = match answer {
                Ok(JobAnswer::Pending) => {
                    trouble(None);
                    pace.after_pending()
                }
                Ok(end) => return Err(end),
                Err(error) => {
                    trouble(Some(&error));
                    tokio::time::sleep(pace.after_failure(&error)).await;
                    Duration::ZERO
                }
            };
        }
    }
}

impl WireJob {
    fn read(self, asked: JobId) -> Result<JobAnswer, CallError> {
        if optional_id::<JobId>("the job's id", self.jobid)?.is_some_and(|answered| answered != asked) {
            return Err(CallError::unusable(format_args!("asked for job {asked}, it tells of another")));
        }
        match self.jobstatus.and_then(Scalar::number::<i64>) {
            Some(0) => Ok(JobAnswer::Pending),
            Some(1) => Ok(JobAnswer::Succeeded(self.jobresult.unwrap_or_default())),
            Some(2 | 3) => Ok(JobAnswer::Failed(failure(self.jobresult, self.jobresultcode))),
            _ => Err(CallError::unusable(format_args!("job {asked} has a status that CloudStack does not know"))),
        }
    }
}

/// The result of a failed job is an object, a plain text, or missing.
fn failure(result: Option<Value>, result_code: Option<Scalar>) -> CloudStackFault {
    let fault = match result {
        Some(Value::String(text)) => Fault::saying(text),
        Some(object) => serde_json::from_value(object).unwrap_or_default(),
        None => Fault::default(),
    };
    fault.into_fault(result_code.and_then(Scalar::number).unwrap_or(0_i64))
}

/// How long to wait between polls.
struct Pace {
    pending: Duration,
    failed: Duration,
}

impl Pace {
    fn new() -> Self {
        Self { pending: TIGHT, failed: RETRY }
    }

    fn after_pending(&mut self) -> Duration {
        self.failed = RETRY;
        let wait = self.pending;
        self.pending = (wait * 3 / 2).min(WIDE);
        jittered(wait)
    }

    fn after_failure(&mut self, error: &CallError) -> Duration {
        let wanted = match error {
            CallError::Throttled { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        };
        let wait = self.failed.max(wanted);
        self.failed = (self.failed * 2).min(LONGEST_RETRY);
        jittered(wait)
    }
}

/// Up to a quarter more, so that waiters which began together do not stay together.
fn jittered(wait: Duration) -> Duration {
    let [random, ..] = *uuid::Uuid::new_v4().as_bytes();
    wait + wait * u32::from(random) / 1024
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::future::pending;

    use jiff::{SignedDuration, Timestamp};

    use super::super::testing::{Answer, Server, json, raw};
    use super::*;

    fn answer(job: &str) -> Answer {
        json(200, &format!(r#"{{"queryasyncjobresultresponse":{{{job}}}}}"#))
    }

    fn failed(code: i64, text: Option<&str>) -> JobAnswer {
        JobAnswer::Failed(CloudStackFault { code, cserrorcode: None, text: text.map(str::to_owned) })
    }

    const UNKNOWN: &str = r#"{"queryasyncjobresultresponse":{"errorcode":431,"errortext":"entity does not exist"}}"#;

    #[tokio::test]
    async fn each_state_of_a_job_is_told_apart() {
        let cases = [
            (r#""jobstatus":0,"jobresultcode":0"#, JobAnswer::Pending),
            (r#""jobstatus":"0""#, JobAnswer::Pending),
            (
                r#""jobstatus":1,"jobresult":{"volume":{"jobstatus":0}}"#,
                JobAnswer::Succeeded(serde_json::json!({"volume": {"jobstatus": 0}})),
            ),
            (r#""jobstatus":1"#, JobAnswer::Succeeded(Value::Null)),
            (
                r#""jobstatus":2,"jobresultcode":530,"jobresult":{"errorcode":431,"errortext":"no"}"#,
                failed(431, Some("no")),
            ),
            (r#""jobstatus":2,"jobresultcode":530"#, failed(530, None)),
            (r#""jobstatus":2,"jobresultcode":0,"jobresult":{}"#, failed(0, None)),
            (r#""jobstatus":2,"jobresult":"as text""#, failed(0, Some("as text"))),
            (r#""jobstatus":3"#, failed(0, None)),
        ];
        let server = Server::start(cases.iter().map(|(job, _)| answer(job))).await;
        let client = server.client();
        for (job, expected) in cases {
            assert_eq!(client.job(JobId::random()).await.unwrap(), expected, "{job}");
        }
    }

    #[tokio::test]
    async fn an_answer_about_nothing_known_or_another_job_is_none() {
        let other = format!(r#""jobstatus":1,"jobid":"{}""#, JobId::random());
        let cases = [r#""jobstatus":7"#, r#""jobresult":{}"#, &other];
        let server = Server::start(cases.map(answer)).await;
        let client = server.client();
        for job in cases {
            assert!(client.job(JobId::random()).await.unwrap_err().accepted_unknown(), "{job}");
        }
    }

    #[tokio::test]
    async fn that_it_knows_no_such_job_is_an_answer() {
        let server = Server::start([json(431, UNKNOWN)]).await;
        assert_eq!(server.client().job(JobId::random()).await.unwrap(), JobAnswer::Unknown);
    }

    #[tokio::test]
    async fn waiting_outlives_failed_polls_and_respects_the_wait_that_is_asked_for() {
        let throttled =
            r#"{"queryasyncjobresultresponse":{"errorcode":429,"errortext":"please retry after [700] ms."}}"#;
        let server = Server::start([
            answer(r#""jobstatus":0"#),
            json(429, throttled),
            raw("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n<html>"),
            answer(r#""jobstatus":1"#),
        ])
        .await;
        let mut troubles = Vec::new();
        let started = Timestamp::now();
        let note = |error: Option<&CallError>| troubles.extend(error.cloned());
        let end = server.client().await_job(JobId::random(), Duration::ZERO, pending(), unclear, note).await;
        assert_eq!(end, Err(JobAnswer::Succeeded(Value::Null)));
        assert!(matches!(troubles[..], [CallError::Throttled { .. }, CallError::NoAnswer { .. }]), "{troubles:?}");
        assert!(started.duration_until(Timestamp::now()) > SignedDuration::from_millis(250 + 700));
    }

    /// What tells nothing of the job.
    async fn unclear() -> Result<Sight<()>, CallError> {
        Ok(Sight::Unclear)
    }

    #[tokio::test]
    async fn what_shows_the_effect_spares_the_question() {
        let server = Server::start([json(200, r#"{"listasyncjobsresponse":{}}"#)]).await;
        let looks = std::cell::Cell::new(0);
        let look = || async {
            looks.set(looks.get() + 1);
            Ok(if looks.get() == 1 { Sight::AtWork } else { Sight::Done("attached") })
        };
        let client = server.client();
        let _another = client.shared.unfinished.wait();
        let end = client.await_job(JobId::random(), LONGEST_RETRY, async {}, look, |_| ()).await;
        assert_eq!((end, looks.get()), (Ok("attached"), 2));
    }

    #[tokio::test]
    async fn it_asks_first_when_it_is_told_to_and_at_once_when_it_is_stirred() {
        let answers = [answer(r#""jobstatus":0"#), answer(r#""jobstatus":1"#)];
        let server = Server::start(answers).await;
        let started = Instant::now();
        let end = server.client().await_job(JobId::random(), LONGEST_RETRY, async {}, unclear, |_| ()).await;
        assert_eq!(end, Err(JobAnswer::Succeeded(Value::Null)));
        let took = started.elapsed();
        assert_eq!(server.forms().len(), 2);
        assert!(took >= TIGHT && took < LONGEST_RETRY, "the second wait was slept out, and not the first: {took:?}");
    }

    #[test]
    fn polls_widen_and_failures_back_off() {
        let mut pace = Pace::new();
        let within = |wait: Duration, base: Duration| wait >= base && wait <= base * 5 / 4;
        assert!(within(pace.after_pending(), TIGHT));
        for _ in 0..10 {
            pace.after_pending();
        }
        assert!(within(pace.after_pending(), WIDE));
        let away = CallError::NotSent { why: String::new(), hint: "" };
        assert!(within(pace.after_failure(&away), RETRY));
        for _ in 0..10 {
            pace.after_failure(&away);
        }
        assert!(within(pace.after_failure(&away), LONGEST_RETRY));
        pace.after_pending();
        assert!(within(pace.after_failure(&away), RETRY), "one answer ends the back-off");
    }
}
