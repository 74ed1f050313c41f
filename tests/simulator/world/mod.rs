//! The state of the cloud, and the questions that several commands ask of it.

pub mod objects;
pub mod seed;
pub mod settings;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use crate::events::Event;
use crate::faults::Faults;
use crate::guest::Guests;
use crate::jobs::Job;
use crate::journal::Journal;
use crate::params::Entity;
use objects::{DiskOffering, Project, Snapshot, VirtualMachine, Volume, Zone};
use seed::Seed;
use settings::Settings;

/// All that the cloud knows, and the truth about the guests, which it does not always know.
#[derive(Serialize)]
pub struct World {
    /// How the cloud behaves.
    pub settings: Settings,
    /// The VM whose disks are really plugged.
    pub this_vm: String,
    /// Zones.
    pub zones: Vec<Zone>,
    /// Disk offerings.
    pub disk_offerings: Vec<DiskOffering>,
    /// Projects that the caller is a member of.
    pub projects: Vec<Project>,
    /// Virtual machines, removed ones included.
    pub virtual_machines: Vec<VirtualMachine>,
    /// Volumes in the order of their creation, removed ones included.
    pub volumes: Vec<Volume>,
    /// Volume snapshots in the order of their creation, removed ones included.
    pub snapshots: Vec<Snapshot>,
    /// What was done, in its order.
    pub events: Vec<Event>,
    /// Jobs in the order of their submission, until they are purged.
    pub jobs: Vec<Job>,
    /// Which disks the guests really have.
    pub guests: Guests,
    /// Faults that wait for their call.
    pub faults: Faults,
    /// What was called.
    pub journal: Journal,
    #[serde(skip)]
    window: Option<(Instant, u32)>,
}

impl World {
    /// A cloud as seeded.
    pub fn new(seed: Seed, this_vm: &str, api_key: &str, secret_key: &str) -> Self {
        let mut settings = seed.settings;
        settings.api_key = settings.api_key.or(Some(api_key.to_owned()));
        settings.secret_key = settings.secret_key.or(Some(secret_key.to_owned()));
        let mut world = Self {
            settings,
            this_vm: this_vm.to_owned(),
            zones: seed.zones,
            disk_offerings: seed.disk_offerings,
            projects: seed.projects,
            virtual_machines: seed.virtual_machines,
            volumes: seed.volumes,
            snapshots: Vec::new(),
            events: Vec::new(),
            jobs: Vec::new(),
            guests: Guests::default(),
            faults: Faults::default(),
            journal: Journal::default(),
            window: None,
        };
        world.name_this_vm();
        world
    }

    /// The seed's appliance takes the id that was given for this VM, unless the seed has a VM of that id.
    fn name_this_vm(&mut self) {
        if self.vm(&self.this_vm).is_some() {
            return;
        }
        for vm in self.virtual_machines.iter_mut().filter(|vm| vm.id == seed::APPLIANCE) {
            vm.id.clone_from(&self.this_vm);
        }
        for volume in &mut self.volumes {
            if volume.virtualmachineid.as_deref() == Some(seed::APPLIANCE) {
                volume.virtualmachineid = Some(self.this_vm.clone());
            }
        }
    }

    /// The cloud's clock.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(SignedDuration::from_secs(self.settings.clock_offset_seconds)).unwrap_or(now)
    }

    /// Whether an id belongs to something, be it deleted.
    pub fn ever_existed(&self, entity: Entity, id: &str) -> bool {
        match entity {
            Entity::Zone => self.zones.iter().any(|zone| zone.id == id),
            Entity::DiskOffering => self.disk_offerings.iter().any(|offering| offering.id == id),
            Entity::AnyProject if id == "-1" => true,
            Entity::Project | Entity::AnyProject => self.projects.iter().any(|project| project.id == id),
            Entity::Vm => self.vm(id).is_some(),
            Entity::Volume => self.volume(id).is_some(),
            Entity::Snapshot => self.snapshot(id).is_some(),
            Entity::Job => self.job(id).is_some(),
        }
    }

    /// A volume, be it removed.
    pub fn volume(&self, id: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.id == id)
    }

    /// A volume, to be changed.
    pub fn volume_mut(&mut self, id: &str) -> Option<&mut Volume> {
        self.volumes.iter_mut().find(|volume| volume.id == id)
    }

    /// A volume snapshot, be it removed.
    pub fn snapshot(&self, id: &str) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id)
    }

    /// Whether a snapshot of a volume is still being made.
    pub fn has_unfinished_snapshot(&self, volume: &str) -> bool {
        self.snapshots.iter().any(|snapshot| snapshot.volumeid == volume && snapshot.is_unfinished())
    }

    /// A VM, be it removed.
    pub fn vm(&self, id: &str) -> Option<&VirtualMachine> {
        self.virtual_machines.iter().find(|vm| vm.id == id)
    }

    /// The volumes that the database says are attached to a VM.
    pub fn attached_to<'a>(&'a self, vm: &'a str) -> impl Iterator<Item = &'a Volume> {
        self.volumes.iter().filter(move |volume| !volume.removed && volume.virtualmachineid.as_deref() == Some(vm))
    }

    /// The same, to be changed.
    pub fn of_vm_mut<'a>(&'a mut self, vm: &'a str) -> impl Iterator<Item = &'a mut Volume> {
        self.volumes.iter_mut().filter(move |volume| !volume.removed && volume.virtualmachineid.as_deref() == Some(vm))
    }

    /// A job that was not purged.
    pub fn job(&self, id: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// Whether the caller may use what an account owns.
    pub fn may_use(&self, account: &str) -> bool {
        self.settings.is_admin() || self.settings.account == account
    }

    /// Counts a call against the limit; when it is over, the milliseconds to wait.
    pub fn throttle(&mut self) -> Result<(), u128> {
        let Some(throttle) = self.settings.throttle.as_ref().filter(|_| !self.settings.is_admin()) else {
            return Ok(());
        };
        let now = Instant::now();
        let interval = std::time::Duration::from_millis(throttle.interval_ms);
        let (start, calls) = match self.window {
            Some((start, calls)) if now < start + interval => (start, calls + 1),
            _ => (now, 1),
        };
        self.window = Some((start, calls));
        if calls <= throttle.max { Ok(()) } else { Err((start + interval - now).as_millis()) }
    }
}
