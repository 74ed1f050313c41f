//! Lines on a Unix socket, for the server: read within bounds of length and time, written with patience for a while.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::message::MAX_LINE;

/// What a client must not do, and what ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooLong,
    HalfLine(Duration),
    NotUtf8,
}

/// The lines that a client sends.
pub(super) struct LineReader {
    input: BufReader<OwnedReadHalf>,
    /// The part of a line that has come so far; empty again after each.
    line: Vec<u8>,
    patience: Duration,
    /// When the line begun must have ended.
    deadline: Option<Instant>,
}

impl LineReader {
    /// `patience` is how long one line may take from its first byte on.
    pub(super) fn new(input: OwnedReadHalf, patience: Duration) -> Self {
        Self { input: BufReader::new(input), line: Vec::new(), patience, deadline: None }
    }

    /// The next line without its newline; none at the end of input. What is not ended by a newline there is a line too.
    /// Can be dropped and called again without losing anything.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Fault> {
        loop {
            let chunk = match self.deadline {
                None => self.input.fill_buf().await,
                Some(deadline) => match timeout_at(deadline, self.input.fill_buf()).await {
                    Ok(chunk) => chunk,
                    Err(_) => return Err(Fault::HalfLine(self.patience)),
                },
            };
            // A reset connection has nothing more to say either.
            let chunk = chunk.unwrap_or_default();
            if chunk.is_empty() && self.line.is_empty() {
                return Ok(None);
            }
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..newline.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > MAX_LINE {
                return Err(Fault::TooLong);
            }
            self.line.extend_from_slice(part);
            let ended = newline.is_some() || chunk.is_empty();
            let used = part.len() + usize::from(newline.is_some());
            self.input.consume(used);
            if ended {
                self.deadline = None;
                return String::from_utf8(std::mem::take(&mut self.line)).map(Some).map_err(|_| Fault::NotUtf8);
            }
            self.deadline.get_or_insert_with(|| Instant::now() + self.patience);
        }
    }

    /// Reads on to the end of input and forgets it.
    pub(super) async fn discard(&mut self) {
        while let Ok(chunk) = self.input.fill_buf().await
            && !chunk.is_empty()
        {
            let length = chunk.len();
            self.input.consume(length);
        }
    }

    /// Returns when the client has closed both directions; after the end of input, reading can't tell any more.
    pub(super) async fn hung_up(&self) -> io::Result<()> {
        let socket: &UnixStream = self.input.get_ref().as_ref();
        // A registration of its own, since it clears the readiness that the writer needs.
        let socket = UnixStream::from_std(socket.as_fd().try_clone_to_owned()?.into())?;
        while !socket.ready(Interest::WRITABLE).await?.is_write_closed() {
            let _ = socket.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        Ok(())
    }
}

/// Writes what is queued until the queue is closed, the client has gone, or it has taken nothing for `stalled`.
/// Closes the direction at the end.
pub(super) async fn write_lines(mut output: OwnedWriteHalf, mut lines: mpsc::Receiver<String>, stalled: Duration) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match timeout(stalled, output.write(rest)).await {
                Ok(Ok(written)) if written > 0 => rest = &rest[written..],
                Ok(_) => return,
                Err(_) => {
                    tracing::warn!(?stalled, "a client reads nothing; closing its connection");
                    return;
                }
            }
        }
    }
}
