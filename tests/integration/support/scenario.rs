//! One operation of each kind, in a world that is ready for it, and what is there when it has ended: what a crash or a
//! fault must not change.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use volctl::operation::journal_points;

use super::appliance::Appliance;
use super::simulator::{APPLIANCE, Simulator, WORKER};
use super::wait_for;

/// The calls that change something.
pub const CHANGES: [&str; 13] = [
    "createVolume",
    "attachVolume",
    "detachVolume",
    "destroyVolume",
    "deleteVolume",
    "recoverVolume",
    "resizeVolume",
    "createSnapshot",
    "revertSnapshot",
    "deleteSnapshot",
    "createTags",
    "stopVirtualMachine",
    "destroyVirtualMachine",
];

/// One operation and the world in which it is asked for.
pub struct Scenario {
    /// What it is, for people.
    pub name: &'static str,
    /// The operation's kind.
    pub kind: &'static str,
    /// Makes the world, without an operation of this kind.
    pub prepare: fn(&Appliance),
    /// What the operator types.
    pub words: &'static [&'static str],
}

/// Together they pass every step of every journal; the crash matrix holds that.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "create", kind: "create", prepare: |_| {}, words: &["create", "data", "--size", "1G"] },
    Scenario {
        name: "create with attach and export",
        kind: "create",
        prepare: |_| {},
        words: &["create", "data", "--size", "1G", "--export"],
    },
    Scenario { name: "attach", kind: "attach", prepare: new_volume, words: &["attach", "data"] },
    Scenario {
        name: "attach with export",
        kind: "attach",
        prepare: new_volume,
        words: &["attach", "data", "--export"],
    },
    Scenario {
        name: "attach elsewhere",
        kind: "attach",
        prepare: new_volume,
        words: &["attach", "data", "--vm", "worker"],
    },
    Scenario {
        name: "attach as a root disk",
        kind: "attach",
        prepare: beside_a_rootless_vm,
        words: &["attach", "data", "--vm", "old", "--root"],
    },
    Scenario {
        name: "create with tags",
        kind: "create",
        prepare: |_| {},
        words: &["create", "data", "--size", "1G", "--attach", "--tag", "owner=jo"],
    },
    Scenario {
        name: "attach with tags",
        kind: "attach",
        prepare: new_volume,
        words: &["attach", "data", "--tag", "owner=jo", "--tag", "tier=gold"],
    },
    Scenario { name: "export", kind: "export", prepare: attached, words: &["export", "data", "--read-only"] },
    Scenario {
        name: "export for others",
        kind: "export",
        prepare: exported,
        words: &["export", "data", "--shared", "--client", "192.0.2.0/24"],
    },
    Scenario { name: "unexport", kind: "unexport", prepare: exported, words: &["unexport", "data"] },
    Scenario { name: "detach", kind: "detach", prepare: attached, words: &["detach", "data"] },
    Scenario { name: "detach with an export and data", kind: "detach", prepare: written, words: &["detach", "data"] },
    Scenario {
        name: "detach from elsewhere",
        kind: "detach",
        prepare: attached_elsewhere,
        words: &["detach", "data", "--from", "worker", "--yes"],
    },
    Scenario { name: "move", kind: "move", prepare: attached, words: &["move", "data", "--to", "worker"] },
    Scenario {
        name: "move of an export and data to become a root disk",
        kind: "move",
        prepare: written,
        words: &["move", "data", "--to", "old", "--root", "--swap-root", "--yes"],
    },
    Scenario {
        name: "reclaim",
        kind: "reclaim",
        prepare: moved,
        words: &["reclaim", "data", "--from", "worker", "--yes"],
    },
    Scenario {
        name: "reclaim by force",
        kind: "reclaim",
        prepare: moved_to_a_deaf_guest,
        words: &["reclaim", "data", "--from", "worker", "--force-stop", "--yes"],
    },
    Scenario {
        name: "reclaim and destroy",
        kind: "reclaim",
        prepare: moved,
        words: &["reclaim", "data", "--from", "worker", "--destroy-vm", "worker"],
    },
    Scenario { name: "delete", kind: "delete", prepare: used, words: &["delete", "data", "--yes"] },
    Scenario {
        name: "delete for ever",
        kind: "delete",
        prepare: used,
        words: &["delete", "data", "--expunge", "--yes"],
    },
    Scenario {
        name: "delete what was never made",
        kind: "delete",
        prepare: new_volume,
        words: &["delete", "data", "--yes"],
    },
    Scenario { name: "resize", kind: "resize", prepare: exported, words: &["resize", "data", "3G"] },
    Scenario { name: "resize of a detached one", kind: "resize", prepare: used, words: &["resize", "data", "3G"] },
    Scenario {
        name: "snapshot",
        kind: "snapshotcreate",
        prepare: attached,
        words: &["snapshot", "create", "data", "--name", "before", "--tag", "job=nightly"],
    },
    Scenario {
        name: "snapshot revert",
        kind: "snapshotrevert",
        prepare: snapshotted,
        words: &["snapshot", "revert", "before", "--yes"],
    },
    Scenario {
        name: "snapshot delete",
        kind: "snapshotdelete",
        prepare: snapshotted,
        words: &["snapshot", "delete", "before", "--yes"],
    },
    Scenario { name: "recover", kind: "recover", prepare: deleted, words: &["recover", "data"] },
];

