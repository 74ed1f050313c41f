//! Drain: before the machine is switched off or the package is removed, nothing new is taken, what is there ends, and
//! the exports go. It outlives a restart of the daemon, until it is ended.
//!
//! No operation of its own: each unexport and each detach is one, and is found in `ops`.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::request::{Request, Taken};
use super::world::World;
use super::{Engine, Shown};
use crate::api::{Asker, Drained, ExportDelete, SystemDrain, Volume, VolumeDetach};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeType, clock_time, printable};
use crate::store::{HeldVolume, OperationRow};

/// One call waits no longer; who has more patience calls again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Engine {
    /// Begins a drain, or goes on with it, as far as what is there has ended; or ends it, or only looks.
    pub async fn drain(&self, params: &SystemDrain, asker: &Asker) -> Result<Drained> {
        let world = self.world();
        if params.end {
            world.end_drain()?;
            return Ok(Drained { attached: world.attached_here().await?, ..Drained::default() });
        }
        if params.dry_run {
            return Ok(Drained {
                since: world.store.draining()?,
                waiting_for: self.in_the_way(params.detach)?,
                attached: world.attached_here().await?,
                ..Drained::default()
            });
        }
        let since = world.begin_drain()?;
        let until = Instant::now() + Duration::from_secs(params.wait_seconds.unwrap_or_default()).min(LONGEST_WAIT);
        let waiting_for = self.let_end(until, params.detach).await?;
        let mut drained = Drained { since: Some(since), waiting_for, ..Drained::default() };
        if drained.waiting_for.is_empty() {
            self.unexport_all(asker, &mut drained).await?;
        }
        if drained.waiting_for.is_empty() && params.detach {
            self.detach_all(asker, &mut drained).await?;
        }
        if !drained.waiting_for.is_empty() {
            // What was refused is not asked for again at once, by somebody who waits.
            sleep_until(until).await;
        }
        drained.attached = world.attached_here().await?;
        Ok(drained)
    }

    /// Waits until nothing is in the way; says what is when the time is over.
    async fn let_end(&self, until: Instant, detach: bool) -> Result<Vec<String>> {
        let (mut ended, mut clients) = (self.ended(), self.world().nbd.activity());
        loop {
            ended.mark_unchanged();
            clients.mark_unchanged();
            let waiting = self.in_the_way(detach)?;
            let change = async {
                tokio::select! { _ = ended.changed() => {} _ = clients.changed() => {} }
            };
            if waiting.is_empty() || timeout_at(until, change).await.is_err() {
                return Ok(waiting);
            }
        }
    }

    /// What has not ended: operations, clients of exports, and holds on what is to be ended.
    fn in_the_way(&self, detach: bool) -> Result<Vec<String>> {
        let world = self.world();
        let operation = |row: &OperationRow| {
            let operation = row.shown();
            let volume = operation.volume_name.as_deref().map(printable).unwrap_or_default();
            format!("operation {} on {volume}: {}", operation.id, operation.step)
        };
        let mut found: Vec<String> = world.store.unfinished()?.iter().map(operation).collect();
        for export in world.nbd.list() {
            for client in &export.clients {
                found.push(format!("client {} of export {}", printable(&client.address), printable(&export.name)));
            }
        }
        for HeldVolume { volume_id, volume_name, hold } in world.store.holds()? {
            let volume = world.volume_now(volume_id)?;
            if volume.is_some_and(|volume| volume.export.is_some() || detach && volume.device.is_some()) {
                let (name, holder, note) = (printable(&volume_name), printable(&hold.holder), printable(&hold.note));
                found.push(format!("volume {name} ({volume_id}), held by {holder}: \"{note}\""));
            }
        }
        Ok(found)
    }

    async fn unexport_all(&self, asker: &Asker, drained: &mut Drained) -> Result<()> {
        for export in self.world().exports()? {
            let name = export.name.clone();
            let params = ExportDelete { export: export.name, drain_seconds: None, force: false };
            match self.to_its_end(Request::Unexport(params), asker).await {
                Ok(()) => drained.unexported.push(name),
                Err(error) => drained.waiting_for.push(error.message),
            }
        }
        Ok(())
    }

    async fn detach_all(&self, asker: &Asker, drained: &mut Drained) -> Result<()> {
        for volume in self.world().attached_here().await? {
            let params = VolumeDetach {
                volume: volume.id.to_string(),
                from: None,
                drain_seconds: None,
                force: false,
                confirmed: false,
            };
            match self.to_its_end(Request::Detach(params), asker).await {
                Ok(()) => drained.detached.push(volume),
                Err(error) => drained.waiting_for.push(error.message),
            }
        }
        Ok(())
    }

    /// Has a change of the drain's own carried out, and waits for its end.
    async fn to_its_end(&self, request: Request, asker: &Asker) -> Result<()> {
        let Taken::Operation(row) = self.request_of_drain(&request, asker.clone()).await? else { return Ok(()) };
        let mut watched = self.watch(row.id)?;
        // Its sender goes when nobody drives it any more; what it shows then is its end.
        let _ = watched.wait_for(Shown::settled).await;
        let row = watched.borrow().row.clone();
        row.failure().map_or(Ok(()), Err)
    }
}

impl World {
    /// Refuses what is asked for while nothing new is taken.
    pub(super) fn refuse_while_draining(&self) -> Result<()> {
        let Some(since) = self.store.draining()? else { return Ok(()) };
        Err(Error::new(
            Kind::Conflict,
            format!("volctld is drained since {}: it takes no new change", clock_time(since)),
        )
        .hint("`volctl drain --end` ends that"))
    }

    fn begin_drain(&self) -> Result<Timestamp> {
        let since = match self.store.draining()? {
            Some(since) => since,
            None => self.store.set_draining(Timestamp::now())?,
        };
        self.nbd.list().iter().try_for_each(|export| self.nbd.drain(&export.name))?;
        Ok(since)
    }

    fn end_drain(&self) -> Result<()> {
        self.store.end_draining()?;
        self.nbd.list().iter().try_for_each(|export| self.nbd.undrain(&export.name))
    }

    /// This VM's data volumes, as far as CloudStack or this kernel says so.
    async fn attached_here(&self) -> Result<Vec<Volume>> {
        let this = self.prove_this_vm().await.ok();
        let is_here = |volume: &Volume| volume.device.is_some() || volume.vm_id.is_some() && volume.vm_id == this;
        let volumes = self.list_volumes(None).await?.volumes;
        Ok(volumes.into_iter().filter(|volume| volume.volume_type == VolumeType::DataDisk && is_here(volume)).collect())
    }
}
