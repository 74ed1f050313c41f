//! Who uses a disk on this machine: mounts, swap, what is stacked on it, loop devices and open files, over the disk and
//! all its partitions; and the command that ends each use.

mod snapshot;
mod stack;

use std::fmt;
use std::io;
use std::path::Path;

use self::snapshot::{Process, Snapshot};
use super::look::World;
use super::node::NodeId;
use super::sysfs::Sysfs;
use crate::error::{Error, Kind};
use crate::model::printable;

/// How many users a message names at one place of the tree.
const NAMED: usize = 20;
/// No real stack is deeper; a loop in sysfs must not hang us.
const DEEPEST: usize = 8;

/// Who uses a device here. `Display` is a tree, one line a user, each with what frees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    users: Vec<User>,
    unchecked: Vec<String>,
}

/// One use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    what: String,
    free: String,
    /// It is udevd, which looks into a disk for a moment after it came or was written.
    is_udev: bool,
    users: Vec<User>,
}

impl User {
    fn new(what: String, free: String) -> Self {
        Self { what, free, is_udev: false, users: Vec::new() }
    }
}

impl Users {
    /// Whether it is proven that nobody uses it: a check that could not be made is no proof.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.unchecked.is_empty()
    }

    /// The refusal, of kind `in_use`, for a volume as messages name it.
    pub fn into_error(self, volume: &str) -> Error {
        if self.users.is_empty() {
            return Error::new(Kind::InUse, format!("whether {volume} is in use here could not be found out:\n{self}"))
                .hint("run volctld as root, with the host's processes in sight");
        }
        Error::new(Kind::InUse, format!("{volume} is in use here:\n{self}"))
            .hint("free it with the commands named, innermost first, and try again; --force does not override this")
    }

    /// Whether udevd's short looks are the only use.
    pub(super) fn only_udev(&self) -> bool {
        !self.users.is_empty() && self.users.iter().all(|user| user.is_udev)
    }

    /// Adds a holder that only the refused exclusive open has shown.
    pub(super) fn add_unseen(&mut self, path: &Path) {
        let what = format!("{} is held exclusively by something that /proc and /sys do not show", path.display());
        self.users.push(User::new(what, "look with lsblk and lsof".to_owned()));
    }

    /// Forgets the checks that could not be made.
    pub(super) fn allow_unchecked(&mut self) {
        self.unchecked.clear();
    }

    /// Whether anybody was found.
    pub(super) fn any(&self) -> bool {
        !self.users.is_empty()
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        draw(&self.users, 1, &mut lines);
        lines.extend(self.unchecked.iter().map(|what| format!("  could not be checked: {}", printable(what))));
        f.write_str(&lines.join("\n"))
    }
}

fn draw(users: &[User], depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    for user in users.iter().take(NAMED) {
        lines.push(format!("{indent}{}; to free it: {}", printable(&user.what), printable(&user.free)));
        draw(&user.users, depth + 1, lines);
    }
    if let Some(more) = users.len().checked_sub(NAMED).filter(|more| *more > 0) {
        lines.push(format!("{indent}and {more} more"));
    }
}

/// Whether our own process has a disk open, and who else uses it. Blocks for as long as `/proc` takes.
pub(super) fn examine(world: &World, proc: &Path, disk: NodeId, node: &Path) -> (bool, Users) {
    let snapshot = Snapshot::take(proc, &world.sysfs, &world.dev, disk);
    let mut tree = Tree { sysfs: &world.sysfs, unchecked: snapshot.unchecked.clone(), snapshot: &snapshot };
    let users = match (world.sysfs.name(disk), disk) {
        (Some(name), _) => tree.users_of_disk(&name, 0),
        (None, NodeId::File { .. }) => tree.users_of_node(disk, &node.display().to_string(), 0),
        (None, NodeId::Block(_)) => {
            tree.unchecked.push(format!("{}, which sysfs does not show", node.display()));
            Vec::new()
        }
    };
    (snapshot.ours.contains(&disk), Users { users, unchecked: tree.unchecked })
}

/// The tree while it grows.
struct Tree<'a> {
    sysfs: &'a Sysfs,
    snapshot: &'a Snapshot,
    unchecked: Vec<String>,
}

