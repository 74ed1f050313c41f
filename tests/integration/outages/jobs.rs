//! Jobs that fail, never end, or end because the management server was restarted; and volumes that somebody else changes
//! before and during an operation.

use serde_json::json;

use super::{calls, newest, wait_for_status, wait_for_step};
use crate::support::appliance::Appliance;
use crate::support::scenario::{
    Scenario, attach_behind_our_back, attached, detach_behind_our_back, id, new_volume, used,
};
use crate::support::simulator::{APPLIANCE, WORKER};
use crate::support::wording::{hint, message, names};

/// Each kind whose effect is a job: its command, and the step at which it waits.
const JOBS: [(&str, &str, &str); 4] = [
    ("create", "createVolume", "waiting for CloudStack to create"),
    ("attach", "attachVolume", "waiting for CloudStack to attach"),
    ("detach", "detachVolume", "waiting for CloudStack to detach"),
    ("delete", "destroyVolume", "waiting for CloudStack to delete"),
];

/// An appliance whose operation waits for a job that does not end.
fn waiting(name: &str, command: &str, step: &str) -> Appliance {
    let scenario = Scenario::named(name);
    let appliance = Appliance::start();
    (scenario.prepare)(&appliance);
    appliance.cloud.fault(json!({"command": command, "mode": "job-never-ends"}));
    let error = appliance.json(&[scenario.words, &["--timeout", "1s"]].concat()).failure(6, "timeout");
    names(message(&error), &["not done within 1s", step]);
    names(hint(&error), &["volctl ops wait"]);
    let operation = newest(&appliance);
    assert_eq!((&operation["status"], &operation["step"]), (&json!("running"), &json!(step)));
    appliance
}

#[test]
fn a_job_that_never_ends_is_waited_for_and_the_caller_is_told() {
    for (name, command, step) in JOBS {
        let appliance = waiting(name, command, step);
        let operation = newest(&appliance);
        appliance.json(&["ops", "cancel", operation["id"].as_str().unwrap()]).failure(4, "conflict");
        appliance.cloud.admin("POST", "release-jobs", json!({}));
        wait_for_status(&appliance, "succeeded");
        assert_eq!(newest(&appliance)["id"], operation["id"]);
    }
}

#[test]
fn what_cloudstack_says_of_a_failed_job_is_in_the_error() {
    for (name, command, _) in JOBS {
        let scenario = Scenario::named(name);
        let appliance = Appliance::start();
        (scenario.prepare)(&appliance);
        let text = "no \u{1b}[31mroom";
        appliance.cloud.fault(json!({"command": command, "mode": "job-fail", "code": 431, "text": text}));
        let error = appliance.json(scenario.words).failure(5, "cloudstack_refused");
        names(message(&error), &["data", "no \\u{1b}[31mroom"]);
        assert_eq!(error["cloudstack"]["code"], 431);
        assert_eq!(newest(&appliance)["status"], "failed");
        if name == "create" {
            assert_eq!(appliance.truth("data").unwrap()["removed"], true, "the volume that it left is deleted again");
        }
    }
}

#[test]
fn a_job_that_failed_after_its_effect_has_succeeded() {
    for (name, command) in [("attach", "attachVolume"), ("detach", "detachVolume"), ("delete", "destroyVolume")] {
        let scenario = Scenario::named(name);
        let appliance = Appliance::start();
        (scenario.prepare)(&appliance);
        appliance.cloud.fault(json!({"command": command, "mode": "job-fail", "code": 530, "after_effect": true}));
        assert_eq!(appliance.ok(scenario.words)["changed"], true, "{name}");
        assert_eq!(calls(&appliance, command), 1, "{name}");
    }
}

#[test]
fn a_restart_of_the_management_server_in_the_middle_of_a_job() {
    for (name, command, step) in JOBS {
        let appliance = waiting(name, command, step);
        appliance.cloud.admin("POST", "restart-management", json!({}));
        let truth = || appliance.truth("data").unwrap();
        match name {
            "create" => {
                wait_for_status(&appliance, "failed");
                assert_eq!(truth()["removed"], true, "deleted again");
            }
            "attach" => {
                wait_for_status(&appliance, "failed");
                assert_eq!(truth()["virtualmachineid"], json!(null));
                appliance.ok(&["attach", "data"]);
            }
            "detach" => {
                // Whether the guest was asked is not known; it may still let go.
                let operation = wait_for_step(&appliance, "waiting for the guest to let go (CloudStack gave up ");
                assert_eq!(calls(&appliance, command), 1);
                appliance.ok(&["ops", "retry", operation["id"].as_str().unwrap()]);
                wait_for_status(&appliance, "succeeded");
                assert_eq!(truth()["virtualmachineid"], json!(null));
            }
            _ => {
                wait_for_status(&appliance, "failed");
                assert_eq!(truth()["state"], "Ready");
                appliance.ok(&["delete", "data", "--yes"]);
            }
        }
    }
}

