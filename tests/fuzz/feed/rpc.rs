//! Bytes as the lines of a client: each is a request or is refused, and what is answered is one line of JSON.

use serde_json::value::RawValue;
use volctl::rpc::message::{self, Id, Line, Refusal, Request, Response};

/// Reads the lines as the daemon does, and what it would answer as a client does.
///
/// # Panics
/// If an answer is not one line of JSON.
pub fn rpc(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        match message::parse(line) {
            Line::One(one) => answered(one),
            Line::Batch(parts) => {
                assert!((1..=message::MAX_BATCH).contains(&parts.len()), "a batch of {}", parts.len());
                parts.into_iter().for_each(answered);
            }
        }
        message::parse_from_server(line);
    }
}

/// A request is echoed.
fn answered(part: Result<Request, Refusal>) {
    let response = match part {
        Ok(Request { id, method, params }) => {
            Response { id: id.unwrap_or_else(Id::null), outcome: Ok(params.unwrap_or(method.into())) }
        }
        Err(refusal) => refusal.into(),
    };
    let text = response.to_string();
    assert!(!text.contains('\n'), "more than one line: {text:?}");
    serde_json::from_str::<&RawValue>(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
}