impl Tree<'_> {
    /// The users of a whole disk and of its partitions.
    fn users_of_disk(&mut self, name: &str, depth: usize) -> Vec<User> {
        if depth > DEEPEST {
            self.unchecked.push(format!("what stands on {name}: the stack is deeper than {DEEPEST}"));
            return Vec::new();
        }
        let partitions = self.checked(self.sysfs.partitions(name), &format!("the partitions of {name}"));
        let blocks = std::iter::once(name.to_owned()).chain(partitions);
        blocks.flat_map(|block| self.users_of_block(&block, depth)).collect()
    }

    /// The users of one disk without its partitions, or of one partition.
    fn users_of_block(&mut self, name: &str, depth: usize) -> Vec<User> {
        let id = match self.sysfs.id(name) {
            Ok(Some(id)) => id,
            // It vanished meanwhile.
            Ok(None) => return Vec::new(),
            Err(error) => {
                self.unchecked.push(format!("{name} ({error})"));
                return Vec::new();
            }
        };
        let node = format!("/dev/{name}");
        let mut users = self.users_of_node(id, &node, depth);
        for holder in self.checked(self.sysfs.holders(name), &format!("the holders of {name}")) {
            users.push(self.stacked(&node, &holder, depth));
        }
        let btrfs = self.sysfs.btrfs(name).map(|found| found.into_iter().collect());
        let is_mounted = self.snapshot.mounts.iter().any(|mount| mount.id == id);
        for file_system in self.checked(btrfs, "btrfs").into_iter().filter(|_| !is_mounted) {
            let what = format!("{node} is part of the mounted btrfs file system {file_system}");
            users.push(User::new(what, format!("umount it; `btrfs filesystem show {file_system}` names its devices")));
        }
        users
    }

    /// Mounts, swap, open files and loop devices of one node.
    fn users_of_node(&mut self, id: NodeId, node: &str, depth: usize) -> Vec<User> {
        let snapshot = self.snapshot;
        let mounts = snapshot.mounts.iter().filter(|mount| mount.id == id).map(|mount| {
            let point = shell_word(&mount.point.to_string_lossy());
            match &mount.elsewhere {
                None => User::new(format!("{node} is mounted on {}", mount.point.display()), format!("umount {point}")),
                Some(process) => User::new(
                    format!("{node} is mounted on {} in the namespace of {}", mount.point.display(), name_of(process)),
                    format!("nsenter -t {} -m umount {point}", process.pid),
                ),
            }
        });
        let swaps = snapshot.swaps.iter().filter(|(on, _)| *on == id).map(|(_, path)| {
            User::new(format!("{node} is swap"), format!("swapoff {}", shell_word(&path.to_string_lossy())))
        });
        let opens = || snapshot.opens.iter().filter(|(open, _)| *open == id).map(|(_, process)| process);
        let has_heir_only = opens().all(Process::is_heir);
        let opens = opens().filter(|process| has_heir_only || !process.is_heir()).map(|process| User {
            is_udev: process.is_udev,
            ..User::new(format!("{node} is open in {}", name_of(process)), what_frees(process))
        });
        let mut users: Vec<_> = mounts.chain(swaps).chain(opens).collect();
        for (_, name) in snapshot.loops.iter().filter(|(backing, _)| *backing == id) {
            users.push(self.stacked(node, name, depth));
        }
        users
    }

    fn stacked(&mut self, node: &str, name: &str, depth: usize) -> User {
        let stacked = stack::describe(self.sysfs, name);
        let users = self.users_of_disk(name, depth + 1);
        User { users, ..User::new(format!("{node} is held by {}", stacked.what), stacked.free) }
    }

    /// What was read, or nothing and a note that it could not be.
    fn checked(&mut self, names: io::Result<Vec<String>>, what: &str) -> Vec<String> {
        names.unwrap_or_else(|error| {
            self.unchecked.push(format!("{what} ({error})"));
            Vec::new()
        })
    }
}

fn what_frees(process: &Process) -> String {
    match process.is_heir() {
        true => "run it without a redirection from or to the disk".to_owned(),
        false => format!("kill {}", process.pid),
    }
}

fn name_of(process: &Process) -> String {
    format!("process {} ({})", process.pid, process.name)
}

