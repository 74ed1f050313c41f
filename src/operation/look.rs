//! What is true now: CloudStack's part with its age, the kernel's and the live server's read for each answer.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::exports::check_size;
use super::resolve::{self, Meaning, all_volumes};
use super::world::World;
use crate::api::{DeviceFound, DeviceShown, Export, Hold, Volume, VolumeList, VolumeShown, Volumes};
use crate::device::Identified;
use crate::error::{Error, Kind, Result};
use crate::model::{Device, Serial, VmId, VolumeId, VolumeRecord, format_age, printable};
use crate::store::CachedVolume;

/// What is older is asked again, unless the caller says otherwise.
const MAX_AGE: Duration = Duration::from_secs(30);

/// How long a look waits for CloudStack when the store has an answer to show.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the store has, asked for anew if it was too old, and why it could not be.
struct Fresh {
    volumes: Vec<CachedVolume>,
    trouble: Option<Error>,
}

/// What this machine has of a volume.
struct Here {
    device: Option<Device>,
    export: Option<Export>,
    hold: Option<Hold>,
}

impl Fresh {
    fn notes(&self) -> Vec<String> {
        self.trouble.iter().map(|error| format!("STALE: {}", error.message)).collect()
    }
}

impl World {
    /// The volumes that a caller wants.
    pub async fn list_wanted_volumes(&self, params: &VolumeList, caller: u32) -> Result<Volumes> {
        let wanted = self.wanted(&params.filter, caller)?;
        let mut listed = self.list_volumes(params.max_age_seconds).await?;
        listed.volumes.retain(|volume| wanted.has_volume(volume));
        Ok(listed)
    }

    /// All volumes.
    pub async fn list_volumes(&self, max_age_seconds: Option<u64>) -> Result<Volumes> {
        let fresh = self.fresh(max_age_seconds).await?;
        let (devices, notes) = self.devices_for_a_list();
        let mut devices: HashMap<Serial, Device> =
            devices.into_iter().map(|device| (device.serial.clone(), device)).collect();
        let mut holds: HashMap<VolumeId, Hold> =
            self.store.holds()?.into_iter().map(|held| (held.volume_id, held.hold)).collect();
        let mut exports: HashMap<VolumeId, Export> =
            self.exports()?.into_iter().map(|export| (export.volume_id, export)).collect();
        let (is_stale, notes) = (fresh.trouble.is_some(), [fresh.notes(), notes].concat());
        let listed = fresh.volumes.into_iter().filter(|cached| cached.record.state != "Expunged");
        let volumes = listed.map(|cached| {
            let id = cached.record.id;
            let here =
                Here { device: devices.remove(&id.serial()), export: exports.remove(&id), hold: holds.remove(&id) };
            self.joined(cached, here, is_stale)
        });
        Ok(Volumes { volumes: volumes.collect(), notes })
    }

    /// One volume.
    pub async fn show_volume(&self, word: &str, max_age_seconds: Option<u64>) -> Result<VolumeShown> {
        let fresh = self.fresh(max_age_seconds).await?;
        let cached = pick_cached(word, &fresh.volumes)?.clone();
        let device = self.devices.find(&cached.record.id.serial())?;
        Ok(VolumeShown { volume: self.joined_one(cached, device, fresh.trouble.is_some())?, notes: fresh.notes() })
    }

    /// A volume's device here, waited for if the caller wants.
    pub async fn show_device(&self, word: &str, wait: Option<Duration>) -> Result<DeviceShown> {
        let volume = self.known_volume(word).await?;
        let serial = volume.id.serial();
        let deadline = wait.and_then(|wait| Instant::now().checked_add(wait)).unwrap_or_else(Instant::now);
        let device =
            self.devices.wait_for(&serial, Some(deadline)).await?.ok_or_else(|| self.device_missing(&volume))?;
        self.check_size_now(&volume, &device).await?;
        Ok(DeviceShown { volume_id: volume.id, device })
    }

    /// A device of another size than CloudStack last said may be of the size that it says now.
    async fn check_size_now(&self, known: &VolumeRecord, device: &Device) -> Result<()> {
        let Err(mismatch) = check_size(known, device) else { return Ok(()) };
        match tokio::time::timeout(LOOK_TIMEOUT, self.look_up(known.id)).await {
            Ok(Ok(Some(volume))) => check_size(&volume, device),
            _ => Err(mismatch),
        }
    }

