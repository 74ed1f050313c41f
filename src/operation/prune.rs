//! The end of exports that nobody needs any more: those that have lost their volume, and those that had no client for long.

use jiff::{SignedDuration, Timestamp};

use super::exports_check::Books;
use super::request::{Request, Taken};
use super::world::World;
use super::{Engine, Shown};
use crate::api::{Asker, Change, Export, ExportDelete, ExportPrune, ExportPruned, Pruned};
use crate::error::Result;
use crate::model::{OperationId, format_age, printable};

/// What is to become of an export.
enum Verdict {
    /// It ends, for this reason.
    End(String),
    /// It stays, which whoever asks should know.
    Leave(String),
    /// It is in use, or not old enough.
    Keep,
}

impl Engine {
    /// Ends what nobody needs, each as an operation of its own; of a dry run only says what. Asked for by name, only those
    /// are looked at.
    pub async fn prune(&self, params: &ExportPrune, asker: &Asker) -> Result<Pruned> {
        let (books, notes) = self.world().books().await;
        let mut pruned = Pruned { exports: Vec::new(), left: Vec::new(), notes };
        for export in self.world().exports()? {
            if !params.exports.is_empty() && !params.exports.contains(&export.name) {
                continue;
            }
            let of = |reason: String| ExportPruned {
                name: export.name.clone(),
                volume_id: export.volume_id,
                reason,
                operation: None,
                error: None,
            };
            match self.world().verdict(&export, params.idle_seconds, &books)? {
                Verdict::End(reason) if params.dry_run => pruned.exports.push(of(reason)),
                Verdict::End(reason) => pruned.exports.push(self.end_export(&export, of(reason), asker).await),
                Verdict::Leave(reason) => pruned.left.push(of(reason)),
                Verdict::Keep => {}
            }
        }
        Ok(pruned)
    }

    /// Nobody's client is closed for it: one that came meanwhile refuses it.
    async fn end_export(&self, export: &Export, of: ExportPruned, asker: &Asker) -> ExportPruned {
        let request =
            Request::Unexport(ExportDelete { export: export.name.clone(), drain_seconds: None, force: false });
        let ended = match self.request(&request, &Change::default(), asker.clone()).await {
            Ok(Taken::Operation(row)) => self.end_of(row.id).await,
            Ok(Taken::Plan(_)) => return of,
            Err(error) => Err(error),
        };
        match ended {
            Ok(shown) => ExportPruned { operation: Some(shown.operation()), error: shown.row.failure(), ..of },
            Err(error) => ExportPruned { error: Some(error), ..of },
        }
    }

    /// An unexport without a drain waits for nobody.
    async fn end_of(&self, id: OperationId) -> Result<Shown> {
        let mut watched = self.watch(id)?;
        loop {
            let shown = watched.borrow_and_update().clone();
            if shown.settled() || watched.changed().await.is_err() {
                return Ok(shown);
            }
        }
    }
}

impl World {
    fn verdict(&self, export: &Export, idle_seconds: Option<u64>, books: &Books) -> Result<Verdict> {
        if !export.clients.is_empty() {
            return Ok(Verdict::Keep);
        }
        let is_here = self.devices.find(&export.volume_id.serial()).map_or(true, |device| device.is_some());
        let lost = self.loss(export, books).filter(|_| !is_here);
        let reason = match (lost, idle_seconds) {
            (Some(lost), _) => lost,
            (None, Some(limit)) => match idle(export, limit) {
                Some(reason) => reason,
                None => return Ok(Verdict::Keep),
            },
            (None, None) => return Ok(Verdict::Keep),
        };
        if let Some(held) = self.store.hold_on(export.volume_id)? {
            let (holder, note) = (printable(&held.hold.holder), printable(&held.hold.note));
            return Ok(Verdict::Leave(format!("it is held by {holder}: \"{note}\"")));
        }
        Ok(Verdict::End(reason))
    }
}

/// Since when it has had no client, where that is so long ago; what is not known is not long ago.
fn idle(export: &Export, limit: u64) -> Option<String> {
    let (since, what) = match &export.usage.last_client {
        Some(client) => (client.at, "its last client was there"),
        None if export.usage.since > Timestamp::UNIX_EPOCH => {
            (export.usage.since, "it never had a client, and was made")
        }
        None => return None,
    };
    let age = since.duration_until(Timestamp::now());
    let limit = SignedDuration::from_secs(i64::try_from(limit).unwrap_or(i64::MAX));
    (age >= limit).then(|| format!("{what} {} ago", format_age(age)))
}