/// A text as one word of a shell command.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop there")]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A made-up `/sys` and `/proc`.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            machine.write("proc/1/comm", "init\n");
            machine.write("proc/1/mountinfo", "22 1 0:21 / /proc rw - proc proc rw\n");
            fs::create_dir_all(machine.path("proc/1/fd")).unwrap();
            for (name, number) in [("vdb", "254:16"), ("vdb/vdb1", "254:17"), ("vdb/vdb2", "254:18"), ("dm-0", "252:0")]
            {
                machine.write(&format!("sys/block/{name}/dev"), number);
                let place = machine.path(&format!("sys/block/{name}"));
                fs::create_dir_all(machine.path("sys/class/block")).unwrap();
                fs::create_dir_all(machine.path("sys/dev/block")).unwrap();
                let flat = machine.path("sys/class/block").join(place.file_name().unwrap());
                symlink(&place, flat).unwrap();
                symlink(&place, machine.path("sys/dev/block").join(number)).unwrap();
            }
            machine.write("sys/block/vdb/vdb1/partition", "1");
            machine.write("sys/block/vdb/vdb2/partition", "2");
            machine.write("sys/block/dm-0/dm/name", "vg0-data");
            machine.write("sys/block/dm-0/dm/uuid", "LVM-x");
            machine
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: &str) {
            fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
            fs::write(self.path(path), text).unwrap();
        }

        fn users(&self) -> Users {
            let world = World {
                by_id: self.path("by-id"),
                sandbox: false,
                sysfs: Sysfs::new(self.path("sys")),
                dev: self.path("dev"),
                udev_control: self.path("control"),
            };
            let disk = NodeId::from_numbers("254:16").unwrap();
            examine(&world, &self.path("proc"), disk, Path::new("/dev/vdb")).1
        }
    }

    #[test]
    fn nobody_is_nobody() {
        let users = Machine::new().users();
        assert!(users.is_empty(), "{users}");
    }

    #[test]
    fn a_stack_is_drawn_from_the_disk_up() {
        let machine = Machine::new();
        machine.write("sys/block/vdb/vdb1/holders/dm-0", "");
        machine.write(
            "proc/1/mountinfo",
            "30 1 252:0 / /srv/it's\\040data rw - ext4 /dev/mapper/vg0-data rw\n31 1 254:18 / /mnt/\x1bx rw - xfs /dev/vdb2 rw\n",
        );
        let expected = r"  /dev/vdb1 is held by the LVM volume vg0/data (dm-0); to free it: vgchange -an vg0
    /dev/dm-0 is mounted on /srv/it's data; to free it: umount '/srv/it'\''s data'
  /dev/vdb2 is mounted on /mnt/\u{1b}x; to free it: umount '/mnt/\u{1b}x'";
        let error = machine.users().into_error("data1");
        assert_eq!(error.message, format!("data1 is in use here:\n{expected}"));
    }

    #[test]
    fn a_part_of_a_btrfs_is_in_use() {
        let machine = Machine::new();
        machine.write("sys/fs/btrfs/1234-5678/devices/vdb1", "");
        let users = machine.users().to_string();
        assert!(users.contains("/dev/vdb1 is part of the mounted btrfs file system 1234-5678"), "{users}");
    }

    #[test]
    fn a_check_that_could_not_be_made_is_a_refusal() {
        let machine = Machine::new();
        machine.write("proc/7/comm", "secret\n");
        machine.write("proc/7/mountinfo", "");
        machine.write("proc/7/fd", "not a directory, which is as good as one that may not be read");
        let users = machine.users();
        assert!(!users.is_empty());
        let error = users.into_error("data1");
        assert_eq!(error.kind, Kind::InUse);
        assert!(error.message.starts_with("whether data1 is in use here could not be found out:"), "{error}");
        assert!(error.message.contains("process 7 (secret)"), "{error}");
    }

    #[test]
    fn a_process_that_ended_meanwhile_is_no_matter() {
        let machine = Machine::new();
        fs::create_dir(machine.path("proc/7")).unwrap();
        assert!(machine.users().is_empty());
    }

    #[test]
    fn hidden_processes_are_not_taken_for_none() {
        let machine = Machine::new();
        fs::rename(machine.path("proc/1"), machine.path("proc/2")).unwrap();
        assert!(!machine.users().is_empty());
    }

    #[test]
    fn a_stack_in_a_circle_ends() {
        let machine = Machine::new();
        machine.write("sys/block/vdb/holders/dm-0", "");
        machine.write("sys/block/dm-0/holders/dm-0", "");
        assert!(machine.users().to_string().contains("could not be checked"));
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (text, word) in
            [("/mnt/x-1", "/mnt/x-1"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("$x", "'$x'")]
        {
            assert_eq!(shell_word(text), word);
        }
    }
}
