//! One exchange with the daemon: everything is sent at once, then gathered as it comes. A connection that is lost is made
//! again, and what was not answered is sent again; the request ids of the changes make that safe.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;

use super::answer::Answer;
use super::interrupt::Interrupt;
use super::render::{self, Progress, Waiting};
use super::session::Request;
use super::task::Task;
use crate::api::method;
use crate::error::{Error, Kind, Result};
use crate::rpc::client::{Client, Incoming, Wait};
use crate::rpc::json::Json;
use crate::rpc::message::ErrorObject;

/// Before each attempt to connect again.
const PAUSE: Duration = Duration::from_millis(200);
/// A look-up that is over by then shows no progress line, which would only flicker.
const BLINK: Duration = Duration::from_millis(500);
/// How often the progress line is drawn.
const TICK: Duration = Duration::from_millis(200);

/// Asks everything, and gives an answer for each request, in their order.
pub fn run(socket: &Path, requests: Vec<Request>, progress: Progress) -> Vec<Answer> {
    let tasks = requests.into_iter().map(Task::new).collect();
    let mut exchange = Exchange { socket, progress, tasks, started: Instant::now(), lost: None };
    match exchange.run() {
        Ok(()) => {}
        Err(End::Interrupted) => exchange.open().for_each(Task::interrupt),
        Err(End::Failed(error)) => exchange.open().for_each(|task| task.refuse(error.clone())),
    }
    exchange.tasks.into_iter().filter_map(|task| task.answer).collect()
}

/// Why no more answers come.
enum End {
    Interrupted,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        End::Failed(error)
    }
}

/// What a progress notification says; the token is the number of a task.
#[derive(Deserialize)]
struct Told {
    token: usize,
    operation: Json,
}

struct Exchange<'a> {
    socket: &'a Path,
    progress: Progress,
    tasks: Vec<Task>,
    started: Instant,
    /// Since when nothing came because the connection was lost.
    lost: Option<Instant>,
}

impl Exchange<'_> {
    fn run(&mut self) -> Result<(), End> {
        let interrupt = Interrupt::listen()?;
        let mut client = Client::connect(self.socket)?;
        while let Err(end) = self.converse(&mut client, &interrupt) {
            client = match end {
                End::Failed(error) if is_loss(&error) && self.open().all(|task| task.request.repeatable) => {
                    self.reconnect(error, &interrupt)?
                }
                end => return Err(end),
            };
        }
        Ok(())
    }

    /// Sends what is not answered, and gathers until everything is.
    fn converse(&mut self, client: &mut Client, interrupt: &Interrupt) -> Result<(), End> {
        for (token, task) in self.tasks.iter_mut().enumerate().filter(|(_, task)| task.answer.is_none()) {
            task.id = Some(client.send(&task.request.method, &task.request.params(token))?);
        }
        while self.open().next().is_some() {
            self.show_progress();
            let wait = Wait { deadline: self.next_look(), interrupt: Some(interrupt.as_fd()) };
            match client.next(&wait)? {
                Incoming::Answer { id, outcome } => self.answered(id, outcome),
                Incoming::Notification { method, params } if method == method::PROGRESS => self.told(&params),
                Incoming::Notification { .. } | Incoming::TimedOut | Incoming::Interrupted => {}
            }
            if interrupt.arrived() {
                return Err(End::Interrupted);
            }
            let now = Instant::now();
            self.open().for_each(|task| task.expire(now));
        }
        Ok(())
    }

    /// Connects again, as long as the most patient request bears it.
    fn reconnect(&mut self, loss: Error, interrupt: &Interrupt) -> Result<Client, End> {
        let since = *self.lost.get_or_insert_with(Instant::now);
        let mut last = loss;
        loop {
            if interrupt.arrives_within(PAUSE) {
                return Err(End::Interrupted);
            }
            let now = Instant::now();
            self.open().for_each(|task| task.expire(now));
            let patience = self.open().map(|task| task.patience()).max().unwrap_or_default();
            if now.duration_since(since) >= patience {
                return Err(lost_for_good(patience, last).into());
            }
            self.show_progress();
            match Client::connect(self.socket) {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
    }

    fn open(&mut self) -> impl Iterator<Item = &mut Task> {
        self.tasks.iter_mut().filter(|task| task.answer.is_none())
    }

    fn answered(&mut self, id: u64, outcome: Result<Json, ErrorObject>) {
        self.lost = None;
        if let Some(task) = self.open().find(|task| task.id == Some(id)) {
            task.answered(outcome);
        }
    }

    fn told(&mut self, params: &Json) {
        self.lost = None;
        if let Ok(told) = params.read::<Told>()
            && let Some(task) = self.tasks.get_mut(told.token)
        {
            task.told(told.operation);
        }
    }

    fn next_look(&mut self) -> Option<Instant> {
        let tick = self.progress.visible().then(|| Instant::now() + TICK);
        self.open().filter_map(|task| task.deadline).chain(tick).min()
    }

    fn show_progress(&self) {
        let open: Vec<&Task> = self.tasks.iter().filter(|task| task.answer.is_none()).collect();
        if open.iter().any(|task| task.request.watched) || self.started.elapsed() > BLINK {
            let waiting: Vec<Waiting> = open.iter().map(|task| task.waiting()).collect();
            let (of, size) = (self.tasks.len(), self.progress.size());
            self.progress.show(&render::progress_lines(&waiting, of, self.lost.is_some(), size, Timestamp::now()));
        }
    }
}

/// Whether a connection was lost, and not refused: only then can another one help.
pub fn is_loss(error: &Error) -> bool {
    error.kind == Kind::DaemonUnreachable && error.retryable
}

/// The error where a connection could not be made again.
pub fn lost_for_good(patience: Duration, last: Error) -> Error {
    let span = render::span(patience.as_secs());
    last.doing(format_args!("the connection to the daemon was lost and could not be made again for {span}"))
}
