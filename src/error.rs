//! The one error that crosses rooms: a stable kind, a sentence, a hint, and what CloudStack said of it.
//!
//! Kind, exit code and JSON-RPC code are one table, [`Kind::row`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::printable;

/// What went wrong, as a program may branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation; design, 11 and the README list them")]
pub enum Kind {
    Usage,
    Config,
    NotFound,
    Ambiguous,
    Conflict,
    Busy,
    InUse,
    CloudstackRefused,
    CloudstackAuth,
    CloudstackUnreachable,
    Timeout,
    DaemonUnreachable,
    NotPermitted,
    Stuck,
    DeviceMissing,
    DeviceMismatch,
    Store,
    Cancelled,
    Internal,
}

impl Kind {
    /// The exit code of `volctl` and the JSON-RPC error code (from -32000 down; the standard's own codes are not ours).
    const fn row(self) -> (u8, i32) {
        match self {
            Kind::Usage => (2, -32001),
            Kind::Config => (2, -32002),
            Kind::NotFound => (3, -32003),
            Kind::Ambiguous => (4, -32004),
            Kind::Conflict => (4, -32005),
            Kind::Busy => (4, -32006),
            Kind::InUse => (4, -32007),
            Kind::CloudstackRefused => (5, -32008),
            Kind::CloudstackAuth => (5, -32009),
            Kind::CloudstackUnreachable => (5, -32010),
            Kind::Timeout => (6, -32011),
            Kind::DaemonUnreachable => (7, -32012),
            Kind::NotPermitted => (8, -32013),
            Kind::Stuck => (9, -32014),
            Kind::DeviceMissing => (1, -32015),
            Kind::DeviceMismatch => (1, -32016),
            Kind::Store => (1, -32017),
            Kind::Cancelled => (1, -32018),
            Kind::Internal => (1, -32019),
        }
    }

    /// The exit code of `volctl`.
    pub const fn exit_code(self) -> u8 {
        self.row().0
    }

    /// The code of the JSON-RPC error object.
    pub const fn rpc_code(self) -> i32 {
        self.row().1
    }
}

/// CloudStack's own words, where it spoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CloudStackFault {
    /// `errorcode`, or the HTTP status where there was none.
    pub code: i64,
    /// `cserrorcode`, where given.
    pub cserrorcode: Option<i64>,
    /// `errortext`.
    pub text: Option<String>,
}

/// An error for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct Error {
    /// What a program branches on.
    pub kind: Kind,
    /// What was tried and what was found.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Whether the same request can succeed later without anybody changing it.
    pub retryable: bool,
    /// CloudStack's code and text.
    pub cloudstack: Option<CloudStackFault>,
}

/// The result of most things.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, with its sentence.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        let retryable =
            matches!(kind, Kind::Busy | Kind::CloudstackUnreachable | Kind::Timeout | Kind::DaemonUnreachable);
        Self { kind, message: message.to_string(), hint: None, retryable, cloudstack: None }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Says whether the same request can succeed later.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Adds what CloudStack said; its text is escaped here, once.
    #[must_use]
    pub fn cloudstack(mut self, fault: CloudStackFault) -> Self {
        self.cloudstack = Some(CloudStackFault { text: fault.text.as_deref().map(printable), ..fault });
        self
    }

    /// Puts what was being done before the sentence.
    #[must_use]
    pub fn doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_snake_case_on_the_wire() {
        let error = Error::new(Kind::CloudstackAuth, "key refused");
        assert_eq!(serde_json::to_value(&error).unwrap()["kind"], "cloudstack_auth");
    }
}
