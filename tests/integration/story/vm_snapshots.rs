//! What CloudStack does not do to the disks of a VM with VM snapshots is refused before anything is sent or touched.

use serde_json::json;

use crate::support::appliance::Appliance;
use crate::support::scenario::{exported, id};
use crate::support::simulator::{APPLIANCE, OLD};
use crate::support::wording::{message, names};

const CHANGES: [&str; 5] = ["attachVolume", "createVolume", "detachVolume", "resizeVolume", "revertSnapshot"];

fn edit(appliance: &Appliance, vm: &str, snapshots: bool) {
    appliance.cloud.admin("POST", "vm", json!({"id": vm, "vmsnapshots": snapshots}));
}

fn sent(appliance: &Appliance) -> Vec<u64> {
    CHANGES.iter().map(|command| appliance.cloud.calls(command)).collect()
}

#[test]
fn each_verb_says_so_with_everything_as_it_was() {
    let appliance = Appliance::start();
    exported(&appliance);
    appliance.cloud.volume("other");
    edit(&appliance, APPLIANCE, true);
    let before = (sent(&appliance), appliance.show("data")["export"].clone());
    let lines: [(&[&str], &str); 6] = [
        (&["attach", "other"], "attaches and detaches nothing"),
        (&["create", "third", "--size", "1G", "--attach"], "attaches and detaches nothing"),
        (&["create", "other", "--size", "1G", "--attach", "--exists-ok"], "attaches and detaches nothing"),
        (&["detach", "data"], "does not detach volume data"),
        (&["move", "data", "--to", "worker"], "does not detach volume data"),
        (&["resize", "data", "2G"], "does not resize volume data"),
    ];
    for (line, sentence) in lines {
        for dry in [&["--dry-run"][..], &[]] {
            let error = appliance.json(&[line, dry].concat()).failure(4, "conflict");
            names(message(&error), &["VM appliance", "before-update", sentence, "nothing was sent"]);
        }
    }
    assert_eq!((sent(&appliance), appliance.show("data")["export"].clone()), before);
    edit(&appliance, APPLIANCE, false);
    assert_eq!(appliance.ok(&["move", "data", "--to", "worker"])["changed"], true);
}

#[test]
fn a_revert_on_a_stopped_vm_too() {
    let appliance = Appliance::start();
    exported(&appliance);
    appliance.ok(&["snapshot", "create", "data", "--name", "s1"]);
    appliance.ok(&["move", "data", "--to", "old"]);
    edit(&appliance, OLD, true);
    let error = appliance.json(&["snapshot", "revert", "s1", "--yes"]).failure(4, "conflict");
    names(message(&error), &["VM old", "before-update", "does not revert volume data", "nothing was sent"]);
    let error = appliance.json(&["detach", "data", "--from", "old"]).failure(4, "conflict");
    names(message(&error), &["VM old", "does not detach volume data"]);
    // Snapshots without memory do not forbid it everywhere: that is CloudStack's to say.
    let error = appliance.json(&["resize", "data", "2G"]).failure(5, "cloudstack_refused");
    names(message(&error), &["data", "VM snapshots"]);
}

#[test]
fn where_they_may_not_be_looked_at_it_is_left_to_cloudstack() {
    for fault in [
        json!({"command": "listVMSnapshot", "times": 100, "mode": "error", "code": 432, "text": "not in your role"}),
        json!({"command": "listVMSnapshot", "times": 100, "mode": "error", "code": 401, "text": "no such command"}),
        json!({"command": "listVMSnapshot", "times": 100, "mode": "error", "code": 530, "text": "out of order"}),
        json!({"command": "listVMSnapshot", "times": 100, "mode": "html-200"}),
    ] {
        let appliance = Appliance::start();
        appliance.cloud.volume("data");
        appliance.cloud.fault(fault);
        assert_eq!(appliance.ok(&["attach", "data"])["changed"], true);
        edit(&appliance, APPLIANCE, true);
        let error = appliance.json(&["detach", "data"]).failure(5, "cloudstack_refused");
        names(message(&error), &["data", "VM snapshots"]);
        edit(&appliance, APPLIANCE, false);
        assert_eq!(appliance.ok(&["detach", "data"])["changed"], true);
        assert!(!appliance.cloud.is_plugged(&id(&appliance)));
    }
}
