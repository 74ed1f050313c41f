//! The rule of correlation, pure: which of the disks that were seen is a volume, and by which path, or why that cannot
//! be said.

use std::path::PathBuf;

use super::node::NodeId;
use crate::error::{Error, Kind, Result};
use crate::model::{Device, Serial, format_size, printable};

/// How many disks an error names.
const NAMED: usize = 40;

/// A disk that this kernel has, or a file that stands for one in the sandbox.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    /// What it is.
    pub id: NodeId,
    /// Its node, `/dev/vdb`.
    pub node: PathBuf,
    /// Its serial, as [`super::sysfs::Sysfs::serial`] has it.
    pub serial: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// A name that leads to a disk and outlives a reboot: a by-id link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// The link.
    pub path: PathBuf,
    /// Its own name in the directory.
    pub name: String,
    /// What it leads to now.
    pub leads_to: NodeId,
}

/// What was seen at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The disks.
    pub disks: Vec<Disk>,
    /// The by-id links.
    pub links: Vec<Link>,
    /// Links are made by somebody (udevd, the sandbox), so that a disk without one is not ready yet.
    pub links_are_made: bool,
}

impl Facts {
    /// The device of a serial; none while there is no such disk or its link is not there yet.
    ///
    /// # Errors
    /// `device_mismatch` where which disk it is cannot be told.
    pub fn find(&self, serial: &Serial) -> Result<Option<Device>> {
        let Some(disk) = self.only(serial)? else { return Ok(None) };
        Ok(self.path(serial, disk).map(|path| Device {
            path,
            node: disk.node.clone(),
            serial: serial.clone(),
            size_bytes: disk.size_bytes,
        }))
    }

    /// The disk of a serial, whether or not a link leads to it.
    ///
    /// # Errors
    /// `device_mismatch` where which disk it is cannot be told.
    pub fn only(&self, serial: &Serial) -> Result<Option<&Disk>> {
        let mut fitting = self.disks.iter().filter(|disk| disk.has(serial));
        let Some(disk) = fitting.next() else { return Ok(None) };
        let nodes: Vec<_> = fitting.map(|other| show(&other.node)).collect();
        if !nodes.is_empty() {
            let message = format!("{} and {} both have the serial {serial}", show(&disk.node), nodes.join(", "));
            return Err(Error::new(Kind::DeviceMismatch, message)
                .hint("which of them is the volume cannot be proven; find out with `lsblk -o NAME,SERIAL,SIZE` where the other comes from"));
        }
        match self.disks.iter().find(|other| other.id == disk.id && !other.has(serial)) {
            Some(other) => Err(Error::new(
                Kind::DeviceMismatch,
                format!("{} has two serials, {serial} and {}", show(&disk.node), other.serial_text()),
            )
            .hint("two links lead to one file: remove the one that is wrong")),
            None => Ok(Some(disk)),
        }
    }

    /// The device of each disk whose serial can be a volume's and is no other disk's.
    pub fn all(&self) -> Vec<Device> {
        let serials = self.disks.iter().filter_map(Disk::volume_serial);
        serials.filter_map(|serial| self.find(&serial).ok().flatten()).collect()
    }

    /// Whether a disk of this serial may still be here: also where a link says so of a disk that no longer tells its
    /// serial. Its absence is what a detach waits for, so that doubt counts as presence.
    pub fn present(&self, serial: &Serial) -> bool {
        let silent = |id| self.disks.iter().any(|disk| disk.id == id && disk.serial.as_deref() == Some(""));
        self.disks.iter().any(|disk| disk.has(serial))
            || self.links.iter().any(|link| rank(&link.name, serial).is_some() && silent(link.leads_to))
    }

    /// The disks with their serials, for an error that says what was found.
    pub fn seen(&self) -> String {
        let mut seen: Vec<_> =
            self.disks.iter().filter(|disk| disk.serial.is_some()).map(|d| self.describe(d)).collect();
        let more = seen.len().saturating_sub(NAMED);
        seen.truncate(NAMED);
        if more > 0 {
            seen.push(format!("and {more} more"));
        }
        if seen.is_empty() { "no disk with a serial".to_owned() } else { seen.join(", ") }
    }

    fn describe(&self, disk: &Disk) -> String {
        let unready = disk.volume_serial().is_some_and(|serial| self.path(&serial, disk).is_none());
        let note = if unready { ", no by-id link yet" } else { "" };
        format!("{} ({}, {}{note})", show(&disk.node), disk.serial_text(), format_size(disk.size_bytes))
    }

    /// The stable path: the best link of that serial's name that leads to that very disk. Where nobody makes links, the
    /// node.
    fn path(&self, serial: &Serial, disk: &Disk) -> Option<PathBuf> {
        let links = self.links.iter().filter(|link| link.leads_to == disk.id);
        let ranked = links.filter_map(|link| Some((rank(&link.name, serial)?, link)));
        match ranked.min_by_key(|(rank, link)| (*rank, &link.name)) {
            Some((_, link)) => Some(link.path.clone()),
            None => (!self.links_are_made).then(|| disk.node.clone()),
        }
    }
}

impl Disk {
    /// The serial where it can be a volume's, written exactly as CloudStack gives it.
    pub fn volume_serial(&self) -> Option<Serial> {
        let text = self.serial.as_deref()?;
        text.parse().ok().filter(|serial: &Serial| serial.as_str() == text)
    }

    /// Whether the kernel's serial of it is exactly this one.
    pub fn has(&self, serial: &Serial) -> bool {
        self.serial.as_deref() == Some(serial.as_str())
    }

    fn serial_text(&self) -> String {
        match self.serial.as_deref() {
            None | Some("") => "no serial".to_owned(),
            Some(serial) => format!("serial {}", printable(serial)),
        }
    }
}

