//! Takes a device back from the clients of its export, in the fixed order: refuse new clients, let the present ones
//! finish or go, flush. What is refused leaves the export as it was.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::engine::Note;
use super::request::Subject;
use super::world::{Cx, World};
use crate::api::{Client, Departure, Export, Usage};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, clock_time, format_age, printable};
use crate::nbd::{Clients, Removed};

/// What becomes of the clients.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Terms {
    /// Let them finish for so long.
    pub drain_seconds: Option<u64>,
    /// Close them.
    pub force: bool,
}

/// Ends the export of a volume, if it has one that is served. The wish stays: it is the caller's to take back.
pub(super) async fn withdraw(cx: &Cx, volume: &Subject, terms: Terms) -> Result<Departure> {
    // Whoever is bringing this export back at this moment comes first; later ones see that an operation is under way.
    drop(cx.world.serving.lock().await);
    let Some(export) = cx.world.nbd.of_volume(volume.id) else {
        return Ok(cx.world.store.wish_of(volume.id)?.map(|wish| last_known(wish.usage)).unwrap_or_default());
    };
    if let Some(seconds) = terms.drain_seconds {
        drain(cx, volume, &export, seconds, terms.force).await?;
    }
    let clients = if terms.force { Clients::Close } else { Clients::MustBeGone };
    match cx.world.nbd.remove(&export.name, clients).await {
        Ok(removed) => {
            log_unflushed(&export, &removed);
            Ok(removed.departure)
        }
        Err(error) => {
            cx.world.nbd.undrain(&export.name).ok();
            Err(match cx.world.nbd.of_volume(volume.id) {
                Some(export) if !export.clients.is_empty() && !terms.force => connected(volume, &export),
                _ => error,
            })
        }
    }
}

/// The last moments of an export that an earlier daemon served, as far as it could tell.
fn last_known(usage: Usage) -> Departure {
    Departure {
        bytes_written: Some(usage.bytes_written),
        last_client: usage.last_client.and_then(|last| last.left),
        ..Departure::default()
    }
}

/// What ending the export of a volume would take. Clients that would keep it from ending are refused as they would be.
pub(super) fn plan(world: &World, volume: &Subject, terms: Terms) -> Result<Vec<String>> {
    let Some(export) = world.nbd.of_volume(volume.id) else {
        let wished = world.export_of(volume.id);
        return Ok(wished.map(|export| format!("forget the export {}", printable(&export.name))).into_iter().collect());
    };
    let (name, count) = (printable(&export.name), export.clients.len());
    let clients = match terms.drain_seconds {
        _ if count == 0 => None,
        Some(seconds) => Some(format!("let {count} clients of the export {name} finish, for at most {seconds}s")),
        None if terms.force => Some(format!("close {count} clients of the export {name}")),
        None => return Err(connected(volume, &export)),
    };
    Ok(clients.into_iter().chain([format!("end the export {name}")]).collect())
}

fn log_unflushed(export: &Export, removed: &Removed) {
    if let Some(error) = &removed.flush_error {
        tracing::error!(export = export.name, %error, "closed without a flush");
    }
}

async fn drain(cx: &Cx, volume: &Subject, export: &Export, seconds: u64, force: bool) -> Result<()> {
    cx.world.nbd.drain(&export.name)?;
    cx.note(Some(Note::Text(format!("{} clients may finish", export.clients.len()))));
    let until = Instant::now().checked_add(Duration::from_secs(seconds)).unwrap_or_else(Instant::now);
    let idle = cx.world.nbd.wait_idle(&export.name, until).await;
    cx.note(None);
    if idle || force {
        return Ok(());
    }
    cx.world.nbd.undrain(&export.name)?;
    let now = cx.world.nbd.of_volume(volume.id);
    let over = format!("clients have not finished within {seconds}s, and new ones are taken again");
    Err(connected(volume, now.as_ref().unwrap_or(export)).doing(over))
}

/// The refusal that names each client.
fn connected(volume: &Subject, export: &Export) -> Error {
    let clients: Vec<String> = export.clients.iter().take(10).map(client).collect();
    Error::new(
        Kind::InUse,
        format!("volume {} is in use through its export {}: {}", volume.label(), export.name, clients.join("; ")),
    )
    .hint("disconnect them, or --drain 10m lets them finish, or --force closes them")
}

fn client(client: &Client) -> String {
    let now = Timestamp::now();
    match client.last_request {
        Some(at) => {
            format!("{}, last request {} ago at {}", client.address, format_age(at.duration_until(now)), clock_time(at))
        }
        None => format!("{}, connected since {} without a request", client.address, clock_time(client.since)),
    }
}

/// Serves again what was withdrawn, or takes new clients again where it was not, for an operation that then failed.
pub(super) async fn give_back(cx: &Cx, volume: VolumeId) -> Result<()> {
    if let Some(export) = cx.world.nbd.of_volume(volume) {
        if cx.world.nbd.undrain(&export.name).is_ok() {
            return Ok(());
        }
        // It was being removed when the operation was turned back: that is ended first.
        log_unflushed(&export, &cx.world.nbd.remove(&export.name, Clients::Close).await?);
    }
    let Some(wish) = cx.world.store.wish_of(volume)?.filter(|wish| !wish.failed) else { return Ok(()) };
    match cx.world.serve_again(&wish).await {
        Err(error) if error.kind == Kind::DeviceMissing => Ok(()),
        served => served,
    }
}
