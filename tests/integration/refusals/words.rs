//! Words that mean nothing, too much, or something dangerous to print.

use serde_json::json;

use crate::support::appliance::Appliance;
use crate::support::simulator::{CUSTOM, WORKER, ZONE};
use crate::support::wording::{hint, message, names};

const A: &str = "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6";
const B: &str = "5f0c8a53-1b2c-4d3e-9f40-a1b2c3d4e5f6";

/// Each verb that takes a volume.
const VERBS: [&[&str]; 8] =
    [&["attach"], &["detach"], &["export"], &["unexport"], &["delete", "--yes"], &["recover"], &["show"], &["device"]];

/// A detached volume that came about without us.
fn plant(appliance: &Appliance, id: &str, name: &str) {
    let created = jiff::Timestamp::now().to_string();
    appliance.cloud.admin(
        "POST",
        "volume",
        json!({"id": id, "name": name, "type": "DATADISK", "state": "Ready", "size": 1u64 << 30, "zoneid": ZONE,
               "diskofferingid": CUSTOM, "account": "volctl", "created": created, "tags": [],
               "deleteprotection": false, "removed": false}),
    );
}

#[test]
fn an_unknown_volume_has_near_names() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.ok(&["create", "archive", "--size", "1G"]);
    for verb in VERBS {
        let error = appliance.json(&[verb, &["dtaa1"]].concat()).failure(3, "not_found");
        names(message(&error), &["dtaa1"]);
        names(hint(&error), &["data1"]);
        assert!(!hint(&error).contains("archive"), "{verb:?}: {error}");
    }
    let error = appliance.json(&["attach", "nothing-like-it"]).failure(3, "not_found");
    names(hint(&error), &["volctl ls"]);
    let error = appliance.json(&["attach", "data1", "--vm", "workr"]).failure(3, "not_found");
    names(message(&error), &["VM", "workr"]);
    names(hint(&error), &["worker"]);
    appliance.json(&["attach", A]).failure(3, "not_found");
}

#[test]
fn a_name_of_two_volumes_is_ambiguous() {
    let appliance = Appliance::start();
    plant(&appliance, A, "same");
    plant(&appliance, B, "same");
    for verb in VERBS {
        let error = appliance.json(&[verb, &["same"]].concat()).failure(4, "ambiguous");
        names(message(&error), &["same", A, B]);
        names(hint(&error), &["id"]);
    }
    assert_eq!(appliance.show(A)["id"], A);
    assert_eq!(appliance.cloud.calls("destroyVolume"), 0);
}

#[test]
fn a_word_that_is_a_name_and_the_beginning_of_an_id_is_ambiguous() {
    let appliance = Appliance::start();
    plant(&appliance, A, "data1");
    plant(&appliance, B, &A[..8]);
    for verb in [&["attach"][..], &["export"], &["show"], &["device"]] {
        let error = appliance.json(&[verb, &[&A[..8]]].concat()).failure(4, "ambiguous");
        names(message(&error), &[A, B]);
    }
    // A destructive verb takes no beginnings of ids: there it is the name.
    let deleted = appliance.ok(&["delete", &A[..8], "--yes"]);
    assert_eq!(deleted["volume"]["id"], B);
}

#[test]
fn a_whole_id_is_that_volume_whatever_another_is_named() {
    let appliance = Appliance::start();
    plant(&appliance, A, "data1");
    plant(&appliance, B, A);
    assert_eq!(appliance.show(A)["id"], A);
    assert_eq!(appliance.ok(&["attach", A])["volume"]["name"], "data1");
    assert_eq!(appliance.ok(&["detach", A])["volume"]["name"], "data1");
}

#[test]
fn a_beginning_of_several_ids_is_ambiguous() {
    let appliance = Appliance::start();
    plant(&appliance, A, "data1");
    plant(&appliance, B, "data2");
    let error = appliance.json(&["attach", "5f0c8a"]).failure(4, "ambiguous");
    names(message(&error), &["data1", A, "data2", B]);
    appliance.json(&["attach", "5f0c8"]).failure(3, "not_found");
    assert_eq!(appliance.show("5F0C8A52")["id"], A);
}

#[test]
fn vms_of_one_name_are_ambiguous() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.cloud.admin("POST", "vm", json!({"id": "a0000000-0000-4000-8000-000000000003", "name": "worker"}));
    let error = appliance.json(&["attach", "data1", "--vm", "worker"]).failure(4, "ambiguous");
    names(message(&error), &["worker", WORKER, "a0000000-0000-4000-8000-000000000003"]);
}

#[test]
fn control_characters_in_a_name_are_shown_escaped() {
    let appliance = Appliance::start();
    let name = "evil\u{1b}[2J\r\n\u{202e}name";
    plant(&appliance, A, name);
    let shown = "evil\\u{1b}[2J\\r\\n\\u{202e}name";
    for line in [
        &["ls", "--max-age", "0"][..],
        &["show", A],
        &["attach", A],
        &["attach", A, "--vm", "worker"],
        &["export", A, "--name", "x"],
        &["ops"],
        &["detach", A, "--force"],
        &["unexport", "evil"],
        &["delete", A, "--yes"],
    ] {
        let ended = appliance.run(line);
        let all = format!("{}{}", ended.stdout, ended.stderr);
        let is_safe = |c: char| c == '\n' || (!c.is_control() && c != '\u{202e}');
        assert!(all.chars().all(is_safe), "{line:?}: {all:?}");
        assert!(all.contains(shown) || all.contains("nbd://"), "{line:?}: {all:?}");
    }
    let listed = appliance.ok(&["show", A, "--max-age", "0"]);
    assert_eq!(listed["volume"]["name"], name, "a program gets it as it is");
}

#[test]
fn words_of_the_caller_are_escaped_too() {
    let appliance = Appliance::start();
    for line in [
        &["attach", "\u{1b}[2J"][..],
        &["find", "/tmp/\u{1b}[2J"],
        &["unexport", "\u{1b}[2J"],
        &["ops", "show", "\u{1b}[2J"],
        &["attach", "ROOT-worker", "--vm", "\u{1b}[2J"],
        &["create", "x", "--zone", "\u{1b}[2J"],
    ] {
        let ended = appliance.run(line);
        assert_ne!(ended.code, 0, "{ended:?}");
        assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
    }
}
