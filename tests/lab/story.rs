//! The main job, told from its beginning to its end by the real command and daemon, with real udev and real disks.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use volctl::api::{Changed, DeviceFound, DeviceShown};
use volctl::model::{GIB, VolumeId};

use crate::Lab;
use crate::guest::Bus;
use crate::outside;

const MIB: usize = 1 << 20;

/// Create, attach, export; a client outside and the guest both write; after a detach and an attach under another
/// letter both read the same bytes again.
pub fn the_same_bytes_under_another_letter(lab: &Lab) {
    let (guest, volctl, work) = (&lab.guest, &lab.volctl, lab.work.path());

    let (created, device) = volctl.attached("create data1 --size 1G --attach --export");
    let id = volume(&created);
    assert_eq!(created.changed, Some(true));
    assert_eq!(device.path, Path::new(&format!("/dev/disk/by-id/virtio-{}", id.serial())));
    assert_eq!(device.size_bytes, GIB);
    let node = device.node.display().to_string();
    assert_eq!(
        guest.ok(&format!("cat /sys/class/block/{}/serial", node.trim_start_matches("/dev/"))),
        id.serial().as_str()
    );

    let uri = uri(&created);
    let from_outside = random(8 * MIB);
    assert_eq!(outside::size(&uri), GIB);
    outside::write(&uri, work, &from_outside);
    assert!(outside::read(&uri, work, 0, 8) == from_outside, "a client reads something else than it wrote");

    let unexported = volctl.change("unexport data1");
    assert_eq!(unexported.changed, Some(true));
    assert_eq!(unexported.departure.and_then(|departure| departure.bytes_written), Some(8 * MIB as u64));
    assert!(!outside::reachable(&uri), "the export is gone and still answers");

    let path = device.path.display();
    guest.ok(&format!("dd if=/dev/urandom of={path} bs=1M seek=64 count=4 oflag=direct conv=fsync status=none"));
    let from_inside = guest.ok(&format!("dd if={path} bs=1M skip=64 count=4 iflag=direct status=none | sha1sum"));

    let detached = volctl.change("detach data1");
    assert!(detached.departure.is_some_and(|departure| departure.device_gone_at.is_some()), "{:?}", detached.notes);
    guest.ok(&format!("test ! -e {node} && udevadm wait --timeout=30 --removed {path}"));

    let (_, takes_the_letter) = volctl.attached("create data2 --size 1G --attach");
    assert_eq!(takes_the_letter.node, device.node);
    let (attached, again) = volctl.attached("attach data1 --export");
    assert_eq!(again.path, device.path);
    assert_ne!(again.node, device.node);
    let uri = self::uri(&attached);
    assert!(outside::read(&uri, work, 0, 8) == from_outside, "what the client wrote has changed");
    assert_eq!(digest(&outside::read(&uri, work, 64, 4)), from_inside);

    assert_eq!(volctl.change("attach data1").changed, Some(false));
}

/// Two volumes of equal size, attached at the same moment, are told apart: what is written to each one's device is
/// found in that volume's own storage.
pub fn twins_are_told_apart(lab: &Lab) {
    for name in ["twin1", "twin2"] {
        lab.volctl.change(&format!("create {name} --size 2G"));
    }
    for twin in lab.volctl.at_once(["attach twin1", "attach twin2"]) {
        let id = volume(&twin);
        let device = twin.volume.and_then(|volume| volume.device).unwrap();
        assert_eq!(device.serial, id.serial());
        lab.guest.ok(&format!("printf %s {id} | dd of={} conv=fsync status=none", device.path.display()));
        let mut stored = vec![0; id.to_string().len()];
        File::open(lab.cloud.disk(id)).unwrap().read_exact(&mut stored).unwrap();
        assert_eq!(String::from_utf8_lossy(&stored), id.to_string());
    }
    for name in ["twin1", "twin2"] {
        lab.volctl.change(&format!("detach {name}"));
    }
}

