//! The kernel's own NBD client over the Unix socket, with four connections: a file system is made, used and checked there,
//! and is on the volume's disk afterwards.

use serde_json::Value;

use crate::Lab;

/// What its files hold is the same after each step.
pub fn a_file_system_lives_on_an_export(lab: &Lab) {
    let (guest, volctl) = (&lab.guest, &lab.volctl);
    let (_, device) = volctl.attached("create kernel1 --size 1G --attach");
    volctl.change("export kernel1 --name kernel1");
    guest.ok("modprobe nbd && nbd-client -unix /run/volctl/nbd.sock /dev/nbd0 -name kernel1 -C 4 -b 512");
    guest.ok(
        "mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt && dd if=/dev/urandom of=/mnt/file bs=1M count=24 status=none",
    );
    let written = guest.ok("sha1sum /mnt/file");
    let exports: Value = volctl.ask("exports");
    let export = exports["exports"].as_array().unwrap().iter().find(|export| export["name"] == "kernel1").unwrap();
    assert_eq!(export["clients"].as_array().unwrap().len(), 4, "{export}");
    assert!(volctl.refused("unexport kernel1").message.contains("in use"));

    guest.ok("umount /mnt && e2fsck -fn /dev/nbd0 && mount /dev/nbd0 /mnt");
    guest
        .ok("dd if=/dev/zero of=/mnt/other bs=1M count=24 status=none && sync && rm /mnt/other && sync && fstrim /mnt");
    assert_eq!(guest.ok("sha1sum /mnt/file"), written);
    guest.ok("umount /mnt && nbd-client -d /dev/nbd0 && until volctl unexport kernel1; do sleep 0.1; done");

    let path = device.path.display();
    guest.ok(&format!("e2fsck -fn {path} && mount -o ro {path} /mnt"));
    assert_eq!(guest.ok("sha1sum /mnt/file"), written, "the disk has what its client wrote");
    guest.ok("umount /mnt");
    volctl.change("detach kernel1");
    volctl.ask::<Value>("delete --yes kernel1");
}
