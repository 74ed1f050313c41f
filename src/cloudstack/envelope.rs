//! From an answer's bytes to a result or to what CloudStack refused: the envelopes of the facts sheet, 2 and 3 (pure).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

use super::error::CallError;
use super::transport::Reply;
use super::wire::Scalar;
use crate::error::CloudStackFault;
use crate::model::printable;

/// The server takes no `expires` that is further ahead than this (facts sheet, 1.1).
const FURTHEST_EXPIRY: SignedDuration = SignedDuration::from_mins(15);
/// The longest that a text of the server can make us wait, and what it costs where it names no time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const USUAL_WAIT: Duration = Duration::from_secs(1);
/// How much of a text from outside is kept.
const MAX_TEXT: usize = 1000;

const CHECK_ENDPOINT: &str = "check [cloudstack] endpoint: it should end in /client/api";
const CHECK_REDIRECTION: &str = "set [cloudstack] endpoint to the place that answers itself: redirections are not followed; it should end in /client/api";
const CHECK_SERVER: &str = "see whether the management server is up and what its log says of this moment";

/// Refuses an answer to `command`, whose request carried `expires`, that is not the command's own result.
pub(super) fn accepted(reply: &Reply, command: &str, expires: Timestamp) -> Result<(), CallError> {
    let body = escape_controls(&reply.body);
    let answer: Envelope<Fault> = serde_json::from_slice(&body).map_err(|error| not_an_envelope(reply, &error))?;
    let own_key = answer.key == format!("{}response", command.to_lowercase());
    let is_fault = answer.value.errorcode.is_some() || !(200..300).contains(&reply.status);
    match (own_key, is_fault) {
        (true, false) => Ok(()),
        (true, true) => Err(classify(answer.value.into_fault(reply.status), reply.date, expires)),
        // Of unknown commands and of commands that are not in the role (facts sheet, 3.1).
        (false, true) if answer.key == "errorresponse" => {
            Err(classify(answer.value.into_fault(reply.status), reply.date, expires))
        }
        (false, _) => Err(CallError::unusable(format_args!(
            "it is a {} and not that of {command}",
            shorten(&printable(&answer.key), 60)
        ))),
    }
}

/// The result in an answer that was [`accepted`].
pub(super) fn result<T: DeserializeOwned>(reply: &Reply, command: &str) -> Result<T, CallError> {
    let read = serde_json::from_slice(&escape_controls(&reply.body)).map(|envelope: Envelope<T>| envelope.value);
    read.map_err(|error| {
        let (key, why) = (format!("{}response", command.to_lowercase()), printable(&error.to_string()));
        CallError::unusable(format_args!("unexpected form of {key}: {}", shorten(&why, 200)))
    })
}

/// An object with exactly one key.
struct Envelope<T> {
    key: String,
    value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Envelope<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor(PhantomData))
    }
}

struct EnvelopeVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EnvelopeVisitor<T> {
    type Value = Envelope<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with one key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<T>, A::Error> {
        let (key, value) = map.next_entry()?.ok_or_else(|| A::Error::custom("no key"))?;
        match map.next_key::<String>()? {
            None => Ok(Envelope { key, value }),
            Some(_) => Err(A::Error::custom("more than one key")),
        }
    }
}

/// The error fields, all absent in a success; those of a failed job too.
#[derive(Default, Deserialize)]
pub(super) struct Fault {
    errorcode: Option<Scalar>,
    cserrorcode: Option<Scalar>,
    errortext: Option<Scalar>,
}

impl Fault {
    /// A text and no code.
    pub(super) fn saying(text: String) -> Self {
        Self { errortext: Some(Scalar::Text(text)), ..Self::default() }
    }

    /// `code` counts where CloudStack gave none.
    pub(super) fn into_fault(self, code: impl Into<i64>) -> CloudStackFault {
        CloudStackFault {
            code: self.errorcode.and_then(|code| code.number()).unwrap_or(code.into()),
            cserrorcode: self.cserrorcode.and_then(|code| code.number()),
            text: self.errortext.and_then(|text| text.text()).map(|text| shorten(&text, MAX_TEXT)),
        }
    }
}

