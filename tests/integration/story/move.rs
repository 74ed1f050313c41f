//! `volctl move`: the cut-over to another VM, what it refuses before anything is touched, and where a volume is when
//! it did not get through.

use serde_json::{Value, json};

use super::export::Holder;
use crate::support::appliance::Appliance;
use crate::support::nbd::Client;
use crate::support::scenario::{attach_behind_our_back, attached, exported, id, new_volume};
use crate::support::simulator::{APPLIANCE, OLD, WORKER};
use crate::support::wait_for;
use crate::support::wording::{hint, message, names, notes};

const TO_WORKER: [&str; 4] = ["move", "data", "--to", "worker"];
const SWAP: [&str; 7] = ["move", "data", "--to", "old", "--root", "--swap-root", "--yes"];

fn with(prepare: fn(&Appliance)) -> Appliance {
    let appliance = Appliance::start();
    prepare(&appliance);
    appliance
}

/// Where CloudStack has a volume: VM and device id.
fn place(appliance: &Appliance, volume: &str) -> (Value, Value) {
    let truth = appliance.truth(volume).unwrap();
    (truth["virtualmachineid"].clone(), truth["deviceid"].clone())
}

fn job_fails(appliance: &Appliance, command: &str, nth: u64, code: u16) {
    let fault = json!({"command": command, "nth": nth, "mode": "job-fail", "code": code, "text": "not now"});
    appliance.cloud.fault(fault);
}

#[test]
fn it_leaves_here_and_arrives_there() {
    let appliance = with(exported);
    let device = appliance.show("data")["device"]["path"].as_str().unwrap().to_owned();
    let moved = appliance.ok(&TO_WORKER);
    assert_eq!((&moved["changed"], &moved["volume"]["vm_id"]), (&json!(true), &json!(WORKER)));
    assert_eq!((&moved["operation"]["kind"], &moved["operation"]["vm_id"]), (&json!("move"), &json!(WORKER)));
    assert!(moved["flushed_at"].is_string() && moved["device_gone_at"].is_string(), "{moved}");
    assert!(moved.get("swapped_root").is_none(), "{moved}");
    assert!(!std::fs::exists(device).unwrap());
    assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
    assert!(appliance.cloud.is_plugged(&id(&appliance)), "the other guest has it");

    assert_eq!(appliance.ok(&TO_WORKER)["changed"], false, "it is there already");
    let again = appliance.run(&TO_WORKER).success();
    assert_eq!(again.stdout, "data is attached to worker already: nothing to do\n");
    assert_eq!((appliance.cloud.calls("detachVolume"), appliance.cloud.calls("attachVolume")), (1, 2));
}

#[test]
fn several_go_at_once() {
    let appliance = with(attached);
    appliance.ok(&["create", "more", "--size", "1G", "--attach"]);
    let moved = appliance.ok(&["move", "data", "more", "--to", "worker"]);
    for (result, name) in moved["results"].as_array().unwrap().iter().zip(["data", "more"]) {
        assert_eq!((&result["changed"], &result["volume"]["name"]), (&json!(true), &json!(name)));
        assert_eq!(place(&appliance, name).0, WORKER);
    }
}

#[test]
fn a_swapped_root_disk_is_kept_and_named() {
    let appliance = with(exported);
    let root = appliance.truth("ROOT-old").unwrap()["id"].clone();
    let plan = appliance.ok(&[&SWAP[..], &["--dry-run"]].concat())["plan"].to_string();
    names(&plan, &["detachVolume", "volume ROOT-old (", "present root disk of VM old", "is kept"]);
    let moved = appliance.ok(&SWAP);
    assert_eq!(moved["swapped_root"], json!({"id": root, "name": "ROOT-old"}));
    names(&notes(&moved), &["ROOT-old", root.as_str().unwrap(), "root disk of VM old", "nothing of it was deleted"]);
    assert_eq!((&moved["volume"]["type"], &moved["volume"]["device_id"]), (&json!("ROOT"), &json!(0)));
    assert_eq!(place(&appliance, "data"), (json!(OLD), json!(0)));
    assert_eq!(place(&appliance, "ROOT-old"), (json!(null), json!(null)));
    assert_eq!(appliance.truth("ROOT-old").unwrap()["state"], "Ready");
    for command in ["destroyVolume", "deleteVolume"] {
        assert_eq!(appliance.cloud.calls(command), 0);
    }
    let again = appliance.run(&SWAP).success();
    assert_eq!(again.stdout, "data is attached to old as its root disk already: nothing to do\n");
}