    /// Whose device a path leads to.
    pub async fn find_device(&self, path: &Path) -> Result<DeviceFound> {
        let Identified { device, partition } = self.devices.identify(path)?;
        let of_serial =
            |volumes: &[CachedVolume]| volumes.iter().find(|v| v.record.id.serial() == device.serial).cloned();
        let (cached, stale) = match of_serial(&self.store.volumes()?) {
            Some(cached) => (cached, false),
            None => {
                let fresh = self.fresh(Some(0)).await?;
                let trouble = fresh.trouble.clone();
                let found = of_serial(&fresh.volumes).ok_or_else(|| match trouble {
                    Some(error) => error.doing(format!("asking whose serial {} is", device.serial)),
                    None => foreign(path, &device.serial),
                })?;
                (found, fresh.trouble.is_some())
            }
        };
        Ok(DeviceFound { volume: self.joined_one(cached, Some(device.clone()), stale)?, device, partition })
    }

    /// A VM that a word means; where CloudStack is away, one that the store has seen volumes on.
    pub(super) async fn vm_meant(&self, word: &str) -> Result<VmId> {
        if let Ok(id) = word.parse() {
            return Ok(id);
        }
        let error = match tokio::time::timeout(LOOK_TIMEOUT, resolve::vm(self, word)).await {
            Ok(Ok(vm)) => return Ok(vm.id),
            Ok(Err(error)) => error,
            Err(_) => Error::new(Kind::CloudstackUnreachable, "CloudStack has not answered in time"),
        };
        if !matches!(error.kind, Kind::CloudstackUnreachable | Kind::CloudstackAuth) {
            return Err(error);
        }
        let known = self.store.volumes()?.into_iter().map(|cached| cached.record);
        let vms: BTreeSet<VmId> =
            known.filter(|record| record.vm_name.as_deref() == Some(word)).filter_map(|record| record.vm_id).collect();
        match vms.first() {
            Some(vm) if vms.len() == 1 => Ok(*vm),
            _ => Err(error),
        }
    }

    /// A volume as the store knows it, with what is live; none where the store does not know it.
    pub(super) fn volume_now(&self, id: VolumeId) -> Result<Option<Volume>> {
        let Some(cached) = self.store.volume(id)? else { return Ok(None) };
        let device = self.devices.find(&id.serial()).unwrap_or_default();
        self.joined_one(cached, device, false).map(Some)
    }

    /// A volume that a word means, from the store where it is there, else from CloudStack.
    pub(super) async fn known_volume(&self, word: &str) -> Result<VolumeRecord> {
        let like: Vec<VolumeRecord> = self.store.volumes_like(word)?.into_iter().map(|cached| cached.record).collect();
        match resolve::pick(word, &like, Meaning::Any) {
            Err(error) if error.kind == Kind::NotFound => match self.fresh(Some(0)).await {
                Ok(fresh) if fresh.trouble.is_none() => Ok(pick_cached(word, &fresh.volumes)?.record.clone()),
                Ok(Fresh { trouble: Some(trouble), .. }) => {
                    Err(trouble.doing(format!("looking up volume {}", printable(word))))
                }
                Ok(_) => Err(error),
                Err(trouble) => Err(trouble),
            },
            picked => picked,
        }
    }

    /// What an operator needs who looks for a device that is not here.
    pub(super) fn device_missing(&self, volume: &VolumeRecord) -> Error {
        let serial = volume.id.serial();
        let wanted = format!("volume {} has no device here: no disk has the serial {serial}", volume.label());
        let hint = match (volume.vm_id, self.this_vm_known()) {
            (None, _) => format!("CloudStack has it detached: `volctl attach {}`", volume.id),
            (Some(vm), Some(this)) if vm != this => {
                let name = volume.vm_name.as_deref().map(|name| format!("{} ", printable(name))).unwrap_or_default();
                format!("CloudStack has it attached to another VM, {name}({vm})")
            }
            _ => "CloudStack has it attached: --wait 30s waits for the device".to_owned(),
        };
        Error::new(Kind::DeviceMissing, format!("{wanted}; {}", self.devices_seen())).hint(hint)
    }

