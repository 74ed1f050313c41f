//! One request of an exchange, from what is asked to what came of it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::answer::{Answer, Refusal};
use super::render::{self, Waiting};
use super::session::Request;
use crate::api::Operation;
use crate::error::{Error, Kind, Result};
use crate::model::printable;
use crate::rpc::json::Json;
use crate::rpc::message::{ErrorObject, INVALID_PARAMS, METHOD_NOT_FOUND};

/// How long a lost connection is tried to be made again while an operation is waited for: a restart of the daemon takes
/// far less.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a look-up: it is lost where the daemon left for being idle just as it was asked.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);

/// A request, and how far it is.
pub struct Task {
    /// What is asked.
    pub request: Request,
    /// When the wait for its answer ends.
    pub deadline: Option<Instant>,
    /// Its id on the present connection.
    pub id: Option<u64>,
    /// Its operation as it was last told.
    operation: Option<Told>,
    /// What came of it.
    pub answer: Option<Answer>,
}

/// An operation as it came, for JSON, and as it is understood.
struct Told {
    raw: Json,
    read: Operation,
}

impl Task {
    /// Not sent yet; the wait for its answer begins now.
    pub fn new(request: Request) -> Self {
        let deadline = request.limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { request, deadline, id: None, operation: None, answer: None }
    }

    /// Its operation as it was last told.
    pub fn operation(&self) -> Option<&Operation> {
        self.operation.as_ref().map(|told| &told.read)
    }

    /// What is waited for, for people.
    pub fn waiting(&self) -> Waiting<'_> {
        Waiting { label: &self.request.label, operation: self.operation() }
    }

    /// How long a lost connection is borne.
    pub fn patience(&self) -> Duration {
        if self.request.watched { PATIENCE } else { SHORT_PATIENCE }
    }

    /// Takes a notification of its operation; one that cannot be read is passed over.
    pub fn told(&mut self, raw: Json) {
        if let Ok(read) = raw.read() {
            self.operation = Some(Told { raw, read });
        }
    }

    /// Takes its answer.
    pub fn answered(&mut self, outcome: Result<Json, ErrorObject>) {
        let error = match outcome {
            Ok(document) if document.is_object() => {
                self.answer = Some(Ok(document));
                return;
            }
            Ok(_) => Error::new(
                Kind::Internal,
                format_args!("the daemon's answer to {} is not an object", self.request.method),
            ),
            Err(mut object) => {
                if let Some(operation) = object.data.as_mut().and_then(|data| data.get_mut("operation")) {
                    self.told(operation.take().into());
                }
                read_error(object, &self.request.method)
            }
        };
        self.refuse(error);
    }

    /// Ends it where its time is over.
    pub fn expire(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let limit = render::span(self.request.limit.unwrap_or_default().as_secs());
        let message = format!("{}: the daemon has not answered within {limit}", printable(&self.request.label));
        self.refuse(match (self.request.watched, &self.operation) {
            (true, Some(_)) => Error::new(Kind::Timeout, message),
            (true, None) => Error::new(Kind::Timeout, message).hint("see what it does with: volctl ops"),
            (false, _) => {
                Error::new(Kind::DaemonUnreachable, message).hint("look at it with: systemctl status volctld")
            }
        });
    }

    /// Ctrl-C: whatever was asked goes on, and is no longer waited for.
    pub fn interrupt(&mut self) {
        self.refuse(self.interruption());
        if let Some(Err(refusal)) = &mut self.answer {
            refusal.interrupted = true;
        }
    }

    /// Ends it with an error, to which its operation is added.
    pub fn refuse(&mut self, error: Error) {
        let refusal = Box::<Refusal>::from(error);
        self.answer = Some(Err(match &self.operation {
            Some(Told { raw, read }) => refusal.of_operation(raw.clone(), read),
            None => refusal,
        }));
    }

    /// A wait that ended though the operation goes on is a `timeout`, whoever ended it.
    fn interruption(&self) -> Error {
        let message = match &self.operation {
            Some(Told { read, .. }) => {
                format!("interrupted: {} is at \"{}\"", read.task(), printable(&read.step))
            }
            None => format!("interrupted: {} was not answered yet", printable(&self.request.label)),
        };
        let error = Error::new(Kind::Timeout, message);
        if self.operation.is_none() && self.request.changes() {
            return error.hint("whether it was accepted, and how far it is: volctl ops");
        }
        error
    }
}

/// The error of ours that the daemon answered, or one of the standard's in our words.
pub fn read_error(object: ErrorObject, method: &str) -> Error {
    let ErrorObject { code, message, data } = object;
    let ours = data.and_then(|mut data| {
        data.as_object_mut()?.entry("message").or_insert_with(|| json!(message));
        serde_json::from_value(data).ok()
    });
    ours.unwrap_or_else(|| {
        let asked_wrongly = matches!(code, INVALID_PARAMS | METHOD_NOT_FOUND);
        let kind = if asked_wrongly { Kind::Usage } else { Kind::Internal };
        Error::new(kind, format_args!("the daemon refused {method}: {} ({code})", printable(&message)))
            .hint("`volctl rpc rpc.discover` prints what it takes; `volctl version` compares the two")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_come_back_leaves_the_operations_id() {
        let request = Request::new("volume.attach", "attach data1", &json!({ "request_id": "r" })).unwrap();
        let mut task = Task::new(request.watched(None));
        let id = "0b5e7c1a-90ab-4cde-8f01-23456789abcd";
        task.told(json!({
            "id": id, "kind": "attach", "status": "running", "step": "attaching", "created_at": "2026-01-02T03:04:05Z",
            "updated_at": "2026-01-02T03:04:05Z"
        }).into());
        assert_eq!(task.patience(), PATIENCE);
        task.refuse(Error::new(Kind::DaemonUnreachable, "no daemon listens"));
        let refusal = task.answer.unwrap().unwrap_err();
        assert_eq!(refusal.exit_code(), 7);
        assert!(refusal.error.hint.unwrap().ends_with(&format!("volctl ops wait {id}")));
        assert!(refusal.operation.unwrap().to_string().contains(id));
    }
}
