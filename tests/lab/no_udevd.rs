//! Without udevd nobody makes links or takes them away: a disk is known by the serial that the kernel has of it.

use volctl::api::{DeviceFound, DeviceShown};
use volctl::error::Kind;

use crate::Lab;
use crate::outside;
use crate::story::{random, uri, volume};

const UNITS: &str = "systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service";

/// Attach, find, export and detach as ever; a link that is left over and leads to another disk now is not believed.
pub fn a_disk_is_known_by_its_serial(lab: &Lab) {
    let (guest, volctl, work) = (lab.guest, &lab.volctl, lab.work.path());
    let linked: DeviceShown = volctl.ask("device data1");
    guest.ok(&format!("systemctl stop {UNITS} && test ! -e /run/udev/control"));
    assert_eq!(volctl.ask::<DeviceShown>("device data1"), linked, "its link is still there, and still right");

    let (created, device) = volctl.attached("create bare --size 1G --attach --export");
    let id = volume(&created);
    assert_eq!(device.path, device.node, "there is no link, and nobody will make one");
    assert_eq!(device.serial, id.serial());
    let found: DeviceFound = volctl.ask(&format!("find {}", device.node.display()));
    assert_eq!(found.volume.id, id);
    let bytes = random(1 << 20);
    outside::write(&uri(&created), work, &bytes);
    assert!(outside::read(&uri(&created), work, 0, 1) == bytes, "a client reads something else than it wrote");
    volctl.stop_daemon();
    volctl.start_daemon();
    assert_eq!(volctl.change("export bare").changed, Some(false), "it came back");
    let detached = volctl.change("detach bare");
    assert!(detached.departure.is_some_and(|departure| departure.device_gone_at.is_some()));

    // The next disk takes the letter of data1, to which the link still leads.
    volctl.change("detach data1");
    let (_, next) = volctl.attached("attach bare");
    assert_eq!(next.node, linked.device.node);
    guest.ok(&format!("test -e {}", linked.device.path.display()));
    assert_eq!(volctl.refused("device data1").kind, Kind::DeviceMissing);
    let found: DeviceFound = volctl.ask(&format!("find {}", linked.device.path.display()));
    assert_eq!(found.volume.id, id, "the disk that it leads to, whatever it is called");
    assert_eq!(volctl.refused("export data1").kind, Kind::DeviceMissing);

    guest.ok(&format!("systemctl start {UNITS} && udevadm trigger --settle --subsystem-match=block"));
    let shown: DeviceShown = volctl.ask("device bare");
    assert!(shown.device.path.ends_with(format!("virtio-{}", id.serial())), "{:?}", shown.device);
    volctl.change("detach bare");
    volctl.change("attach data1");
    assert_eq!(volctl.ask::<DeviceShown>("device data1").device.path, linked.device.path);
    volctl.change("delete --yes bare");
}
