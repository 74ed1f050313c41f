//! The CloudStack simulator as a process, and a small client with a signer of its own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha1::Sha1;

use super::wait_for;

/// The key that the simulator knows if nothing else is said.
pub const API_KEY: &str = "simulator-key";
/// Its secret.
pub const SECRET_KEY: &str = "simulator-secret";
/// The running VM that stands for the test's own.
pub const APPLIANCE: &str = "a0000000-0000-4000-8000-000000000001";
/// Another running VM.
pub const WORKER: &str = "a0000000-0000-4000-8000-000000000002";
/// A stopped VM.
pub const OLD: &str = "a0000000-0000-4000-8000-000000000003";
/// The zone.
pub const ZONE: &str = "20000000-0000-4000-8000-000000000001";
/// The disk offering whose size the caller gives.
pub const CUSTOM: &str = "30000000-0000-4000-8000-000000000001";
/// The disk offering of 5 GiB.
pub const FIXED: &str = "30000000-0000-4000-8000-000000000002";

/// A running simulator; it ends with the value, or with the test's process.
pub struct Simulator {
    child: Child,
    endpoint: String,
}

/// An HTTP answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header lines.
    pub headers: Vec<String>,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// What stands under the one top-level key.
    pub fn content(&self) -> Value {
        self.json().as_object().and_then(|object| object.values().next().cloned()).unwrap()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.iter().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Simulator {
    /// Starts one on a free port, with short jobs.
    pub fn start(options: &[&str]) -> Self {
        let simulator = Self::start_as_it_is(options);
        simulator.settings(json!({"latency": {"default": {"min_ms": 20, "max_ms": 20}}}));
        simulator
    }

    /// Starts one on a free port.
    pub fn start_as_it_is(options: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["--until-stdin-closes"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        Self { child, endpoint: endpoint.trim_end().to_owned() }
    }

    /// The API's URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// How the process has ended, once it has.
    pub fn ended_with(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Calls a command, signed, with POST.
    pub fn call(&self, command: &str, parameters: &[(&str, &str)]) -> Answer {
        self.try_call(command, parameters).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Calls a command, signed, with POST; fails if the answer is no whole one.
    pub fn try_call(&self, command: &str, parameters: &[(&str, &str)]) -> io::Result<Answer> {
        let mut all = vec![("command", command), ("response", "json"), ("apikey", API_KEY)];
        all.extend(parameters);
        self.post(&signed(&all, SECRET_KEY))
    }

    /// Sends a form as it is.
    pub fn post(&self, form: &str) -> io::Result<Answer> {
        self.exchange("POST", "/client/api", "application/x-www-form-urlencoded", form)
    }

    /// Sends a query as it is.
    pub fn get(&self, query: &str) -> io::Result<Answer> {
        self.exchange("GET", &format!("/client/api?{query}"), "", "")
    }

    /// Calls an asynchronous command and answers its ended job.
    pub fn job(&self, command: &str, parameters: &[(&str, &str)]) -> Value {
        let answer = self.call(command, parameters);
        let submitted = answer.content();
        self.ended(submitted["jobid"].as_str().unwrap_or_else(|| panic!("{command}: {}", answer.body)))
    }

    /// The job, when it has ended.
    pub fn ended(&self, id: &str) -> Value {
        wait_for("the end of a job", || {
            let job = self.call("queryAsyncJobResult", &[("jobid", id)]).content();
            (job["jobstatus"] != 0).then_some(job)
        })
    }

    /// A new volume of 1 GiB.
    pub fn volume(&self, name: &str) -> String {
        let parameters = [("name", name), ("zoneid", ZONE), ("diskofferingid", CUSTOM), ("size", "1")];
        let job = self.job("createVolume", &parameters);
        job["jobresult"]["volume"]["id"].as_str().unwrap().to_owned()
    }

    /// What the API lists of a volume.
    pub fn listed(&self, id: &str) -> Value {
        self.call("listVolumes", &[("id", id)]).content()["volume"][0].clone()
    }

    /// Uses the back door, which must accept it.
    pub fn admin(&self, method: &str, what: &str, body: Value) -> Value {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let answer = self.exchange(method, &format!("/admin/{what}"), "application/json", &body).unwrap();
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        answer.json()
    }

    /// Changes settings.
    pub fn settings(&self, patch: Value) {
        self.admin("POST", "settings", patch);
    }

    /// Sets a fault.
    pub fn fault(&self, fault: Value) {
        self.admin("POST", "faults", json!([fault]));
    }

    /// The whole truth.
    pub fn state(&self) -> Value {
        self.admin("GET", "state", Value::Null)
    }

    /// How many calls of a command have come.
    pub fn calls(&self, command: &str) -> u64 {
        self.state()["journal"]["calls"][command].as_u64().unwrap_or_default()
    }

    /// Whether a guest has the volume's disk.
    pub fn is_plugged(&self, volume: &str) -> bool {
        self.state()["guests"]["plugged"].get(volume).is_some()
    }

    fn exchange(&self, method: &str, target: &str, content_type: &str, body: &str) -> io::Result<Answer> {
        let address = self.endpoint.trim_start_matches("http://").trim_end_matches("/client/api");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        parse(&String::from_utf8_lossy(&bytes))
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The form with its signature.
pub fn signed(parameters: &[(&str, &str)], secret: &str) -> String {
    let mut sorted = parameters.to_vec();
    sorted.sort();
    let text: Vec<_> = sorted.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.join("&").to_lowercase().as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let mut all = parameters.to_vec();
    all.push(("signature", &signature));
    form(&all)
}

/// The form, unsigned.
pub fn form(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<_> =
        parameters.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    pairs.join("&")
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// A whole answer; a shorter body than was announced is an error.
fn parse(text: &str) -> io::Result<Answer> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let mut lines = head.split("\r\n").map(str::to_owned);
    let status = lines.next().unwrap_or_default().split(' ').nth(1).and_then(|status| status.parse().ok());
    let answer = Answer { status: status.ok_or_else(cut)?, headers: lines.collect(), body: body.to_owned() };
    let announced = answer.header("content-length").and_then(|length| length.parse().ok());
    if announced.is_some_and(|length: usize| length != body.len()) {
        return Err(cut());
    }
    Ok(answer)
}

/// Beside the binaries under test.
fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_cloudstack-simulator"))
}
