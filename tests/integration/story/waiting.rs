//! How a caller waits, or does not: `--no-wait`, `--queue`, `--timeout`, `--request-id`, Ctrl-C, `volctl ops`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::simulator::APPLIANCE;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

/// An appliance whose next attach stays pending in CloudStack until [`release`].
fn held() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    appliance
}

fn release(appliance: &Appliance) {
    appliance.cloud.admin("POST", "release-jobs", json!({}));
}

/// The newest operation, once it is as wanted.
fn newest(appliance: &Appliance, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || {
        let newest = appliance.ok(&["ops"])["operations"][0].clone();
        wanted(&newest).then_some(newest)
    })
}

fn is_sent(operation: &Value) -> bool {
    operation["kind"] == "attach" && operation["step"] == "waiting for CloudStack to attach"
}

#[test]
fn without_waiting_nothing_is_known_to_be_changed() {
    let appliance = held();
    let accepted = appliance.ok(&["attach", "data1", "--no-wait"]);
    assert_eq!((&accepted["changed"], &accepted["operation"]["status"]), (&json!(null), &json!("running")));
    assert_eq!(accepted["operation"]["vm_id"], APPLIANCE);
    let id = accepted["operation"]["id"].as_str().unwrap();
    let ended = appliance.run(&["ops", "wait", id, "--timeout", "1s"]);
    assert_eq!(ended.code, 6, "{ended:?}");
    release(&appliance);
    let waited = appliance.ok(&["ops", "wait", id]);
    assert_eq!(waited["operation"]["status"], "succeeded");
    assert_eq!(appliance.show("data1")["vm_id"], APPLIANCE);
    // Also by the beginning of its id.
    assert_eq!(appliance.ok(&["ops", "show", &id[..8]])["operation"]["id"], id);
}

#[test]
fn a_volume_has_one_operation_at_a_time() {
    let appliance = held();
    let id = appliance.ok(&["attach", "data1", "--no-wait"])["operation"]["id"].clone();
    newest(&appliance, "the attach to be sent", is_sent);
    for line in [&["detach", "data1"][..], &["export", "data1"], &["attach", "data1"]] {
        let error = appliance.json(line).failure(4, "busy");
        names(message(&error), &["data1", id.as_str().unwrap()]);
        assert_eq!(error["retryable"], true);
    }
    // Others go on.
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.ok(&["attach", "data2", "--vm", "worker"]);
    release(&appliance);
    appliance.ok(&["ops", "wait", id.as_str().unwrap()]);
}

#[test]
fn whoever_stands_in_line_has_its_turn() {
    let appliance = held();
    let attaching = appliance.begin(&["attach", "data1"]);
    newest(&appliance, "the attach to be sent", is_sent);
    let detaching = appliance.begin(&["detach", "data1", "--queue"]);
    newest(&appliance, "the detach to stand in line", |operation| operation["status"] == "queued");
    release(&appliance);
    assert_eq!(attaching.end().success().json()["changed"], true);
    assert_eq!(detaching.end().success().json()["changed"], true);
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], json!(null));
}

#[test]
fn a_timeout_after_the_send_leaves_the_operation_going() {
    let appliance = held();
    let ended = appliance.json(&["attach", "data1", "--timeout", "1s"]);
    let operation = ended.json()["operation"].clone();
    assert_eq!(operation["status"], "running");
    let error = ended.failure(6, "timeout");
    names(message(&error), &["1s", "waiting for CloudStack to attach"]);
    names(hint(&error), &["goes on", &format!("volctl ops wait {}", operation["id"].as_str().unwrap())]);
    release(&appliance);
    newest(&appliance, "the attach to end", |operation| operation["status"] == "succeeded");
}

#[test]
fn a_timeout_before_the_send_proves_that_nothing_was_sent() {
    let appliance = held();
    let attaching = appliance.begin(&["attach", "data1"]);
    newest(&appliance, "the attach to be sent", is_sent);
    let ended = appliance.json(&["detach", "data1", "--queue", "--timeout", "1s"]);
    assert_eq!(ended.json()["operation"]["status"], "failed");
    names(message(&ended.failure(4, "busy")), &["nothing was sent", "busy"]);
    release(&appliance);
    attaching.end().success();
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
}

