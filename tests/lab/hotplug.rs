//! That the lab is what it says, before volctl has any part in it: identities and hot-plugged disks, as the guest sees
//! them.

use volctl::model::{GIB, VmId, VolumeId};

use crate::cloud::Cloud;
use crate::guest::{Bus, Guest, Hardware};

/// SMBIOS and the root disk's serial prove which VM this is.
pub fn the_guest_is_the_vm(guest: &Guest, hardware: &Hardware) {
    assert_eq!(guest.ok("cat /sys/class/dmi/id/product_uuid"), hardware.vm.to_string());
    let root = guest.ok("findmnt --noheadings --output SOURCE /");
    assert_eq!(guest.ok(&format!("readlink -f /dev/disk/by-id/virtio-{}", hardware.root)), root);
}

/// udev names a disk by its serial, on both buses, and forgets it.
pub fn disks_come_and_go(guest: &Guest) {
    for (bus, prefix) in [(Bus::Virtio, "virtio-"), (Bus::VirtioScsi, "scsi-0QEMU_QEMU_HARDDISK_")] {
        let serial = VolumeId::random().serial();
        let link = format!("/dev/disk/by-id/{prefix}{serial}");
        guest.plug(bus, &serial, GIB);
        guest.ok(&format!("udevadm wait --timeout=30 {link}"));
        assert_eq!(guest.ok(&format!("blockdev --getsize64 {link}")), GIB.to_string());
        guest.unplug(&serial);
        guest.ok(&format!("udevadm wait --timeout=30 --removed {link}"));
    }
}

/// What the cloud attaches is in the guest when its job has ended, and what it detaches is not.
pub fn the_cloud_plugs_its_volumes(guest: &Guest, cloud: &Cloud, vm: VmId) {
    let id: VolumeId = cloud.simulator.volume("proof").parse().unwrap();
    let link = format!("/dev/disk/by-id/virtio-{}", id.serial());
    let job = |command: &str, parameters: &[(&str, &str)]| {
        let job = cloud.simulator.job(command, parameters);
        assert_eq!(job["jobstatus"], 1, "{command}: {job}");
    };
    job("attachVolume", &[("id", &id.to_string()), ("virtualmachineid", &vm.to_string())]);
    guest.ok(&format!("udevadm wait --timeout=30 {link}"));
    job("detachVolume", &[("id", &id.to_string())]);
    guest.ok(&format!("udevadm wait --timeout=30 --removed {link}"));
    cloud.simulator.call("deleteVolume", &[("id", &id.to_string())]);
}
