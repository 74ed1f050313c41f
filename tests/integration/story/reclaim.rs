//! `volctl reclaim`: a volume comes back from another VM, which is stopped, with its former export; what is done already
//! is not done again.

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::scenario::{attach_behind_our_back, attached, detach_behind_our_back, id, moved, new_volume};
use crate::support::simulator::{APPLIANCE, OLD, WORKER};
use crate::support::wait_for;
use crate::support::wording::{hint, message, names, notes};

const FROM_WORKER: [&str; 5] = ["reclaim", "data", "--from", "worker", "--yes"];
const DESTROY: [&str; 6] = ["reclaim", "data", "--from", "worker", "--destroy-vm", "worker"];

fn with(prepare: fn(&Appliance)) -> Appliance {
    let appliance = Appliance::start();
    prepare(&appliance);
    appliance
}

fn vm(appliance: &Appliance, id: &str) -> Value {
    let vms = appliance.cloud.state()["virtual_machines"].clone();
    vms.as_array().unwrap().iter().find(|vm| vm["id"] == id).unwrap().clone()
}

fn vm_state(appliance: &Appliance, id: &str) -> String {
    vm(appliance, id)["state"].as_str().unwrap().to_owned()
}

fn place(appliance: &Appliance, volume: &str) -> Value {
    appliance.truth(volume).unwrap()["virtualmachineid"].clone()
}

fn edit_worker(appliance: &Appliance, mut patch: Value) {
    patch["id"] = json!(WORKER);
    appliance.cloud.admin("POST", "vm", patch);
}

fn job_fails(appliance: &Appliance, command: &str, code: u16) {
    appliance.cloud.fault(json!({"command": command, "mode": "job-fail", "code": code, "text": "not now"}));
}

fn calls(appliance: &Appliance, commands: &[&str]) -> Vec<u64> {
    commands.iter().map(|command| appliance.cloud.calls(command)).collect()
}

#[test]
fn it_comes_back_with_its_former_export() {
    let appliance = with(moved);
    let reclaimed = appliance.ok(&FROM_WORKER);
    assert_eq!((&reclaimed["changed"], &reclaimed["operation"]["kind"]), (&json!(true), &json!("reclaim")));
    let export = &reclaimed["export"];
    assert_eq!(
        (&export["name"], &export["read_only"], &export["state"]),
        (&json!("disk"), &json!(true), &json!("active"))
    );
    assert!(std::fs::exists(reclaimed["volume"]["device"]["path"].as_str().unwrap()).unwrap());
    names(&notes(&reclaimed), &["VM worker", "was stopped"]);
    assert_eq!((place(&appliance, "data"), vm_state(&appliance, WORKER)), (json!(APPLIANCE), "Stopped".into()));
    assert_eq!(calls(&appliance, &["stopVirtualMachine", "destroyVirtualMachine"]), [1, 0]);

    let before = calls(&appliance, &["stopVirtualMachine", "detachVolume", "attachVolume"]);
    assert_eq!(appliance.ok(&FROM_WORKER)["changed"], false, "run again, there is nothing to do");
    let again = appliance.run(&FROM_WORKER).success();
    names(&again.stdout, &["data is attached to this VM", "already: nothing to do"]);
    assert_eq!(calls(&appliance, &["stopVirtualMachine", "detachVolume", "attachVolume"]), before);
}

#[test]
fn an_export_that_was_ended_by_hand_comes_back_too_and_one_that_never_was_does_not() {
    let appliance = with(attached);
    appliance.ok(&["export", "data", "--name", "once"]);
    appliance.ok(&["unexport", "data"]);
    appliance.ok(&["move", "data", "--to", "worker"]);
    let export = appliance.ok(&FROM_WORKER)["export"].clone();
    assert_eq!((&export["name"], &export["read_only"]), (&json!("once"), &json!(false)));

    appliance.ok(&["create", "plain", "--size", "1G", "--attach"]);
    appliance.ok(&["move", "plain", "--to", "old"]);
    let reclaimed = appliance.ok(&["reclaim", "plain", "--from", "old"]);
    assert_eq!((&reclaimed["changed"], &reclaimed["export"]), (&json!(true), &json!(null)));
    names(&notes(&reclaimed), &["plain", "was not exported here before"]);
}

