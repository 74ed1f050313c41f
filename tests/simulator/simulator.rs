//! The one shared thing: the world behind its lock, a bell that rings at every change, the VMs' job queues and the
//! hypervisor.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::hypervisor::Hypervisor;
use crate::jobs::Queues;
use crate::world::World;

/// All of the simulated cloud.
pub struct Simulator {
    world: Mutex<World>,
    bell: watch::Sender<()>,
    /// One queue of work for each VM.
    pub queues: Queues,
    /// Where the disks of this VM are plugged.
    pub hypervisor: Hypervisor,
}

impl Simulator {
    /// A cloud with nothing running yet.
    pub fn new(world: World, hypervisor: Hypervisor) -> Self {
        Self { world: Mutex::new(world), bell: watch::Sender::new(()), queues: Queues::default(), hypervisor }
    }

    /// The world, to be looked at.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the world and rings the bell.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.bell.send_replace(());
        result
    }

    /// Rings at each change from now on.
    pub fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    /// Waits until the world is so.
    pub async fn until(&self, mut is_so: impl FnMut(&World) -> bool) {
        let mut bell = self.bell();
        // The sender lives as long as `self`: the wait never fails.
        while !is_so(&self.world()) && bell.changed().await.is_ok() {}
    }
}
