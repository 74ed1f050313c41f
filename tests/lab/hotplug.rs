//! That the lab is what it says, before volctl has any part in it: identities and hot-plugged disks, as the guest sees
//! them.

use volctl::model::{GIB, VolumeId};

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