    /// What this kernel shows, for an error.
    pub(super) fn devices_seen(&self) -> String {
        format!("seen: {}", self.devices.seen())
    }

    /// Volumes not older than asked for, as far as CloudStack answers.
    async fn fresh(&self, max_age_seconds: Option<u64>) -> Result<Fresh> {
        let max_age = max_age_seconds.map_or(MAX_AGE, Duration::from_secs);
        let volumes = self.store.volumes()?;
        let listed = self.store.listed_at()?;
        let now = Timestamp::now();
        let is_fresh = |at: Timestamp| now.duration_since(at).unsigned_abs() <= max_age;
        if listed.is_some_and(is_fresh) && volumes.iter().all(|cached| is_fresh(cached.as_of)) {
            return Ok(Fresh { volumes, trouble: None });
        }
        let asked = tokio::time::timeout(LOOK_TIMEOUT.min(self.config.cloudstack.timeout), all_volumes(self)).await;
        let trouble = match asked {
            Ok(Ok(_)) if self.store.listed_at()? != listed => {
                return Ok(Fresh { volumes: self.store.volumes()?, trouble: None });
            }
            // The store had no room for it.
            Ok(Ok(records)) => {
                let volumes = records.into_iter().map(|record| CachedVolume { record, as_of: now }).collect();
                return Ok(Fresh { volumes, trouble: None });
            }
            Ok(Err(error)) => error.into_error("asking CloudStack for the volumes"),
            Err(_) => Error::new(
                Kind::CloudstackUnreachable,
                format!("CloudStack has not answered within {}s", LOOK_TIMEOUT.as_secs()),
            ),
        };
        match listed {
            None if volumes.is_empty() => Err(trouble),
            Some(at) => {
                let age = format_age(now.duration_since(at));
                Ok(Fresh { volumes, trouble: Some(trouble.doing(format!("CloudStack's part is {age} old"))) })
            }
            None => Ok(Fresh { volumes, trouble: Some(trouble) }),
        }
    }

    fn devices_for_a_list(&self) -> (Vec<Device>, Vec<String>) {
        match self.devices.all() {
            Ok(devices) => (devices, Vec::new()),
            Err(error) => (Vec::new(), vec![error.message]),
        }
    }

    /// A volume as CloudStack has it, with what is live; its hold is looked up.
    pub(super) fn joined_one(&self, cached: CachedVolume, device: Option<Device>, stale: bool) -> Result<Volume> {
        let id = cached.record.id;
        let hold = self.store.hold_on(id)?.map(|held| held.hold);
        Ok(self.joined(cached, Here { device, export: self.export_of(id), hold }, stale))
    }

    fn joined(&self, cached: CachedVolume, here: Here, stale: bool) -> Volume {
        let (CachedVolume { record, as_of }, Here { device, export, hold }) = (cached, here);
        Volume {
            id: record.id,
            name: record.name,
            size_bytes: record.size_bytes,
            state: record.state,
            volume_type: record.volume_type,
            zone_id: record.zone_id,
            vm_id: record.vm_id,
            vm_name: record.vm_name,
            this_vm: record.vm_id.zip(self.this_vm_known()).map(|(vm, this)| vm == this),
            device_id: record.device_id,
            device,
            export,
            tags: record.tags,
            hold,
            cloudstack_as_of: as_of,
            stale,
        }
    }
}

fn pick_cached<'a>(word: &str, volumes: &'a [CachedVolume]) -> Result<&'a CachedVolume> {
    let records: Vec<VolumeRecord> = volumes.iter().map(|cached| cached.record.clone()).collect();
    let picked = match resolve::pick(word, &records, Meaning::Any) {
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::Conflict) => {
            resolve::pick(word, &records, Meaning::PerhapsDeleted).map_err(|_| error)?
        }
        picked => picked?,
    };
    volumes
        .iter()
        .find(|cached| cached.record.id == picked.id)
        .ok_or_else(|| Error::new(Kind::Internal, "a volume was picked that is not there"))
}

fn foreign(path: &Path, serial: &Serial) -> Error {
    Error::new(
        Kind::NotFound,
        format!(
            "{} has the serial {serial}, but no volume that this key can see has it",
            printable(&path.display().to_string())
        ),
    )
    .hint("the disk may belong to another account or project")
}
