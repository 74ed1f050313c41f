//! The CloudStack client: typed calls over signed requests, and the waiter for jobs.
//!
//! A call goes down and its answer comes up: `lists`, `changes`, `gathered`, `job` and `unfinished` know commands, [`CloudStack`] knows keys and
//! contact, `request` and `signature` make the form, `transport` moves it, `envelope` reads what came back, `wire`
//! turns objects into records. Protocol facts are those of the facts sheet on CloudStack's API.

mod calls;
mod changes;
mod clock;
mod contact;
mod envelope;
mod error;
mod gathered;
mod history;
mod job;
mod keys;
mod lists;
mod pace;
mod request;
mod rights;
mod signature;
#[cfg(test)]
mod testing;
mod together;
mod transport;
mod unfinished;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

pub use calls::Calls;
pub use changes::{Accepted, Intent, NewSnapshot, NewVolume};
pub use contact::{Contact, Trouble};
pub use error::{CallError, refusal};
pub use history::CloudEvent;
pub use job::{JobAnswer, Sight};
pub use request::Request;
pub use rights::COMMANDS;
pub use wire::VmSnapshot;

use calls::CallLog;
use clock::Clock;
use contact::ContactLog;
use gathered::Gathered;
use keys::Keys;
use lists::Capabilities;
use pace::Pace;
use together::Together;
use transport::{Reply, Transport};
use unfinished::Unfinished;

use tokio::time::Instant;

use crate::config;
use crate::error::Result;

/// One user's view of one CloudStack. Clones share connections, keys and contact.
#[derive(Clone)]
pub struct CloudStack {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Transport,
    keys: Keys,
    contact: ContactLog,
    calls: CallLog,
    unfinished: Unfinished,
    together: Together,
    gathered: Gathered,
    pace: Pace,
    clock: Clock,
    /// Id or name, as configured.
    project: Option<String>,
    project_id: OnceCell<String>,
    /// What the server was last seen to allow.
    page_size: AtomicUsize,
}

