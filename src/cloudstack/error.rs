//! What can become of a call, kept apart by what it proves.

use std::time::Duration;

use jiff::SignedDuration;

use crate::error::{CloudStackFault, Error, Kind};
use crate::model::printable;

/// How long a management server in maintenance is left alone.
const MAINTENANCE_PAUSE: Duration = Duration::from_secs(2);

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection came about, or none was tried: proof that nothing arrived.
    #[error("{why}")]
    NotSent {
        /// Host and cause, for people.
        why: String,
        /// What to do next.
        hint: &'static str,
    },
    /// The request may have arrived and been carried out: no answer, or one that cannot be used.
    #[error("{found}")]
    NoAnswer {
        /// What came instead, for people.
        found: String,
        /// What to do next.
        hint: &'static str,
    },
    /// CloudStack understood the request and said no.
    #[error("{}", sentence(.0))]
    Refused(CloudStackFault),
    /// CloudStack takes the key, the signature or the expiry time for wrong; it does not say which.
    #[error("{}", auth_sentence(.fault, *.clock_skew))]
    Auth {
        /// CloudStack's code and text.
        fault: CloudStackFault,
        /// CloudStack's clock minus ours, where the difference alone explains the refusal.
        clock_skew: Option<SignedDuration>,
    },
    /// Too many calls; nothing was done.
    #[error("CloudStack's limit of calls for this account is reached")]
    Throttled {
        /// CloudStack's code and text.
        fault: CloudStackFault,
        /// How long CloudStack wants to be left alone.
        retry_after: Duration,
    },
    /// The management server takes no jobs at the moment; nothing was done. Looking still works.
    #[error("the CloudStack management server is in maintenance and takes no new jobs")]
    Maintenance(CloudStackFault),
    /// The configured project cannot be found, so nothing was sent.
    #[error("{0}")]
    Project(String),
}

impl CallError {
    /// What became of the call, in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotSent { .. } => "not_sent",
            Self::NoAnswer { .. } => "no_answer",
            Self::Refused(_) => "refused",
            Self::Auth { .. } => "auth",
            Self::Throttled { .. } => "throttled",
            Self::Maintenance(_) => "maintenance",
            Self::Project(_) => "project",
        }
    }

    /// How long to wait before the call is tried again, where nothing was done and a later try can succeed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            CallError::Throttled { retry_after, .. } => Some(*retry_after),
            CallError::Maintenance(_) => Some(MAINTENANCE_PAUSE),
            _ => None,
        }
    }

    /// Whether it is proven that no request of this call reached CloudStack.
    pub fn nothing_sent(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::Project(_))
    }

    /// Whether CloudStack may have accepted the request although this call cannot say so. All other errors prove that
    /// it did not accept it.
    pub fn accepted_unknown(&self) -> bool {
        matches!(self, Self::NoAnswer { .. })
    }

    /// An answer that says something impossible: what it is about may have been done.
    pub(super) fn unusable(why: impl std::fmt::Display) -> Self {
        Self::NoAnswer {
            found: format!("CloudStack's answer cannot be used: {why}"),
            hint: "this is not how CloudStack answers: check what stands between this machine and the endpoint",
        }
    }

    /// Whether CloudStack could not be reached, or nothing that it could have said came back.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::NoAnswer { .. })
    }

    /// Whether CloudStack refused for a reason of this code (facts sheet, 3.2).
    pub(super) fn is_refused(&self, code: i64) -> bool {
        matches!(self, Self::Refused(fault) if fault.code == code)
    }

    /// The error for people, beginning with what was being done.
    pub fn into_error(self, doing: &str) -> Error {
        Error::from(self).doing(doing)
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        match error {
            CallError::NotSent { hint, .. } => Error::new(Kind::CloudstackUnreachable, message).hint(hint),
            CallError::NoAnswer { hint, .. } => Error::new(Kind::CloudstackUnreachable, message).hint(hint),
            CallError::Refused(fault) => refusal(fault),
            CallError::Auth { fault, clock_skew } => {
                Error::new(Kind::CloudstackAuth, message).hint(auth_hint(clock_skew)).cloudstack(fault)
            }
            CallError::Throttled { fault, .. } => Error::new(Kind::CloudstackRefused, message)
                .hint("wait a moment and try again; every program with this account's keys counts")
                .retryable(true)
                .cloudstack(fault),
            CallError::Maintenance(fault) => Error::new(Kind::CloudstackRefused, message)
                .hint("try again when the maintenance has ended")
                .retryable(true)
                .cloudstack(fault),
            CallError::Project(_) => Error::new(Kind::Config, message).hint("correct [cloudstack] project"),
        }
    }
}