/// A disk that arrives late, and on a virtio-scsi controller, is known by its serial as well.
pub fn a_late_scsi_disk_is_found(lab: &Lab) {
    let id = volume(&lab.volctl.change("create scsi1 --size 1G"));
    let devices_appear = |appear: bool| {
        lab.cloud.simulator.settings(json!({"devices_appear": appear}));
    };
    devices_appear(false);
    let attach = lab.volctl.change("attach scsi1 --no-wait").operation.unwrap();
    lab.guest.plug(Bus::VirtioScsi, &id.serial(), GIB);
    lab.volctl.wait_for(attach.id);

    let shown: DeviceShown = lab.volctl.ask("device scsi1");
    assert!(shown.device.path.ends_with(format!("scsi-0QEMU_QEMU_HARDDISK_{}", id.serial())), "{:?}", shown.device);
    let found: DeviceFound = lab.volctl.ask(&format!("find {}", shown.device.node.display()));
    assert_eq!(found.volume.id, id);

    let detach = lab.volctl.change("detach scsi1 --no-wait").operation.unwrap();
    lab.cloud.wait_detached(id);
    lab.guest.unplug(&id.serial());
    lab.volctl.wait_for(detach.id);
    devices_appear(true);
}

/// A volume grows: the guest's kernel shows it, what was written stays, and a client outside is told the new size.
pub fn a_volume_grows_in_the_guest(lab: &Lab) {
    let (exported, device) = lab.volctl.attached("create grows1 --size 1G --attach --export");
    let (uri, path) = (uri(&exported), device.path.display());
    let written = random(MIB);
    outside::write(&uri, lab.work.path(), &written);
    let resized = lab.volctl.change("resize grows1 2G");
    assert_eq!(resized.volume.and_then(|volume| volume.device).unwrap().size_bytes, 2 * GIB);
    assert_eq!(lab.guest.ok(&format!("blockdev --getsize64 {path}")), (2 * GIB).to_string());
    assert_eq!(outside::size(&uri), 2 * GIB);
    assert!(outside::read(&uri, lab.work.path(), 0, 1) == written, "what was written has changed");
    lab.volctl.change("detach grows1");
    lab.volctl.change("delete --yes grows1");
}

/// A guest that lets go of a disk late: the detach has ended only once the disk is gone.
pub fn a_detach_waits_for_the_guest(lab: &Lab) {
    let (attached, device) = lab.volctl.attached("attach scsi1");
    lab.cloud.simulator.admin("POST", "guest", json!({"volume": volume(&attached), "hold": 2}));
    let detached = lab.volctl.change("detach scsi1");
    assert!(detached.departure.is_some_and(|departure| departure.device_gone_at.is_some()));
    lab.guest.ok(&format!("test ! -e {}", device.node.display()));
}

/// Exports come back with the daemon; and a daemon that knows nothing finds the devices that were there before it.
pub fn the_daemon_comes_and_goes(lab: &Lab) {
    let before: Changed = lab.volctl.change("export data1");
    assert_eq!(before.changed, Some(false));
    let shown: DeviceShown = lab.volctl.ask("device data1");
    lab.volctl.stop_daemon();
    assert!(!outside::reachable(&uri(&before)), "the daemon has ended and its export still answers");
    lab.volctl.start_daemon();
    let after = lab.volctl.change("export data1");
    assert_eq!(after.changed, Some(false));
    assert_eq!(outside::size(&uri(&after)), GIB);

    lab.volctl.change("unexport data1");
    lab.volctl.stop_daemon();
    lab.guest.ok("rm -r /var/lib/volctl");
    lab.volctl.start_daemon();
    assert_eq!(lab.volctl.ask::<DeviceShown>("device data1"), shown);
}

/// The disk that the guest runs from is nobody's to take or to serve.
pub fn the_root_volume_stays(lab: &Lab) {
    for arguments in ["detach", "detach --force", "delete --yes", "export"] {
        lab.volctl.refused(&format!("{arguments} {}", lab.root));
    }
    assert!(lab.cloud.is_attached(lab.root));
}

/// What was made goes, and everybody agrees that it has gone.
pub fn nothing_is_left(lab: &Lab) {
    lab.volctl.ask::<Value>("detach data1 data2");
    lab.volctl.ask::<Value>("delete --yes data1 data2 twin1 twin2 scsi1");
    let links = lab.guest.ok("ls /dev/disk/by-id");
    assert_eq!(links, format!("virtio-{}\nvirtio-volctl-programs", lab.root.serial()));
}

pub fn volume(change: &Changed) -> VolumeId {
    change.volume.as_ref().unwrap().id
}

pub fn uri(change: &Changed) -> String {
    let uris = &change.export.as_ref().unwrap().uris;
    uris.iter().find(|uri| uri.starts_with("nbd://")).unwrap_or_else(|| panic!("no TCP address in {uris:?}")).clone()
}

pub fn random(bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    File::open("/dev/urandom").unwrap().read_exact(&mut content).unwrap();
    content
}

/// As `sha1sum` prints it.
fn digest(bytes: &[u8]) -> String {
    format!("{:x}  -", Sha1::digest(bytes))
}
