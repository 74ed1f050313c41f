//! What was called: counts for ever, the requests themselves as many as fit.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;

use crate::commands;
use crate::request::ApiRequest;

/// How many requests are kept.
const KEPT: usize = 10_000;

/// The log of the API's calls.
#[derive(Default, Serialize)]
pub struct Journal {
    /// How often each command was called, refused calls included; those that do not exist are `unknown`.
    pub calls: BTreeMap<&'static str, u64>,
    /// The latest requests, oldest first.
    pub requests: VecDeque<Entry>,
}

/// A request.
#[derive(Serialize)]
pub struct Entry {
    /// When it arrived.
    pub at: Timestamp,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The command as sent.
    pub command: String,
    /// The other parameters as sent, without key and signature.
    pub parameters: BTreeMap<String, String>,
    /// The fault that met it.
    pub fault: Option<String>,
}

impl Journal {
    /// Notes a request.
    pub fn note(&mut self, request: &ApiRequest, fault: Option<String>) {
        let command = request.command().unwrap_or_default().to_owned();
        let known = commands::find(&command).map_or("unknown", |command| command.name);
        *self.calls.entry(known).or_default() += 1;
        if self.requests.len() == KEPT {
            self.requests.pop_front();
        }
        let hidden = ["command", "apikey", "signature"];
        let shown = |name: &str| !hidden.iter().any(|hidden| name.eq_ignore_ascii_case(hidden));
        self.requests.push_back(Entry {
            at: Timestamp::now(),
            method: if request.is_post { "POST" } else { "GET" },
            command,
            parameters: request
                .sent
                .iter()
                .filter(|(name, _)| shown(name))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect(),
            fault,
        });
    }
}
