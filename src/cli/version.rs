//! `volctl version`

use clap::Args;

use super::answer::Answer;
use super::render::{Output, Page};
use super::session::{Request, Session};
use crate::api::{self, method};
use crate::model::printable;

/// Print the versions of volctl and of the daemon
#[derive(Args, Debug)]
pub struct Version {}

impl Version {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let request = Request::new(method::SYSTEM_VERSION, "ask for the version", &serde_json::json!({}))?;
        let mut answer = session.ask(request)?;
        answer["client_version"] = env!("CARGO_PKG_VERSION").into();
        Ok(output.answer(Ok(answer), page))
    }
}

fn page(found: &api::Version) -> Page {
    let (client, daemon) = (env!("CARGO_PKG_VERSION"), printable(&found.version));
    let pending = found.restart_pending(client).map(|pending| format!("{pending}\n")).unwrap_or_default();
    let text = format!("volctl {client}\nvolctld {daemon}\n{pending}");
    Page { text, quiet: format!("{daemon}\n"), notes: Vec::new() }
}
