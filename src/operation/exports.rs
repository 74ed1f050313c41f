//! Exports as they are wished for and as they are served: serving one, showing them, and bringing back after a restart
//! what was wished for, once its device is here and is still the same.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::share::{Settled, Share};
use super::world::World;
use crate::api::{Client, Export, ExportKick, ExportState, Filter, TlsMode, Traffic, Usage};
use crate::device::Held;
use crate::error::{Error, Kind, Result};
use crate::model::{Device, VolumeId, VolumeRecord};
use crate::nbd::ExportSpec;
use crate::store::Wish;

/// What kept an export from coming back, such as a program that had the device open, ends without an event.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Between two looks: an export that fails as soon as it is served is an event too, and would be served again at once.
const BREATH: Duration = Duration::from_millis(200);

/// How long the clients of the daemon before wait for their exports: what keeps a device for a moment, such as udev, has
/// let it go by then.
const CLIENTS_WAIT: Duration = Duration::from_secs(2);

/// The name of an export whose caller gave none.
pub(super) fn default_name(volume: VolumeId) -> String {
    format!("vol-{volume}")
}

impl World {
    /// All exports, by name: those that are served, and those that are only wished for.
    pub fn exports(&self) -> Result<Vec<Export>> {
        let mut exports = self.nbd.list();
        for wish in self.store.wishes()? {
            if !exports.iter().any(|export| export.volume_id == wish.volume_id) {
                exports.push(self.not_served(wish));
            }
        }
        exports.iter_mut().for_each(|export| self.name_volume(export));
        exports.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(exports)
    }

    /// The exports that a caller wants.
    pub fn list_exports(&self, filter: &Filter, caller: u32) -> Result<Vec<Export>> {
        let wanted = self.wanted(filter, caller)?;
        let mut listed = Vec::new();
        for export in self.exports()? {
            if wanted.has_export(&export)? {
                listed.push(export);
            }
        }
        Ok(listed)
    }

    /// Sends clients of an export away; they may come back. Nothing is journaled: nothing is changed.
    pub async fn kick(&self, params: &ExportKick, asker: &str) -> Result<Vec<Client>> {
        let kicked = self.nbd.kick(&params.export, params.client.as_deref()).await?;
        tracing::info!(export = params.export, clients = kicked.len(), asker, "clients sent away");
        Ok(kicked)
    }

    /// A volume's export.
    pub(super) fn export_of(&self, volume: VolumeId) -> Option<Export> {
        let wished = || Some(self.not_served(self.store.wish_of(volume).ok().flatten()?));
        let mut export = self.nbd.of_volume(volume).or_else(wished)?;
        self.name_volume(&mut export);
        Some(export)
    }

    /// The server knows no volume's name, and the store no other than CloudStack's last.
    fn name_volume(&self, export: &mut Export) {
        let known = self.store.volume(export.volume_id).ok().flatten();
        export.volume_name = known.map(|cached| cached.record.name).filter(|name| !name.is_empty());
    }

    fn not_served(&self, wish: Wish) -> Export {
        let state = if wish.failed { ExportState::Failed } else { ExportState::Pending };
        Export {
            uris: self.nbd.uris(&wish.name, &wish.access),
            name: wish.name,
            volume_id: wish.volume_id,
            volume_name: None,
            read_only: wish.read_only,
            shared: wish.shared,
            access: wish.access,
            clients: Vec::new(),
            traffic: Traffic::default(),
            device_path: wish.device_path,
            state,
            usage: wish.usage,
        }
    }

    /// A volume's export as it is to be.
    pub(super) fn settled(&self, volume: VolumeId, share: &Share) -> Result<Settled> {
        let tls = if self.config.nbd.tls_required { TlsMode::Required } else { TlsMode::Allowed };
        Ok(share.settle(volume, self.store.wish_of(volume)?, tls))
    }

    /// Changes who may open an export: the wish first, so that a restart does not let in again who is sent away now. Before
    /// that, one writer alone is refused where there are several.
    pub(super) async fn serve_others(&self, volume: &VolumeRecord, share: &Share) -> Result<()> {
        let Settled { name, shared, access } = self.settled(volume.id, share)?;
        let was_shared = !shared && self.nbd.one_writer(&name, &access)?;
        let put = self.store.put_access(volume.id, &access, shared);
        if shared && put.is_ok() || was_shared && put.is_err() {
            self.nbd.share(&name)?;
        }
        put?;
        let sent_away = self.nbd.set_access(&name, &access).await?;
        tracing::info!(volume = %volume.id, sent_away = sent_away.len(), "others may open the export from now on");
        Ok(())
    }