/// How good a link's name is for the whole disk of a serial, best first; none where it is not one.
/// udev's rules name partitions `...-partN`, which ends otherwise.
fn rank(name: &str, serial: &Serial) -> Option<u8> {
    match name.strip_suffix(serial.as_str())? {
        "virtio-" => Some(0),
        "scsi-0QEMU_QEMU_HARDDISK_" => Some(1),
        bus_and_model => bus_and_model.ends_with('_').then_some(2),
    }
}

fn show(path: &std::path::Path) -> String {
    printable(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop there")]
    use super::*;

    const A: &str = "5f0c8a521b2c4d3e9f40";
    const B: &str = "0a1b2c3d4e5f60718293";

    fn serial(text: &str) -> Serial {
        text.parse().unwrap()
    }

    fn disk(number: u64, serial: &str) -> Disk {
        let node = PathBuf::from(format!("/dev/disk{number}"));
        Disk { id: NodeId::Block(number), node, serial: Some(serial.to_owned()), size_bytes: 1 << 30 }
    }

    fn facts(disks: &[Disk], links: &[(&str, u64)]) -> Facts {
        let link = |(name, number): &(&str, u64)| Link {
            path: PathBuf::from("/by-id").join(name),
            name: (*name).to_owned(),
            leads_to: NodeId::Block(*number),
        };
        Facts { disks: disks.to_vec(), links: links.iter().map(link).collect(), links_are_made: true }
    }

    #[test]
    fn the_link_must_lead_to_the_disk_that_has_the_serial() {
        let virtio = format!("virtio-{A}");
        let scsi = format!("scsi-0QEMU_QEMU_HARDDISK_{A}");
        let ata = format!("ata-QEMU_HARDDISK_{A}");
        let part = format!("virtio-{A}-part1");
        let glued = format!("virtio-0{A}");
        // What is there beside two disks with the serials A (1) and B (2), and the name by which A is found.
        type Links<'a> = &'a [(&'a str, u64)];
        let table: &[(Links, Option<&str>)] = &[
            (&[(&virtio, 1)], Some(&virtio)),
            (&[(&scsi, 1)], Some(&scsi)),
            (&[(&ata, 1)], Some(&ata)),
            (&[(&ata, 1), (&scsi, 1), (&virtio, 1)], Some(&virtio)),
            (&[(&ata, 1), (&scsi, 1), (&virtio, 2)], Some(&scsi)),
            (&[(&virtio, 2)], None),
            (&[(&virtio, 9)], None),
            (&[(&part, 1)], None),
            (&[(&glued, 1)], None),
            (&[(A, 1)], None),
            (&[], None),
        ];
        for (links, expected) in table {
            let found = facts(&[disk(1, A), disk(2, B)], links).find(&serial(A)).unwrap();
            let name = found.map(|device| device.path);
            assert_eq!(name, expected.map(|name| PathBuf::from("/by-id").join(name)), "{links:?}");
        }
    }

    #[test]
    fn a_link_alone_proves_nothing() {
        let link = format!("virtio-{A}");
        for kernel in [B, "", "5F0C8A521B2C4D3E9F40", "5f0c8a521b2c4d3e9f401"] {
            assert_eq!(facts(&[disk(1, kernel)], &[(&link, 1)]).find(&serial(A)).unwrap(), None, "{kernel}");
        }
    }

    #[test]
    fn without_anybody_who_makes_links_the_node_is_the_path() {
        let mut facts = facts(&[disk(1, A)], &[]);
        assert_eq!(facts.find(&serial(A)).unwrap(), None);
        facts.links_are_made = false;
        assert_eq!(facts.find(&serial(A)).unwrap().unwrap().path, PathBuf::from("/dev/disk1"));
    }

    #[test]
    fn two_disks_with_one_serial_are_an_error_and_nobodys_device() {
        let link = format!("virtio-{A}");
        let facts = facts(&[disk(1, A), disk(2, A), disk(3, B)], &[(&link, 1), (&format!("virtio-{B}"), 3)]);
        let error = facts.find(&serial(A)).unwrap_err();
        assert_eq!(error.kind, Kind::DeviceMismatch);
        assert!(error.message.contains("/dev/disk1 and /dev/disk2"), "{error}");
        assert_eq!(facts.all().len(), 1);
    }

    #[test]
    fn one_file_under_two_serials_is_an_error() {
        let facts = facts(&[disk(1, A), disk(1, B)], &[(&format!("virtio-{A}"), 1), (&format!("virtio-{B}"), 1)]);
        assert_eq!(facts.find(&serial(A)).unwrap_err().kind, Kind::DeviceMismatch);
        assert!(facts.all().is_empty());
    }

    #[test]
    fn doubt_counts_as_presence() {
        let link = format!("virtio-{A}");
        assert!(facts(&[disk(1, A)], &[]).present(&serial(A)), "no link is needed");
        assert!(facts(&[disk(1, "")], &[(&link, 1)]).present(&serial(A)), "it no longer tells its serial");
        assert!(!facts(&[disk(1, B)], &[(&link, 1)]).present(&serial(A)), "the link is stale");
        assert!(!facts(&[disk(1, "")], &[]).present(&serial(A)));
    }

    #[test]
    fn what_was_seen_names_each_disk() {
        let mut facts = facts(&[disk(1, A), disk(2, "od\u{1b}d"), disk(3, "")], &[]);
        assert_eq!(
            facts.seen(),
            format!(
                "/dev/disk1 (serial {A}, 1G, no by-id link yet), /dev/disk2 (serial od\\u{{1b}}d, 1G), /dev/disk3 (no serial, 1G)"
            )
        );
        facts.disks.clear();
        assert_eq!(facts.seen(), "no disk with a serial");
    }
}
