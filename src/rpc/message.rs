//! JSON-RPC 2.0 messages, from a line to values and back. Pure.
//!
//! The standard is <https://www.jsonrpc.org/specification>; the codes are those of its section 5.1.

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::json::Json;
use crate::error::Error;

/// The longest line that the server takes, in bytes, without its newline.
pub const MAX_LINE: usize = 1 << 20;
/// The most requests that one batch holds.
pub const MAX_BATCH: usize = 100;

/// Not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON, but not a request.
pub const INVALID_REQUEST: i64 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The method does not take these parameters.
pub const INVALID_PARAMS: i64 = -32602;
/// The server failed while it served the request.
pub const INTERNAL_ERROR: i64 = -32603;

/// The id of a request: its JSON text, so that it is echoed as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(String);

impl Id {
    /// What an answer carries where the request's id could not be read.
    pub fn null() -> Self {
        Self("null".to_owned())
    }

    /// The standard allows strings, numbers and null.
    fn of(raw: &RawValue) -> Option<Self> {
        let allowed = |first: u8| matches!(first, b'"' | b'-' | b'0'..=b'9' | b'n');
        raw.get().bytes().next().is_some_and(allowed).then(|| Self(raw.get().to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A call; a notification where it has no id.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Echoed in the answer; a request without it is never answered.
    pub id: Option<Id>,
    /// The method's name.
    pub method: String,
    /// An object or an array.
    pub params: Option<Value>,
}

/// What a failed call answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ErrorObject {
    /// One of the standard's codes, or of [`crate::error::Kind::rpc_code`].
    pub code: i64,
    /// The sentence.
    pub message: String,
    /// For programs: of our own errors all of it.
    pub data: Option<Value>,
}

impl ErrorObject {
    /// An error of the standard's, which has no data.
    pub fn new(code: i64, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), data: None }
    }
}

impl From<Error> for ErrorObject {
    fn from(error: Error) -> Self {
        let data = serde_json::to_value(&error).ok();
        Self { code: error.kind.rpc_code().into(), message: error.message, data }
    }
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut object = json!({ "code": self.code, "message": self.message });
        if let Some(data) = &self.data {
            object["data"] = data.clone();
        }
        object.fmt(f)
    }
}

/// The answer to one request. Shown, it is its JSON text, without a newline.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The request's.
    pub id: Id,
    /// What came of it.
    pub outcome: Result<Json, ErrorObject>,
}

/// Why something is no request, and what it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The request's id where it could be read, else null.
    pub id: Id,
    /// One of the standard's codes.
    pub code: i64,
    /// The sentence.
    pub message: String,
}

impl Refusal {
    /// Of what has no id that could be read.
    pub fn anonymous(code: i64, message: impl fmt::Display) -> Self {
        Self { id: Id::null(), code, message: message.to_string() }
    }
}

impl From<Refusal> for Response {
    fn from(Refusal { id, code, message }: Refusal) -> Self {
        Self { id, outcome: Err(ErrorObject::new(code, message)) }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (member, value): (_, &dyn fmt::Display) = match &self.outcome {
            Ok(result) => ("result", result),
            Err(error) => ("error", error),
        };
        write!(f, r#"{{"jsonrpc":"2.0","id":{},"{member}":{value}}}"#, self.id)
    }
}

/// The text of a request, or without an id of a notification; no newline. `params` is shown as JSON.
pub fn request(id: Option<u64>, method: &str, params: &impl fmt::Display) -> String {
    let id = id.map(|id| format!(r#","id":{id}"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0","method":{},"params":{params}{id}}}"#, json!(method))
}

/// What one line asks: each part is a request, or the answer to what is none.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// One message.
    One(Result<Request, Refusal>),
    /// Several, answered together in one array.
    Batch(Vec<Result<Request, Refusal>>),
}

/// Reads what a client sent as one line.
pub fn parse(line: &[u8]) -> Line {
    read(line).unwrap_or_else(|refusal| Line::One(Err(refusal)))
}

fn read(line: &[u8]) -> Result<Line, Refusal> {
    let unreadable = |why: fmt::Arguments<'_>| Refusal::anonymous(PARSE_ERROR, why);
    let text = std::str::from_utf8(line).map_err(|e| unreadable(format_args!("not UTF-8: {e}")))?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| unreadable(format_args!("not JSON: {e}")))?;
    if raw.get().starts_with('[') { read_batch(raw).map(Line::Batch) } else { Ok(Line::One(read_request(raw))) }
}

fn read_batch(raw: &RawValue) -> Result<Vec<Result<Request, Refusal>>, Refusal> {
    let refuse = |why: fmt::Arguments<'_>| Refusal::anonymous(INVALID_REQUEST, why);
    let parts: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|e| refuse(format_args!("not a batch: {e}")))?;
    match parts.len() {
        0 => Err(refuse(format_args!("an empty batch"))),
        1..=MAX_BATCH => Ok(parts.into_iter().map(read_request).collect()),
        many => Err(refuse(format_args!("a batch of {many} requests; at most {MAX_BATCH}"))),
    }
}