/// A volume `data` that was never attached.
pub fn new_volume(appliance: &Appliance) {
    appliance.cloud.volume("data");
}

/// One beside the stopped VM `old`, whose root disk was detached.
fn beside_a_rootless_vm(appliance: &Appliance) {
    new_volume(appliance);
    let root = appliance.truth("ROOT-old").unwrap()["id"].clone();
    let job = appliance.cloud.job("detachVolume", &[("id", root.as_str().unwrap())]);
    assert_eq!(job["jobstatus"], 1, "{job}");
}

/// One that is attached here.
pub fn attached(appliance: &Appliance) {
    new_volume(appliance);
    appliance.ok(&["attach", "data"]);
}

/// One that is attached here and exported.
pub fn exported(appliance: &Appliance) {
    new_volume(appliance);
    appliance.ok(&["attach", "data", "--export"]);
}

fn written(appliance: &Appliance) {
    new_volume(appliance);
    let uri = appliance.run(&["attach", "data", "--export", "-q"]).success().stdout;
    let write = ["-f", "raw", "-c", "write -P 0xab 64k 1M", "-c", "flush", uri.trim_end()];
    let written = Command::new("qemu-io").args(write).output().unwrap();
    assert!(written.status.success(), "{written:?}");
    wait_for("the client to be gone", || (appliance.show("data")["export"]["clients"] == json!([])).then_some(()));
}

/// One that was exported here, and moved to another VM, which runs.
pub fn moved(appliance: &Appliance) {
    new_volume(appliance);
    appliance.ok(&["attach", "data"]);
    appliance.ok(&["export", "data", "--name", "disk", "--read-only"]);
    appliance.ok(&["move", "data", "--to", "worker"]);
}

fn moved_to_a_deaf_guest(appliance: &Appliance) {
    moved(appliance);
    appliance.cloud.admin("POST", "vm", json!({"id": WORKER, "ignores_shutdown": true}));
}

fn attached_elsewhere(appliance: &Appliance) {
    new_volume(appliance);
    attach_behind_our_back(appliance, WORKER);
}

/// One that is on storage, since it was attached once.
pub fn used(appliance: &Appliance) {
    new_volume(appliance);
    attach_behind_our_back(appliance, APPLIANCE);
    detach_behind_our_back(appliance);
}

/// One that was used and is deleted, not for ever.
pub fn deleted(appliance: &Appliance) {
    used(appliance);
    appliance.cloud.job("destroyVolume", &[("id", &id(appliance))]);
}

/// One with a snapshot `before`, that has grown since.
fn snapshotted(appliance: &Appliance) {
    used(appliance);
    let id = id(appliance);
    for (command, parameters) in [
        ("createSnapshot", [("volumeid", id.as_str()), ("name", "before")]),
        ("resizeVolume", [("id", &id), ("size", "2")]),
    ] {
        assert_eq!(appliance.cloud.job(command, &parameters)["jobstatus"], 1, "{command}");
    }
}

/// The volume's id.
pub fn id(appliance: &Appliance) -> String {
    appliance.truth("data").unwrap()["id"].as_str().unwrap().to_owned()
}

/// As another program does it.
pub fn attach_behind_our_back(appliance: &Appliance, vm: &str) {
    let job = appliance.cloud.job("attachVolume", &[("id", &id(appliance)), ("virtualmachineid", vm)]);
    assert_eq!(job["jobstatus"], 1, "{job}");
}

/// As another program does it.
pub fn detach_behind_our_back(appliance: &Appliance) {
    let job = appliance.cloud.job("detachVolume", &[("id", &id(appliance))]);
    assert_eq!(job["jobstatus"], 1, "{job}");
}

