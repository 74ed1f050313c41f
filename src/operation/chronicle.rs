//! What happens beside the operations, taken down for people: devices, exports and their clients, CloudStack's absence.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::world::World;
use crate::api::EventKind;
use crate::cloudstack::Contact;
use crate::error::Result;
use crate::model::{Device, Serial, format_age, format_size, printable};
use crate::nbd::Happening;
use crate::store::NewEvent;

/// What is taken down is written together with what comes in this time.
const GATHERING: Duration = Duration::from_millis(100);
/// How long a store that cannot be written is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// A device whose event was missed is noticed by then.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Listens from now on, and keeps the history for as long as the daemon lives.
pub fn keep_history(world: Arc<World>) -> impl Future<Output = ()> + Send {
    let store = world.store.clone();
    world.nbd.listen(move |Happening { kind, volume_id, text }| {
        store.record(NewEvent { volume_id: Some(volume_id), ..NewEvent::new(kind, text) });
    });
    async move {
        tokio::join!(watch_devices(&world), watch_contact(&world), write(&world));
    }
}

/// Writes what no operation's transaction took along.
async fn write(world: &World) {
    loop {
        world.store.recorded().await;
        tokio::time::sleep(GATHERING).await;
        if let Err(error) = world.store.write_events() {
            tracing::warn!(%error, "the history cannot be written; trying again");
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }
}

/// Compares what is here with what was noted last, also by an earlier daemon.
async fn watch_devices(world: &World) {
    let mut wake = world.devices.wake();
    let mut known: BTreeSet<Serial> = match world.store.devices_noted() {
        Ok(noted) => noted.into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "which devices were here before is not known");
            BTreeSet::new()
        }
    };
    loop {
        wake.mark_unchanged();
        if let Err(error) = world.note_devices(&mut known).await {
            tracing::debug!(%error, "the devices could not be looked at");
        }
        tokio::select! {
            changed = wake.changed() => if changed.is_err() {
                tokio::time::sleep(LOOK_AGAIN).await;
            },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

impl World {
    async fn note_devices(&self, known: &mut BTreeSet<Serial>) -> Result<()> {
        let devices = self.devices.all()?;
        for device in &devices {
            if known.insert(device.serial.clone()) {
                self.note_device(EventKind::DeviceArrived, &device.serial, arrival(device));
            }
        }
        for serial in known.clone() {
            // A missing link is not a missing disk.
            let missing = !devices.iter().any(|device| device.serial == serial);
            if missing && self.devices.wait_gone(&serial, Some(Instant::now())).await? {
                known.remove(&serial);
                let text = format!("the disk with the serial {serial} left this machine");
                self.note_device(EventKind::DeviceLeft, &serial, text);
            }
        }
        Ok(())
    }

    fn note_device(&self, kind: EventKind, serial: &Serial, text: String) {
        self.store.record(NewEvent { serial: Some(serial.clone()), ..NewEvent::new(kind, text) });
    }
}

fn arrival(device: &Device) -> String {
    let path = printable(&device.path.to_string_lossy());
    format!("{path} came to this machine, {}", format_size(device.size_bytes))
}

async fn watch_contact(world: &World) {
    let mut contact = world.cloud.watch_contact();
    let mut before = Contact::default();
    loop {
        let now = contact.borrow_and_update().clone();
        note_contact(world, &before, &now);
        before = now;
        if contact.changed().await.is_err() {
            return;
        }
    }
}

fn note_contact(world: &World, before: &Contact, now: &Contact) {
    let record = |kind, text: String| world.store.record(NewEvent::new(kind, text));
    match (&before.trouble, &now.trouble) {
        (None, Some(trouble)) => {
            record(EventKind::CloudstackAway, format!("CloudStack is away: {}", trouble.error.message))
        }
        (Some(trouble), None) => {
            let age = SignedDuration::try_from(trouble.since.elapsed()).unwrap_or(SignedDuration::MAX);
            record(EventKind::CloudstackBack, format!("CloudStack answers again, after {}", format_age(age)));
        }
        _ => {}
    }
    match (before.key_refused_since, now.key_refused_since) {
        (None, Some(_)) => record(EventKind::KeyRefused, "CloudStack refuses the key".to_owned()),
        (Some(since), None) => {
            let age = format_age(since.duration_until(Timestamp::now()));
            record(EventKind::KeyAccepted, format!("CloudStack accepts the key again, after {age}"));
        }
        _ => {}
    }
}
