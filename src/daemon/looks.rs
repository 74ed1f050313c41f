//! What health and metrics are made of, looked at side by side. A part that hangs is missing, and the others are told.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::join;

use super::probe::{PATIENCE, Probe};
use crate::error::{Error, Kind, Result};
use crate::operation::{Engine, World};
use crate::store::{Counter, OperationRow, StepTime, Wish};

/// Looks at the daemon and what it depends on; each kind of look is under way once at most.
pub(super) struct Looks {
    pub engine: Engine,
    /// When the daemon began.
    pub since: Timestamp,
    devices: Probe,
    store: Probe,
    disk: Probe,
    pub this_vm: Probe,
    /// The journal as it was last read.
    journal: Arc<LastJournal>,
}

/// What was seen.
pub(super) struct Seen {
    /// Disks with a volume's serial.
    pub devices: Result<usize>,
    /// Whether the store can be written.
    pub writable: Result<()>,
    /// What the store says, perhaps from an earlier look; none where it never answered.
    pub journal: Option<Arc<Journal>>,
    /// The disk that holds the store.
    pub disk: Option<Disk>,
}

/// What the store says.
pub(super) struct Journal {
    pub read_at: Timestamp,
    pub created_at: Option<Timestamp>,
    pub wishes: Vec<Wish>,
    pub unfinished: Vec<OperationRow>,
    /// Rows that cannot even be named.
    pub unreadable: usize,
    /// Data disks that CloudStack last had on this VM; none while this VM is not known.
    pub disks: Option<u64>,
    /// When CloudStack last listed the volumes.
    pub listed_at: Option<Timestamp>,
    pub counters: Vec<Counter>,
    pub step_times: Vec<StepTime>,
}

/// The disk that holds the store.
#[derive(Clone, Copy)]
pub(super) struct Disk {
    pub store_bytes: u64,
    pub free_bytes: u64,
}

impl Looks {
    pub fn new(engine: Engine) -> Self {
        let (devices, store, disk, this_vm) = Default::default();
        Self { engine, since: Timestamp::now(), devices, store, disk, this_vm, journal: Arc::default() }
    }

    pub fn world(&self) -> &Arc<World> {
        self.engine.world()
    }

    /// Looks at what can be seen without CloudStack.
    pub async fn take(&self) -> Seen {
        let [for_devices, for_store, for_disk] = [(); 3].map(|()| Arc::clone(self.world()));
        let last = Arc::clone(&self.journal);
        let (devices, writable, disk) = join!(
            self.devices.look(move || for_devices.devices.all().map(|devices| devices.len())),
            self.store.look(move || look_at_store(&for_store, &last)),
            self.disk.look(move || disk(&for_disk)),
        );
        Seen {
            devices: devices.unwrap_or_else(|| Err(silent("the look for devices"))),
            writable: writable.unwrap_or_else(|| Err(silent("the state store"))),
            journal: self.journal.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            disk: disk.flatten(),
        }
    }
}

type LastJournal = Mutex<Option<Arc<Journal>>>;

/// Reads the journal, and says whether the store can be written; one that is locked can still be read.
fn look_at_store(world: &World, last: &LastJournal) -> Result<()> {
    let read = || -> Result<()> {
        let journal = Arc::new(journal(world)?);
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(journal);
        Ok(())
    };
    if last.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
        read()?;
    }
    // What was counted is told once it is kept: so no count is ever less than it was before.
    let kept = world.keep_tally();
    read()?;
    kept.and_then(|()| world.refuse_without_room())
}

fn silent(what: &str) -> Error {
    let message =
        format!("{what} has not come back within {}ms: it hangs, or somebody has it locked", PATIENCE.as_millis());
    Error::new(Kind::Internal, message)
}

fn journal(world: &World) -> Result<Journal> {
    let store = &world.store;
    let unfinished = store.unfinished()?;
    Ok(Journal {
        read_at: Timestamp::now(),
        created_at: store.created_at()?,
        wishes: store.wishes()?,
        unreadable: store.count_unfinished()?.saturating_sub(unfinished.len()),
        unfinished,
        disks: world.this_vm_known().map(|vm| store.count_data_disks(vm)).transpose()?,
        listed_at: store.listed_at()?,
        counters: store.counters()?,
        step_times: store.step_times()?,
    })
}

fn disk(world: &World) -> Option<Disk> {
    let store_bytes = world.store.size_bytes();
    world.free_bytes().map(|free_bytes| Disk { store_bytes, free_bytes })
}
