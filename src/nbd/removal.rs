//! How exports go: clients first, then the flush, then the file; of one export, and of all when the daemon leaves.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::access::Access;
use super::client::Client;
use super::entry::Phase;
use super::exports::Exports;
use super::served::Served;
use crate::api;
use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// How long clients have to take their last answers; then they are cut off.
const GRACE: Duration = Duration::from_secs(5);
/// How long the device has, after that, to end what it is doing.
const DEVICE_GRACE: Duration = Duration::from_secs(5);

/// How long a client that is sent away has to take its last answers.
const KICK_GRACE: Duration = Duration::from_secs(1);

/// How long the daemon's last answers, and then its last flush, may take: 300 ms in all.
const LAST_ANSWERS: Duration = Duration::from_millis(100);
const LAST_DEVICE_GRACE: Duration = Duration::from_millis(50);
const LAST_FLUSH: Duration = Duration::from_millis(150);

/// What becomes of the clients of an export that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// There must be none, and everything written must reach stable storage; else the export stays. What was written to
    /// a device that is gone cannot be waited for.
    MustBeGone,
    /// Requests in flight are answered, later ones refused, and the connections closed. The export goes even where
    /// its device cannot be flushed any more.
    Close,
}

/// An export that is no more.
#[derive(Debug)]
pub struct Removed {
    /// Its last moments, as far as the server knows them.
    pub departure: api::Departure,
    /// Its device, still open, used by nobody.
    pub file: File,
    /// Why `flushed_at` is none: what clients wrote may be lost.
    pub flush_error: Option<Error>,
}

/// Removes one export.
pub(super) async fn remove(exports: &Exports, name: &str, clients: Clients) -> Result<Removed> {
    let phase = exports.close(name, clients == Clients::MustBeGone)?;
    let _undone = Undone { exports, name, phase };
    if !exports.wait_idle(name, Instant::now() + GRACE).await {
        exports.cut(Some(name));
        if !exports.wait_idle(name, Instant::now() + DEVICE_GRACE).await {
            return Err(stalled(name));
        }
    }
    let served = exports.served(name)?;
    let device_is_gone = served.is_gone();
    let flushed = flush(served).await;
    if let (Err(error), Clients::MustBeGone, false) = (&flushed, clients, device_is_gone) {
        return Err(error.clone().hint("--force lets it go without; what clients wrote last may then be lost"));
    }
    let gone = exports.take(name)?;
    let departure = api::Departure {
        flushed_at: flushed.as_ref().ok().copied(),
        bytes_written: Some(gone.usage.bytes_written),
        last_client: gone.usage.last_client.and_then(|last| last.left),
        device_gone_at: None,
    };
    Ok(Removed { departure, file: gone.file, flush_error: flushed.err() })
}

/// Takes back a close that came to nothing, also where nobody waits for it any more.
struct Undone<'a> {
    exports: &'a Exports,
    name: &'a str,
    phase: Phase,
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        self.exports.reopen(self.name, self.phase);
    }
}

/// Sends clients of an export away, and cuts off who is not gone in time.
pub(super) async fn kick(exports: &Exports, name: &str, address: Option<&str>) -> Result<Vec<api::Client>> {
    let clients = exports.clients_at(name, address)?;
    if let (Some(address), []) = (address, &clients[..]) {
        let message = format!("export {} has no client at {}", printable(name), printable(address));
        return Err(Error::new(Kind::NotFound, message).hint("`volctl exports` lists them"));
    }
    Ok(send_away(exports, name, &clients).await)
}

/// Changes who may open an export, and sends those away who may not any more.
pub(super) async fn set_access(exports: &Exports, name: &str, access: Access) -> Result<Vec<api::Client>> {
    let clients = exports.set_access(name, access)?;
    Ok(send_away(exports, name, &clients).await)
}

async fn send_away(exports: &Exports, name: &str, clients: &[Arc<Client>]) -> Vec<api::Client> {
    clients.iter().for_each(|client| client.kick());
    if !exports.wait_gone(name, clients, Instant::now() + KICK_GRACE).await {
        clients.iter().for_each(|client| client.cut());
        exports.wait_gone(name, clients, Instant::now() + DEVICE_GRACE).await;
    }
    clients.iter().map(|client| client.shown()).collect()
}

/// Closes and flushes all exports, in 300 ms at most; what does not end by then is said in the log.
pub(super) async fn leave(exports: &Exports) {
    exports.close_all();
    if !exports.wait_all_idle(Instant::now() + LAST_ANSWERS).await {
        exports.cut(None);
        exports.wait_all_idle(Instant::now() + LAST_DEVICE_GRACE).await;
    }
    let mut flushes: JoinSet<_> = exports.all_served().into_iter().map(flush).collect();
    let all = async {
        while let Some(flushed) = flushes.join_next().await {
            if let Ok(Err(error)) = flushed {
                tracing::error!("{error}");
            }
        }
    };
    if tokio::time::timeout(LAST_FLUSH, all).await.is_err() {
        tracing::warn!("exports are still being flushed as the NBD server ends; the kernel goes on with it");
    }
}

/// Brings an export to stable storage, and says when that was.
pub(super) async fn flush(served: Arc<Served>) -> Result<Timestamp> {
    let label = printable(&served.name);
    let flushed = tokio::task::spawn_blocking(move || {
        served.flush().inspect_err(|error| {
            served.fault(error);
        })
    });
    match flushed.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
        Ok(()) => Ok(Timestamp::now()),
        Err(error) => {
            Err(Error::new(Kind::Internal, format!("the device of export {label} could not be flushed: {error}")))
        }
    }
}

fn stalled(name: &str) -> Error {
    let message = format!(
        "export {} is closed, but its device has not answered a request for {} s",
        printable(name),
        (GRACE + DEVICE_GRACE).as_secs()
    );
    Error::new(Kind::Timeout, message).hint("it takes no clients; try again once the device answers")
}
