//! Which disks the guests really have, and which they hold although the host asks them to let go.
//!
//! The cloud's database and this truth may differ, as they do in life: a disk arrives after its job, a guest lets go
//! after the cloud has given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::simulator::Simulator;

/// The disks of all running VMs, by volume.
#[derive(Default, Serialize)]
pub struct Guests {
    /// The VM in whose live domain each volume is.
    plugged: BTreeMap<String, String>,
    /// Volumes whose unplugging was asked for and has not happened.
    unplugging: BTreeSet<String>,
    /// Volumes that their guest does not let go.
    #[serde(serialize_with = "keys")]
    holds: BTreeMap<String, Hold>,
}

/// How long a guest holds a disk.
#[derive(Clone, Copy)]
pub enum Hold {
    /// Until it is told otherwise.
    Forever,
    /// Until then.
    Until(Instant),
}

impl Hold {
    /// For so long from now.
    pub fn seconds(seconds: f64) -> Option<Self> {
        Some(Self::Until(Instant::now().checked_add(Duration::try_from_secs_f64(seconds).ok()?)?))
    }
}

impl Guests {
    fn has(&self, vm: &str, volume: &str) -> bool {
        self.plugged.get(volume).is_some_and(|guest| guest == vm)
    }

    /// Lets the guest hold a disk, or let it go.
    pub fn hold(&mut self, volume: &str, hold: Option<Hold>) {
        match hold {
            Some(hold) => drop(self.holds.insert(volume.to_owned(), hold)),
            None => drop(self.holds.remove(volume)),
        }
    }
}

/// Plugs what the seed says is attached to running VMs.
pub async fn start_all(simulator: &Arc<Simulator>) -> Result<(), String> {
    let attached: Vec<_> = {
        let world = simulator.world();
        let running = world.virtual_machines.iter().filter(|vm| vm.is_running());
        running.flat_map(|vm| world.attached_to(&vm.id)).map(|volume| volume.id.clone()).collect()
    };
    for volume in attached {
        plug(simulator, &volume).await?;
    }
    Ok(())
}

/// Plugs a volume into the VM that it is attached or being attached to; nothing happens if it is plugged already.
///
/// # Errors
/// What the hypervisor said.
pub async fn plug_into(simulator: &Simulator, volume: &str, vm: &str) -> Result<(), String> {
    let (size, is_root, is_here) = {
        let world = simulator.world();
        match world.guests.plugged.get(volume) {
            Some(guest) if guest == vm => return Ok(()),
            Some(_) => return Err("Failed to get \"write\" lock: another domain has the disk".to_owned()),
            None => {}
        }
        let Some(row) = world.volume(volume) else { return Ok(()) };
        (row.size, row.r#type == "ROOT", vm == world.this_vm)
    };
    if is_here {
        simulator.hypervisor.plug(volume, size, is_root).await?;
    }
    simulator.change(|world| world.guests.plugged.insert(volume.to_owned(), vm.to_owned()));
    Ok(())
}

/// Tells the guest that has a volume's disk how large it is now; nothing happens if none has it.
///
/// # Errors
/// What the hypervisor said.
pub async fn grow(simulator: &Simulator, volume: &str) -> Result<(), String> {
    let size = {
        let world = simulator.world();
        let is_here = world.guests.plugged.get(volume) == Some(&world.this_vm);
        world.volume(volume).filter(|_| is_here).map(|volume| volume.size)
    };
    match size {
        Some(size) => simulator.hypervisor.grow(volume, size).await,
        None => Ok(()),
    }
}

/// Plugs a volume into the VM that the database says has it; nothing happens if none has.
///
/// # Errors
/// What the hypervisor said.
pub async fn plug(simulator: &Simulator, volume: &str) -> Result<(), String> {
    let vm = simulator.world().volume(volume).and_then(|volume| volume.virtualmachineid.clone());
    match vm {
        Some(vm) => plug_into(simulator, volume, &vm).await,
        None => Ok(()),
    }
}

/// Takes a disk away, whether or not its guest holds it.
///
/// # Errors
/// What the hypervisor said.
pub async fn pull(simulator: &Simulator, volume: &str) -> Result<(), String> {
    let Some(vm) = simulator.world().guests.plugged.get(volume).cloned() else {
        return Ok(());
    };
    if vm == simulator.world().this_vm {
        simulator.hypervisor.unplug(volume).await?;
    }
    simulator.change(|world| {
        world.guests.plugged.remove(volume);
        world.guests.unplugging.remove(volume);
    });
    Ok(())
}

/// Asks a VM's guest to let a disk go, and waits for it as long as the host does. Whether it is gone; what was asked
/// for can still happen later.
pub async fn unplug(simulator: &Arc<Simulator>, vm: &str, volume: &str, patience: Duration) -> bool {
    let asked_first =
        simulator.change(|world| world.guests.has(vm, volume) && world.guests.unplugging.insert(volume.to_owned()));
    if asked_first {
        tokio::spawn(let_go(simulator.clone(), volume.to_owned()));
    }
    tokio::time::timeout(patience, simulator.until(|world| !world.guests.has(vm, volume))).await.is_ok()
}

/// The guest's side of an unplug: waits until it does not hold the disk, then gives it back, unless the disk was pulled
/// meanwhile.
async fn let_go(simulator: Arc<Simulator>, volume: String) {
    let mut bell = simulator.bell();
    while let Some(hold) = current_hold(&simulator, &volume) {
        match hold {
            Hold::Forever => drop(bell.changed().await),
            Hold::Until(end) => drop(tokio::time::timeout_at(end, bell.changed()).await),
        }
    }
    if !simulator.world().guests.unplugging.contains(&volume) {
        return;
    }
    if let Err(error) = pull(&simulator, &volume).await {
        eprintln!("unplugging {volume}: {error}");
        simulator.change(|world| world.guests.unplugging.remove(&volume));
    }
}

/// What keeps a disk whose unplugging was asked for.
fn current_hold(simulator: &Simulator, volume: &str) -> Option<Hold> {
    let guests = &simulator.world().guests;
    let hold = guests.holds.get(volume).copied().filter(|_| guests.unplugging.contains(volume));
    hold.filter(|hold| !matches!(hold, Hold::Until(end) if *end <= Instant::now()))
}

fn keys<S: serde::Serializer>(holds: &BTreeMap<String, Hold>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(holds.keys())
}