#[test]
fn a_volume_that_somebody_detaches_or_deletes_while_we_do() {
    let (name, command, step) = JOBS[2];
    let appliance = waiting(name, command, step);
    let gone = json!({"id": id(&appliance), "virtualmachineid": null, "deviceid": null, "plugged": false});
    appliance.cloud.admin("POST", "volume", gone);
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for_status(&appliance, "succeeded");

    let (name, command, step) = JOBS[3];
    let appliance = waiting(name, command, step);
    appliance.cloud.admin("POST", "volume", json!({"id": id(&appliance), "state": "Expunged", "removed": true}));
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for_status(&appliance, "succeeded");

    let (name, command, step) = JOBS[1];
    let appliance = waiting(name, command, step);
    appliance.cloud.admin("POST", "volume", json!({"id": id(&appliance), "state": "Expunged", "removed": true}));
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    let ended = wait_for_status(&appliance, "failed");
    names(message(&ended["error"]), &["data", "no longer there"]);
}

/// What changed between the acceptance and the first look of the operation.
#[test]
fn a_volume_that_was_changed_before_we_looked() {
    type Change = fn(&Appliance);
    let elsewhere: Change = |appliance| attach_behind_our_back(appliance, WORKER);
    let moved: Change = |appliance| {
        detach_behind_our_back(appliance);
        attach_behind_our_back(appliance, WORKER);
    };
    let deleted: Change = |appliance| {
        appliance.cloud.call("deleteVolume", &[("id", &id(appliance))]);
    };
    for (prepare, words, point, change, status, command) in [
        (new_volume as Change, ["attach", "data"], "attach/check/before", elsewhere, "failed", "attachVolume"),
        (new_volume, ["attach", "data"], "attach/check/before", deleted, "failed", "attachVolume"),
        (attached, ["detach", "data"], "detach/check/before", moved, "failed", "detachVolume"),
        // Here it no longer is, and what it is elsewhere is not ours to undo.
        (attached, ["detach", "data"], "detach/hold/after", moved, "succeeded", "detachVolume"),
        (used, ["recover", "data"], "recover/check/before", deleted, "failed", "recoverVolume"),
    ] {
        let mut appliance = Appliance::pausing_at(point);
        prepare(&appliance);
        if words[0] == "recover" {
            appliance.cloud.job("destroyVolume", &[("id", &id(&appliance))]);
        }
        appliance.ok(&[words.as_slice(), &["--no-wait"]].concat());
        appliance.kill_daemon_at(point);
        change(&appliance);
        let sent = calls(&appliance, command);
        appliance.start_daemon();
        let ended = wait_for_status(&appliance, status);
        assert_eq!(calls(&appliance, command), sent, "{point}: {ended}");
        if words[0] == "detach" {
            assert_eq!(appliance.truth("data").unwrap()["virtualmachineid"], WORKER, "{point}");
        }
    }
}

#[test]
fn a_volume_that_is_detached_before_its_device_came() {
    let appliance = Appliance::start();
    new_volume(&appliance);
    appliance.cloud.settings(json!({"devices_appear": false}));
    appliance.json(&["attach", "data"]).failure(6, "timeout");
    assert_eq!(appliance.truth("data").unwrap()["virtualmachineid"], APPLIANCE);
    detach_behind_our_back(&appliance);
    let ended = wait_for_status(&appliance, "failed");
    names(message(&ended["error"]), &["data", "detached by somebody else"]);
}

#[test]
fn ids_that_are_none_are_an_error_that_names_them() {
    let appliance = Appliance::start();
    new_volume(&appliance);
    let odd = json!({"id": "../../etc", "name": "odd", "size": 1 << 30});
    appliance.cloud.admin("POST", "volume", odd);
    let error = appliance.json(&["attach", "data"]).failure(5, "cloudstack_unreachable");
    names(message(&error), &["a volume's id", "nothing was sent"]);
    assert_eq!(calls(&appliance, "attachVolume"), 0);
    appliance.cloud.admin("POST", "volume", json!({"id": "../../etc", "removed": true}));
    assert_eq!(appliance.ok(&["attach", "data"])["changed"], true);
}

#[test]
fn a_volume_that_others_are_at_work_on_is_waited_for_and_that_is_said() {
    let appliance = Appliance::start();
    let volume = appliance.cloud.volume("data");
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let asked = appliance.begin(&["attach", "data"]);
    wait_for_step(&appliance, "waiting for CloudStack to attach");
    // Another's work begins before the end of ours is seen.
    appliance.cloud.fault(json!({"command": "queryAsyncJobResult", "times": 1_000_000, "mode": "cut-before"}));
    wait_for_step(&appliance, "(CloudStack away for ");
    appliance.cloud.admin("POST", "restart-management", json!({}));
    appliance.cloud.admin("POST", "volume", json!({"id": volume, "state": "Attaching"}));
    appliance.cloud.admin("DELETE", "faults", json!({}));
    wait_for_step(&appliance, "(CloudStack has the volume in state Attaching)");
    appliance.cloud.admin("POST", "volume", json!({"id": volume, "state": "Ready"}));
    asked.end().failure(5, "cloudstack_refused");
    assert_eq!(calls(&appliance, "attachVolume"), 1);
}