#[test]
fn whoever_only_watches_ends_nothing() {
    let appliance = held();
    let attaching = appliance.begin(&["attach", "data1"]);
    newest(&appliance, "the attach to be sent", is_sent);
    let detach = appliance.ok(&["detach", "data1", "--queue", "--no-wait"])["operation"]["id"].clone();
    appliance.json(&["ops", "wait", detach.as_str().unwrap(), "--timeout", "1s"]).failure(6, "timeout");
    release(&appliance);
    attaching.end().success();
    appliance.ok(&["ops", "wait", detach.as_str().unwrap()]);
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], json!(null));
}

#[test]
fn each_of_several_that_are_waited_for_is_named() {
    let appliance = held();
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let attach = |line: &[&str]| appliance.ok(line)["operation"]["id"].as_str().unwrap().to_owned();
    let ids = [attach(&["attach", "data1", "--no-wait"]), attach(&["attach", "data2", "--vm", "worker", "--no-wait"])];
    let ended = appliance.run(&["ops", "wait", &ids[0], &ids[1], "--timeout", "1s"]);
    assert_eq!(ended.code, 6, "{ended:?}");
    names(&ended.stderr, &["attach of data1 is not done within 1s", "attach of data2 is not done within 1s"]);
    names(&ended.stderr, &[&ids[0], &ids[1]]);
    release(&appliance);
    appliance.ok(&["ops", "wait", &ids[0], &ids[1]]);
}

#[test]
fn the_same_request_is_the_same_operation() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--request-id", "first"]);
    let attached = appliance.ok(&["attach", "data1", "--request-id", "second"]);
    appliance.ok(&["detach", "data1"]);
    let again = appliance.ok(&["attach", "data1", "--request-id", "second"]);
    assert_eq!((&again["changed"], &again["operation"]), (&json!(true), &attached["operation"]));
    assert_eq!(again["volume"]["vm_id"], json!(null), "the volume is shown as it is now");
    let late = appliance.run(&["attach", "data1", "--request-id", "second"]).success();
    assert_eq!(late.stdout, "data1 was attached by this request, and is attached nowhere any more\n");
    let error = appliance.json(&["attach", "data1", "--request-id", "first"]).failure(4, "conflict");
    names(message(&error), &["request id", "something else"]);

    appliance.kill_daemon();
    appliance.start_daemon();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--request-id", "first"]);
    assert_eq!(created["changed"], true);
    assert_eq!((appliance.cloud.calls("createVolume"), appliance.cloud.calls("attachVolume")), (1, 1));
}

#[test]
fn what_was_sent_cannot_be_cancelled() {
    let appliance = held();
    let attaching = appliance.begin(&["attach", "data1"]);
    let attach = newest(&appliance, "the attach to be sent", is_sent)["id"].as_str().unwrap().to_owned();
    let error = appliance.json(&["ops", "cancel", &attach]).failure(4, "conflict");
    names(message(&error), &[&attach, "waiting for CloudStack to attach", "cannot be taken back"]);

    let detaching = appliance.begin(&["detach", "data1", "--queue"]);
    let waits = |operation: &Value| operation["status"] == "queued";
    let detach = newest(&appliance, "the detach to stand in line", waits)["id"].as_str().unwrap().to_owned();
    assert_eq!(appliance.ok(&["ops", "cancel", &detach])["operation"]["status"], "cancelled");
    detaching.end().failure(1, "cancelled");
    release(&appliance);
    attaching.end().success();
    let error = appliance.json(&["ops", "cancel", &attach]).failure(4, "conflict");
    names(message(&error), &["has ended already", "succeeded"]);
    appliance.json(&["ops", "cancel", "01234567-0000-4000-8000-000000000000"]).failure(3, "not_found");
}

#[test]
fn ctrl_c_stops_watching_and_not_the_operation() {
    let appliance = held();
    let attaching = appliance.begin(&["attach", "data1"]);
    let id = newest(&appliance, "the attach to be sent", is_sent)["id"].as_str().unwrap().to_owned();
    kill(Pid::from_raw(attaching.0.id() as i32), Signal::SIGINT).unwrap();
    let ended = attaching.end();
    assert_eq!(ended.code, 130, "{ended:?}");
    assert_eq!(ended.json()["operation"]["id"], id);
    release(&appliance);
    assert_eq!(appliance.ok(&["ops", "wait", &id])["operation"]["status"], "succeeded");
}