#[test]
fn a_vm_is_destroyed_last_and_not_expunged() {
    let appliance = with(moved);
    let reclaimed = appliance.ok(&DESTROY);
    assert_eq!((&reclaimed["changed"], &reclaimed["export"]["state"]), (&json!(true), &json!("active")));
    names(&notes(&reclaimed), &["worker", "was destroyed", "not expunged"]);
    assert_eq!((vm_state(&appliance, WORKER), place(&appliance, "data")), ("Destroyed".into(), json!(APPLIANCE)));
    let requests = appliance.cloud.state()["journal"]["requests"].clone();
    let destroy = |request: &&Value| request["command"] == "destroyVirtualMachine";
    let sent = requests.as_array().unwrap().iter().find(destroy).unwrap().clone();
    assert!(sent["parameters"].get("expunge").is_none() && sent["parameters"].get("volumeids").is_none(), "{sent}");

    assert_eq!(appliance.ok(&DESTROY)["changed"], false);
    edit_worker(&appliance, json!({"removed": true}));
    assert_eq!(appliance.ok(&DESTROY)["changed"], false, "nor when the VM is no longer shown");
    appliance.json(&["reclaim", "data", "--from", "wroker"]).failure(3, "not_found");
    assert_eq!(appliance.cloud.calls("destroyVirtualMachine"), 1);
}

#[test]
fn a_vm_is_not_destroyed_before_its_disk_is_here() {
    let appliance = with(moved);
    appliance.cloud.settings(json!({"devices_appear": false}));
    let error = appliance.json(&DESTROY).failure(6, "timeout");
    names(message(&error), &["data", "device has not appeared"]);
    assert_eq!((appliance.cloud.calls("destroyVirtualMachine"), vm_state(&appliance, WORKER)), (0, "Stopped".into()));
    appliance.cloud.admin("POST", "volume", json!({"id": id(&appliance), "plugged": true}));
    wait_for("the VM to be destroyed", || (vm_state(&appliance, WORKER) == "Destroyed").then_some(()));
}

#[test]
fn a_vm_is_destroyed_only_under_its_own_name() {
    let appliance = with(moved);
    for name in ["old", "Worker", WORKER] {
        let error = appliance.json(&["reclaim", "data", "--from", "worker", "--destroy-vm", name]).failure(2, "usage");
        names(message(&error), &[name, "not the name of VM worker", "nothing was sent"]);
    }
    assert_eq!(calls(&appliance, &["stopVirtualMachine", "destroyVirtualMachine"]), [0, 0]);
}

#[test]
fn a_protected_vm_is_not_destroyed_nor_stopped_for_it() {
    let appliance = with(moved);
    edit_worker(&appliance, json!({"deleteprotection": true}));
    let error = appliance.json(&DESTROY).failure(4, "conflict");
    names(message(&error), &["VM worker", "is not destroyed", "delete protection"]);
    names(hint(&error), &["--destroy-vm"]);
    assert_eq!((vm_state(&appliance, WORKER), place(&appliance, "data")), ("Running".into(), json!(WORKER)));
    assert_eq!(appliance.ok(&FROM_WORKER)["changed"], true, "without --destroy-vm it comes back");
}

#[test]
fn a_vm_with_other_volumes_is_not_destroyed() {
    let appliance = with(moved);
    let other = appliance.ok(&["create", "other", "--size", "1G"])["volume"]["id"].as_str().unwrap().to_owned();
    appliance.ok(&["attach", "other", "--vm", "worker"]);
    let error = appliance.json(&DESTROY).failure(4, "conflict");
    names(message(&error), &["VM worker", "is not destroyed", "other", &other]);
    assert_eq!((vm_state(&appliance, WORKER), place(&appliance, "data")), ("Running".into(), json!(WORKER)));
    assert_eq!(appliance.ok(&FROM_WORKER)["changed"], true, "without --destroy-vm it comes back");
    assert_eq!(place(&appliance, "other"), WORKER);
}

#[test]
fn a_root_disk_that_was_brought_there_is_not_destroyed_with_the_vm() {
    let appliance = with(attached);
    appliance.ok(&["create", "system", "--size", "1G", "--attach"]);
    appliance.ok(&["move", "system", "--to", "old", "--root", "--swap-root", "--yes"]);
    appliance.ok(&["move", "data", "--to", "old"]);
    let line = ["reclaim", "data", "--from", "old", "--destroy-vm", "old"];
    names(message(&appliance.json(&line).failure(4, "conflict")), &["VM old", "is not destroyed", "system"]);
    // A root disk comes back as well, from a VM that is stopped for it.
    let root = appliance.truth("ROOT-old").unwrap()["id"].as_str().unwrap().to_owned();
    let back = appliance.ok(&["reclaim", "system", "--from", "old"]);
    assert_eq!((&back["volume"]["type"], &back["volume"]["vm_id"]), (&json!("DATADISK"), &json!(APPLIANCE)));
    appliance.ok(&["attach", &root, "--vm", "old", "--root"]);
    names(message(&appliance.json(&line).failure(4, "conflict")), &["is not destroyed", "ROOT-old"]);
}

