//! The history, as far as somebody asks, and on from there as it is made: read from the store page by page, so that a slow
//! reader misses nothing and costs nothing.

use crate::api::{EventList, EventNotice, EventWatch, Events, method};
use crate::error::{Error, Kind, Result};
use crate::rpc::json::Json;
use crate::rpc::server::Caller;
use crate::store::Store;

/// The most events that one answer has.
const PAGE: u32 = 1000;
/// How many are read at once for somebody who follows.
const STRIDE: u32 = 100;

/// `event.list`
pub(super) fn list(store: &Store, params: &EventList) -> Result<Events> {
    let after = known(store, params.after)?;
    let events = store.events_after(after, params.limit.unwrap_or(PAGE).min(PAGE))?;
    Ok(Events { events, newest: store.newest_event()? })
}

/// `event.watch`: goes on until the client has gone, or the store fails.
pub(super) async fn watch(store: &Store, params: EventWatch, mut caller: Caller) -> Error {
    let mut gone = caller.gone.clone();
    tokio::select! {
        error = follow(store, params, &mut caller) => error,
        () = gone.wait() => nobody_follows(),
    }
}

async fn follow(store: &Store, params: EventWatch, caller: &mut Caller) -> Error {
    let mut written = store.written();
    let mut after = match known(store, params.after) {
        Ok(after) => after,
        Err(error) => return error,
    };
    loop {
        // Before the look: what is written during it wakes us again.
        written.mark_unchanged();
        let events = match store.events_after(after, STRIDE) {
            Ok(events) => events,
            Err(error) => return error,
        };
        let all = events.is_empty();
        for event in events {
            after = event.seq;
            let notice = match Json::of(&EventNotice { token: params.token.clone(), event }) {
                Ok(notice) => notice,
                Err(error) => return Error::new(Kind::Internal, format!("an event cannot be written: {error}")),
            };
            if !caller.notify.send(method::EVENT, &notice).await {
                return nobody_follows();
            }
        }
        if all && written.changed().await.is_err() {
            return nobody_follows();
        }
    }
}

/// The number to go on from. One that this store never gave is another store's.
fn known(store: &Store, after: Option<u64>) -> Result<u64> {
    let after = after.unwrap_or_default();
    let newest = store.newest_event()?;
    if after <= newest {
        return Ok(after);
    }
    let message = format!("there is no event {after} yet: the newest is {newest}, so that number is another store's");
    Err(Error::new(Kind::Conflict, message).hint("begin anew without --after, or with --after 0"))
}

pub(super) fn nobody_follows() -> Error {
    Error::new(Kind::Cancelled, "nobody follows any more")
}
