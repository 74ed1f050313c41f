//! `volctl ops watch`: on a terminal a table that is drawn anew, elsewhere a line for each change.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::follow::Follower;
use super::ops::{self, Unread};
use super::render::{self, Output, read};
use super::session::{Request, Session};
use crate::api::{Operation, OperationWatch, method};
use crate::error::Result;
use crate::model::{OperationId, printable};
use crate::rpc::json::Json;

/// How often ages are drawn anew.
const TICK: Duration = Duration::from_secs(1);
/// What has ended is shown for so long.
const AFTERGLOW: Duration = Duration::from_secs(10);

/// Watches until Ctrl-C.
pub fn run(session: &Session, output: &Output) -> Answer<u8> {
    if output.draws() {
        // An empty screen to draw on.
        let _ = output.stream("\u{1b}[2J");
    }
    session.follow(&mut Watcher { output, shown: Vec::new(), under_way: HashSet::new() })
}

/// The operations, each with when its end was learned.
struct Watcher<'a> {
    output: &'a Output,
    shown: Vec<(Operation, Option<Instant>)>,
    /// What has not ended, as far as it was told.
    under_way: HashSet<OperationId>,
}

impl Watcher<'_> {
    fn draw(&mut self) -> ControlFlow<u8> {
        self.shown.retain(|(_, ended)| ended.is_none_or(|ended| ended.elapsed() < AFTERGLOW));
        let screen = self.output.screen();
        let operations: Vec<Operation> = self.shown.iter().map(|(operation, _)| operation.clone()).collect();
        let table = match operations.as_slice() {
            [] => "nothing is under way\n".to_owned(),
            several => render::folded(&ops::table(several, &screen), self.output.height()),
        };
        // Home, each line to its end, and what is below.
        self.output.stream(&format!("\u{1b}[H{}\u{1b}[J", table.replace('\n', "\u{1b}[K\n")))
    }
}

impl Follower for Watcher<'_> {
    fn request(&self) -> Result<Request> {
        let known = self.under_way.iter().copied().collect();
        Request::new(method::OPERATION_WATCH, "watch the operations", &OperationWatch { token: None, known })
    }

    fn told(&mut self, notification: &Json) -> Result<ControlFlow<u8>> {
        let Unread { operation: raw } = read(notification)?;
        let operation: Operation = read(&raw)?;
        match operation.status.ended() {
            true => self.under_way.remove(&operation.id),
            false => self.under_way.insert(operation.id),
        };
        if !self.output.draws() {
            let line = self.output.item(&raw, &format!("{}\n", operation.id), || line(&operation))?;
            return Ok(self.output.stream(&line));
        }
        let ended = operation.status.ended().then(Instant::now);
        match self.shown.iter_mut().find(|(known, _)| known.id == operation.id) {
            Some(known) => *known = (operation, ended),
            None => self.shown.push((operation, ended)),
        }
        Ok(self.draw())
    }

    fn tick(&mut self) -> ControlFlow<u8> {
        if self.output.draws() { self.draw() } else { ControlFlow::Continue(()) }
    }

    fn interval(&self) -> Option<Duration> {
        self.output.draws().then_some(TICK)
    }
}

fn line(operation: &Operation) -> String {
    let at = operation.updated_at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let (task, status) = (operation.task(), render::word(operation.status));
    format!("{at}  {}  {task}  {status}  {}\n", operation.id, printable(ops::where_it_stands(operation)))
}