    /// Whether an export name is free for a volume.
    pub(super) fn check_name(&self, volume: &VolumeRecord, name: &str) -> Result<()> {
        match self.store.wishes()?.into_iter().find(|wish| wish.name == name && wish.volume_id != volume.id) {
            None => Ok(()),
            Some(other) => {
                Err(Error::new(Kind::Conflict, format!("volume {} is exported as {name} already", other.volume_id))
                    .hint("choose another --name"))
            }
        }
    }

    /// The device of a volume, proven to be it, of the right size and used by nobody here.
    pub(super) async fn free_device(&self, volume: &VolumeRecord) -> Result<Device> {
        let device = self.devices.find(&volume.id.serial())?.ok_or_else(|| self.device_missing(volume))?;
        check_size(volume, &device)?;
        let users = self.devices.users(&device).await?;
        if users.is_empty() { Ok(device) } else { Err(users.into_error(&volume.label())) }
    }

    /// Serves a volume's device: the wish first, so that a restart serves it too.
    pub(super) async fn serve(&self, volume: &VolumeRecord, share: &Share) -> Result<Export> {
        let device = self.free_device(volume).await?;
        let held = self.devices.open_exclusive(&device, share.read_only)?;
        let Settled { name, shared, access } = self.settled(volume.id, share)?;
        let wish = Wish {
            usage: self.usage_of(volume.id, &name)?,
            name,
            volume_id: volume.id,
            read_only: share.read_only,
            shared,
            access,
            device_path: device.path.clone(),
            identity: held.identity.clone(),
            failed: false,
        };
        self.store.put_wish(&wish)?;
        self.keep_hands_off(volume.id);
        match self.nbd.add(spec(&wish, held, device.size_bytes)).await {
            Ok(mut export) => {
                self.name_volume(&mut export);
                Ok(export)
            }
            Err(error) => {
                self.store.forget_wish(volume.id)?;
                Err(error)
            }
        }
    }

    /// What clients did with an export that is being made: an earlier daemon may have got as far as this one.
    fn usage_of(&self, volume: VolumeId, name: &str) -> Result<Usage> {
        let begun = self.store.wish_of(volume)?.filter(|wish| wish.name == name && !wish.failed);
        Ok(begun.map_or_else(|| Usage { since: Timestamp::now(), ..Usage::default() }, |wish| wish.usage))
    }

    /// Serves what was wished for before, if its device is here and is the same as then.
    pub(super) async fn serve_again(&self, wish: &Wish) -> Result<()> {
        let serial = wish.volume_id.serial();
        let Some(device) = self.devices.find(&serial)? else {
            return Err(Error::new(Kind::DeviceMissing, format!("no disk has the serial {serial}")));
        };
        let users = self.devices.users(&device).await?;
        if !users.is_empty() {
            return Err(users.into_error(&wish.volume_id.to_string()));
        }
        let held = self.devices.open_exclusive(&device, wish.read_only)?;
        if held.identity != wish.identity {
            return Err(Error::new(
                Kind::DeviceMismatch,
                format!("{} is not the device that was exported", device.path.display()),
            ));
        }
        self.nbd.add(spec(wish, held, device.size_bytes)).await?;
        Ok(())
    }

    /// Tells this machine's udev to leave a volume's disk alone, which is its clients' to write to. Without the mark the
    /// disk may be activated here; then it is in use, and not exported.
    pub(super) fn keep_hands_off(&self, volume: VolumeId) {
        if let Err(error) = self.hands_off.mark(&volume.serial()) {
            tracing::warn!(%volume, %error, "udev could not be told to leave its disk alone");
        }
    }

    /// The marks go with their disks; those of disks that are still to come stay.
    async fn forget_hands_off(&self) -> Result<()> {
        let coming = self.store.unfinished()?;
        for serial in self.hands_off.marked().unwrap_or_default() {
            let is_coming = coming.iter().filter_map(|row| row.volume_id).any(|volume| volume.serial() == serial);
            if !is_coming
                && self.devices.wait_gone(&serial, Some(Instant::now())).await?
                && let Err(error) = self.hands_off.unmark(&serial)
            {
                tracing::warn!(%serial, %error, "the mark of a disk that has gone stays");
            }
        }
        Ok(())
    }

    /// Brings back what is wished for and not served, and marks what has lost its device.
    pub(super) async fn keep_exports(&self) -> Result<()> {
        for wish in self.store.wishes()? {
            if let Err(error) = self.keep_export(wish.volume_id).await {
                tracing::warn!(export = wish.name, volume = %wish.volume_id, %error, "the export could not be looked at");
            }
        }
        self.forget_hands_off().await
    }