#[test]
fn a_guest_that_does_not_stop_is_stopped_by_force_only_where_that_is_asked_for() {
    let appliance = with(moved);
    edit_worker(&appliance, json!({"ignores_shutdown": true}));
    let ended = appliance.json(&FROM_WORKER);
    assert_eq!(ended.json()["operation"]["status"], "failed");
    let error = ended.failure(5, "cloudstack_refused");
    names(message(&error), &["stopping VM worker", "Unable to stop"]);
    names(hint(&error), &["--force-stop"]);
    assert_eq!((vm_state(&appliance, WORKER), place(&appliance, "data")), ("Running".into(), json!(WORKER)));
    assert_eq!(calls(&appliance, &["stopVirtualMachine", "detachVolume"]), [1, 1]);

    let plan = appliance.ok(&[&FROM_WORKER[..], &["--force-stop", "--dry-run"]].concat())["plan"].clone();
    names(plan[0].as_str().unwrap(), &["stopVirtualMachine", "forced=false"]);
    names(plan[1].as_str().unwrap(), &["does not stop by itself", "stopVirtualMachine", "forced=true"]);

    let reclaimed = appliance.ok(&[&FROM_WORKER[..], &["--force-stop"]].concat());
    names(&notes(&reclaimed), &["worker", "by force"]);
    assert_eq!((vm_state(&appliance, WORKER), place(&appliance, "data")), ("Stopped".into(), json!(APPLIANCE)));
    let requests = appliance.cloud.state()["journal"]["requests"].clone();
    let stops = requests.as_array().unwrap().iter().filter(|request| request["command"] == "stopVirtualMachine");
    let forced: Vec<&str> = stops.map(|stop| stop["parameters"]["forced"].as_str().unwrap()).collect();
    assert_eq!(forced, ["false", "false", "true"]);
}

#[test]
fn a_vm_that_is_started_again_is_stopped_again() {
    let mut appliance = Appliance::pausing_at("reclaim/detach_look/before");
    moved(&appliance);
    let reclaiming = appliance.begin(&FROM_WORKER);
    appliance.kill_daemon_at("reclaim/detach_look/before");
    assert_eq!(appliance.cloud.job("startVirtualMachine", &[("id", WORKER)])["jobstatus"], 1);
    appliance.start_daemon();
    assert_eq!(reclaiming.end().success().json()["export"]["name"], "disk");
    assert_eq!((vm_state(&appliance, WORKER), appliance.cloud.calls("stopVirtualMachine")), ("Stopped".into(), 2));
}

#[test]
fn what_is_done_already_is_not_done_again() {
    // The VM is stopped, and the volume detached.
    let appliance = with(moved);
    appliance.cloud.job("stopVirtualMachine", &[("id", WORKER)]);
    detach_behind_our_back(&appliance);
    assert_eq!(appliance.ok(&FROM_WORKER)["export"]["name"], "disk");
    assert_eq!(calls(&appliance, &["stopVirtualMachine", "detachVolume"]), [1, 2]);

    // The volume is attached here, and only its export is missing.
    let appliance = with(moved);
    detach_behind_our_back(&appliance);
    attach_behind_our_back(&appliance, APPLIANCE);
    let before = calls(&appliance, &["stopVirtualMachine", "detachVolume", "attachVolume"]);
    let reclaimed = appliance.ok(&FROM_WORKER);
    assert_eq!((&reclaimed["changed"], &reclaimed["export"]["name"]), (&json!(true), &json!("disk")));
    assert_eq!(calls(&appliance, &["stopVirtualMachine", "detachVolume", "attachVolume"]), before);
    assert_eq!(vm_state(&appliance, WORKER), "Running", "there is nothing to stop it for");

    // The VM is destroyed.
    let appliance = with(moved);
    appliance.cloud.job("destroyVirtualMachine", &[("id", WORKER)]);
    assert_eq!(appliance.ok(&DESTROY)["export"]["name"], "disk");
    assert_eq!(appliance.cloud.calls("destroyVirtualMachine"), 1);
}

