//! What is stacked on a disk (LVM, crypt, RAID, bcache, loop), by which name people know it, and what takes it down.

use super::super::sysfs::Sysfs;
use super::shell_word;

/// A device that stands on another one.
pub(super) struct Stacked {
    /// As people know it: `LVM volume vg0/data (dm-0)`.
    pub what: String,
    /// The command that takes it down.
    pub free: String,
}

/// Describes a stacked device by its kernel name.
pub(super) fn describe(sysfs: &Sysfs, name: &str) -> Stacked {
    if let Some(mapped) = sysfs.text(name, "dm/name") {
        let uuid = sysfs.text(name, "dm/uuid").unwrap_or_default();
        return mapped_device(name, &mapped, &uuid);
    }
    let node = format!("/dev/{name}");
    if sysfs.has(name, "md") {
        return Stacked { what: format!("the RAID {node}"), free: format!("mdadm --stop {node}") };
    }
    if sysfs.has(name, "bcache") {
        let free = format!("echo 1 > /sys/block/{name}/bcache/stop");
        return Stacked { what: format!("the cache {node}"), free };
    }
    if sysfs.has(name, "loop") {
        return Stacked { what: format!("the loop device {node}"), free: format!("losetup -d {node}") };
    }
    Stacked { what: format!("the device {node}"), free: format!("close whatever made {node}") }
}

/// device-mapper's UUID begins with the name of the subsystem that made it.
fn mapped_device(name: &str, mapped: &str, uuid: &str) -> Stacked {
    match uuid.split_once('-').map_or("", |(subsystem, _)| subsystem) {
        "LVM" => {
            let (group, volume) = lvm_names(mapped);
            let what = format!("the LVM volume {group}/{volume} ({name})");
            Stacked { what, free: format!("vgchange -an {}", shell_word(&group)) }
        }
        "CRYPT" => Stacked {
            what: format!("the encrypted device {mapped} ({name})"),
            free: format!("cryptsetup close {}", shell_word(mapped)),
        },
        "mpath" => Stacked {
            what: format!("the multipath device {mapped} ({name})"),
            free: format!("multipath -f {}", shell_word(mapped)),
        },
        _ => Stacked {
            what: format!("the mapped device {mapped} ({name})"),
            free: format!("dmsetup remove {}", shell_word(mapped)),
        },
    }
}

/// LVM joins group and volume by one hyphen and doubles those inside the names.
fn lvm_names(mapped: &str) -> (String, String) {
    let marked = mapped.replace("--", "\0");
    let (group, volume) = marked.split_once('-').unwrap_or((&marked, ""));
    (group.replace('\0', "-"), volume.replace('\0', "-"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop there")]
    use super::*;
    use std::fs;

    #[test]
    fn each_kind_has_its_name_and_its_command() {
        let root = tempfile::tempdir().unwrap();
        let attribute = |device: &str, attribute: &str, text: &str| {
            let path = root.path().join("class/block").join(device).join(attribute);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        attribute("dm-0", "dm/name", "my--group-data--1\n");
        attribute("dm-0", "dm/uuid", "LVM-AbCd\n");
        attribute("dm-1", "dm/name", "secret disk\n");
        attribute("dm-1", "dm/uuid", "CRYPT-LUKS2-00-x\n");
        attribute("dm-2", "dm/name", "linear\n");
        attribute("md127", "md/level", "raid1\n");
        attribute("bcache0", "bcache/state", "clean\n");
        attribute("drbd0", "size", "1\n");
        let sysfs = Sysfs::new(root.path());
        for (name, what, free) in [
            ("dm-0", "the LVM volume my-group/data-1 (dm-0)", "vgchange -an my-group"),
            ("dm-1", "the encrypted device secret disk (dm-1)", "cryptsetup close 'secret disk'"),
            ("dm-2", "the mapped device linear (dm-2)", "dmsetup remove linear"),
            ("md127", "the RAID /dev/md127", "mdadm --stop /dev/md127"),
            ("bcache0", "the cache /dev/bcache0", "echo 1 > /sys/block/bcache0/bcache/stop"),
            ("drbd0", "the device /dev/drbd0", "close whatever made /dev/drbd0"),
        ] {
            let stacked = describe(&sysfs, name);
            assert_eq!((stacked.what.as_str(), stacked.free.as_str()), (what, free));
        }
    }
}
