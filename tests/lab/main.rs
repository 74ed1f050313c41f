//! The VM lab: volctl in a Debian guest with systemd and udev, in which disks are really plugged in and out.
//!
//! ```text
//! the host                                          the guest
//! cloudstack-simulator  <- HTTP, one forwarded port -  volctld  <- volctl
//!   its hypervisor      -- QMP: plug, unplug ------->  kernel, udev
//! nbdcopy, qemu-img     -- NBD, one forwarded port ->  volctld
//! this test             -- virtio-serial ---------->   lab-agent
//! ```
//!
//! One guest serves all chapters of a story, which are told in order: a boot under emulation takes ten seconds. In the
//! first it is started by hand; in the second the package is installed, and systemd has the daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cloud;
mod command;
mod guest;
mod hotplug;
mod image;
mod in_use;
mod kernel_client;
mod kernel_tls;
mod no_udevd;
mod outside;
mod packaged;
mod qmp;
mod story;
#[path = "../integration/support/mod.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use more of it")]
mod support;
mod tool;
mod trixie;
mod upgrade;

use std::time::Instant;

use ::volctl::model::{VmId, VolumeId};

use crate::cloud::Cloud;
use crate::command::Volctl;
use crate::guest::{Guest, Hardware};
use crate::image::Image;

/// What every chapter has.
struct Lab<'a> {
    cloud: &'a Cloud,
    guest: &'a Guest,
    volctl: Volctl<'a>,
    /// Its root volume.
    root: VolumeId,
    /// For files of the clients outside.
    work: tempfile::TempDir,
}

#[test]
fn lab() {
    let work = tempfile::tempdir().unwrap();
    let hypervisor = work.path().join("hypervisor");
    let vm = VmId::random();
    let cloud = Cloud::start(vm, work.path(), &hypervisor);
    let root = cloud.root(vm);
    let hardware = Hardware {
        vm,
        root: root.serial(),
        files: image::programs(),
        cloudstack: cloud.address(),
        hypervisor: &hypervisor,
    };
    let guest = chapter("boot", || Guest::boot(&Image::get(), &hardware));
    hotplug::the_guest_is_the_vm(&guest, &hardware);
    hotplug::disks_come_and_go(&guest);
    hotplug::the_cloud_plugs_its_volumes(&guest, &cloud, vm);

    let volctl = Volctl::start(&guest, ([127, 0, 0, 1], guest.nbd_port()).into());
    let lab = Lab { cloud: &cloud, guest: &guest, volctl, root, work };
    chapter("the_same_bytes_under_another_letter", || story::the_same_bytes_under_another_letter(&lab));
    chapter("twins_are_told_apart", || story::twins_are_told_apart(&lab));
    chapter("a_volume_grows_in_the_guest", || story::a_volume_grows_in_the_guest(&lab));
    chapter("a_late_scsi_disk_is_found", || story::a_late_scsi_disk_is_found(&lab));
    chapter("a_detach_waits_for_the_guest", || story::a_detach_waits_for_the_guest(&lab));
    chapter("the_root_volume_stays", || story::the_root_volume_stays(&lab));
    chapter("a_file_system_lives_on_an_export", || kernel_client::a_file_system_lives_on_an_export(&lab));
    chapter("restarts_are_not_noticed_by_clients_with_tls", || {
        kernel_tls::restarts_are_not_noticed_by_clients_with_tls(&lab);
    });
    chapter("a_disk_in_use_stays", || in_use::a_disk_in_use_stays(&lab));
    chapter("the_daemon_comes_and_goes", || story::the_daemon_comes_and_goes(&lab));
    chapter("a_disk_is_known_by_its_serial", || no_udevd::a_disk_is_known_by_its_serial(&lab));
    chapter("nothing_is_left", || story::nothing_is_left(&lab));
}

/// Tells a chapter, and how long it took.
fn chapter<T>(name: &str, tell: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let told = tell();
    println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    told
}
