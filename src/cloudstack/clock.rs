//! CloudStack's clock, as far as its answers tell it (`Date`). Ours may be wrong, and may be set while we run.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::error::CallError;
use super::request::{LIFETIME, Request, expiry};
use super::{Capabilities, CloudStack};

/// What an answer told last.
#[derive(Default)]
pub(super) struct Clock(Mutex<Option<Told>>);

#[derive(Clone, Copy)]
struct Told {
    date: Timestamp,
    at: Instant,
}

impl Clock {
    /// Takes down the `Date` of an answer of CloudStack's own.
    pub(super) fn told(&self, date: Option<Timestamp>) {
        if let Some(date) = date {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Told { date, at: Instant::now() });
        }
    }

    /// What it shows now, or showed a moment ago: an answer is under way for a while. None where no answer has told it.
    fn now(&self) -> Option<Timestamp> {
        let told = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        told.date.checked_add(told.at.elapsed()).ok()
    }
}

impl CloudStack {
    /// The time on CloudStack's clock; on ours where no answer has told it.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now().unwrap_or_else(Timestamp::now)
    }

    /// CloudStack's clock minus ours, to about a second; none where no answer has told the time.
    pub fn clock_skew(&self) -> Option<SignedDuration> {
        self.shared.clock.now().map(|theirs| theirs.duration_since(Timestamp::now()))
    }

    /// The moment after which CloudStack no longer takes a change that is made now. A clock of ours that is ahead of
    /// CloudStack's does not give the request a longer life.
    pub fn expiry(&self) -> Timestamp {
        let ours = expiry();
        self.shared.clock.now().map_or(ours, |theirs| ours.min(theirs + LIFETIME))
    }

    /// Whether a moment has passed on CloudStack's clock: as its answers tell, or, where they tell no time, as it
    /// refuses a question that expires then and answers one that does not.
    ///
    /// # Errors
    /// As each call.
    pub async fn has_passed(&self, moment: Timestamp) -> Result<bool, CallError> {
        if self.shared.clock.now().is_none() {
            self.ping().await?;
        }
        if let Some(now) = self.shared.clock.now() {
            return Ok(now > moment);
        }
        match self.ask(&Request::new("listCapabilities"), moment).await {
            Ok(Capabilities { .. }) => Ok(false),
            Err(CallError::Auth { .. }) => self.ping().await.map(|_| true),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::testing::{Server, dated, json, raw};
    use super::*;

    const CAPABLE: &str = r#"{"listcapabilitiesresponse":{"capability":{}}}"#;
    const UNAUTHORIZED: &str = r#"{"listcapabilitiesresponse":{"errorcode":401,"errortext":"unable to verify"}}"#;

    fn in_seconds(seconds: i64) -> Timestamp {
        Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap()
    }

    fn undated(status: u16, body: &str) -> super::super::testing::Answer {
        raw(&format!("HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n{body}"))
    }

    #[tokio::test]
    async fn its_own_date_decides_and_not_our_clock() {
        for (offset, passed) in [(3600, true), (-3600, false)] {
            let server = Server::start([dated(200, CAPABLE, in_seconds(offset))]).await;
            let client = server.client();
            assert_eq!(client.has_passed(in_seconds(0)).await.unwrap(), passed);
            assert!(!client.has_passed(in_seconds(offset + 60)).await.unwrap());
            assert_eq!(server.forms().len(), 1, "what is known is not asked");
        }
    }

    #[tokio::test]
    async fn without_a_date_its_refusal_of_that_moment_decides() {
        let script = [
            undated(200, CAPABLE),
            undated(200, CAPABLE),
            undated(200, CAPABLE),
            undated(401, UNAUTHORIZED),
            undated(200, CAPABLE),
            undated(200, CAPABLE),
            undated(401, UNAUTHORIZED),
            undated(401, UNAUTHORIZED),
        ];
        let server = Server::start(script).await;
        let (client, moment) = (server.client(), in_seconds(-7));
        assert!(!client.has_passed(moment).await.unwrap(), "it still takes what expires then");
        assert!(client.has_passed(moment).await.unwrap());
        assert!(client.has_passed(moment).await.is_err(), "it refuses the key, and nothing is proven");
        let expires = moment.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string();
        let asked: Vec<bool> = server.forms().iter().map(|form| form["expires"] == expires).collect();
        assert_eq!(asked, [false, true, false, true, false, false, true, false]);
    }

    #[tokio::test]
    async fn a_clock_of_ours_that_is_ahead_gives_a_change_no_longer_life() {
        for (offset, expected) in [(-600, -540), (600, 60)] {
            let server = Server::start([dated(200, CAPABLE, in_seconds(offset))]).await;
            let client = server.client();
            client.ping().await.unwrap();
            let off = client.expiry().duration_since(in_seconds(expected));
            assert!(off.abs() <= SignedDuration::from_secs(2), "{off}");
        }
    }

    #[tokio::test]
    async fn what_stands_in_between_does_not_tell_it() {
        let proxy = dated(502, "<html>", in_seconds(7200));
        let server = Server::start([proxy, json(200, CAPABLE)]).await;
        let client = server.client();
        assert!(client.ping().await.is_err());
        assert!(client.now() < in_seconds(60));
    }
}
