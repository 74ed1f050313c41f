//! The guest holds the disk: CloudStack gives up, and the guest may let go at any time later.

use serde_json::json;

use super::{calls, newest, wait_for_status, wait_for_step};
use crate::support::appliance::{Appliance, Config};
use crate::support::scenario::{exported, id};
use crate::support::simulator::APPLIANCE;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

const WAITING: &str = "waiting for the guest to let go (CloudStack gave up ";

/// An exported volume whose disk the guest holds; CloudStack gives up after a fifth of a second.
fn held() -> Appliance {
    let appliance = Appliance::with(Config { device: "timeout = \"1s\"\n".to_owned(), ..Config::default() });
    exported(&appliance);
    appliance.cloud.settings(json!({"wait_detach_device_ms": 200}));
    hold(&appliance, json!(true));
    appliance
}

fn hold(appliance: &Appliance, hold: serde_json::Value) {
    appliance.cloud.admin("POST", "guest", json!({"volume": id(appliance), "hold": hold}));
}

fn truth_is_detached(appliance: &Appliance) {
    let volume = appliance.truth("data").unwrap();
    assert_eq!(volume["virtualmachineid"], json!(null), "{volume}");
    assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
    assert_eq!(appliance.show("data")["device"], json!(null));
}

#[test]
fn it_goes_on_until_the_guest_lets_go_and_cloudstack_is_corrected_once() {
    let mut appliance = held();
    let asked = appliance.begin(&["detach", "data"]);
    let operation = wait_for_step(&appliance, WAITING);
    assert_eq!(operation["status"], "running");
    let error = asked.end().failure(6, "timeout");
    names(message(&error), &["data", "CloudStack answered with error 530", "still has the disk"]);
    names(hint(&error), &["volctl ops retry", "asks CloudStack again", "volctl ops wait"]);
    assert_eq!(calls(&appliance, "detachVolume"), 1, "nothing is sent again while the disk is here");
    assert_eq!(appliance.show("data")["export"]["state"], "pending", "nothing is exported again");
    appliance.json(&["attach", "data"]).failure(4, "busy");

    // Nor by a daemon that came later.
    appliance.kill_daemon();
    appliance.start_daemon();
    wait_for_step(&appliance, WAITING);
    assert_eq!(appliance.show("data")["export"]["state"], "pending");
    assert_eq!(calls(&appliance, "detachVolume"), 1);

    let waiting = appliance.begin(&["ops", "wait", operation["id"].as_str().unwrap()]);
    hold(&appliance, json!(false));
    waiting.end().success();
    assert_eq!(calls(&appliance, "detachVolume"), 2, "one more corrects CloudStack");
    truth_is_detached(&appliance);
    appliance.ok(&["attach", "data", "--export"]);
    assert_eq!(appliance.truth("data").unwrap()["virtualmachineid"], APPLIANCE, "no old detach undoes it");
}

#[test]
fn a_guest_that_lets_go_in_time_for_the_caller() {
    let appliance = held();
    hold(&appliance, json!(0.6));
    assert_eq!(appliance.ok(&["detach", "data"])["changed"], true);
    assert_eq!(calls(&appliance, "detachVolume"), 2);
    truth_is_detached(&appliance);
}

#[test]
fn a_guest_that_lets_go_before_we_look() {
    let mut appliance = held();
    appliance.configure(|config| {
        let point = "detach/await/before".to_owned();
        config.environment = vec![(volctl::operation::pause::VARIABLE.to_owned(), point)];
    });
    appliance.kill_daemon();
    appliance.start_daemon();
    let asked = appliance.begin(&["detach", "data"]);
    // CloudStack's job has failed, and the disk is gone, by the time the next daemon asks.
    appliance.kill_daemon_at("detach/await/before");
    wait_for("CloudStack to give up", || {
        let state = appliance.cloud.state();
        state["jobs"].as_array().unwrap().iter().any(|job| job["status"] == "failed").then_some(())
    });
    hold(&appliance, json!(false));
    wait_for("the guest to let go", || (!appliance.cloud.is_plugged(&id(&appliance))).then_some(()));
    assert_eq!(appliance.truth("data").unwrap()["virtualmachineid"], APPLIANCE, "CloudStack does not know");
    appliance.start_daemon();
    asked.end().success();
    assert_eq!(calls(&appliance, "detachVolume"), 2);
    truth_is_detached(&appliance);
}

#[test]
fn only_a_human_sends_again_while_the_disk_is_here() {
    let appliance = held();
    appliance.begin(&["detach", "data"]).end().failure(6, "timeout");
    let operation = newest(&appliance);
    let id = operation["id"].as_str().unwrap();
    appliance.ok(&["ops", "retry", id]);
    wait_for("a second request", || (calls(&appliance, "detachVolume") == 2).then_some(()));
    wait_for_step(&appliance, WAITING);
    hold(&appliance, json!(false));
    wait_for_status(&appliance, "succeeded");
    assert_eq!(calls(&appliance, "detachVolume"), 3);
    truth_is_detached(&appliance);
}

#[test]
fn a_retry_that_cannot_be_sent_does_not_export_what_may_still_go() {
    let appliance = held();
    appliance.begin(&["detach", "data"]).end().failure(6, "timeout");
    let operation = newest(&appliance);
    super::cut_off(&appliance);
    appliance.ok(&["ops", "retry", operation["id"].as_str().unwrap()]);
    wait_for_step(&appliance, "CloudStack away for ");
    let exports = appliance.ok(&["exports"])["exports"].clone();
    assert_eq!(exports[0]["state"], "pending", "{exports}");
    super::back(&appliance);
    hold(&appliance, json!(false));
    wait_for_status(&appliance, "succeeded");
    truth_is_detached(&appliance);
}