impl CloudStack {
    /// A client for the configured endpoint. Reads the secret and the CA file, sends nothing.
    ///
    /// # Errors
    /// `config`: a file that cannot be read, an endpoint that is not a URL, no usable trust store.
    pub fn new(config: &config::CloudStack) -> Result<Self> {
        let shared = Shared {
            transport: Transport::new(config)?,
            keys: Keys::new(config)?,
            contact: ContactLog::default(),
            calls: CallLog::default(),
            unfinished: Unfinished::default(),
            together: Together::default(),
            gathered: Gathered::default(),
            pace: Pace::default(),
            clock: Clock::default(),
            project: config.project.clone(),
            project_id: OnceCell::new(),
            page_size: AtomicUsize::new(lists::PAGE_SIZE),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How it stands with CloudStack, by the calls so far.
    pub fn contact(&self) -> Contact {
        self.shared.contact.now()
    }

    /// The calls so far, by command.
    pub fn calls(&self) -> BTreeMap<&'static str, Calls> {
        self.shared.calls.now()
    }

    /// Follows how it stands with CloudStack: woken when that changes, not by each call.
    pub fn watch_contact(&self) -> tokio::sync::watch::Receiver<Contact> {
        self.shared.contact.watch()
    }

    /// One call. While CloudStack counts too many it does nothing, so it is asked again when it wants to be, for as long
    /// as a call may take.
    async fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T, CallError> {
        let patience = Instant::now() + self.shared.transport.timeout();
        loop {
            let answered = match request.only_looks() {
                true => self.shared.together.answer(request, || self.reply(request, request::expiry())).await,
                false => self.reply(request, self.expiry()).await,
            };
            match answered {
                Err(CallError::Throttled { retry_after, .. }) if Instant::now() + retry_after < patience => {
                    tokio::time::sleep(retry_after).await;
                }
                answered => return self.read(request, &*answered?),
            }
        }
    }

    /// Sends a request of its own, once.
    async fn ask<T: DeserializeOwned>(&self, request: &Request, expires: Timestamp) -> Result<T, CallError> {
        self.read(request, &*self.reply(request, expires).await?)
    }

    /// The result in an answer that is no refusal.
    fn read<T: DeserializeOwned>(&self, request: &Request, reply: &Reply) -> Result<T, CallError> {
        envelope::result(reply, request.command()).inspect_err(|error| self.note_failure(request, error))
    }

    /// Sends a request; once more with the new secret where CloudStack refuses the old one, as nothing was done then.
    async fn reply(&self, request: &Request, expires: Timestamp) -> Result<Arc<Reply>, CallError> {
        let secret = self.shared.keys.secret();
        let first = self.attempt(request, &secret, expires).await;
        if !matches!(first, Err(CallError::Auth { .. })) {
            return first;
        }
        match self.shared.keys.newer_than(&secret) {
            Some(fresh) => self.attempt(request, &fresh, expires).await,
            None => first,
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        secret: &SecretString,
        expires: Timestamp,
    ) -> Result<Arc<Reply>, CallError> {
        match request.only_looks() {
            true => self.shared.pace.look().await,
            false => self.shared.pace.change(),
        }
        self.shared.calls.made(request.command());
        let body = request.body(&self.shared.keys.api_key, secret, expires);
        let reply = self.shared.transport.post(body, request.only_looks(), request.answer_limit()).await;
        let date = reply.as_ref().ok().and_then(|reply| reply.date);
        let outcome = reply.and_then(|reply| envelope::accepted(&reply, request.command(), expires).map(|()| reply));
        if !outcome.as_ref().is_err_and(CallError::is_away) {
            self.shared.clock.told(date);
        }
        match &outcome {
            Ok(_) => {
                self.shared.contact.note(None);
                tracing::trace!(command = request.command(), "CloudStack call answered");
            }
            Err(error) => self.note_failure(request, error),
        }
        outcome.map(Arc::new)
    }

    fn note_failure(&self, request: &Request, error: &CallError) {
        if matches!(error, CallError::Throttled { .. }) {
            self.shared.pace.turned_away();
        }
        self.shared.contact.note(Some(error));
        self.shared.calls.failed(request.command(), error);
        tracing::debug!(command = request.command(), %error, "CloudStack call failed");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use jiff::SignedDuration;

    use super::testing::{Server, dated, json};
    use super::*;
    use crate::error::Kind;

    const UNAUTHORIZED: &str = r#"{"listcapabilitiesresponse":{"uuidList":[],"errorcode":401,"errortext":"unable to verify user credentials and/or request signature"}}"#;
    const CAPABLE: &str = r#"{"listcapabilitiesresponse":{"capability":{}}}"#;

    #[tokio::test]
    async fn a_refused_key_is_told_from_a_wrong_clock() {
        let ahead = Timestamp::now() + SignedDuration::from_mins(10);
        let server = Server::start([json(401, UNAUTHORIZED), dated(401, UNAUTHORIZED, ahead)]).await;
        let client = server.client();
        let error = client.ping().await.unwrap_err().into_error("asking");
        assert_eq!(error.kind, Kind::CloudstackAuth);
        assert!(error.hint.unwrap().contains("secret key"));
        assert_eq!(error.cloudstack.unwrap().code, 401);
        let since = client.contact().key_refused_since.unwrap();
        let error = client.ping().await.unwrap_err().into_error("asking");
        assert!(error.message.contains("clock is 9m") || error.message.contains("clock is 10m"), "{error}");
        assert!(error.message.ends_with("behind CloudStack's"), "{error}");
        assert_eq!(client.contact().key_refused_since, Some(since));
    }

    #[tokio::test]
    async fn a_rotated_secret_is_read_again_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "old\n").unwrap();
        let script = [json(401, UNAUTHORIZED), json(401, UNAUTHORIZED), json(200, CAPABLE), json(200, CAPABLE)];
        let mut server = Server::start(script).await;
        server.config.secret_key = config::SecretKey::File(file.clone());
        let client = server.client();
        assert!(client.ping().await.is_err());
        assert_eq!(server.forms().len(), 1, "the same secret is not tried twice");
        std::fs::write(&file, "new\n").unwrap();
        client.ping().await.unwrap();
        client.ping().await.unwrap();
        assert_eq!(server.forms().len(), 4);
        assert!(client.contact().key_refused_since.is_none());
        let signatures: Vec<String> = server.forms().iter().map(|form| form["signature"].clone()).collect();
        assert_ne!(signatures[1], signatures[2]);
    }
}
