//! Which block device is which volume: proven by serial from the kernel, never by name, size or timing (design, 7).
//!
//! `node` names a thing for what it is, `sysfs` and `look` gather facts, `correlate` judges them, `watch` wakes those who
//! wait, `hold` opens a device exclusively, `hands_off` marks it for udev, `in_use` finds who else uses it, `this_vm` says which VM this machine is.

mod correlate;
mod hands_off;
mod hold;
mod in_use;
mod look;
mod node;
mod sysfs;
#[cfg(test)]
mod tests;
mod this_vm;
mod watch;

use std::fs;
use std::future::pending;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::hands_off::HandsOff;
pub use self::hold::Held;
pub use self::in_use::Users;
pub use self::this_vm::Evidence;

use self::correlate::Facts;
use self::look::World;
use self::node::NodeId;
use self::sysfs::Sysfs;
use self::watch::Watch;
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::model::{Device, Serial, printable};

/// The directory of the real mode; any other one is a sandbox, whose links stand for disks.
const REAL_BY_ID: &str = "/dev/disk/by-id";

/// Whoever waits also looks this often, so that neither a missed event nor a missing udevd loses a device.
const SAFETY_LOOK: Duration = Duration::from_secs(2);
/// udevd opens a disk for some milliseconds after it came or was written; so long this may last before it counts as use.
const UDEV_PATIENCE: Duration = Duration::from_secs(3);
/// There is no event for the end of udevd's look, so it is looked for.
const UDEV_INTERVAL: Duration = Duration::from_millis(50);
/// So many look through `/proc` at a time; one that hangs keeps its place, so that no more threads than these do.
static EXAMINATIONS: Semaphore = Semaphore::const_new(4);
/// `/proc` answers in milliseconds, unless a process has a file on a dead network file system open.
const EXAMINATION_LIMIT: Duration = Duration::from_secs(15);

/// The volumes' devices on this machine. Clones share one watch, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Devices {
    world: Arc<World>,
    wake: Receiver<u64>,
}

/// A path that was traced to a volume's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The whole disk.
    pub device: Device,
    /// The partition's number, where the path leads to one.
    pub partition: Option<u32>,
}

impl Devices {
    /// Starts to watch; call it inside a tokio runtime. A sandbox's directory may come later.
    ///
    /// # Errors
    /// `config` where the by-id directory is something else than a directory.
    pub fn start(config: &config::Device) -> Result<Self> {
        let by_id = std::path::absolute(&config.by_id_dir)
            .map_err(|error| Error::new(Kind::Config, format!("by_id_dir is no path: {error}")))?;
        if fs::metadata(&by_id).is_ok_and(|found| !found.is_dir()) {
            let message = format!("by_id_dir: {} is not a directory", show(&by_id));
            return Err(Error::new(Kind::Config, message).hint(format!("leave it out to have {REAL_BY_ID}")));
        }
        // Whatever way it is written: the links of the real one are never believed as those of a sandbox are.
        let resolved = fs::canonicalize(&by_id).unwrap_or_else(|_| by_id.clone());
        Ok(Self::watching(World {
            sandbox: resolved != Path::new(REAL_BY_ID),
            by_id,
            sysfs: Sysfs::new("/sys"),
            dev: PathBuf::from("/dev"),
            udev_control: PathBuf::from("/run/udev/control"),
        }))
    }

    fn watching(world: World) -> Self {
        let watch = Watch::start(&world.by_id, !world.sandbox);
        let (sender, wake) = tokio::sync::watch::channel(0);
        tokio::spawn(watch.run(sender));
        Self { world: Arc::new(world), wake }
    }

    /// Counts up whenever a device may have come, gone or changed. It only wakes: look then.
    pub fn wake(&self) -> Receiver<u64> {
        self.wake.clone()
    }

