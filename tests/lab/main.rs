//! The VM lab: volctl in a Debian guest with systemd and udev, in which disks are really plugged in and out.
//!
//! One guest serves all chapters, which are told in order: a boot under emulation takes ten seconds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod guest;
mod hotplug;
mod image;
mod qmp;
mod tool;

use volctl::model::{VmId, VolumeId};

use crate::guest::{Guest, Hardware};
use crate::image::Image;

#[test]
fn lab() {
    let work = tempfile::tempdir().unwrap();
    let hypervisor = work.path().join("hypervisor");
    let hardware = Hardware {
        vm: VmId::random(),
        root: VolumeId::random().serial(),
        cloudstack: "127.0.0.1:9".parse().unwrap(),
        hypervisor: &hypervisor,
    };
    let guest = Guest::boot(&Image::get(), &hardware);
    hotplug::the_guest_is_the_vm(&guest, &hardware);
    hotplug::disks_come_and_go(&guest);
}