#[test]
fn what_the_other_vm_does_not_take_is_refused_with_everything_as_it_was() {
    let rules: [(&[&str], Value, &[&str]); 8] = [
        (&["--to", "worker", "--root"], json!({}), &["worker", "Running", "only a stopped VM"]),
        (&["--to", "old", "--root"], json!({}), &["old", "root disk already", "ROOT-old"]),
        (&["--to", "old"], json!({"vmsnapshots": true}), &["old", "VM snapshots"]),
        (&["--to", "old", "--root", "--swap-root", "--yes"], json!({"vmsnapshots": true}), &["old", "VM snapshots"]),
        (&["--to", "old"], json!({"state": "Starting"}), &["old", "Starting"]),
        (&["--to", "old"], json!({"zoneid": "elsewhere"}), &["another zone"]),
        (&["--to", "old"], json!({"account": "other"}), &["account volctl", "account other", "same owner"]),
        (&["--to", "appliance"], json!({}), &["appliance", "that is this VM"]),
    ];
    let appliance = with(exported);
    appliance.cloud.settings(json!({"role": "admin"}));
    let before = (appliance.show("data"), place(&appliance, "data"));
    for (words, patch, sentence) in rules {
        let vms = appliance.cloud.state()["virtual_machines"].clone();
        let old = vms.as_array().unwrap().iter().find(|vm| vm["id"] == OLD).unwrap().clone();
        let mut patch = patch;
        patch["id"] = json!(OLD);
        appliance.cloud.admin("POST", "vm", patch);
        let error = appliance.json(&[&["move", "data"], words].concat()).failure(4, "conflict");
        names(message(&error), sentence);
        appliance.cloud.admin("POST", "vm", old);
        let now = appliance.show("data");
        assert_eq!((&now["export"], &now["device"]), (&before.0["export"], &before.0["device"]), "{words:?}");
        assert_eq!(place(&appliance, "data"), before.1);
    }
    let error = appliance.json(&["move", "data", "--to", "old", "--root"]).failure(4, "conflict");
    names(hint(&error), &["--swap-root", "deletes nothing"]);
    appliance.ok(&["hold", "ROOT-old", "--note", "golden"]);
    names(message(&appliance.json(&SWAP).failure(4, "conflict")), &["ROOT-old", "golden"]);
    appliance.ok(&["hold", "data", "--note", "mine"]);
    names(message(&appliance.json(&TO_WORKER).failure(4, "conflict")), &["data", "mine"]);
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
}

#[test]
fn a_full_vm_is_seen_before_anything_is_touched() {
    let device = "timeout = \"2s\"\nmax_disks = 1\n".to_owned();
    let appliance = Appliance::with(crate::support::appliance::Config { device, ..Default::default() });
    appliance.ok(&["create", "there", "--size", "1G"]);
    appliance.ok(&["attach", "there", "--vm", "worker"]);
    attached(&appliance);
    let error = appliance.json(&TO_WORKER).failure(4, "conflict");
    names(message(&error), &["worker", "no free slot", "1 of 1", "nothing was sent"]);
    assert_eq!(place(&appliance, "data").0, APPLIANCE);
}

#[test]
fn what_is_in_use_here_stays() {
    let appliance = with(exported);
    let holder = Holder::of(&appliance, "data");
    let error = appliance.json(&TO_WORKER).failure(4, "in_use");
    names(message(&error), &["data", &holder.id(), "sleep"]);
    drop(holder);
    let export = appliance.show("data")["export"]["name"].as_str().unwrap().to_owned();
    let mut client = Client::enter(&appliance.path("nbd.sock"), &export).unwrap();
    client.read(0, 512).unwrap();
    let error = appliance.json(&SWAP).failure(4, "in_use");
    names(message(&error), &["data", &export, "unix:pid="]);
    client.read(0, 512).expect("it is still served");
    assert_eq!(appliance.cloud.calls("detachVolume"), 0, "nor was the other VM's root disk touched");
    assert_eq!(appliance.ok(&[&TO_WORKER[..], &["--force"]].concat())["last_client"], "cut off");
}

