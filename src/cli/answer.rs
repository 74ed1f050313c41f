//! What came of one request: a document, or why there is none.

use super::render;
use crate::api::{Operation, Status};
use crate::error::{Error, Kind};
use crate::rpc::json::Json;

/// What came of one request: a document, or what was read from it.
pub type Answer<T = Json> = Result<T, Box<Refusal>>;

/// Why a request did not do what it should.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The error.
    pub error: Error,
    /// The operation as the daemon last told it, where one was accepted.
    pub operation: Option<Json>,
    /// Whether it was Ctrl-C that ended the wait.
    pub interrupted: bool,
}

impl From<Error> for Box<Refusal> {
    fn from(error: Error) -> Self {
        Box::new(Refusal { error, operation: None, interrupted: false })
    }
}

impl Refusal {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        if self.interrupted { super::INTERRUPTED } else { self.error.kind.exit_code() }
    }

    /// Adds the operation that was accepted, and how to watch it where it goes on and the error does not say so.
    #[must_use]
    pub fn of_operation(mut self: Box<Self>, raw: Json, operation: &Operation) -> Box<Self> {
        self.operation = Some(raw);
        let goes_on = !operation.status.ended() && operation.status != Status::Stuck;
        let left = matches!(self.error.kind, Kind::Timeout | Kind::DaemonUnreachable);
        let named = self.error.hint.as_deref().is_some_and(|hint| hint.contains(&operation.id.to_string()));
        if goes_on && left && !named {
            let said = self.error.hint.as_deref().map(|hint| format!("{hint}; ")).unwrap_or_default();
            let watch = render::watch_command(operation);
            self.error.hint = Some(format!("{said}the operation goes on; watch it with: {watch}"));
        }
        self
    }
}
