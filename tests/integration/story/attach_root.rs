//! `volctl attach VOLUME --vm VM --root`: the root disk of a stopped VM, each rule looked at before anything is sent.

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::simulator::{APPLIANCE, OLD, WORKER};
use crate::support::wording::{hint, message, names};

const LINE: [&str; 5] = ["attach", "data", "--vm", "old", "--root"];

/// An appliance with the volume `data`, and the stopped VM `old` without its root disk.
fn rootless() -> Appliance {
    without_root(Appliance::start())
}

fn without_root(appliance: Appliance) -> Appliance {
    appliance.cloud.volume("data");
    let root = appliance.truth("ROOT-old").unwrap()["id"].clone();
    let job = appliance.cloud.job("detachVolume", &[("id", root.as_str().unwrap())]);
    assert_eq!(job["jobstatus"], 1, "{job}");
    appliance
}

fn edit(appliance: &Appliance, what: &str, patch: Value) {
    appliance.cloud.admin("POST", what, patch);
}

fn data(appliance: &Appliance) -> String {
    appliance.truth("data").unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn it_becomes_device_0() {
    let appliance = rootless();
    let attached = appliance.ok(&LINE);
    assert_eq!((&attached["changed"], &attached["volume"]["device_id"]), (&json!(true), &json!(0)));
    assert_eq!((&attached["volume"]["type"], &attached["volume"]["vm_id"]), (&json!("ROOT"), &json!(OLD)));
    let truth = appliance.truth("data").unwrap();
    assert_eq!((&truth["deviceid"], &truth["type"]), (&json!(0), &json!("ROOT")));
    assert_eq!(appliance.ok(&LINE)["changed"], false);
    let ended = appliance.run(&LINE).success();
    names(&ended.stdout, &["data is already attached to old as its root disk"]);
    assert_eq!(appliance.cloud.calls("attachVolume"), 1);
}

#[test]
fn this_vm_runs() {
    let appliance = rootless();
    for line in [&["attach", "data", "--root"][..], &["attach", "data", "--root", "--vm", "appliance"]] {
        let error = appliance.json(line).failure(4, "conflict");
        names(message(&error), &["data", "root disk", "this VM", APPLIANCE, "it runs", "nothing was sent"]);
    }
    appliance.json(&["attach", "data", "--vm", "old", "--root", "--export"]).failure(2, "usage");
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}

#[test]
fn each_rule_has_its_sentence_before_anything_is_sent() {
    let rules: [(&str, Value, &[&str]); 9] = [
        ("vm", json!({"id": OLD, "state": "Running"}), &["old", "Running", "only a stopped VM"]),
        ("vm", json!({"id": OLD, "state": "Starting"}), &["old", "Starting", "only a stopped VM"]),
        ("vm", json!({"id": OLD, "vmsnapshots": true}), &["old", "VM snapshots", "before-update"]),
        ("vm", json!({"id": OLD, "hypervisor": "LXC"}), &["old", "LXC takes none"]),
        ("volume", json!({"zoneid": "elsewhere"}), &["another zone", "old"]),
        ("volume", json!({"account": "other"}), &["account other", "account volctl", "same owner"]),
        ("volume", json!({"state": "Migrating"}), &["state Migrating"]),
        ("volume", json!({"state": "Destroy"}), &["deleted", "Destroy"]),
        ("volume", json!({"virtualmachineid": WORKER, "deviceid": 1}), &["attached elsewhere", "worker"]),
    ];
    let appliance = rootless();
    appliance.cloud.settings(json!({"role": "admin"}));
    let id = data(&appliance);
    for (what, patch, words) in rules {
        let before = appliance.cloud.state();
        let rows = if what == "vm" { &before["virtual_machines"] } else { &before["volumes"] };
        let mut patch = patch;
        if what == "volume" {
            patch["id"] = json!(id);
        }
        let row = rows.as_array().unwrap().iter().find(|row| row["id"] == patch["id"]).unwrap().clone();
        edit(&appliance, what, patch.clone());
        let error = appliance.json(&["attach", &id, "--vm", OLD, "--root"]).failure(4, "conflict");
        names(message(&error), words);
        edit(&appliance, what, row);
    }
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
    assert_eq!(appliance.ok(&["attach", &id, "--vm", OLD, "--root"])["changed"], true, "each rule alone refused it");
}

#[test]
fn a_list_has_no_root_disk() {
    let appliance = rootless();
    let error = appliance.json(&["attach", "data", "other", "--vm", "old", "--root"]).failure(2, "usage");
    names(message(&error), &["one root disk", "2 volumes"]);
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}

#[test]
fn a_vm_that_has_a_root_disk_keeps_it() {
    let appliance = Appliance::start();
    appliance.cloud.volume("data");
    let error = appliance.json(&LINE).failure(4, "conflict");
    names(message(&error), &["old", "root disk already", "ROOT-old", "nothing was sent"]);
    let root = appliance.truth("ROOT-old").unwrap()["id"].as_str().unwrap().to_owned();
    names(hint(&error), &["volctl detach", &root, "--from", OLD, "deletes nothing"]);
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}

#[test]
fn a_data_disk_there_is_no_root_disk() {
    let appliance = rootless();
    appliance.ok(&["attach", "data", "--vm", "old"]);
    let error = appliance.json(&LINE).failure(4, "conflict");
    names(message(&error), &["data", "old", "as a data disk, not as its root disk"]);
    names(hint(&error), &["volctl detach", "--from"]);
}

#[test]
fn data_disks_do_not_count_as_roots() {
    let appliance = rootless();
    appliance.cloud.settings(json!({"max_data_disks": 1}));
    appliance.cloud.volume("other");
    appliance.ok(&["attach", "other", "--vm", "old"]);
    assert_eq!(appliance.ok(&LINE)["changed"], true);
}

#[test]
fn snapshots_that_may_not_be_looked_at_are_cloudstacks_to_refuse() {
    for fault in [
        json!({"command": "listVMSnapshot", "times": 100, "mode": "error", "code": 432, "text": "not in your role"}),
        json!({"command": "listVMSnapshot", "times": 100, "mode": "error", "code": 401, "text": "no such command"}),
    ] {
        let appliance = rootless();
        appliance.cloud.fault(fault);
        edit(&appliance, "vm", json!({"id": OLD, "vmsnapshots": true}));
        let ended = appliance.json(&LINE);
        assert_eq!(ended.json()["operation"]["status"], "failed");
        names(message(&ended.failure(5, "cloudstack_refused")), &["data", "as its root disk", "snapshots"]);
        edit(&appliance, "vm", json!({"id": OLD, "vmsnapshots": false}));
        assert_eq!(appliance.ok(&LINE)["changed"], true);
    }
}

#[test]
fn a_vm_that_is_started_meanwhile_is_seen() {
    let mut appliance = without_root(Appliance::pausing_at("attach/check/before"));
    let attaching = appliance.begin(&LINE);
    appliance.kill_daemon_at("attach/check/before");
    edit(&appliance, "vm", json!({"id": OLD, "state": "Running"}));
    appliance.start_daemon();
    names(message(&attaching.end().failure(4, "conflict")), &["old", "Running", "nothing was sent"]);
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}
