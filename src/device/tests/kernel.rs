//! The real mode, on a made-up sysfs. Its by-id links lead to real block devices, since only those have numbers; nothing
//! is opened there.

use super::*;

/// Any two block devices that this machine has.
fn two_block_devices() -> Option<[(String, String); 2]> {
    let mut found = fs::read_dir("/sys/class/block").ok()?.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let number = fs::read_to_string(format!("/sys/class/block/{name}/dev")).ok()?;
        Path::new("/dev").join(&name).exists().then(|| (name, number.trim().to_owned()))
    });
    Some([found.next()?, found.next()?])
}

struct Machine {
    root: tempfile::TempDir,
    first: (String, String),
    second: (String, String),
}

impl Machine {
    /// None on a machine without block devices of its own.
    fn new() -> Option<Self> {
        let Some([first, second]) = two_block_devices() else {
            eprintln!("skipped: this machine has no two block devices");
            return None;
        };
        let root = tempfile::tempdir().unwrap();
        for directory in ["by-id", "sys/block", "sys/class/block", "sys/dev/block"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        Some(Self { root, first, second })
    }

    fn attribute(&self, disk: &str, attribute: &str, content: impl AsRef<[u8]>) {
        let path = self.root.path().join("sys/block").join(disk).join(attribute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A disk of 1 MiB without a serial.
    fn disk(&self, (name, number): &(String, String)) {
        self.attribute(name, "dev", number);
        self.attribute(name, "size", "2048\n");
        let place = self.root.path().join("sys/block").join(name);
        symlink(&place, self.root.path().join("sys/class/block").join(name)).unwrap();
        symlink(&place, self.root.path().join("sys/dev/block").join(number)).unwrap();
    }

    fn virtio(&self, device: &(String, String), serial: &str) {
        self.disk(device);
        self.attribute(&device.0, "serial", serial);
    }

    fn scsi(&self, device: &(String, String), serial: &str) {
        self.disk(device);
        let page = [&[0, 0x80, 0, u8::try_from(serial.len()).unwrap()], serial.as_bytes()].concat();
        self.attribute(&device.0, "device/vpd_pg80", page);
    }

    fn link(&self, name: &str, (device, _): &(String, String)) {
        symlink(Path::new("/dev").join(device), self.root.path().join("by-id").join(name)).unwrap();
    }

    fn start_udevd(&self) {
        fs::write(self.root.path().join("control"), "").unwrap();
    }

    fn devices(&self) -> Devices {
        Devices::watching(World {
            by_id: self.root.path().join("by-id"),
            sandbox: false,
            sysfs: Sysfs::new(self.root.path().join("sys")),
            dev: PathBuf::from("/dev"),
            udev_control: self.root.path().join("control"),
        })
    }
}

#[tokio::test]
async fn virtio_and_scsi_disks_are_found_by_their_serials() {
    let Some(machine) = Machine::new() else { return };
    machine.start_udevd();
    machine.virtio(&machine.first, A);
    machine.scsi(&machine.second, B);
    machine.link(&format!("virtio-{A}"), &machine.first);
    machine.link(&format!("scsi-0QEMU_QEMU_HARDDISK_{B}"), &machine.second);
    let devices = machine.devices();
    let first = devices.find(&serial(A)).unwrap().unwrap();
    assert_eq!(first.path, machine.root.path().join(format!("by-id/virtio-{A}")));
    assert_eq!(first.node, Path::new("/dev").join(&machine.first.0));
    assert_eq!(first.size_bytes, 1 << 20);
    assert_eq!(devices.identity(&first).unwrap(), A);
    let second = devices.find(&serial(B)).unwrap().unwrap();
    assert!(second.path.ends_with(format!("scsi-0QEMU_QEMU_HARDDISK_{B}")));
    assert_eq!(devices.all().unwrap().len(), 2);
}

#[tokio::test]
async fn a_stale_link_is_not_believed() {
    let Some(machine) = Machine::new() else { return };
    machine.start_udevd();
    machine.virtio(&machine.first, A);
    machine.virtio(&machine.second, B);
    machine.link(&format!("virtio-{A}"), &machine.second);
    let devices = machine.devices();
    assert_eq!(devices.find(&serial(A)).unwrap(), None);
    assert!(devices.seen().contains("no by-id link yet"), "{}", devices.seen());
    assert!(!devices.wait_gone(&serial(A), Some(Instant::now())).await.unwrap(), "the disk itself is here");
}

#[tokio::test]
async fn udevds_link_is_waited_for_and_without_udevd_the_node_is_taken() {
    let Some(machine) = Machine::new() else { return };
    machine.virtio(&machine.first, A);
    let devices = machine.devices();
    assert_eq!(devices.find(&serial(A)).unwrap().unwrap().path, Path::new("/dev").join(&machine.first.0));
    machine.start_udevd();
    assert_eq!(devices.find(&serial(A)).unwrap(), None);
    machine.link(&format!("virtio-{A}"), &machine.first);
    assert!(devices.wait_for(&serial(A), within(60)).await.unwrap().is_some());
}

#[tokio::test]
async fn one_serial_on_two_disks_is_an_error() {
    let Some(machine) = Machine::new() else { return };
    machine.virtio(&machine.first, A);
    machine.scsi(&machine.second, A);
    let error = machine.devices().find(&serial(A)).unwrap_err();
    assert_eq!(error.kind, Kind::DeviceMismatch, "{error}");
}

#[tokio::test]
async fn a_partition_is_traced_to_its_disk() {
    let Some(machine) = Machine::new() else { return };
    machine.virtio(&machine.first, A);
    machine.link(&format!("virtio-{A}"), &machine.first);
    let (disk, (partition, number)) = (&machine.first.0, &machine.second);
    machine.attribute(disk, &format!("{partition}/partition"), "3\n");
    let place = machine.root.path().join("sys/block").join(disk).join(partition);
    symlink(&place, machine.root.path().join("sys/class/block").join(partition)).unwrap();
    symlink(&place, machine.root.path().join("sys/dev/block").join(number)).unwrap();
    let devices = machine.devices();
    let found = devices.identify(&Path::new("/dev").join(partition)).unwrap();
    assert_eq!((found.device.serial.as_str(), found.partition), (A, Some(3)));
    let found = devices.identify(&machine.root.path().join(format!("by-id/virtio-{A}"))).unwrap();
    assert_eq!(found.partition, None);
}

#[tokio::test]
async fn a_mapped_device_is_named_and_not_taken_for_its_disk() {
    let Some(machine) = Machine::new() else { return };
    machine.virtio(&machine.first, A);
    machine.disk(&machine.second);
    machine.attribute(&machine.second.0, "dm/name", "vg0-data\n");
    machine.attribute(&machine.second.0, &format!("slaves/{}", machine.first.0), "");
    let error = machine.devices().identify(&Path::new("/dev").join(&machine.second.0)).unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    for part in ["vg0-data", machine.first.0.as_str()] {
        assert!(error.message.contains(part), "{error}");
    }
}
