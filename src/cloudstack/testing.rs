//! A real HTTP server on loopback that gives scripted answers, byte for byte, and keeps what it was asked.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::CloudStack;
use crate::config;

/// What a request gets.
pub(super) enum Answer {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, over and over.
    Endless(Vec<u8>),
    /// Nothing, and the connection stays open.
    Silence,
}

/// A complete answer in CloudStack's form.
pub(super) fn json(status: u16, body: &str) -> Answer {
    dated(status, body, Timestamp::now())
}

/// The same at another time of CloudStack's clock.
pub(super) fn dated(status: u16, body: &str, date: Timestamp) -> Answer {
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap();
    raw(&format!(
        "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Type: application/json; charset=UTF-8\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Any bytes.
pub(super) fn raw(text: &str) -> Answer {
    Answer::Bytes(text.as_bytes().to_vec())
}

type Forms = Arc<Mutex<Vec<BTreeMap<String, String>>>>;

pub(super) struct Server {
    pub(super) config: config::CloudStack,
    forms: Forms,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Serves one request a connection, in turn; connections after the last answer are closed.
    pub(super) async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/client/api", listener.local_addr().unwrap());
        let forms = Forms::default();
        let script: Vec<Answer> = script.into_iter().collect();
        let serving = tokio::spawn(serve(listener, script, forms.clone()));
        Self { config: configured(endpoint), forms, serving }
    }

    pub(super) fn client(&self) -> CloudStack {
        CloudStack::new(&self.config).unwrap()
    }

    /// The requests so far.
    pub(super) fn forms(&self) -> Vec<BTreeMap<String, String>> {
        self.forms.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(super) fn configured(endpoint: String) -> config::CloudStack {
    config::CloudStack {
        endpoint,
        api_key: "key".to_owned(),
        secret_key: config::SecretKey::Given(SecretString::from("secret")),
        zone: None,
        disk_offering: None,
        project: None,
        vm_id: None,
        ca_file: None,
        timeout: Duration::from_secs(5),
    }
}

async fn serve(listener: TcpListener, script: Vec<Answer>, forms: Forms) {
    let mut held = Vec::new();
    let mut script = script.into_iter();
    while let Ok((stream, _)) = listener.accept().await {
        let Some(answer) = script.next() else { continue };
        let mut stream = BufReader::new(stream);
        let Some(form) = read_form(&mut stream).await else { continue };
        forms.lock().unwrap().push(form);
        match answer {
            Answer::Bytes(bytes) => drop(stream.write_all(&bytes).await),
            Answer::Endless(bytes) => while stream.write_all(&bytes).await.is_ok() {},
            Answer::Silence => held.push(stream),
        }
    }
}

pub(super) async fn read_form(stream: &mut BufReader<TcpStream>) -> Option<BTreeMap<String, String>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).ok()?;
    Some(body.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), decode(v))).collect())
}

fn decode(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}
