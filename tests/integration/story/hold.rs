//! `volctl hold` and `volctl release`: what a held volume refuses, whom it names, and how it ends.

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names, notes};

const WHY: &str = "replication until Friday";

/// An appliance with the exported volume `data1`, held.
fn held() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    let held = appliance.ok(&["hold", "data1", "--note", WHY]);
    assert_eq!((&held["changed"], &held["operation"]), (&json!(true), &json!(null)));
    assert_eq!(held["volume"]["hold"]["note"], WHY);
    appliance
}

fn holder(appliance: &Appliance) -> Value {
    appliance.show("data1")["hold"].clone()
}

#[test]
fn a_held_volume_is_taken_away_by_nobody_also_after_a_restart() {
    let mut appliance = held();
    let who = holder(&appliance)["holder"].as_str().unwrap().to_owned();
    let before = appliance.cloud.state()["volumes"].clone();
    for restarted in [false, true] {
        for line in [&["detach", "data1"][..], &["detach", "data1", "--force", "--queue"], &["unexport", "data1"]] {
            let error = appliance.json(line).failure(4, "conflict");
            names(message(&error), &["data1", "is held by", &who, WHY, "nothing was sent"]);
            names(hint(&error), &["volctl release"]);
        }
        appliance.json(&["delete", "data1", "--yes"]).failure(4, "conflict");
        if !restarted {
            appliance.kill_daemon();
            appliance.start_daemon();
        }
    }
    assert_eq!(appliance.cloud.state()["volumes"], before);
    assert_eq!(appliance.ok(&["ops"])["operations"].as_array().unwrap().len(), 1, "nothing was accepted");
    let released = appliance.ok(&["release", "data1"]);
    assert_eq!((&released["changed"], &released["volume"]["hold"]), (&json!(true), &json!(null)));
    names(&notes(&released), &[&who, WHY]);
    assert_eq!(appliance.ok(&["detach", "data1"])["changed"], true);
}

#[test]
fn it_is_shown_and_does_not_stand_in_the_way_of_looks_attaches_and_exports() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.ok(&["hold", "data1", "--note", "a\u{1b}[2Jb"]);
    assert_eq!(appliance.ok(&["attach", "data1", "--export"])["changed"], true);
    names(&appliance.run(&["ls"]).success().stdout, &["Ready,held"]);
    names(&appliance.run(&["show", "data1"]).success().stdout, &["held", " for ", "\"a\\u{1b}[2Jb\""]);
}

#[test]
fn held_twice_and_released_twice() {
    let appliance = held();
    let first = holder(&appliance);
    assert_eq!(appliance.ok(&["hold", "data1", "--note", WHY])["changed"], false);
    assert_eq!(appliance.ok(&["hold", "data1", "--note", "another reason"])["changed"], true);
    let second = holder(&appliance);
    assert_eq!((&second["note"], &second["since"]), (&json!("another reason"), &first["since"]));
    assert_eq!(appliance.ok(&["release", "data1"])["changed"], true);
    assert_eq!(appliance.ok(&["release", "data1"])["changed"], false);
    assert_eq!(appliance.run(&["release", "data1"]).success().stdout, "data1 is not held: nothing to do\n");
}

#[test]
fn what_waits_in_line_is_refused_when_its_turn_comes_and_what_has_begun_goes_on() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let attaching = appliance.begin(&["attach", "data1"]);
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 1).then_some(()));
    let detaching = appliance.begin(&["detach", "data1", "--queue"]);
    wait_for("the detach to stand in line", || {
        (appliance.ok(&["ops"])["operations"][0]["status"] == "queued").then_some(())
    });
    appliance.ok(&["hold", "data1", "--note", WHY]);
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    attaching.end().success();
    let error = detaching.end().failure(4, "conflict");
    names(message(&error), &["is held by", WHY]);
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
    appliance.ok(&["release", "data1"]);

    appliance.cloud.fault(json!({"command": "detachVolume", "mode": "job-never-ends"}));
    let detaching = appliance.begin(&["detach", "data1"]);
    wait_for("the detach to be sent", || (appliance.cloud.calls("detachVolume") == 1).then_some(()));
    names(&notes(&appliance.ok(&["hold", "data1", "--note", WHY])), &["has begun", "does not stop"]);
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    assert_eq!(detaching.end().success().json()["changed"], true);
}

#[test]
fn bad_input_changes_nothing() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.json(&["hold", "data1"]).failure(2, "usage");
    appliance.json(&["hold", "data1", "--note", " "]).failure(2, "usage");
    appliance.json(&["hold", "data1", "--note", &"x".repeat(501)]).failure(2, "usage");
    appliance.json(&["hold", "nothing", "--note", WHY]).failure(3, "not_found");
    appliance.json(&["release", "nothing"]).failure(3, "not_found");
    assert_eq!(holder(&appliance), json!(null));
}

#[test]
fn a_hold_needs_no_cloudstack_and_outlives_a_volume_that_was_deleted_outside() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let id = appliance.show("data1")["id"].as_str().unwrap().to_owned();
    appliance.cloud.fault(json!({"command": "listVolumes", "mode": "cut-before", "times": 1000}));
    let held = appliance.ok(&["hold", "data1", "--note", WHY]);
    assert_eq!(held["changed"], true);
    names(&notes(&held), &["CloudStack does not answer"]);
    appliance.cloud.admin("DELETE", "faults", json!({}));
    appliance.cloud.call("deleteVolume", &[("id", &id)]);
    wait_for("the volume to be gone", || {
        (appliance.json(&["show", "data1", "--max-age", "0"]).code == 3).then_some(())
    });
    names(&notes(&appliance.ok(&["release", "data1"])), &[WHY]);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let appliance = held();
    let before = holder(&appliance);
    let release = appliance.ok(&["release", "data1", "--dry-run"]);
    names(release["plan"][0].as_str().unwrap(), &["end the hold", WHY]);
    assert_eq!(release["changed"], false);
    names(appliance.ok(&["hold", "data1", "--note", "else", "--dry-run"])["plan"][0].as_str().unwrap(), &["\"else\""]);
    assert_eq!(holder(&appliance), before);
    let same = appliance.run(&["hold", "data1", "--note", WHY, "--dry-run"]).success();
    assert_eq!(same.stdout, "hold of data1: nothing to do\n");
}
