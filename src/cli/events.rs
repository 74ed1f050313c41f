//! `volctl events`

use std::ops::ControlFlow;

use clap::Args;
use serde::Deserialize;

use super::answer::Answer;
use super::follow::Follower;
use super::render::{self, Output, read};
use super::session::{Request, Session};
use crate::api::{Event, EventList, EventWatch, method};
use crate::error::Result;
use crate::rpc::json::Json;

/// What a page holds at most; a shorter one is the last.
const PAGE: u32 = 1000;

/// Show what happened, a line each: operations, devices, exports, clients, CloudStack; with -q, the numbers
///
/// Each event has a number; later ones have larger numbers, and none is used twice. With --json each line is a JSON object.
#[derive(Args, Debug)]
pub struct Events {
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only what came after the event of this number [default: 0, which is everything that is kept]
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
}

impl Events {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let mut reader = Reader { output, after: self.after.unwrap_or_default() };
        if self.follow { session.follow(&mut reader) } else { reader.read_all(session) }
    }
}

/// Several events, each as it came.
#[derive(Deserialize)]
struct Page {
    events: Vec<Json>,
}

/// One of them.
#[derive(Deserialize)]
struct Notice {
    event: Json,
}

/// Prints events, and knows how far it is.
struct Reader<'a> {
    output: &'a Output,
    after: u64,
}

impl Reader<'_> {
    fn read_all(&mut self, session: &Session) -> Answer<u8> {
        loop {
            let params = EventList { after: Some(self.after), limit: Some(PAGE) };
            let page = session.ask(Request::new(method::EVENT_LIST, "read the events", &params)?)?;
            let Page { events } = read(&page)?;
            let is_last = events.len() < PAGE as usize;
            if let ControlFlow::Break(code) = self.print(events)? {
                return Ok(code);
            }
            if is_last {
                return Ok(0);
            }
        }
    }

    fn print(&mut self, events: Vec<Json>) -> Result<ControlFlow<u8>> {
        let screen = self.output.screen();
        let mut lines = String::new();
        for raw in events {
            let event: Event = read(&raw)?;
            self.after = event.seq;
            lines += &self.output.item(&raw, &format!("{}\n", event.seq), || render::event_line(&event, &screen))?;
        }
        Ok(self.output.stream(&lines))
    }
}

impl Follower for Reader<'_> {
    fn request(&self) -> Result<Request> {
        let params = EventWatch { after: Some(self.after), token: None };
        Request::new(method::EVENT_WATCH, "follow the events", &params)
    }

    fn told(&mut self, notification: &Json) -> Result<ControlFlow<u8>> {
        let Notice { event } = read(notification)?;
        self.print(vec![event])
    }
}