/// The members of a request, unread: a message that is none still has an id to be echoed. Others are ignored.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
}

/// Tells `null` from absent, which serde's `Option` does not.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn read_request(raw: &RawValue) -> Result<Request, Refusal> {
    let anonymous = |why: &dyn fmt::Display| Refusal::anonymous(INVALID_REQUEST, why);
    if !raw.get().starts_with('{') {
        return Err(anonymous(&"a request is an object"));
    }
    let members: Members<'_> = serde_json::from_str(raw.get()).map_err(|e| anonymous(&e))?;
    let id = match members.id {
        None => None,
        Some(raw) => Some(Id::of(raw).ok_or_else(|| anonymous(&"id is a string, a number or null"))?),
    };
    let refuse = |code, why: &dyn fmt::Display| Refusal {
        id: id.clone().unwrap_or_else(Id::null),
        code,
        message: why.to_string(),
    };
    if text(members.jsonrpc).as_deref() != Some("2.0") {
        return Err(refuse(INVALID_REQUEST, &r#"jsonrpc must be "2.0""#));
    }
    let method = text(members.method).ok_or_else(|| refuse(INVALID_REQUEST, &"method must be a string"))?;
    let params = match members.params {
        None => None,
        Some(raw) if !raw.get().starts_with(['{', '[']) => {
            return Err(refuse(INVALID_REQUEST, &"params must be an object or an array"));
        }
        Some(raw) => Some(serde_json::from_str(raw.get()).map_err(|e| refuse(INVALID_PARAMS, &e))?),
    };
    Ok(Request { id, method, params })
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// What a server says.
#[derive(Debug, PartialEq)]
pub enum FromServer {
    /// The answer to a request.
    Answer {
        /// The request's id; none where the server could not read it.
        id: Option<u64>,
        /// What came of it.
        outcome: Result<Json, ErrorObject>,
    },
    /// Something that was not asked for in particular.
    Notification {
        /// What it is about.
        method: String,
        /// What it says.
        params: Json,
    },
}

/// Reads what a server sent as one line; none where that is not JSON-RPC.
pub fn parse_from_server(line: &[u8]) -> Option<FromServer> {
    #[derive(Deserialize)]
    struct Members {
        id: Option<u64>,
        method: Option<String>,
        params: Option<Json>,
        #[serde(default, deserialize_with = "present")]
        result: Option<Json>,
        error: Option<ErrorObject>,
    }
    let Members { id, method, params, result, error } = serde_json::from_slice(line).ok()?;
    match (method, result, error) {
        (Some(method), None, None) => {
            let params = params.unwrap_or_else(|| Value::Null.into());
            Some(FromServer::Notification { method, params })
        }
        (None, Some(result), None) => Some(FromServer::Answer { id, outcome: Ok(result) }),
        (None, None, Some(error)) => Some(FromServer::Answer { id, outcome: Err(error) }),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn one(line: &str) -> Result<Request, Refusal> {
        match parse(line.as_bytes()) {
            Line::One(one) => one,
            Line::Batch(_) => panic!("a batch"),
        }
    }

    /// The id and the code with which a line is refused.
    fn refusal(line: &str) -> (String, i64) {
        let refusal = one(line).unwrap_err();
        (refusal.id.to_string(), refusal.code)
    }

    #[test]
    fn ids_are_echoed_as_they_were_written() {
        for id in ["1", "-7", "1.0", "1e3", "123456789012345678901234567890", r#""a\u0041""#, r#""""#, "null"] {
            let request = one(&format!(r#" {{"id": {id} ,"jsonrpc":"2.0","method":"a.b"}} "#)).unwrap();
            let response = Response { id: request.id.unwrap(), outcome: Ok(json!({"x": 1}).into()) };
            assert_eq!(response.to_string(), format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"x":1}}}}"#));
        }
    }

    #[test]
    fn a_request_without_an_id_is_a_notification() {
        let request = one(r#"{"jsonrpc":"2.0","method":"a","params":[1]}"#).unwrap();
        assert_eq!(request, Request { id: None, method: "a".into(), params: Some(json!([1])) });
    }

    #[test]
    fn unknown_members_are_ignored_and_escaped_names_are_read() {
        let line = r#"{"jsonrpc":"2.0","\u006dethod":"a","id":1,"auth":{"x":[1]},"params":{}}"#;
        assert_eq!(one(line).unwrap().method, "a");
    }

    #[test]
    fn what_is_not_json_is_a_parse_error() {
        for line in
            ["", " ", "{", "[1,", "nul", r#"{"jsonrpc":"2.0","id":1,"method""#, "{} {}", "'a'", "[}", "\u{feff}{}"]
        {
            assert_eq!(refusal(line), ("null".into(), PARSE_ERROR), "{line}");
        }
        let Line::One(Err(refusal)) = parse(b"{\"a\":\"\xff\"}") else { panic!("accepted") };
        assert_eq!(refusal.code, PARSE_ERROR);
    }

    #[test]
    fn what_is_json_but_no_request_is_an_invalid_request() {
        for (line, id) in [
            ("1", "null"),
            (r#""text""#, "null"),
            ("null", "null"),
            ("[]", "null"),
            ("{}", "null"),
            (r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":4}"#, "4"),
            (r#"{"jsonrpc":"2.0","id":4,"method":7}"#, "4"),
            (r#"{"jsonrpc":"1.0","id":"x","method":"a"}"#, r#""x""#),
            (r#"{"jsonrpc":2.0,"id":4,"method":"a"}"#, "4"),
            (r#"{"id":4,"method":"a"}"#, "4"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":4,"method":"a","params":"x"}"#, "4"),
            (r#"{"jsonrpc":"2.0","id":4,"method":"a","params":null}"#, "4"),
            (r#"{"jsonrpc":"2.0","id":4,"id":5,"method":"a"}"#, "null"),
        ] {
            assert_eq!(refusal(line), (id.into(), INVALID_REQUEST), "{line}");
        }
    }

    #[test]
    fn parameters_nest_only_so_deep() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(refusal(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{deep}}}"#)).1, INVALID_PARAMS);
        assert_eq!(refusal(&format!(r#"{{"jsonrpc":"2.0","id":{deep},"method":"a"}}"#)).1, INVALID_REQUEST);
        assert_eq!(refusal(&"[".repeat(MAX_LINE)).1, PARSE_ERROR);
    }

    #[test]
    fn a_batch_holds_requests_and_refusals_side_by_side() {
        let Line::Batch(parts) =
            parse(br#"[1, {"jsonrpc":"2.0","method":"n"}, {"jsonrpc":"2.0","method":"a","id":2}, []]"#)
        else {
            panic!("no batch")
        };
        let ids: Vec<_> = parts.into_iter().map(|part| part.map(|request| request.id).map_err(|r| r.id)).collect();
        assert_eq!(ids, [Err(Id::null()), Ok(None), Ok(Some(Id("2".into()))), Err(Id::null())]);
    }

    #[test]
    fn a_batch_is_bounded() {
        let batch = |n: usize| format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"a","id":1}"#; n].join(","));
        assert!(matches!(parse(batch(MAX_BATCH).as_bytes()), Line::Batch(parts) if parts.len() == MAX_BATCH));
        assert_eq!(refusal(&batch(MAX_BATCH + 1)), ("null".into(), INVALID_REQUEST));
    }

    #[test]
    fn our_errors_carry_themselves_as_data() {
        let error = Error::new(Kind::NotFound, "no volume \"x\"").hint("volctl ls");
        let response = Response { id: Id("1".into()), outcome: Err(error.clone().into()) };
        let value: Value = serde_json::from_str(&response.to_string()).unwrap();
        assert_eq!(value["error"]["code"], Kind::NotFound.rpc_code());
        assert_eq!(value["error"]["message"], "no volume \"x\"");
        assert_eq!(serde_json::from_value::<Error>(value["error"]["data"].clone()).unwrap(), error);
    }

    #[test]
    fn a_client_reads_what_a_server_writes() {
        let answered = Response { id: Id("3".into()), outcome: Ok(Value::Null.into()) };
        assert_eq!(
            parse_from_server(answered.to_string().as_bytes()),
            Some(FromServer::Answer { id: Some(3), outcome: Ok(Value::Null.into()) })
        );
        let error = ErrorObject::new(PARSE_ERROR, "not JSON");
        let refused = Response { id: Id::null(), outcome: Err(error.clone()) };
        assert_eq!(
            parse_from_server(refused.to_string().as_bytes()),
            Some(FromServer::Answer { id: None, outcome: Err(error) })
        );
        assert_eq!(
            parse_from_server(request(None, "progress", &json!({"step": "a"})).as_bytes()),
            Some(FromServer::Notification { method: "progress".into(), params: json!({"step": "a"}).into() })
        );
        for line in [
            "",
            "HTTP/1.1 400 Bad Request",
            "{}",
            "[]",
            r#"{"id":1}"#,
            r#"{"id":1,"result":1,"error":null,"method":"a"}"#,
        ] {
            assert_eq!(parse_from_server(line.as_bytes()), None, "{line}");
        }
    }
}