    async fn keep_export(&self, volume: VolumeId) -> Result<()> {
        let _serving = self.serving.lock().await;
        // Asked for only now: while others were looked at, its operation may have begun or ended.
        if self.store.operation_on(volume)?.is_some() {
            return Ok(());
        }
        let Some(wish) = self.store.wish_of(volume)?.filter(|wish| !wish.failed) else { return Ok(()) };
        match self.nbd.of_volume(volume) {
            None => self.bring_back(&wish).await,
            Some(export) => self.mark_if_lost(&wish, &export).await,
        }
    }

    /// Serves the exports first whose clients the daemon before has handed over: operations go on as if it had not ended.
    /// Whatever keeps one from being served for longer than clients can wait costs its clients their connections.
    pub async fn take_clients_back(&self) {
        let until = Instant::now() + CLIENTS_WAIT;
        while !self.nbd.awaited().is_empty() && Instant::now() < until {
            if let Err(error) = self.serve_awaited().await {
                tracing::warn!(%error, "the exports could not be looked at");
            }
            if !self.nbd.awaited().is_empty() {
                tokio::time::sleep(BREATH).await;
            }
        }
        self.nbd.await_only(&HashSet::new());
    }

    async fn serve_awaited(&self) -> Result<()> {
        let _serving = self.serving.lock().await;
        let wishes: Vec<_> = self.store.wishes()?.into_iter().filter(|wish| !wish.failed).collect();
        self.nbd.await_only(&wishes.iter().map(|wish| wish.volume_id).collect());
        let awaited = self.nbd.awaited();
        for wish in wishes.iter().filter(|wish| awaited.contains(&wish.volume_id)) {
            self.bring_back(wish).await?;
        }
        Ok(())
    }

    async fn bring_back(&self, wish: &Wish) -> Result<()> {
        match self.serve_again(wish).await {
            Ok(()) => {
                tracing::info!(export = wish.name, volume = %wish.volume_id, "exported again");
                if self.store.draining()?.is_some() {
                    self.nbd.drain(&wish.name)?;
                }
            }
            Err(error) if error.kind == Kind::DeviceMismatch => {
                tracing::error!(export = wish.name, volume = %wish.volume_id, %error, "not exported again");
                self.store.fail_wish(wish.volume_id)?;
            }
            Err(error) => tracing::debug!(export = wish.name, volume = %wish.volume_id, %error, "not exported yet"),
        }
        Ok(())
    }

    /// A disk that went away under its export may come back as another one: only an operator brings that export back.
    /// A missing link is not a missing disk: udevd makes its links anew now and then. One that has grown is served as it
    /// is.
    async fn mark_if_lost(&self, wish: &Wish, export: &Export) -> Result<()> {
        let gone = self.devices.wait_gone(&wish.volume_id.serial(), Some(Instant::now())).await?;
        if gone {
            self.nbd.fail(&wish.name);
        }
        if !gone {
            self.nbd.grow(&wish.name)?;
        }
        if gone || export.state == ExportState::Failed {
            tracing::error!(export = wish.name, volume = %wish.volume_id, gone, "the export's device failed");
            self.store.fail_wish(wish.volume_id)?;
        }
        Ok(())
    }
}

/// Keeps the exports as they are wished for, for as long as the daemon lives.
pub async fn keep(world: Arc<World>, mut ended: tokio::sync::watch::Receiver<u64>) {
    let mut devices = world.devices.wake();
    let mut exports = world.nbd.activity();
    loop {
        devices.mark_unchanged();
        exports.mark_unchanged();
        ended.mark_unchanged();
        if let Err(error) = world.keep_exports().await {
            tracing::warn!(%error, "the exports could not be looked at");
        }
        world.nbd.open();
        tokio::select! {
            _ = devices.changed() => {}
            _ = exports.changed() => {}
            _ = ended.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(BREATH).await;
    }
}

fn spec(wish: &Wish, held: Held, size_bytes: u64) -> ExportSpec {
    ExportSpec {
        name: wish.name.clone(),
        volume_id: wish.volume_id,
        read_only: wish.read_only,
        shared: wish.shared,
        access: wish.access.clone(),
        device_path: wish.device_path.clone(),
        file: held.file,
        size_bytes,
        usage: wish.usage.clone(),
    }
}

/// Proves nothing by itself; after identity is proven, a size that differs says that something is wrong.
pub(super) fn check_size(volume: &VolumeRecord, device: &Device) -> Result<()> {
    if volume.size_bytes == device.size_bytes {
        return Ok(());
    }
    Err(Error::new(
        Kind::DeviceMismatch,
        format!(
            "{} has the serial of volume {}, but {} bytes where CloudStack says {}",
            device.path.display(),
            volume.label(),
            device.size_bytes,
            volume.size_bytes
        ),
    )
    .hint("nothing was exported; look whether the volume was resized or restored, then detach and attach it"))
}