/// By code (facts sheet, 3.2 and 3.3).
fn classify(fault: CloudStackFault, date: Option<Timestamp>, expires: Timestamp) -> CallError {
    match fault.code {
        401 => CallError::Auth { clock_skew: date.and_then(|date| explaining_skew(date, expires)), fault },
        429 => CallError::Throttled { retry_after: wait_in(fault.text.as_deref().unwrap_or_default()), fault },
        503 => CallError::Maintenance(fault),
        _ => CallError::Refused(fault),
    }
}

/// CloudStack's clock minus ours, if it alone made the server refuse this `expires`.
fn explaining_skew(date: Timestamp, expires: Timestamp) -> Option<SignedDuration> {
    let left = expires.duration_since(date);
    let in_time = left.is_positive() && left <= FURTHEST_EXPIRY;
    (!in_time).then(|| date.duration_since(Timestamp::now()))
}

/// The wait in "please retry after [480] ms", which stands nowhere else.
fn wait_in(text: &str) -> Duration {
    let named = text.split_once('[').and_then(|(_, rest)| rest.split_once("] ms")).and_then(|(ms, _)| ms.parse().ok());
    named.map_or(USUAL_WAIT, Duration::from_millis).min(LONGEST_WAIT)
}

fn not_an_envelope(reply: &Reply, error: &serde_json::Error) -> CallError {
    let Reply { peer, status, .. } = reply;
    let redirected = reply.location.as_deref().filter(|_| (300..400).contains(status));
    let (what, hint) = if let Some(location) = redirected {
        // What follows a `?` is the request, or some of it.
        let location = location.split('?').next().unwrap_or_default();
        (format!("a redirection: it redirects to {}", shorten(&printable(location), 200)), CHECK_REDIRECTION)
    } else if reply.body.trim_ascii().is_empty() {
        ("an empty body".to_owned(), if (300..400).contains(status) { CHECK_ENDPOINT } else { CHECK_SERVER })
    } else if reply.body.trim_ascii_start().starts_with(b"<") {
        (description(reply), if *status >= 500 { CHECK_SERVER } else { CHECK_ENDPOINT })
    } else if error.is_eof() {
        ("a body that is cut short".to_owned(), CHECK_SERVER)
    } else {
        (description(reply), CHECK_ENDPOINT)
    };
    CallError::NoAnswer { found: format!("{peer} gave no CloudStack answer, but HTTP {status} with {what}"), hint }
}

/// The content type and the first words, without markup.
fn description(reply: &Reply) -> String {
    let start = String::from_utf8_lossy(&reply.body[..reply.body.len().min(4096)]);
    let mut in_tag = false;
    let text: String = start
        .chars()
        .map(|c| {
            let markup = in_tag || c == '<';
            in_tag = markup && c != '>';
            if markup { ' ' } else { c }
        })
        .collect();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let content_type = shorten(reply.content_type.as_deref().unwrap_or("no content type"), 60);
    format!("{}: \"{}\"", printable(&content_type), printable(&shorten(&words, 80)))
}

