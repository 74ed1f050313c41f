//! One connection of the server: a reader, its requests side by side, and a writer with a bounded queue.
//!
//! No more is read after one of four things, and each ends in its own way. The end of input: what was asked is still
//! answered, since a client may half-close. A fault of its lines: the client is told, and the connection closed. The
//! server's shutdown: what was asked is answered. A client that has gone: handlers are told, and the connection keeps
//! its place among all until they have returned.

use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::json::Json;
use super::lines::{Fault, LineReader, write_lines};
use super::message::{
    self, ErrorObject, INTERNAL_ERROR, INVALID_REQUEST, Id, Line, MAX_LINE, PARSE_ERROR, Refusal, Request, Response,
};
use super::peer::Peer;
use super::server::{Caller, Gone, Handler, Load, Notifier, Shared};
use crate::error::{Error, Kind};

/// Lines that wait for a slow client. Beyond it notifications are dropped and answers wait with their requests' places.
const QUEUE: usize = 64;

/// Why no more is read.
enum End {
    Input,
    Fault(Fault),
    Shutdown,
    Gone,
}

/// Serves a connection until it is closed and none of its requests runs any more.
pub(super) async fn serve<H: Handler>(stream: UnixStream, peer: Peer, shared: Arc<Shared<H>>) {
    let limits = shared.limits;
    let (input, output) = stream.into_split();
    let mut input = LineReader::new(input, limits.half_line);
    let (queue, lines) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write_lines(output, lines, limits.stalled));
    let (gone, watch_gone) = watch::channel(false);
    let caller = Caller { peer: Arc::new(peer), notify: Notifier(queue.downgrade()), gone: Gone(watch_gone) };
    let mut requests = Requests::new(shared, caller);

    let end = requests.read(&mut input, &queue).await;
    match end {
        End::Input => tokio::select! {
            () = requests.finish() => {}
            Ok(()) = input.hung_up() => {}
            () = queue.closed() => {}
        },
        End::Fault(fault) => {
            let _ = queue.send(answer_to(fault).to_string()).await;
            let _ = timeout(limits.farewell, requests.finish()).await;
        }
        End::Shutdown => requests.finish().await,
        End::Gone => {}
    }
    let _ = gone.send(true);
    drop(queue);
    let _ = writer.await;
    if let End::Fault(_) = end {
        // Closed at once, a client that is still writing would see a broken pipe and never read why.
        let _ = timeout(limits.farewell, input.discard()).await;
    }
    drop(input);
    requests.finish().await;
}

fn answer_to(fault: Fault) -> Response {
    let refusal = match fault {
        Fault::TooLong => Refusal::anonymous(INVALID_REQUEST, format_args!("a line is longer than {MAX_LINE} bytes")),
        Fault::HalfLine(patience) => {
            let seconds = patience.as_secs_f32();
            let why = format_args!("a line without its end for {seconds} s: a message is one line and a newline");
            Refusal::anonymous(INVALID_REQUEST, why)
        }
        Fault::NotUtf8 => Refusal::anonymous(PARSE_ERROR, "a line is not UTF-8"),
    };
    refusal.into()
}

/// The requests of one connection.
struct Requests<H> {
    shared: Arc<Shared<H>>,
    caller: Caller,
    places: Arc<Semaphore>,
    running: JoinSet<()>,
}

impl<H: Handler> Requests<H> {
    fn new(shared: Arc<Shared<H>>, caller: Caller) -> Self {
        let places = Arc::new(Semaphore::new(shared.limits.requests));
        Self { shared, caller, places, running: JoinSet::new() }
    }

    /// Reads and starts requests until there is a reason to stop.
    async fn read(&mut self, input: &mut LineReader, queue: &mpsc::Sender<String>) -> End {
        let mut shutdown = self.shared.shutdown.clone();
        loop {
            let line = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return End::Shutdown,
                () = queue.closed() => return End::Gone,
                Some(_) = self.running.join_next() => continue,
                line = input.next() => line,
            };
            let answer = match line {
                Ok(Some(line)) => self.start(message::parse(line.as_bytes())),
                Ok(None) => return End::Input,
                Err(fault) => return End::Fault(fault),
            };
            if answer.parts.iter().any(|part| matches!(part, Part::Running { .. })) {
                self.running.spawn(answer.send(queue.downgrade()));
            } else {
                // Nothing that takes up a place: whoever sends only such lines is read as fast as it reads.
                answer.send(queue.downgrade()).await;
            }
        }
    }

    fn start(&self, line: Line) -> Answer {
        match line {
            Line::One(item) => Answer { batch: false, parts: vec![self.start_one(item)] },
            Line::Batch(items) => {
                Answer { batch: true, parts: items.into_iter().map(|item| self.start_one(item)).collect() }
            }
        }
    }

    fn start_one(&self, item: Result<Request, Refusal>) -> Part {
        let Request { id, method, params } = match item {
            Ok(request) => request,
            Err(refusal) => return Part::Known(Some(refusal.into())),
        };
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            return Part::Known(id.map(|id| Response { id, outcome: Err(self.too_many().into()) }));
        };
        let place = Place::new(permit, Arc::clone(&self.shared.load));
        let (handler, caller) = (Arc::clone(&self.shared.handler), self.caller.clone());
        let call = tokio::spawn(async move { handler.call(method, params, caller).await });
        Part::Running { id, call, _place: place }
    }

    fn too_many(&self) -> Error {
        let limit = self.shared.limits.requests;
        Error::new(
            Kind::Busy,
            format_args!("{limit} requests of this connection are not answered yet; it takes no more"),
        )
        .hint("send it again when one of them is answered")
    }

    /// Waits until each is answered.
    async fn finish(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Room for one request, counted while it is held.
struct Place {
    load: Arc<watch::Sender<Load>>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, load: Arc<watch::Sender<Load>>) -> Self {
        load.send_modify(|load| load.requests += 1);
        Self { load, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.send_modify(|load| load.requests -= 1);
    }
}

/// What will answer one message of a line.
enum Part {
    /// An answer without a call; none for a notification.
    Known(Option<Response>),
    /// A call, and the id to answer it with; none for a notification.
    Running { id: Option<Id>, call: JoinHandle<Result<Json, ErrorObject>>, _place: Place },
}

impl Part {
    async fn finish(&mut self) -> Option<Response> {
        match self {
            Part::Known(response) => response.take(),
            Part::Running { id, call, .. } => {
                let outcome = call.await.unwrap_or_else(|error| {
                    tracing::error!(%error, "a request's handler failed");
                    Err(ErrorObject::new(INTERNAL_ERROR, "the daemon failed while it served this request: see its log"))
                });
                id.take().map(|id| Response { id, outcome })
            }
        }
    }
}

/// What will answer one line.
struct Answer {
    batch: bool,
    parts: Vec<Part>,
}

impl Answer {
    /// Waits for the calls and answers them, unless there is nobody or nothing to answer. The calls keep their places
    /// until the queue has taken the answer, which bounds the answers that wait for a slow client.
    async fn send(mut self, queue: mpsc::WeakSender<String>) {
        let mut responses = Vec::new();
        for part in &mut self.parts {
            responses.extend(part.finish().await.map(|response| response.to_string()));
        }
        let text = match responses.pop() {
            None => return,
            Some(only) if !self.batch => only,
            Some(last) => {
                responses.push(last);
                format!("[{}]", responses.join(","))
            }
        };
        if let Some(queue) = queue.upgrade() {
            // An error says that the client has gone.
            let _ = queue.send(text).await;
        }
    }
}
