//! `volctl sync`

use clap::Args;

use super::answer::Answer;
use super::render::{Output, Page};
use super::session::{Request, Session};
use crate::api::{Difference, Synced, method};
use crate::model::printable;

/// Reconcile what volctld knows with CloudStack, the kernel and the exports, and say what differed
///
/// volctld does so by itself at its start and every five minutes. Nothing is ever changed in CloudStack.
#[derive(Args, Debug)]
pub struct Sync {}

impl Sync {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let request = Request::new(method::SYSTEM_SYNC, "reconcile", &serde_json::json!({}))?;
        Ok(output.answer(session.ask(request), page))
    }
}

fn page(synced: &Synced) -> Page {
    let line = |difference: &Difference| format!("{}: {}\n", printable(&difference.found), printable(&difference.done));
    let text = match synced.differences.is_empty() {
        true => "nothing differed\n".to_owned(),
        false => synced.differences.iter().map(line).collect(),
    };
    Page { text, quiet: format!("{}\n", synced.differences.len()), notes: Vec::new() }
}