/// The error for a refusal in CloudStack's own words, be it of a call or of a job.
pub fn refusal(fault: CloudStackFault) -> Error {
    let error = Error::new(Kind::CloudstackRefused, sentence(&fault));
    let error = match refusal_hint(&fault) {
        Some(hint) => error.hint(hint),
        None => error,
    };
    error.cloudstack(fault)
}

fn sentence(fault: &CloudStackFault) -> String {
    match &fault.text {
        Some(text) => format!("CloudStack answered with error {}: {}", fault.code, printable(text)),
        None => format!("CloudStack answered with error {} and gave no reason", fault.code),
    }
}

/// By the codes of the facts sheet, 3.2; a code that says all in its text needs none.
fn refusal_hint(fault: &CloudStackFault) -> Option<&'static str> {
    match fault.code {
        432 => Some("the role of this account does not allow the command, or the command does not fit the volume"),
        531 => Some("this account has no access to it: check the project and the account that the keys belong to"),
        533 | 534 => Some("the cloud lacks capacity at the moment: ask its administrator"),
        535 => Some("the account's limit is reached: delete volumes, or ask the cloud's administrator for more"),
        0 | 530 if fault.text.is_none() => {
            Some("the management server was restarted or dropped the job: look at what is there, then try again")
        }
        0 | 530 => Some("the management server's log has the details, found by the time and the volume's id"),
        _ => None,
    }
}

fn auth_sentence(fault: &CloudStackFault, clock_skew: Option<SignedDuration>) -> String {
    match clock_skew {
        None => format!("CloudStack refused the API key or the signature ({})", fault.code),
        Some(skew) => {
            let by = SignedDuration::from_secs(skew.as_secs().saturating_abs());
            let side = if skew.is_positive() { "behind" } else { "ahead of" };
            format!(
                "CloudStack refused the request ({}): this machine's clock is {by:#} {side} CloudStack's",
                fault.code
            )
        }
    }
}

fn auth_hint(clock_skew: Option<SignedDuration>) -> &'static str {
    match clock_skew {
        Some(_) => "set this machine's clock (timedatectl set-ntp true), then try again",
        None => {
            "check api_key and the secret key under [cloudstack], that they belong to this endpoint, and that the \
             account and its key are enabled"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: i64, text: Option<&str>) -> CloudStackFault {
        CloudStackFault { code, cserrorcode: None, text: text.map(str::to_owned) }
    }

    #[test]
    fn a_skewed_clock_is_told_with_its_direction() {
        let auth =
            |seconds| CallError::Auth { fault: fault(401, None), clock_skew: Some(SignedDuration::from_secs(seconds)) };
        assert!(auth(552).to_string().ends_with("clock is 9m 12s behind CloudStack's"), "{}", auth(552));
        assert!(auth(-3601).to_string().ends_with("clock is 1h 1s ahead of CloudStack's"), "{}", auth(-3601));
    }

    #[test]
    fn a_refusal_carries_what_cloudstack_said_escaped() {
        let error = CallError::Refused(fault(431, Some("no\u{1b}[2J"))).into_error("attaching data1");
        assert_eq!(error.message, "attaching data1: CloudStack answered with error 431: no\\u{1b}[2J");
        assert_eq!(error.cloudstack, Some(fault(431, Some("no\\u{1b}[2J"))));
        assert_eq!(error.kind, Kind::CloudstackRefused);
        assert!(!error.retryable);
    }

    #[test]
    fn only_a_missing_answer_leaves_it_open_whether_the_request_was_accepted() {
        let errors = [
            CallError::NotSent { why: String::new(), hint: "" },
            CallError::NoAnswer { found: String::new(), hint: "" },
            CallError::Refused(fault(530, None)),
            CallError::Auth { fault: fault(401, None), clock_skew: None },
            CallError::Throttled { fault: fault(429, None), retry_after: Duration::ZERO },
            CallError::Maintenance(fault(503, None)),
            CallError::Project(String::new()),
        ];
        let open: Vec<bool> = errors.iter().map(CallError::accepted_unknown).collect();
        assert_eq!(open, [false, true, false, false, false, false, false]);
        let unsent: Vec<bool> = errors.iter().map(CallError::nothing_sent).collect();
        assert_eq!(unsent, [true, false, false, false, false, false, true]);
    }
}
