//! What holds a disk in the guest is named, and the disk is neither detached nor exported from under it.

use volctl::api::{DeviceFound, DeviceShown};
use volctl::model::VolumeId;

use crate::Lab;

/// What the kernel says of the process that [`holder`] has started.
pub const HOLDER: &str = "/proc/$(systemctl show --property=MainPID --value holder)";

/// Each way to use a disk or its partition: refused while it lasts, with the user named, and done once it has ended.
pub fn a_disk_in_use_stays(lab: &Lab) {
    let shown: DeviceShown = lab.volctl.ask("device data2");
    let disk = shown.device.path.display().to_string();
    let partition = format!("{disk}-part1");
    lab.guest.ok(&format!("echo ,, | sfdisk --quiet {disk} && udevadm wait --timeout=30 {partition}"));
    let found: DeviceFound = lab.volctl.ask(&format!("find {partition}"));
    assert_eq!((found.volume.id, found.partition), (shown.volume_id, Some(1)));

    lab.guest.ok(&format!("mkfs.ext4 -q {partition}"));
    lab.guest.ok(&format!("mount {partition} /mnt"));
    refused(lab, shown.volume_id, "/mnt");
    assert!(lab.volctl.in_use("export data2").contains("/mnt"));
    lab.guest.ok("umount /mnt");

    holder(lab, &format!("--property=PrivateMounts=yes sh -c 'mount {partition} /mnt && exec sleep infinity'"));
    lab.guest.ok(&format!("until grep -q ' /mnt ' {HOLDER}/mounts; do sleep 0.1; done"));
    refused(lab, shown.volume_id, "/mnt");
    lab.guest.ok("systemctl stop holder");

    holder(lab, &format!("--property=StandardInput=file:{disk} sleep infinity"));
    lab.guest.ok(&format!("until grep -qx sleep {HOLDER}/comm; do sleep 0.1; done"));
    refused(lab, shown.volume_id, "sleep");
    lab.guest.ok("systemctl stop holder");

    lab.guest.ok(&format!("mkswap {partition} && swapon {partition}"));
    refused(lab, shown.volume_id, "swap");
    lab.guest.ok(&format!("swapoff {partition} && sfdisk --quiet --delete {disk} && udevadm settle"));
}

fn refused(lab: &Lab, volume: VolumeId, user: &str) {
    let said = lab.volctl.in_use("detach data2");
    assert!(said.contains(user), "{user} is not named: {said}");
    let forced = lab.volctl.in_use("detach data2 --force");
    assert!(forced.contains(user), "{user} is not named: {forced}");
    assert!(lab.cloud.is_attached(volume), "refused and detached");
}

/// Starts something that uses the disk until it is stopped.
fn holder(lab: &Lab, command: &str) {
    lab.guest.ok(&format!("systemd-run --quiet --collect --unit=holder {command}"));
}