fn shorten(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// CloudStack can leave control characters unescaped in its strings (facts sheet, 2), which JSON forbids.
fn escape_controls(body: &[u8]) -> Cow<'_, [u8]> {
    if !body.iter().any(u8::is_ascii_control) {
        return Cow::Borrowed(body);
    }
    let mut escaped = Vec::with_capacity(body.len() + 64);
    let (mut in_string, mut after_backslash) = (false, false);
    for &byte in body {
        if in_string && byte < 0x20 {
            escaped.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            escaped.push(byte);
        }
        in_string ^= byte == b'"' && !after_backslash;
        after_backslash = in_string && byte == b'\\' && !after_backslash;
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            location: None,
            peer: "cloud:8080".to_owned(),
            status,
            content_type: Some("text/html".to_owned()),
            date: None,
            body: body.as_bytes().to_vec(),
        }
    }

    fn read_value(status: u16, body: &str) -> Result<Value, CallError> {
        let reply = reply(status, body);
        accepted(&reply, "listVolumes", super::super::request::expiry())?;
        result(&reply, "listVolumes")
    }

    fn refused(status: u16, body: &str) -> CloudStackFault {
        match read_value(status, body) {
            Err(CallError::Refused(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    fn no_answer(status: u16, body: &str) -> (String, &'static str) {
        match read_value(status, body) {
            Err(CallError::NoAnswer { found, hint }) => (found, hint),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_success_is_what_stands_under_the_command() {
        assert_eq!(read_value(200, r#"{"listvolumesresponse":{"count":2}}"#).unwrap(), json!({"count": 2}));
        assert_eq!(read_value(200, "\n{\"listvolumesresponse\":{}}\n").unwrap(), json!({}));
    }

    #[test]
    fn a_refusal_is_read_under_either_key() {
        let body = r#"{"listvolumesresponse":{"uuidList":[],"errorcode":431,"cserrorcode":4350,"errortext":"no"}}"#;
        let fault = CloudStackFault { code: 431, cserrorcode: Some(4350), text: Some("no".to_owned()) };
        assert_eq!(refused(431, body), fault);
        assert_eq!(refused(432, r#"{"errorresponse":{"errorcode":"432"}}"#).code, 432);
        assert_eq!(refused(530, r#"{"listvolumesresponse":{}}"#).code, 530);
    }

    #[test]
    fn what_anybody_else_may_have_said_proves_nothing() {
        for (status, body) in [
            (200, "null"),
            (200, "[]"),
            (200, "{}"),
            (200, r#"{"listvolumesresponse":7}"#),
            (200, r#"{"listvolumesresponse":{},"more":{}}"#),
            (200, r#"{"listvmsresponse":{}}"#),
            (502, r#"{"error":{"message":"upstream"}}"#),
            (502, r#"{"message":"upstream"}"#),
            (200, r#"{"listvolumesresponse":{"a":"\ud800"}}"#),
            (200, &"[".repeat(100_000)),
        ] {
            no_answer(status, body);
        }
    }

    #[test]
    fn html_is_quoted_and_points_to_the_endpoint() {
        let (found, hint) = no_answer(200, "<!DOCTYPE html><html><title>Apache\nCloudStack</title>\u{1b}</html>");
        assert!(found.contains("HTTP 200 with text/html: \"Apache CloudStack"), "{found}");
        assert!(!found.contains('\u{1b}'));
        assert!(hint.contains("/client/api"));
        let (_, hint) = no_answer(502, "<html>502 Bad Gateway</html>");
        assert_eq!(hint, CHECK_SERVER);
    }

    #[test]
    fn an_empty_and_a_cut_body_are_called_so() {
        assert!(no_answer(200, " ").0.contains("an empty body"));
        assert!(no_answer(200, r#"{"listvolumesresponse":{"vol"#).0.contains("cut short"));
    }

    #[test]
    fn raw_control_characters_in_strings_are_read() {
        let body = "{\"listvolumesresponse\":\t{\"name\":\"a\u{1b}[2J\\\"\tb\\\\\",\n\"x\":1}}";
        assert_eq!(read_value(200, body).unwrap(), json!({"name": "a\u{1b}[2J\"\tb\\", "x": 1}));
    }

    #[test]
    fn the_clock_is_named_only_where_it_explains_the_refusal() {
        let expires = super::super::request::expiry();
        let at = |seconds: i64| expires.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        for (date, explains) in [(at(-60), false), (at(-1), false), (at(0), true), (at(-900), false), (at(-901), true)]
        {
            assert_eq!(explaining_skew(date, expires).is_some(), explains, "{date}");
        }
        let skew = explaining_skew(at(540), expires).unwrap();
        assert!((SignedDuration::from_secs(598)..=SignedDuration::from_secs(601)).contains(&skew), "{skew}");
    }

    #[test]
    fn a_named_wait_is_bounded() {
        assert_eq!(wait_in("please retry after [480] ms."), Duration::from_millis(480));
        assert_eq!(wait_in("retry after [99999999999] ms"), LONGEST_WAIT);
        assert_eq!(wait_in("retry after [-1] ms"), USUAL_WAIT);
        assert_eq!(wait_in("later"), USUAL_WAIT);
    }

    #[test]
    fn throttling_and_maintenance_are_not_refusals() {
        let throttled = r#"{"listvolumesresponse":{"errorcode":429,"errortext":"retry after [480] ms."}}"#;
        assert!(matches!(read_value(429, throttled), Err(CallError::Throttled { .. })));
        let maintenance = r#"{"listvolumesresponse":{"errorcode":503}}"#;
        assert!(matches!(read_value(503, maintenance), Err(CallError::Maintenance(_))));
    }
}
