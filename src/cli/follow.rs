//! Following what the daemon tells, for as long as it tells: over restarts of the daemon, until Ctrl-C.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::INTERRUPTED;
use super::answer::Answer;
use super::exchange::{is_loss, lost_for_good};
use super::interrupt::Interrupt;
use super::session::Request;
use super::task::{PATIENCE, read_error};
use crate::error::{Error, Kind, Result};
use crate::rpc::client::{Client, Incoming, Wait};
use crate::rpc::json::Json;

/// Before each attempt to connect again.
const PAUSE: Duration = Duration::from_millis(200);

/// What somebody who follows does with what comes.
pub trait Follower {
    /// What is asked, at first and after each loss of the connection: from where it is to go on.
    fn request(&self) -> Result<Request>;

    /// Takes a notification; the exit code where there is nothing more to do.
    fn told(&mut self, notification: &Json) -> Result<ControlFlow<u8>>;

    /// Passes time; none comes where nothing is drawn.
    fn tick(&mut self) -> ControlFlow<u8> {
        ControlFlow::Continue(())
    }

    /// How often time passes.
    fn interval(&self) -> Option<Duration> {
        None
    }
}

/// Follows until Ctrl-C, until the follower has enough, or until the daemon cannot be reached any more.
pub fn run(socket: &Path, follower: &mut impl Follower) -> Answer<u8> {
    let interrupt = Interrupt::listen()?;
    let mut client = Client::connect(socket)?;
    loop {
        match converse(&mut client, follower, &interrupt) {
            Ok(code) => return Ok(code),
            Err(error) if is_loss(&error) => match reconnect(socket, error, &interrupt)? {
                Some(again) => client = again,
                None => return Ok(INTERRUPTED),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes what comes; the exit code at the end.
fn converse(client: &mut Client, follower: &mut impl Follower, interrupt: &Interrupt) -> Result<u8> {
    let request = follower.request()?;
    client.send(&request.method, &request.params(0))?;
    loop {
        let deadline = follower.interval().and_then(|interval| Instant::now().checked_add(interval));
        let flow = match client.next(&Wait { deadline, interrupt: Some(interrupt.as_fd()) })? {
            Incoming::Notification { params, .. } => follower.told(&params)?,
            Incoming::Answer { outcome: Err(error), .. } => return Err(read_error(error, &request.method)),
            Incoming::Answer { .. } => {
                return Err(Error::new(
                    Kind::Internal,
                    format_args!("the daemon ended {} without a word", request.method),
                ));
            }
            Incoming::TimedOut => follower.tick(),
            Incoming::Interrupted => ControlFlow::Continue(()),
        };
        if let ControlFlow::Break(code) = flow {
            return Ok(code);
        }
        if interrupt.arrived() {
            return Ok(INTERRUPTED);
        }
    }
}

/// Connects again, for as long as a restart may take; none after Ctrl-C.
fn reconnect(socket: &Path, loss: Error, interrupt: &Interrupt) -> Result<Option<Client>> {
    let since = Instant::now();
    let mut last = loss;
    while since.elapsed() < PATIENCE {
        if interrupt.arrives_within(PAUSE) {
            return Ok(None);
        }
        match Client::connect(socket) {
            Ok(client) => return Ok(Some(client)),
            Err(error) => last = error,
        }
    }
    Err(lost_for_good(PATIENCE, last))
}