#[test]
fn drain_lets_clients_finish() {
    let appliance = with(exported);
    let export = appliance.show("data")["export"]["name"].as_str().unwrap().to_owned();
    let mut client = Client::enter(&appliance.path("nbd.sock"), &export).unwrap();
    client.read(0, 512).unwrap();
    let moving = appliance.begin(&[&TO_WORKER[..], &["--drain", "20s"]].concat());
    wait_for("the export to drain", || (appliance.show("data")["export"]["state"] == "draining").then_some(()));
    client.write(0, &[1; 512]).expect("the client may finish");
    drop(client);
    let moved = moving.end().success().json();
    assert_eq!((&moved["bytes_written"], &moved["volume"]["vm_id"]), (&json!(512), &json!(WORKER)));
}

#[test]
fn what_cloudstack_does_not_detach_here_is_served_again() {
    let appliance = with(exported);
    job_fails(&appliance, "detachVolume", 1, 431);
    let ended = appliance.json(&SWAP);
    assert_eq!(ended.json()["operation"]["status"], "failed");
    names(message(&ended.failure(5, "cloudstack_refused")), &["detaching volume data", "not now"]);
    assert_eq!(appliance.show("data")["export"]["state"], "active");
    assert_eq!(place(&appliance, "ROOT-old").0, OLD);
    assert_eq!(appliance.cloud.calls("detachVolume"), 1);
}

#[test]
fn an_attach_that_fails_leaves_it_detached_and_says_so() {
    for code in [431, 530] {
        let appliance = with(exported);
        job_fails(&appliance, "attachVolume", 1, code);
        let ended = appliance.json(&TO_WORKER);
        assert_eq!(ended.json()["operation"]["status"], "failed");
        let error = ended.failure(5, "cloudstack_refused");
        names(message(&error), &["data", "has left this VM", "its export", "attached nowhere", "worker", "not now"]);
        names(hint(&error), &["volctl attach", &id(&appliance), "brings it back here"]);
        assert_eq!(place(&appliance, "data"), (json!(null), json!(null)));
        assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
        assert_eq!(appliance.ok(&TO_WORKER)["changed"], true, "asked again it goes on from there");
        assert_eq!((place(&appliance, "data").0, appliance.cloud.calls("detachVolume")), (json!(WORKER), 1));
    }
}

#[test]
fn an_attach_that_fails_after_a_swap_names_both_disks() {
    let appliance = with(exported);
    job_fails(&appliance, "attachVolume", 1, 530);
    let root = appliance.truth("ROOT-old").unwrap()["id"].as_str().unwrap().to_owned();
    let error = appliance.json(&SWAP).failure(5, "cloudstack_refused");
    names(message(&error), &["data", "attached nowhere", "ROOT-old", "is detached and kept", "not now"]);
    names(hint(&error), &[&format!("volctl attach {root} --vm {OLD} --root")]);
    assert_eq!((place(&appliance, "data").0, place(&appliance, "ROOT-old").0), (json!(null), json!(null)));
    appliance.ok(&["attach", &root, "--vm", OLD, "--root"]);
    assert_eq!(appliance.ok(&SWAP)["swapped_root"]["name"], "ROOT-old");
}

#[test]
fn a_root_disk_that_does_not_make_way_is_where_it_was() {
    for code in [431, 530] {
        let appliance = with(exported);
        job_fails(&appliance, "detachVolume", 2, code);
        let ended = appliance.json(&SWAP);
        assert_eq!(ended.json()["operation"]["status"], "failed");
        let error = ended.failure(5, "cloudstack_refused");
        names(message(&error), &["data", "has left this VM", "attached nowhere", "ROOT-old", "not now"]);
        assert_eq!((place(&appliance, "data").0, place(&appliance, "ROOT-old").0), (json!(null), json!(OLD)));
        assert_eq!(appliance.ok(&SWAP)["changed"], true);
    }
}

#[test]
fn what_is_attached_nowhere_only_arrives() {
    let appliance = with(new_volume);
    assert_eq!(appliance.ok(&TO_WORKER)["changed"], true);
    assert_eq!((place(&appliance, "data").0, appliance.cloud.calls("detachVolume")), (json!(WORKER), 0));
}

