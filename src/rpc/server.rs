//! The server: accepts connections, within limits, until it is told to stop. [`super::connection`] serves each.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection;
use super::json::Json;
use super::message::{ErrorObject, Id, Response, request};
use super::peer::Peer;
use crate::error::{Error, Kind};

/// What a client may take up, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Requests of one connection that are not answered yet.
    pub requests: usize,
    /// How long a line may stay half sent.
    pub half_line: Duration,
    /// How long a client may take nothing of what is written to it.
    pub stalled: Duration,
    /// How long a connection that must be closed is still answered and read, so that its client learns why.
    pub farewell: Duration,
    /// How long the requests in flight may take once the server was told to stop.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            requests: 256,
            half_line: Duration::from_secs(10),
            stalled: Duration::from_secs(30),
            farewell: Duration::from_secs(2),
            // The daemon leaves within 300 ms of SIGTERM (design, 9).
            shutdown: Duration::from_millis(200),
        }
    }
}

/// What the server has at hand, for whoever decides that it is idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Open connections.
    pub connections: usize,
    /// Requests that were read and not answered yet.
    pub requests: usize,
}

/// Who knows the methods.
pub trait Handler: Send + Sync + 'static {
    /// Serves one request or notification; many run side by side. It is never cancelled when its client goes away:
    /// a handler that only waits watches [`Caller::gone`].
    fn call(
        &self,
        method: String,
        params: Option<Value>,
        caller: Caller,
    ) -> impl Future<Output = Result<Json, ErrorObject>> + Send;
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The process at the other end.
    pub peer: Arc<Peer>,
    /// How to tell it something before the answer.
    pub notify: Notifier,
    /// When nobody is there any more to be answered.
    pub gone: Gone,
}

/// Sends notifications on one connection.
#[derive(Clone, Debug)]
pub struct Notifier(pub(super) mpsc::WeakSender<String>);

impl Notifier {
    /// Sends a notification once the client has read enough to take it; false where it has gone.
    pub async fn send(&self, method: &str, params: &Json) -> bool {
        match self.0.upgrade() {
            Some(queue) => queue.send(request(None, method, params)).await.is_ok(),
            None => false,
        }
    }

    /// Sends a notification; drops it where the client is slow to read or has gone.
    pub fn notify(&self, method: &str, params: &Json) {
        if let Some(queue) = self.0.upgrade()
            && let Ok(place) = queue.try_reserve()
        {
            place.send(request(None, method, params));
        }
    }
}

/// Tells when a client has gone: when it can't read an answer any more, not when it has only stopped to send.
#[derive(Clone, Debug)]
pub struct Gone(pub(super) watch::Receiver<bool>);

impl Gone {
    /// Returns once the client has gone.
    pub async fn wait(&mut self) {
        // The other half is dropped with the connection, which is the same news.
        let _ = self.0.wait_for(|gone| *gone).await;
    }
}

/// What each connection shares with the server.
pub(super) struct Shared<H> {
    pub(super) handler: Arc<H>,
    pub(super) limits: Limits,
    pub(super) load: Arc<watch::Sender<Load>>,
    pub(super) shutdown: watch::Receiver<bool>,
}

/// Serves until `shutdown` is true (or its sender dropped): then nothing more is accepted or read, what was asked is
/// answered within [`Limits::shutdown`], and all connections are closed. `load` is kept up to date all the while.
pub async fn serve<H: Handler>(
    listener: UnixListener,
    handler: Arc<H>,
    mut shutdown: watch::Receiver<bool>,
    limits: Limits,
    load: watch::Sender<Load>,
) {
    let shared = Arc::new(Shared { handler, limits, load: Arc::new(load), shutdown: shutdown.clone() });
    let mut connections = JoinSet::new();
    let mut door = Door { listener, spare: None };
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => {}
            stream = door.next() => if connections.len() < limits.connections {
                admit(stream, &mut connections, &shared);
            } else {
                refuse(stream, full(format_args!("the daemon has {} connections, and takes no more", limits.connections)));
            },
        }
        shared.load.send_modify(|load| load.connections = connections.len());
    }
    drop(door);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.shutdown, all).await.is_err() {
        tracing::info!("closing connections whose requests are not answered yet");
    }
    connections.shutdown().await;
    shared.load.send_modify(|load| load.connections = 0);
}

/// Where connections come in.
struct Door {
    listener: UnixListener,
    /// A file descriptor in reserve: when there is no other one, a client can still be told so.
    spare: Option<File>,
}

impl Door {
    /// The next connection. A lack of descriptors or memory passes: it is waited out, longer each time.
    async fn next(&mut self) -> UnixStream {
        let mut pause = Duration::from_millis(5);
        loop {
            self.spare = self.spare.take().or_else(|| File::open("/dev/null").ok());
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) if is_out_of_descriptors(&error) && self.spare.is_some() => self.turn_one_away().await,
                Err(error) => {
                    tracing::warn!(%error, ?pause, "cannot accept a connection");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    /// Tells one client, over the descriptor in reserve, that there is none for it.
    async fn turn_one_away(&mut self) {
        self.spare = None;
        if let Ok(Ok((stream, _))) = timeout(Duration::ZERO, self.listener.accept()).await {
            refuse(stream, full(format_args!("the daemon has no file descriptor left for another connection")));
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn admit<H: Handler>(stream: UnixStream, connections: &mut JoinSet<()>, shared: &Arc<Shared<H>>) {
    match Peer::of(&stream) {
        Ok(peer) => {
            connections.spawn(connection::serve(stream, peer, Arc::clone(shared)));
        }
        Err(error) => tracing::warn!(%error, "the kernel does not say who connected"),
    }
}

fn full(why: fmt::Arguments<'_>) -> Error {
    Error::new(Kind::Busy, why).hint("try again when some have ended")
}

fn refuse(stream: UnixStream, why: Error) {
    tracing::warn!("a connection was refused: {why}");
    match stream.into_std() {
        Ok(stream) => tell(stream, why),
        Err(error) => tracing::debug!(%error, "a refused client did not hear why"),
    }
}

/// Tells those who wait at a listener, for a daemon that cannot serve them, why it cannot. Who started it by connecting
/// would else learn nothing, and start it again.
pub fn turn_away(listener: &StdListener, why: &Error) {
    while let Ok((stream, _)) = listener.accept() {
        tell(stream, why.clone());
    }
}

/// Says why at once, without waiting for a client that does not read; a fresh socket has room for one line.
fn tell(mut stream: StdStream, why: Error) {
    let line = format!("{}\n", Response { id: Id::null(), outcome: Err(why.into()) });
    let written = stream.set_nonblocking(true).and_then(|()| stream.write_all(line.as_bytes()));
    if let Err(error) = written {
        tracing::debug!(%error, "a refused client did not hear why");
    }
}
