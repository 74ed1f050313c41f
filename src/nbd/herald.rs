//! Tells whoever keeps a history what happens at the exports. Nobody who serves waits for it.

use std::sync::{Arc, OnceLock};

use super::client::{Caller, Client};
use super::served::Served;
use crate::api::EventKind;
use crate::model::{VolumeId, clock_time, format_size, printable};

/// Something that happened at an export.
#[derive(Clone, Debug)]
pub struct Happening {
    /// What kind of thing.
    pub kind: EventKind,
    /// The export's volume.
    pub volume_id: VolumeId,
    /// In words.
    pub text: String,
}

type Listener = Box<dyn Fn(Happening) + Send + Sync>;

/// The way to whoever listens; clones lead to the same one.
#[derive(Clone, Default)]
pub(super) struct Herald(Arc<OnceLock<Listener>>);

impl Herald {
    /// Has a listener, who must not block, told from now on. There is one at most: later ones are not told.
    pub fn listen(&self, listener: impl Fn(Happening) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(listener));
    }

    /// An export is served from now on.
    pub fn served(&self, export: &Served) {
        let mode = if export.read_only { "read-only" } else { "writable" };
        self.tell(EventKind::ExportServed, export, format!("is served, {mode}"));
    }

    /// An export has failed.
    pub fn failed(&self, export: &Served, why: &str) {
        self.tell(EventKind::ExportFailed, export, format!("failed: {why}"));
    }

    /// An export has gone.
    pub fn ended(&self, export: &Served) {
        let moved = export.traffic.moved();
        let flushed = export.traffic.shown().last_flush.map(|at| format!(", last flush {} UTC", clock_time(at)));
        let what = format!(
            "is served no longer: {} read, {} written, {} requests, {} errors{}",
            format_size(moved.read),
            format_size(moved.written),
            moved.requests,
            moved.errors,
            flushed.unwrap_or_default()
        );
        self.tell(EventKind::ExportEnded, export, what);
    }

    /// A client has come in.
    pub fn connected(&self, export: &Served, caller: &Caller) {
        self.tell(EventKind::ClientConnected, export, format!("client {caller} connected"));
    }

    /// A client is not let in; why, in words that follow on the export's name.
    pub fn refused(&self, export: &Served, caller: &Caller, why: &str) {
        let name = printable(&export.name);
        tracing::warn!(
            client = %caller.peer, export = name, volume = %export.volume_id,
            "NBD client {caller} refused: export {name} {why}"
        );
        self.tell(EventKind::ClientRefused, export, format!("client {caller} was refused: the export {why}"));
    }

    /// A client has gone.
    pub fn disconnected(&self, export: &Served, client: &Client, cut_off: bool) {
        let how = if cut_off { "was cut off" } else { "disconnected" };
        let (label, since) = (client.label(), clock_time(client.since()));
        self.tell(EventKind::ClientDisconnected, export, format!("client {label} {how}, here since {since} UTC"));
    }

    fn tell(&self, kind: EventKind, export: &Served, what: String) {
        if let Some(listener) = self.0.get() {
            listener(Happening {
                kind,
                volume_id: export.volume_id,
                text: format!("export {}: {what}", printable(&export.name)),
            });
        }
    }
}