    /// What tells of devices that come and go, in words.
    pub fn told_by(&self) -> &'static str {
        match (self.world.sandbox, self.world.udev_control.exists()) {
            (true, _) => "a sandbox: its links stand for disks",
            (false, true) => "udevd runs",
            (false, false) => "no udevd runs: disks are looked for now and then, and by-id links are not made",
        }
    }

    /// The device of a serial, as it is now; none while it is not here, or while udevd has not made its link yet.
    ///
    /// # Errors
    /// `device_mismatch` where two disks have the serial, `internal` where the kernel's lists cannot be read.
    pub fn find(&self, serial: &Serial) -> Result<Option<Device>> {
        self.world.look()?.find(serial)
    }

    /// As [`Self::find`], for whoever asks for many serials: of one moment.
    ///
    /// # Errors
    /// `internal` where the kernel's lists cannot be read.
    pub fn find_many(&self) -> Result<impl Fn(&Serial) -> Result<Option<Device>>> {
        let facts = self.world.look()?;
        Ok(move |serial: &Serial| facts.find(serial))
    }

    /// The device of each volume-like serial, as it is now. What cannot be told apart is left out: [`Self::find`] says
    /// why.
    ///
    /// # Errors
    /// `internal` where the kernel's lists cannot be read.
    pub fn all(&self) -> Result<Vec<Device>> {
        Ok(self.world.look()?.all())
    }

    /// The disks that are here with their serials, for an error that has to say what was seen.
    pub fn seen(&self) -> String {
        self.world.look().map_or_else(|error| error.to_string(), |facts| facts.seen())
    }

    /// Waits for the device of a serial; none at the deadline.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub async fn wait_for(&self, serial: &Serial, deadline: Option<Instant>) -> Result<Option<Device>> {
        self.wait_until(deadline, |facts| facts.find(serial)).await
    }

    /// Waits until the device of a serial has at least so many bytes; none at the deadline.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub async fn wait_for_size(
        &self,
        serial: &Serial,
        size_bytes: u64,
        deadline: Option<Instant>,
    ) -> Result<Option<Device>> {
        let grown = |facts: &Facts| Ok(facts.find(serial)?.filter(|device| device.size_bytes >= size_bytes));
        self.wait_until(deadline, grown).await
    }

    /// Waits until this kernel has no disk of a serial any more; whether that is so at the deadline.
    ///
    /// # Errors
    /// `internal` where the kernel's lists cannot be read.
    pub async fn wait_gone(&self, serial: &Serial, deadline: Option<Instant>) -> Result<bool> {
        let gone = self.wait_until(deadline, |facts| Ok((!facts.present(serial)).then_some(()))).await?;
        Ok(gone.is_some())
    }

    /// Returns once the device of a serial has come, where it is not here now, or else has gone.
    pub async fn wait_turned(&self, serial: &Serial) {
        let was = self.world.look().is_ok_and(|facts| facts.present(serial));
        // The judgement does not fail, and there is no deadline.
        let _ = self.wait_until(None, |facts| Ok((facts.present(serial) != was).then_some(()))).await;
    }

    /// Looks now, at each event, now and then, and at the deadline. A look that fails is made again.
    async fn wait_until<T>(
        &self,
        deadline: Option<Instant>,
        judge: impl Fn(&Facts) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut wake = self.wake.clone();
        loop {
            // Before the look: what happens during it wakes us again.
            wake.mark_unchanged();
            let look = self.world.look();
            if let Ok(facts) = &look
                && let Some(found) = judge(facts)?
            {
                return Ok(Some(found));
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return look.map(|_| None);
            }
            let next_look = now + SAFETY_LOOK;
            let next_look = deadline.map_or(next_look, |deadline| deadline.min(next_look));
            let event = async {
                if wake.changed().await.is_err() {
                    // The watch has ended; the looks by time go on.
                    pending::<()>().await;
                }
            };
            // Either way the next thing to do is to look.
            let _ = timeout_at(next_look, event).await;
        }
    }

    /// Which volume's disk an absolute path leads to, over any links, and which partition of it.
    ///
    /// # Errors
    /// `usage` for a relative path; `not_found` where it leads to no volume's disk, with what it leads to.
    pub fn identify(&self, path: &Path) -> Result<Identified> {
        if !path.is_absolute() {
            return Err(Error::new(Kind::Usage, format!("{} is not an absolute path", show(path))));
        }
        let metadata = fs::metadata(path);
        let facts = self.world.look()?;
        let metadata = metadata.map_err(|error| {
            let what = match error.kind() {
                ErrorKind::NotFound => format!("there is no {}", show(path)),
                _ => format!("{} cannot be looked at: {error}", show(path)),
            };
            Error::new(Kind::NotFound, what).hint(format!("seen here: {}", facts.seen()))
        })?;
        let not_found = |what: String| {
            Error::new(Kind::NotFound, format!("{} {what}", show(path))).hint(format!("seen here: {}", facts.seen()))
        };
        let id = NodeId::of(&metadata).ok_or_else(|| not_found("is not a block device".to_owned()))?;
        let name = self.world.sysfs.name(id);
        let partition = name.as_deref().and_then(|name| self.world.sysfs.partition(name));
        let (disk, partition) = match &partition {
            Some((disk, number)) => (self.world.sysfs.id(disk).ok().flatten(), Some(*number)),
            None => (Some(id), None),
        };
        let disk = facts.disks.iter().find(|known| Some(known.id) == disk);
        let serial =
            disk.and_then(|disk| disk.volume_serial()).ok_or_else(|| not_found(self.what_else(name.as_deref())))?;
        let device = facts.find(&serial)?.ok_or_else(|| not_found("has no by-id link yet".to_owned()))?;
        Ok(Identified { device, partition })
    }

    /// What a path leads to that is no volume's disk.
    fn what_else(&self, name: Option<&str>) -> String {
        let Some(name) = name else { return "is not a volume's device".to_owned() };
        match self.world.sysfs.slaves(name) {
            Ok(slaves) if !slaves.is_empty() => {
                let mapped = self.world.sysfs.text(name, "dm/name");
                let mapped =
                    mapped.map_or_else(|| name.to_owned(), |mapped| format!("{} ({name})", printable(&mapped)));
                format!("is the mapped device {mapped} on {}; ask for that disk", slaves.join(", "))
            }
            _ => format!("is {name}, which has no volume's serial"),
        }
    }

    /// What is the same for a device after a restart of the daemon, and for no other.
    ///
    /// # Errors
    /// `device_missing` where it is not here, and as [`Self::find`].
    pub fn identity(&self, device: &Device) -> Result<String> {
        let facts = self.world.look()?;
        let disk = facts.only(&device.serial)?.ok_or_else(|| missing(device, &facts))?;
        Ok(hold::identity(&device.serial, disk.id))
    }

    /// Opens a device by its stable path so that no mount or other holder can come to it, and proves identity and size on
    /// the open file. Blocks as long as the open does.
    ///
    /// # Errors
    /// `in_use` where it is held already ([`Self::users`] says by whom), `device_mismatch` where it is another device or
    /// of another size, `device_missing` where it is not here, `conflict` where it is to be written and is read-only.
    pub fn open_exclusive(&self, device: &Device, read_only: bool) -> Result<Held> {
        hold::open_exclusive(&self.world, device, read_only)
    }

    /// Who uses the disk or its partitions on this machine. What our own process has open is no use.
    ///
    /// In the sandbox, processes that we may not look into are passed over: its files are no disks, and an ordinary user
    /// could never prove anything about them.
    ///
    /// # Errors
    /// `device_missing` or `device_mismatch` where it is not here as it was; `in_use` where the answer takes too long.
    pub async fn users(&self, device: &Device) -> Result<Users> {
        let patience = Instant::now() + UDEV_PATIENCE;
        loop {
            let users = self.users_now(device.clone()).await?;
            if !users.only_udev() || Instant::now() >= patience {
                return Ok(users);
            }
            sleep(UDEV_INTERVAL).await;
        }
    }

    async fn users_now(&self, device: Device) -> Result<Users> {
        let world = Arc::clone(&self.world);
        let path = show(&device.path);
        let examination = async {
            let place = EXAMINATIONS.acquire().await;
            tokio::task::spawn_blocking(move || {
                let _until_the_end = place;
                users_now(&world, &device)
            })
            .await
        };
        match timeout(EXAMINATION_LIMIT, examination).await {
            Ok(Ok(users)) => users,
            Ok(Err(_)) => Err(Error::new(Kind::Internal, format!("the check for users of {path} broke off"))),
            Err(_) => {
                let seconds = EXAMINATION_LIMIT.as_secs();
                let message = format!("whether {path} is in use here could not be found out within {seconds} s");
                Err(Error::new(Kind::InUse, message)
                    .hint("a file system that does not answer can hold up /proc; see `ps -eo pid,stat,cmd | grep ' D'`")
                    .retryable(true))
            }
        }
    }

    /// What this machine says of which CloudStack VM it is.
    pub fn this_vm(&self) -> Evidence {
        let smbios = if self.world.sandbox {
            Err("a sandbox has no SMBIOS proof".to_owned())
        } else {
            this_vm::smbios(Path::new("/sys/class/dmi/id"))
        };
        Evidence { smbios, cloud_init: this_vm::cloud_init(Path::new("/run/cloud-init/instance-data.json")) }
    }
}

fn users_now(world: &World, device: &Device) -> Result<Users> {
    let facts = world.look()?;
    let disk = facts.only(&device.serial)?.ok_or_else(|| missing(device, &facts))?;
    let (held_by_us, mut users) = in_use::examine(world, Path::new("/proc"), disk.id, &disk.node);
    if world.sandbox {
        users.allow_unchecked();
    }
    if held_by_us || users.any() {
        return Ok(users);
    }
    // The last check: who cannot be seen still cannot hide from an exclusive open.
    match hold::open_exclusive(world, device, true) {
        Ok(_) => {}
        Err(error) if error.kind == Kind::InUse => users.add_unseen(&device.path),
        Err(error) => return Err(error),
    }
    Ok(users)
}

fn missing(device: &Device, facts: &Facts) -> Error {
    Error::new(Kind::DeviceMissing, format!("no disk here has the serial {}", device.serial))
        .hint(format!("seen here: {}", facts.seen()))
}

fn show(path: &Path) -> String {
    printable(&path.to_string_lossy())
}