/// What came of a scenario, without what differs from run to run.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// What the answer says.
    pub changed: Value,
    /// Kind and status of each operation.
    pub operations: Vec<Value>,
    /// How often each change was called.
    pub calls: BTreeMap<&'static str, u64>,
    /// CloudStack's books.
    pub volumes: Vec<Value>,
    /// Its snapshots.
    pub snapshots: Vec<Value>,
    /// The VMs, in CloudStack's books.
    pub vms: Vec<Value>,
    /// What `volctl ls` shows.
    pub shown: Vec<Value>,
    /// What `volctl exports` shows.
    pub exports: Vec<Value>,
    /// Links to devices.
    pub devices: usize,
    /// Whether the volume has the bytes that [`written`] writes.
    pub data: Option<bool>,
}

impl End {
    /// How it is now; `changed` is what the answer said.
    pub fn of(appliance: &Appliance, changed: &Value) -> Self {
        let state = appliance.cloud.state();
        let operations = &appliance.ok(&["ops"])["operations"];
        let exports = &appliance.ok(&["exports"])["exports"];
        let shown = &appliance.ok(&["ls", "--max-age", "0"])["volumes"];
        Self {
            changed: changed.clone(),
            operations: picked(operations, &["/kind", "/status"]),
            calls: changes_called(&appliance.cloud),
            volumes: picked(
                &state["volumes"],
                &["/name", "/state", "/size", "/tags", "/virtualmachineid", "/deviceid", "/removed"],
            ),
            snapshots: picked(&state["snapshots"], &["/name", "/state", "/virtualsize", "/tags", "/removed"]),
            vms: picked(&state["virtual_machines"], &["/name", "/state"]),
            shown: picked(shown, &["/name", "/state", "/vm_id", "/device/size_bytes", "/export/state"]),
            exports: picked(exports, &["/read_only", "/shared", "/access", "/state", "/clients"]),
            devices: std::fs::read_dir(appliance.path("by-id")).unwrap().count(),
            data: written_data(appliance),
        }
    }

    /// Waits until it is as it should be, whatever `compared` leaves out.
    pub fn wait_until_as(appliance: &Appliance, changed: &Value, wanted: &Self, compared: impl Fn(&Self) -> Self) {
        let mut last = None;
        let same = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("the end to be as if nothing had happened", || {
                let now = compared(&Self::of(appliance, changed));
                let is_same = now == compared(wanted);
                last = Some(now);
                is_same.then_some(())
            });
        }));
        assert!(same.is_ok(), "it ended as {last:#?}\nand undisturbed as {wanted:#?}");
    }
}

fn picked(list: &Value, fields: &[&str]) -> Vec<Value> {
    let pick = |item: &Value| fields.iter().map(|field| item.pointer(field).cloned().unwrap_or_default()).collect();
    list.as_array().unwrap().iter().map(pick).collect()
}

/// How often each change was called so far.
pub fn changes_called(cloud: &Simulator) -> BTreeMap<&'static str, u64> {
    let calls = &cloud.state()["journal"]["calls"];
    CHANGES.iter().map(|command| (*command, calls[command].as_u64().unwrap_or(0))).collect()
}

fn written_data(appliance: &Appliance) -> Option<bool> {
    let file = appliance.path("disks").join(appliance.truth("data")?["id"].as_str()?);
    let bytes = std::fs::read(file).ok()?;
    Some(bytes.get((64 << 10)..(64 << 10) + (1 << 20))?.iter().all(|byte| *byte == 0xab))
}

impl Scenario {
    /// The one of a name.
    pub fn named(name: &str) -> &'static Self {
        SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap_or_else(|| panic!("no scenario {name}"))
    }

    /// The undisturbed run: its end, and the steps that it passes.
    pub fn undisturbed(&self) -> (End, Vec<String>) {
        let appliance = Appliance::start();
        (self.prepare)(&appliance);
        let before = appliance.log().len();
        let answer = appliance.ok(self.words);
        let log = appliance.log()[before..].to_owned();
        let first = journal_points().into_iter().find(|(kind, _)| word(kind) == self.kind).unwrap().1.to_owned();
        let mut steps = vec![first];
        for step in log.lines().filter_map(step_of_transition) {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        (End::of(&appliance, &answer["changed"]), steps)
    }
}

/// A kind as it is written everywhere.
pub fn word(kind: &impl std::fmt::Debug) -> String {
    format!("{kind:?}").to_lowercase()
}

/// The step in a line of the log such as `... transition operation=... status=Running step="send"`.
fn step_of_transition(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" transition ")?.1.split_once("step=\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}
