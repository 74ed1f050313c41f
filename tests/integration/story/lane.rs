//! The lane of a VM: at most two of its jobs are with CloudStack at a time, and the rest stand in line here.

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Begun};
use crate::support::wait_for;
use crate::support::wording::{message, names};

/// An appliance with `old` attached and `data1` to `data5` not, whose next two attaches stay pending in CloudStack, and
/// those of `data1` and `data2` are sent.
fn full() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "old", "--size", "1G", "--attach"]);
    for name in ["data1", "data2", "data3", "data4", "data5"] {
        appliance.ok(&["create", name, "--size", "1G"]);
    }
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends", "times": 2}));
    for name in ["data1", "data2"] {
        appliance.ok(&["attach", name, "--no-wait"]);
        wait_for_step(&appliance, name, "waiting for CloudStack to attach");
    }
    appliance
}

/// Waits until the newest operation on a volume is at a step.
fn wait_for_step(appliance: &Appliance, volume: &str, step: &str) {
    wait_for(&format!("{volume} to be {step}"), || {
        let operations = appliance.ok(&["ops"])["operations"].clone();
        let newest = operations.as_array().unwrap().iter().find(|operation| operation["volume_name"] == volume)?;
        (newest["step"] == step).then_some(())
    });
}

/// Asks for an attach, and waits until it has its place.
fn stand_in_line(appliance: &Appliance, volume: &str, place: &str) -> Begun {
    let begun = appliance.begin(&["attach", volume]);
    wait_for_step(appliance, volume, &format!("{place} in line for VM appliance"));
    begun
}

fn release(appliance: &Appliance) {
    appliance.cloud.admin("POST", "release-jobs", json!({}));
}

/// The volumes that CloudStack was asked to attach or detach, in order.
fn sent(appliance: &Appliance) -> Vec<String> {
    let state = appliance.cloud.state();
    let name = |id: &Value| {
        let volume = state["volumes"].as_array().unwrap().iter().find(|volume| volume["id"] == *id).unwrap();
        volume["name"].as_str().unwrap().to_owned()
    };
    let requests = state["journal"]["requests"].as_array().unwrap();
    let jobs = requests
        .iter()
        .filter(|request| ["attachVolume", "detachVolume"].contains(&request["command"].as_str().unwrap()));
    jobs.map(|request| name(&request["parameters"]["id"])).collect()
}

#[test]
fn two_jobs_are_with_cloudstack_and_the_rest_wait_in_the_order_in_which_they_came() {
    let mut appliance = full();
    let waiting = [("data3", "1st"), ("data4", "2nd"), ("data5", "3rd")]
        .map(|(volume, place)| stand_in_line(&appliance, volume, place));
    assert_eq!(appliance.cloud.calls("attachVolume"), 3, "`old`, and two");

    appliance.kill_daemon();
    appliance.start_daemon();
    wait_for_step(&appliance, "data5", "3rd in line for VM appliance");
    assert_eq!(appliance.cloud.calls("attachVolume"), 3, "what an earlier daemon sent counts");

    let detaching = appliance.begin(&["detach", "old"]);
    wait_for_step(&appliance, "old", "1st in line for VM appliance");
    wait_for_step(&appliance, "data5", "4th in line for VM appliance");
    release(&appliance);
    for begun in waiting.into_iter().chain([detaching]) {
        assert_eq!(begun.end().success().json()["changed"], true);
    }
    let sent = sent(&appliance);
    assert_eq!(sent[..3], ["old", "data1", "data2"]);
    assert_eq!(sent.len(), 7, "each once: {sent:?}");
    assert!(sent[3..5].contains(&"old".to_owned()), "the detach goes first: {sent:?}");
}

#[test]
fn what_waits_in_line_can_be_cancelled_and_keeps_its_deadline() {
    let appliance = full();
    let third = stand_in_line(&appliance, "data3", "1st");
    let fourth = stand_in_line(&appliance, "data4", "2nd");
    let id = appliance.ok(&["ops"])["operations"][1]["id"].as_str().unwrap().to_owned();
    appliance.ok(&["ops", "cancel", &id]);
    names(message(&third.end().failure(1, "cancelled")), &["nothing was sent"]);
    wait_for_step(&appliance, "data4", "1st in line for VM appliance");

    let error = appliance.json(&["attach", "data5", "--timeout", "1s"]).failure(4, "busy");
    names(message(&error), &["nothing was sent", "in line for VM appliance"]);

    // A detach that waits has let its export go, and gives it back when it is cancelled.
    appliance.ok(&["export", "old"]);
    let detaching = appliance.begin(&["detach", "old"]);
    wait_for_step(&appliance, "old", "1st in line for VM appliance");
    let id = appliance.ok(&["ops"])["operations"][0]["id"].as_str().unwrap().to_owned();
    appliance.ok(&["ops", "cancel", &id]);
    detaching.end().failure(1, "cancelled");
    assert_eq!(appliance.show("old")["export"]["state"], "active");

    release(&appliance);
    fourth.end().success();
    assert_eq!(sent(&appliance), ["old", "data1", "data2", "data4"]);
}

#[test]
fn a_creation_waits_before_anything_is_made_and_another_vm_has_its_own_lane() {
    let appliance = full();
    appliance.ok(&["attach", "data3", "--vm", "worker"]);
    let creating = appliance.begin(&["create", "new", "--size", "1G", "--attach"]);
    wait_for_step(&appliance, "new", "1st in line for VM appliance");
    assert_eq!(appliance.truth("new"), None);
    release(&appliance);
    creating.end().success();
    assert_eq!(appliance.show("new")["device"]["size_bytes"], 1_u64 << 30);
}

#[test]
fn a_hold_refuses_a_detach_that_waits_in_line() {
    let appliance = full();
    let detaching = appliance.begin(&["detach", "old"]);
    wait_for_step(&appliance, "old", "1st in line for VM appliance");
    appliance.ok(&["hold", "old", "--note", "keep it"]);
    release(&appliance);
    names(message(&detaching.end().failure(4, "conflict")), &["old", "is held by", "keep it"]);
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
}
