//! What is asked of the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::Answer;
use super::exchange;
use super::follow::{self, Follower};
use super::render::Output;
use crate::api::ListedChange;
use crate::error::{Error, Kind, Result};

/// A look-up that is not answered by then will not be: the daemon gives its own calls to CloudStack 30 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// The daemon ends a wait at its timeout by itself; it has this much longer to say so.
const GRACE: Duration = Duration::from_secs(5);

/// One request.
pub struct Request {
    /// The method's name.
    pub method: String,
    params: Map<String, Value>,
    /// What it does, for the progress line and for errors: `attach data1`.
    pub label: String,
    /// Whether it waits for an operation, whose progress is told.
    pub watched: bool,
    /// How long to wait for the answer.
    pub limit: Option<Duration>,
    /// Whether it may be sent again when the connection is lost.
    pub repeatable: bool,
}

impl Request {
    /// A look-up.
    ///
    /// # Errors
    /// `internal` where the parameters are no JSON object.
    pub fn new(method: impl Into<String>, label: impl Into<String>, params: &impl Serialize) -> Result<Self> {
        let (method, params, label) = (method.into(), object(params)?, label.into());
        Ok(Self { method, params, label, watched: false, limit: Some(ANSWER_LIMIT), repeatable: true })
    }

    /// Adds parameters.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(mut self, params: &impl Serialize) -> Result<Self> {
        self.params.extend(object(params)?);
        Ok(self)
    }

    /// Waits for an operation: as long as it takes, or a little longer than the timeout that the daemon was given.
    #[must_use]
    pub fn watched(self, timeout: Option<Duration>) -> Self {
        let limit = timeout.map(|timeout| timeout.saturating_add(GRACE));
        Self { watched: true, limit, ..self }
    }

    /// Is sent once, unless it carries a request id: nothing else says whether the same may be asked twice.
    #[must_use]
    pub fn sent_once_without_id(self) -> Self {
        Self { repeatable: self.changes(), ..self }
    }

    /// Waits so much longer for the answer.
    #[must_use]
    pub fn patient(self, longer: Duration) -> Self {
        Self { limit: self.limit.map(|limit| limit.saturating_add(longer)), ..self }
    }

    /// The parameters as they are sent; `token` comes back with the progress.
    pub fn params(&self, token: usize) -> Value {
        let mut params = self.params.clone();
        if self.watched {
            params.insert("token".to_owned(), token.into());
        }
        Value::Object(params)
    }

    /// The same as an entry of a list of changes.
    pub fn listed(&self) -> ListedChange {
        ListedChange { method: self.method.to_owned(), params: self.params.clone() }
    }

    /// Whether it is a change: those carry a request id.
    pub fn changes(&self) -> bool {
        self.params.contains_key("request_id")
    }
}

fn object(params: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(params) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::new(Kind::Internal, "parameters must be an object")),
        Err(e) => Err(Error::new(Kind::Internal, format_args!("cannot write the parameters as JSON: {e}"))),
    }
}

/// The way to the daemon.
pub struct Session {
    socket: PathBuf,
    output: Output,
}

impl Session {
    /// A session over this socket; it is not touched before something is asked.
    pub fn new(socket: PathBuf, output: Output) -> Self {
        Self { socket, output }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks one thing.
    pub fn ask(&self, request: Request) -> Answer {
        self.ask_all(vec![request]).pop().expect("each request has its answer")
    }

    /// Follows what the daemon tells; the exit code at the end.
    pub fn follow(&self, follower: &mut impl Follower) -> Answer<u8> {
        follow::run(&self.socket, follower)
    }

    /// Asks several things at once on one connection; the answers are in the order of the requests.
    pub fn ask_all(&self, requests: Vec<Request>) -> Vec<Answer> {
        exchange::run(&self.socket, requests, self.output.progress())
    }
}
