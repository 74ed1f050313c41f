//! One exchange with the daemon: everything is sent at once, then gathered as it comes. A connection that is lost is made
//! again, and what was not answered is sent again; the request ids of the changes make that safe.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::interrupt::Interrupt;
use super::render::{self, Progress};
use super::session::Request;
use crate::api::{Operation, method};
use crate::error::{Error, Kind, Result};
use crate::model::printable;
use crate::rpc::client::{Client, Incoming, Wait};
use crate::rpc::message::{ErrorObject, INVALID_PARAMS};

/// How long a lost connection is tried to be made again while an operation is waited for: a restart of the daemon takes
/// far less.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a look-up: it is lost where the daemon left for being idle just as it was asked.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);
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
    if let Err(end) = exchange.run() {
        exchange.open().for_each(|task| task.end(&end));
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
                End::Failed(error) if is_loss(&error) => self.reconnect(error, &interrupt)?,
                end => return Err(end),
            };
        }
        Ok(())
    }

    /// Sends what is not answered, and gathers until everything is.
    fn converse(&mut self, client: &mut Client, interrupt: &Interrupt) -> Result<(), End> {
        for (token, task) in self.tasks.iter_mut().enumerate().filter(|(_, task)| task.answer.is_none()) {
            task.id = Some(client.send(task.request.method, &task.request.params(token))?);
        }
        while self.open().next().is_some() {
            self.show_progress();
            let wait = Wait { deadline: self.next_look(), interrupt: Some(interrupt.as_fd()) };
            match client.next(&wait)? {
                Incoming::Answer { id, outcome } => self.answered(id, outcome),
                Incoming::Notification { method, params } if method == method::PROGRESS => self.told(params),
                Incoming::Notification { .. } | Incoming::TimedOut => {}
                Incoming::Interrupted if interrupt.arrived() => return Err(End::Interrupted),
                Incoming::Interrupted => {}
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

    fn answered(&mut self, id: u64, outcome: Result<Value, ErrorObject>) {
        self.lost = None;
        if let Some(task) = self.open().find(|task| task.id == Some(id)) {
            task.answered(outcome);
        }
    }

    fn told(&mut self, mut params: Value) {
        self.lost = None;
        let index = params["token"].as_u64().and_then(|token| usize::try_from(token).ok());
        if let Some(task) = index.and_then(|index| self.tasks.get_mut(index)) {
            task.told(params["operation"].take());
        }
    }

    fn next_look(&mut self) -> Option<Instant> {
        let tick = self.progress.visible().then(|| Instant::now() + TICK);
        self.open().filter_map(|task| task.deadline).chain(tick).min()
    }

    fn show_progress(&self) {
        let of = self.tasks.len();
        let ended = self.tasks.iter().filter(|task| task.answer.is_some()).count();
        let Some(task) = self.tasks.iter().find(|task| task.answer.is_none()) else { return };
        if task.request.watched || self.started.elapsed() > BLINK {
            let operation = task.operation.as_ref().map(|operation| &operation.read);
            let lost = self.lost.is_some();
            let line = render::progress_line(&task.request.label, operation, lost, (ended, of), Timestamp::now());
            self.progress.show(&line);
        }
    }
}

/// A request, and how far it is.
struct Task {
    request: Request,
    /// When the wait for its answer ends.
    deadline: Option<Instant>,
    /// Its id on the present connection.
    id: Option<u64>,
    /// Its operation as it was last told.
    operation: Option<Told>,
    answer: Option<Answer>,
}

/// An operation as it came, for JSON, and as it is understood.
struct Told {
    raw: Value,
    read: Operation,
}

impl Task {
    fn new(request: Request) -> Self {
        let deadline = request.limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { request, deadline, id: None, operation: None, answer: None }
    }

    fn patience(&self) -> Duration {
        if self.request.watched { PATIENCE } else { SHORT_PATIENCE }
    }

    fn told(&mut self, raw: Value) {
        if let Ok(read) = serde_json::from_value(raw.clone()) {
            self.operation = Some(Told { raw, read });
        }
    }

    fn answered(&mut self, outcome: Result<Value, ErrorObject>) {
        let method = self.request.method;
        let error = match outcome {
            Ok(document) if document.is_object() => {
                self.answer = Some(Ok(document));
                return;
            }
            Ok(_) => Error::new(Kind::Internal, format_args!("the daemon's answer to {method} is not an object")),
            Err(mut object) => {
                if let Some(operation) = object.data.as_mut().and_then(|data| data.get_mut("operation")) {
                    self.told(operation.take());
                }
                read_error(object, method)
            }
        };
        self.refuse(error);
    }

    fn expire(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let limit = render::span(self.request.limit.unwrap_or_default().as_secs());
        let message = format!("{}: the daemon has not answered within {limit}", printable(&self.request.label));
        self.refuse(if self.request.watched {
            Error::new(Kind::Timeout, message).hint("see what it does with: volctl ops")
        } else {
            Error::new(Kind::DaemonUnreachable, message).hint("look at it with: systemctl status volctld")
        });
    }

    fn end(&mut self, end: &End) {
        match end {
            End::Failed(error) => self.refuse(error.clone()),
            End::Interrupted => {
                self.refuse(self.interruption());
                if let Some(Err(refusal)) = &mut self.answer {
                    refusal.interrupted = true;
                }
            }
        }
    }

    fn refuse(&mut self, error: Error) {
        let refusal = Box::<Refusal>::from(error);
        self.answer = Some(Err(match &self.operation {
            Some(Told { raw, read }) => refusal.of_operation(raw.clone(), read),
            None => refusal,
        }));
    }

    /// A wait that ended though the operation goes on is a `timeout`, whoever ended it.
    fn interruption(&self) -> Error {
        let message = match &self.operation {
            Some(Told { read, .. }) => {
                format!("interrupted: {} is at \"{}\"", render::task(read), printable(&read.step))
            }
            None => format!("interrupted: {} was not answered yet", printable(&self.request.label)),
        };
        let error = Error::new(Kind::Timeout, message);
        if self.operation.is_none() && self.request.changes() {
            return error.hint("whether it was accepted, and how far it is: volctl ops");
        }
        error
    }
}

/// Whether a connection was lost, and not refused: only then can another one help.
fn is_loss(error: &Error) -> bool {
    error.kind == Kind::DaemonUnreachable && error.retryable
}

fn lost_for_good(patience: Duration, last: Error) -> Error {
    let span = render::span(patience.as_secs());
    last.doing(format_args!("the connection to the daemon was lost and could not be made again for {span}"))
}

/// The error of ours that the daemon answered, or one of the standard's in our words.
fn read_error(object: ErrorObject, method: &str) -> Error {
    let ErrorObject { code, message, data } = object;
    let ours = data.and_then(|mut data| {
        data.as_object_mut()?.entry("message").or_insert_with(|| json!(message));
        serde_json::from_value(data).ok()
    });
    ours.unwrap_or_else(|| {
        let kind = if code == INVALID_PARAMS { Kind::Usage } else { Kind::Internal };
        Error::new(kind, format_args!("the daemon refused {method}: {} ({code})", printable(&message)))
            .hint("compare the two with: volctl version")
    })
}