#[test]
fn what_is_somewhere_else_is_a_conflict() {
    let appliance = with(new_volume);
    attach_behind_our_back(&appliance, WORKER);
    let error = appliance.json(&["move", "data", "--to", "old"]).failure(4, "conflict");
    names(message(&error), &["data", "attached elsewhere", "worker", "nothing was sent"]);
    names(hint(&error), &["--from"]);
    let error = appliance.json(&["move", "ROOT-appliance", "--to", "old"]).failure(4, "conflict");
    names(message(&error), &["own root disk"]);
    let error = appliance.json(&["move", "data", "--to", "worker", "--root"]).failure(4, "conflict");
    names(message(&error), &["as a data disk, not as its root disk"]);
}

#[test]
fn bad_input_is_refused_and_nothing_sent() {
    let appliance = with(attached);
    appliance.json(&["move", "data"]).failure(2, "usage");
    appliance.json(&["move", "--to", "worker"]).failure(2, "usage");
    appliance.json(&["move", "data", "--to", ""]).failure(2, "usage");
    appliance.json(&["move", "data", "--to", "old", "--swap-root", "--yes"]).failure(2, "usage");
    appliance.json(&["move", "data", "--to", "nowhere"]).failure(3, "not_found");
    appliance.json(&["move", "missing", "--to", "worker"]).failure(3, "not_found");
    appliance.json(&["move", &id(&appliance)[..8], "--to", "worker"]).failure(3, "not_found");
    appliance.json(&["move", "data", "data", "--to", "worker"]).failure(4, "conflict");
    let error = appliance.json(&["move", "data", "more", "--to", "old", "--root"]).failure(2, "usage");
    names(message(&error), &["one root disk"]);
    let error = appliance.json(&SWAP[..6]).failure(2, "usage");
    names(hint(&error), &["--yes"]);
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
}

#[test]
fn of_two_root_disks_for_a_vm_the_second_stays_where_it_is() {
    let appliance = with(exported);
    appliance.ok(&["create", "more", "--size", "1G", "--export"]);
    let more = ["move", "more", "--to", "old", "--root", "--swap-root", "--yes"];
    appliance.cloud.fault(json!({"command": "detachVolume", "mode": "job-never-ends"}));
    let first = appliance.begin(&SWAP);
    wait_for("the first to be under way", || (appliance.cloud.calls("detachVolume") == 1).then_some(()));
    let before = (place(&appliance, "more"), appliance.show("more")["export"].clone());
    for line in [&more[..], &[&more[..], &["--dry-run"]].concat()] {
        let error = appliance.json(line).failure(4, "busy");
        names(message(&error), &["root disk", OLD, "busy", "move operation"]);
        names(hint(&error), &["--queue"]);
    }
    assert_eq!((place(&appliance, "more"), appliance.show("more")["export"].clone()), before);

    // Whoever waits in line finds what there is when its turn comes.
    let line = appliance.begin(&[&more[..], &["--queue"]].concat());
    wait_for("it to stand in line", || {
        let newest = appliance.ok(&["ops"])["operations"][0].clone();
        (newest["status"] == "queued").then_some(())
    });
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    assert_eq!(first.end().success().json()["changed"], true);
    assert_eq!(line.end().success().json()["swapped_root"]["name"], "data");
    assert_eq!((place(&appliance, "data").0, place(&appliance, "more")), (json!(null), (json!(OLD), json!(0))));
}

#[test]
fn a_root_disk_that_another_operation_has_does_not_make_way() {
    let appliance = with(exported);
    appliance.cloud.fault(json!({"command": "createSnapshot", "mode": "job-never-ends"}));
    let snapshot = appliance.begin(&["snapshot", "create", "ROOT-old"]);
    wait_for("the snapshot to be under way", || (appliance.cloud.calls("createSnapshot") == 1).then_some(()));
    let error = appliance.json(&SWAP).failure(4, "busy");
    names(message(&error), &["ROOT-old", "nothing was sent"]);
    assert_eq!((place(&appliance, "data").0, appliance.cloud.calls("detachVolume")), (json!(APPLIANCE), 0));
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    snapshot.end().success();
    appliance.ok(&SWAP);
}
