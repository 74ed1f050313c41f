//! What is not known is never called failed, and what may hold somebody's bytes is never taken back.

use serde_json::{Value, json};
use volctl::operation::pause::VARIABLE;

use crate::support::appliance::{Appliance, Config};
use crate::support::wait_for;

fn status(appliance: &Appliance) -> Value {
    appliance.ok(&["ops"])["operations"][0]["status"].clone()
}

#[test]
fn a_new_volume_that_was_attached_and_detached_again_meanwhile_is_kept() {
    let point = "create/attach_await/before";
    let environment = vec![(VARIABLE.to_owned(), point.to_owned())];
    let mut appliance = Appliance::with(Config { environment, ..Config::default() });
    appliance.ok(&["create", "data1", "--size", "1G", "--attach", "--no-wait"]);
    wait_for("the daemon to stop after the send", || appliance.log().contains(point).then_some(()));
    appliance.kill_daemon();
    let id = appliance.truth("data1").unwrap()["id"].as_str().unwrap().to_owned();
    wait_for("CloudStack to attach", || appliance.cloud.is_plugged(&id).then_some(()));
    let detached = wait_for("the attach to end, and a detach by somebody else", || {
        let job = appliance.cloud.job("detachVolume", &[("id", &id)]);
        (job["jobstatus"] == 1).then_some(job)
    });
    assert_eq!(detached["jobstatus"], 1);
    appliance.configure(|config| config.environment.clear());
    appliance.start_daemon();
    wait_for("the end", || (status(&appliance) == "failed").then_some(()));
    assert_eq!(appliance.truth("data1").unwrap()["state"], "Ready");
    assert_eq!(appliance.cloud.calls("deleteVolume"), 0);
}

/// An attached volume, and a CloudStack that soon gives up a detach.
fn attached() -> (Appliance, String) {
    let appliance = Appliance::with(Config { device: "timeout = \"1s\"\n".to_owned(), ..Config::default() });
    appliance.cloud.settings(json!({"wait_detach_device_ms": 100}));
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let id = appliance.truth("data1").unwrap()["id"].as_str().unwrap().to_owned();
    (appliance, id)
}

#[test]
fn a_detach_that_is_called_failed_after_the_kernel_let_go_corrects_cloudstack() {
    let (appliance, id) = attached();
    appliance.cloud.fault(json!({"command": "detachVolume", "mode": "job-never-ends"}));
    let detaching = appliance.begin(&["detach", "data1"]);
    wait_for("the detach to be sent", || {
        (appliance.ok(&["ops"])["operations"][0]["step"] == "waiting for CloudStack to detach").then_some(())
    });
    appliance.cloud.admin("POST", "volume", json!({"id": id, "plugged": false}));
    // Its jobs end with 530.
    appliance.cloud.admin("POST", "restart-management", json!({}));
    assert_eq!(detaching.end().success().json()["changed"], true);
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], json!(null));
    assert_eq!(appliance.cloud.calls("detachVolume"), 2);
}

#[test]
fn what_corrects_cloudstack_outlasts_a_refused_key() {
    let (appliance, id) = attached();
    appliance.cloud.admin("POST", "guest", json!({"volume": id, "hold": true}));
    appliance.json(&["detach", "data1"]).failure(6, "timeout");
    appliance.cloud.fault(
        json!({"command": "detachVolume", "mode": "error", "code": 401, "text": "unable to verify user credentials"}),
    );
    appliance.cloud.admin("POST", "guest", json!({"volume": id, "hold": false}));
    wait_for("the end", || (status(&appliance) != "running").then_some(()));
    assert_eq!(status(&appliance), "succeeded");
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], json!(null));
}

#[test]
fn a_detach_from_another_vm_that_cloudstack_gave_up_is_for_a_human() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.ok(&["attach", "data1", "--vm", "worker"]);
    appliance
        .cloud
        .fault(json!({"command": "detachVolume", "mode": "job-fail", "code": 530, "text": "the guest holds it"}));
    let ended = appliance.json(&["detach", "data1", "--from", "worker", "--yes"]);
    let id = ended.json()["operation"]["id"].as_str().unwrap().to_owned();
    let error = ended.failure(9, "stuck");
    assert!(error["message"].as_str().unwrap().contains("the guest holds it"), "{error}");
    for way in ["ops retry", "ops abandon"] {
        assert!(error["hint"].as_str().unwrap().contains(way), "{error}");
    }
    appliance.ok(&["ops", "retry", &id]);
    appliance.ok(&["ops", "wait", &id]);
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], json!(null));
    assert_eq!(appliance.cloud.calls("detachVolume"), 2);
}