#[test]
fn whatever_fails_says_where_the_volume_is_and_can_be_asked_for_again() {
    let cases: [(&str, Value, &[&str]); 4] = [
        ("stopVirtualMachine", json!(WORKER), &["stopping VM worker", "not now"]),
        ("detachVolume", json!(WORKER), &["VM worker", "was stopped", "still attached to it", "not now"]),
        ("attachVolume", json!(null), &["data", "was detached from VM worker", "now attached nowhere", "not now"]),
        ("destroyVirtualMachine", json!(APPLIANCE), &["data", "is back on this VM", "worker", "was not destroyed"]),
    ];
    for (command, now, words) in cases {
        for code in [431, 530] {
            let appliance = with(moved);
            job_fails(&appliance, command, code);
            let ended = appliance.json(&DESTROY);
            assert_eq!(ended.json()["operation"]["status"], "failed", "{command}");
            names(message(&ended.failure(5, "cloudstack_refused")), words);
            assert_eq!(place(&appliance, "data"), now, "{command}");
            let again = appliance.ok(&DESTROY);
            assert_eq!((&again["changed"], &again["export"]["name"]), (&json!(true), &json!("disk")), "{command}");
            assert_eq!(vm_state(&appliance, WORKER), "Destroyed");
        }
    }
}

#[test]
fn what_could_not_come_back_is_refused_while_the_vm_still_runs() {
    let appliance = with(moved);
    let refused = |appliance: &Appliance, words: &[&str]| {
        let error = appliance.json(&DESTROY).failure(4, "conflict");
        names(message(&error), words);
        assert_eq!(appliance.cloud.calls("stopVirtualMachine"), 0);
    };
    edit_worker(&appliance, json!({"vmsnapshots": true}));
    refused(&appliance, &["worker", "VM snapshots"]);
    edit_worker(&appliance, json!({"vmsnapshots": false, "state": "Migrating"}));
    refused(&appliance, &["worker", "Migrating"]);
    edit_worker(&appliance, json!({"state": "Running"}));
    appliance.cloud.admin("POST", "vm", json!({"id": APPLIANCE, "vmsnapshots": true}));
    refused(&appliance, &["appliance", "VM snapshots"]);
    appliance.cloud.admin("POST", "vm", json!({"id": APPLIANCE, "vmsnapshots": false}));
    appliance.ok(&["create", "taken", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "taken", "--name", "disk"]);
    refused(&appliance, &["is exported as disk already"]);
    appliance.ok(&["unexport", "taken"]);
    appliance.ok(&["hold", "data", "--note", "test running"]);
    refused(&appliance, &["data", "test running"]);
    appliance.ok(&["release", "data"]);
    appliance.cloud.admin("POST", "volume", json!({"id": id(&appliance), "deviceid": 0, "type": "ROOT"}));
    edit_worker(&appliance, json!({"hypervisor": "LXC"}));
    refused(&appliance, &["root disk of VM worker", "LXC"]);
}

#[test]
fn what_is_elsewhere_is_a_conflict() {
    let appliance = with(new_volume);
    attach_behind_our_back(&appliance, OLD);
    let error = appliance.json(&FROM_WORKER).failure(4, "conflict");
    names(message(&error), &["data", "attached elsewhere", "old", "not to VM worker"]);
    let error = appliance.json(&["reclaim", "data", "--from", "appliance"]).failure(4, "conflict");
    names(message(&error), &["appliance", "that is this VM"]);
    let error = appliance.json(&["reclaim", "ROOT-appliance", "--from", "worker", "--yes"]).failure(4, "conflict");
    names(message(&error), &["own root disk"]);
}

#[test]
fn a_full_appliance_is_seen_before_the_vm_is_stopped() {
    let device = "timeout = \"2s\"\nmax_disks = 1\n".to_owned();
    let appliance = Appliance::with(Config { device, ..Config::default() });
    moved(&appliance);
    appliance.ok(&["create", "here", "--size", "1G", "--attach"]);
    let error = appliance.json(&FROM_WORKER).failure(4, "conflict");
    names(message(&error), &["appliance", "no free slot"]);
    assert_eq!(appliance.cloud.calls("stopVirtualMachine"), 0);
}

#[test]
fn bad_input_is_refused_and_nothing_sent() {
    let appliance = with(moved);
    appliance.json(&["reclaim", "data"]).failure(2, "usage");
    appliance.json(&["reclaim", "--from", "worker"]).failure(2, "usage");
    appliance.json(&["reclaim", "data", "--from", ""]).failure(2, "usage");
    appliance.json(&["reclaim", "data", "--from", "worker", "--destroy-vm", ""]).failure(2, "usage");
    appliance.json(&["reclaim", "data", "--from", "nowhere"]).failure(3, "not_found");
    appliance.json(&["reclaim", "missing", "--from", "worker", "--yes"]).failure(3, "not_found");
    appliance.json(&["reclaim", &id(&appliance)[..8], "--from", "worker", "--yes"]).failure(3, "not_found");
    let error = appliance.json(&FROM_WORKER[..4]).failure(2, "usage");
    names(message(&error), &["VM worker", "is running and would be stopped"]);
    names(hint(&error), &["--yes"]);
    assert_eq!(calls(&appliance, &["stopVirtualMachine", "detachVolume"]), [0, 1]);
}
