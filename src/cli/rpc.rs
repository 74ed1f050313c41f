//! `volctl rpc`

use std::io::Read;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use super::answer::Answer;
use super::render::Output;
use super::session::{Request, Session};
use crate::api::method;
use crate::error::{Error, Kind, Result};
use crate::rpc::message::MAX_LINE;

/// Call a method of the daemon's JSON-RPC interface, and print its result as JSON
///
/// `volctl rpc rpc.discover` prints the OpenRPC document that describes them all. A change is accepted and shown;
/// with {"wait": true} its end is awaited. Unlike the other commands this one sends nothing again when the connection
/// is lost, except with a "request_id" of yours.
#[derive(Args, Debug)]
pub struct Rpc {
    /// The method's name, such as volume.list
    method: String,
    /// Its parameters, a JSON object; - reads them from stdin
    #[arg(default_value = "{}")]
    params: String,
}

impl Rpc {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let params = if self.params == "-" { params(&from_stdin()?)? } else { params(&self.params)? };
        let waits = self.method == method::OPERATION_WAIT || params.get("wait") == Some(&Value::Bool(true));
        let timeout = params.get("timeout_seconds").and_then(Value::as_u64).map(Duration::from_secs);
        let label = self.method.clone();
        let request = Request::new(self.method, label, &params)?.sent_once_without_id();
        let request = if waits { request.watched(timeout) } else { request };
        Ok(output.result(session.ask(request)))
    }
}

fn from_stdin() -> Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    let read = std::io::stdin().lock().take(limit).read_to_string(&mut text);
    read.map_err(|error| Error::new(Kind::Usage, format_args!("the parameters cannot be read from stdin: {error}")))?;
    Ok(text)
}

fn params(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(Kind::Usage, format_args!("the parameters are not a JSON object: {error}"))
            .hint(r#"such as '{"volume": "data1"}'"#)
    })
}
