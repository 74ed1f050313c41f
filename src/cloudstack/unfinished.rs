//! One question for all who wait for jobs: which ones CloudStack has not finished (facts sheet, 2.2).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::CloudStack;
use super::error::CallError;
use super::request::{Request, expiry};
use super::wire::Scalar;
use crate::model::JobId;

/// What all who wait for a job share.
#[derive(Default)]
pub(super) struct Unfinished {
    waiters: AtomicUsize,
    /// The key's role may not ask: each job is asked for by its id.
    refused: AtomicBool,
    last: Mutex<Option<Listed>>,
}

struct Listed {
    asked: Instant,
    pending: HashSet<String>,
}

/// What the unfinished jobs say of one.
pub(super) enum Among {
    /// It is one of them.
    Unfinished,
    /// It is none of them; it may also stand beyond the page.
    Ended,
    /// They were not asked for: one who waits alone learns more from the job itself.
    Unknown,
}

/// Counts as one who waits, until it is dropped.
pub(super) struct Waiter<'a>(&'a Unfinished);

impl Unfinished {
    pub fn wait(&self) -> Waiter<'_> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        Waiter(self)
    }

    /// Whether a list saves calls: one who waits alone learns more from the job itself.
    fn serves(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 1
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One page, the oldest jobs first: a job beyond it is asked for by its id.
#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    asyncjobs: Vec<WireListed>,
}

#[derive(Deserialize)]
struct WireListed {
    jobid: Option<Scalar>,
    jobstatus: Option<Scalar>,
}

impl CloudStack {
    /// What a list of the unfinished jobs, which is at most so old and answers for all who wait, says of one that is waited
    /// for `since` then.
    pub(super) async fn job_among_others(
        &self,
        job: JobId,
        since: Instant,
        oldest: Duration,
    ) -> Result<Among, CallError> {
        if !self.shared.unfinished.serves() {
            return Ok(Among::Unknown);
        }
        // Held over the question: who comes meanwhile has its answer.
        let mut last = self.shared.unfinished.last.lock().await;
        if self.shared.unfinished.refused.load(Ordering::Relaxed) {
            return Ok(Among::Unknown);
        }
        let tells = |listed: &Listed| listed.asked >= since && listed.asked.elapsed() <= oldest;
        if !last.as_ref().is_some_and(tells) {
            let asked = Instant::now();
            match self.pending_jobs().await {
                Ok(pending) => *last = Some(Listed { asked, pending }),
                Err(error @ CallError::Throttled { .. }) => return Err(error),
                Err(error) => {
                    // A command that is not offered answers like a wrong key (facts sheet, 3.3).
                    if matches!(error, CallError::Refused(_) | CallError::Auth { .. }) {
                        self.shared.unfinished.refused.store(true, Ordering::Relaxed);
                    }
                    return Ok(Among::Unknown);
                }
            }
        }
        let is_listed = last.as_ref().is_some_and(|listed| listed.pending.contains(&job.to_string()));
        Ok(if is_listed { Among::Unfinished } else { Among::Ended })
    }

    /// CloudStack 4.11 lists finished ones too.
    async fn pending_jobs(&self) -> Result<HashSet<String>, CallError> {
        let page_size = self.shared.page_size.load(Ordering::Relaxed);
        let request = Request::new("listAsyncJobs").with("listall", true).with("page", 1).with("pagesize", page_size);
        let listing: Listing = self.ask(&request, expiry()).await?;
        let pending = |job: WireListed| if job.jobstatus?.number() == Some(0) { job.jobid?.text() } else { None };
        Ok(listing.asyncjobs.into_iter().filter_map(pending).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::future::pending;

    use serde_json::{Value, json};

    use super::super::job::{JobAnswer, Sight};
    use super::super::testing::{Answer, Server, json as answer};
    use super::*;

    /// When a waiter of these tests asks first.
    const FIRST: Duration = Duration::from_millis(100);

    fn unfinished(jobs: &[Value]) -> Answer {
        answer(200, &json!({ "listasyncjobsresponse": { "count": jobs.len(), "asyncjobs": jobs } }).to_string())
    }

    fn pending_job(job: JobId) -> Value {
        json!({ "jobid": job, "jobstatus": 0, "cmd": "any" })
    }

    fn succeeded() -> Answer {
        answer(200, r#"{"queryasyncjobresultresponse":{"jobstatus":1}}"#)
    }

    /// Waits for two jobs at once, and tells which commands that took.
    async fn both_end(script: Vec<Answer>, jobs: [JobId; 2]) -> Vec<String> {
        let server = Server::start(script).await;
        let client = server.client();
        let unclear = || async { Ok(Sight::<()>::Unclear) };
        let end = |job| client.await_job(job, FIRST, pending(), unclear, |_| ());
        let ends = tokio::join!(end(jobs[0]), end(jobs[1]));
        let succeeded = || Err(JobAnswer::Succeeded(Value::Null));
        assert_eq!(ends, (succeeded(), succeeded()));
        server.forms().iter().map(|form| form["command"].clone()).collect()
    }

    #[tokio::test]
    async fn one_list_answers_all_who_wait_and_only_the_job_says_how_it_ended() {
        let (first, second) = (JobId::random(), JobId::random());
        let ended = json!({ "jobid": first, "jobstatus": 1 });
        let script = vec![
            unfinished(&[pending_job(first), pending_job(second)]),
            unfinished(&[ended, pending_job(second)]),
            succeeded(),
            succeeded(),
        ];
        let commands = both_end(script, [first, second]).await;
        assert_eq!(commands, ["listAsyncJobs", "listAsyncJobs", "queryAsyncJobResult", "queryAsyncJobResult"]);
    }

    #[tokio::test]
    async fn where_the_list_may_not_be_read_each_is_asked_for_by_its_id() {
        let refused = r#"{"listasyncjobsresponse":{"errorcode":432,"errortext":"not available"}}"#;
        let running = || answer(200, r#"{"queryasyncjobresultresponse":{"jobstatus":0}}"#);
        let script = vec![answer(432, refused), running(), running(), succeeded(), succeeded()];
        let commands = both_end(script, [JobId::random(), JobId::random()]).await;
        assert_eq!(commands[0], "listAsyncJobs");
        assert!(commands[1..].iter().all(|command| command == "queryAsyncJobResult"), "{commands:?}");
    }

    #[tokio::test]
    async fn a_list_that_makes_no_sense_ends_nothing() {
        let nonsense = || answer(200, r#"{"listasyncjobsresponse":{"asyncjobs":"many"}}"#);
        let script = vec![nonsense(), succeeded(), nonsense(), succeeded()];
        both_end(script, [JobId::random(), JobId::random()]).await;
    }
}
