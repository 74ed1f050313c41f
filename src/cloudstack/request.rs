//! One command of the API with its parameters, and how it becomes the body of a signed request (facts sheet, 1).

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::signature::{form, sign};
use crate::model::printable;

/// How far ahead a request's `expires` lies: long enough for a slow network, and short, as nothing is proven of a
/// request whose answer was lost until this time has passed.
pub(super) const LIFETIME: SignedDuration = SignedDuration::from_secs(60);

/// A page holds 500 objects of 1.5 to 5 KB.
const LIST_LIMIT: usize = 16 << 20;
const ANSWER_LIMIT: usize = 1 << 20;

/// The moment, in whole seconds, after which CloudStack no longer takes a request that is made now.
pub(super) fn expiry() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + LIFETIME.as_secs()).unwrap_or(Timestamp::MAX)
}

/// A command and its parameters, all names in lower case (facts sheet, 1.2). Shown without what every call has: key,
/// signature, expiry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Request {
    command: &'static str,
    parameters: Vec<(Cow<'static, str>, String)>,
}

impl Request {
    pub(super) fn new(command: &'static str) -> Self {
        Self { command, parameters: Vec::new() }
    }

    #[must_use]
    pub(super) fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        self.parameters.push((name.into(), value.to_string()));
        self
    }

    pub(super) fn command(&self) -> &'static str {
        self.command
    }

    /// Whether it only looks, by the server's own rule (`ApiServlet.isStateChangingCommandUsingPOST`).
    pub(super) fn only_looks(&self) -> bool {
        ["get", "list", "query", "find"].iter().any(|verb| self.command.starts_with(verb))
    }

    /// How many bytes the answer may have.
    pub(super) fn answer_limit(&self) -> usize {
        if self.command.starts_with("list") { LIST_LIMIT } else { ANSWER_LIMIT }
    }

    /// The signed form. `expires` is written in the one way that every version reads (facts sheet, 1.3).
    pub(super) fn body(&self, api_key: &str, secret: &SecretString, expires: Timestamp) -> String {
        let expires = expires.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string();
        let mut parameters = vec![
            ("command", self.command),
            ("response", "json"),
            ("apikey", api_key),
            ("signatureversion", "3"),
            ("expires", &expires),
        ];
        parameters.extend(self.parameters.iter().map(|(name, value)| (name.as_ref(), value.as_str())));
        let signature = sign(&parameters, secret);
        parameters.push(("signature", &signature));
        form(&parameters)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.command)?;
        self.parameters.iter().try_for_each(|(name, value)| match printable(value) {
            value if value.contains([' ', '"']) || value.is_empty() => write!(f, " {name}={value:?}"),
            value => write!(f, " {name}={value}"),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_signed_form() {
        let request = Request::new("attachVolume").with("id", "5f0c");
        let expires = "2031-10-10T12:00:00Z".parse().unwrap();
        let body = request.body("key", &SecretString::from("secret"), expires);
        assert_eq!(
            body,
            "command=attachVolume&response=json&apikey=key&signatureversion=3&expires=2031-10-10T12%3A00%3A00%2B0000\
             &id=5f0c&signature=3zJfRqK52%2BJNAHe6OsqDejlMwHE%3D"
        );
    }

    #[test]
    fn a_request_is_shown_as_it_is_sent() {
        let request = Request::new("createVolume").with("name", "my \"disk\"").with("size", 7).with("zoneid", "z\n");
        assert_eq!(request.to_string(), r#"createVolume name="my \"disk\"" size=7 zoneid=z\n"#);
    }

    #[test]
    fn expiry_is_a_minute_ahead_in_whole_seconds() {
        let expiry = expiry();
        let ahead = expiry.duration_since(Timestamp::now());
        assert_eq!(expiry.subsec_nanosecond(), 0);
        assert!(ahead <= LIFETIME && ahead > LIFETIME - SignedDuration::from_secs(5), "{ahead}");
    }

    #[test]
    fn only_what_looks_may_share_a_connection() {
        assert!(Request::new("queryAsyncJobResult").only_looks());
        assert!(!Request::new("deleteVolume").only_looks());
    }
}
