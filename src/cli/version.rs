//! `volctl version`

use clap::Args;
use serde_json::{Map, Value};

use super::answer::Answer;
use super::render::{Output, Page, read};
use super::session::{Request, Session};
use crate::api::{self, method};
use crate::model::printable;

/// Print the versions of volctl and of the daemon
#[derive(Args, Debug)]
pub struct Version {}

impl Version {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let request = Request::new(method::SYSTEM_VERSION, "ask for the version", &serde_json::json!({}))?;
        let mut versions: Map<String, Value> = read(&session.ask(request)?)?;
        versions.insert("client_version".to_owned(), env!("CARGO_PKG_VERSION").into());
        Ok(output.answer(Ok(Value::from(versions).into()), page))
    }
}

fn page(found: &api::Version) -> Page {
    let (client, daemon) = (env!("CARGO_PKG_VERSION"), printable(&found.version));
    let pending = found.restart_pending(client).map(|pending| format!("{pending}\n")).unwrap_or_default();
    let text = format!("volctl {client}\nvolctld {daemon}\n{pending}");
    Page { text, quiet: format!("{daemon}\n"), notes: Vec::new() }
}
