//! Several at once: a list is looked at as a whole, and then each is an operation of its own.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config, Ended};
use crate::support::wait_for;
use crate::support::wording::{message, names};

/// An appliance with these volumes, attached nowhere.
fn with_volumes(volumes: &[&str]) -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&[&["create", "--size", "1G"], volumes].concat());
    appliance
}

fn results(ended: &Ended) -> Vec<Value> {
    ended.json()["results"].as_array().unwrap_or_else(|| panic!("no results: {ended:?}")).clone()
}

fn kinds(ended: &Ended) -> Vec<Value> {
    results(ended).iter().map(|result| result["error"]["kind"].clone()).collect()
}

/// Runs `volctl --json` with these words and this on standard input.
fn with_input(appliance: &Appliance, words: &[&str], input: &[u8]) -> Ended {
    let mut command = appliance.command(&[&["--json"], words].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have refused before it has read all.
    child.stdin.take().unwrap().write_all(input).ok();
    child.wait_with_output().unwrap().into()
}

fn operations(appliance: &Appliance) -> usize {
    appliance.ok(&["ops"])["operations"].as_array().unwrap().len()
}

#[test]
fn each_of_a_list_is_an_operation_of_its_own() {
    let appliance = with_volumes(&["a", "b", "c"]);
    let ended = appliance.json(&["attach", "a", "b", "c", "--export"]).success();
    assert!(results(&ended).iter().all(|result| result["export"]["state"] == "active"), "{ended:?}");
    assert_eq!(operations(&appliance), 6);
    for verb in
        [&["unexport", "a", "b"][..], &["detach", "a", "b"], &["delete", "a", "b", "--yes"], &["recover", "a", "b"]]
    {
        assert_eq!(results(&appliance.json(verb).success()).len(), 2, "{verb:?}");
    }
    assert_eq!(results(&appliance.json(&["hold", "a", "b", "--note", "why"]).success()).len(), 2);
}

#[test]
fn a_list_with_a_wrong_name_is_not_begun() {
    let appliance = with_volumes(&["a", "b"]);
    let before = operations(&appliance);
    let ended = appliance.json(&["attach", "a", "missing", "b"]);
    assert_eq!((ended.code, kinds(&ended)), (1, vec![json!("cancelled"), json!("not_found"), json!("cancelled")]));
    appliance.cloud.volume("a");
    let ended = appliance.json(&["attach", "a", "b"]);
    assert_eq!(kinds(&ended), ["ambiguous", "cancelled"]);
    assert_eq!(appliance.json(&["attach", "missing", "absent"]).code, 3, "all failed alike");
    assert_eq!((operations(&appliance), appliance.cloud.calls("attachVolume")), (before, 0));
    let said = appliance.run(&["attach", "missing", "b", "b2", "b3"]).stderr;
    assert_eq!(said.matches("were not begun").count(), 1, "said once: {said}");
}

#[test]
fn a_volume_is_not_named_twice_however_it_is_named() {
    let appliance = with_volumes(&["a", "b"]);
    let id = appliance.show("a")["id"].as_str().unwrap().to_owned();
    for twice in ["a", id.as_str()] {
        let error = appliance.json(&["attach", "a", "b", twice]).failure(4, "conflict");
        names(message(&error), &["a", "named twice"]);
    }
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}

#[test]
fn a_list_that_needs_more_slots_than_are_free_is_refused_whole() {
    let device = "timeout = \"2s\"\nmax_disks = 3\n".to_owned();
    let appliance = Appliance::with(Config { device, ..Config::default() });
    appliance.ok(&["create", "a", "b", "c", "d", "--size", "1G"]);
    appliance.ok(&["attach", "a"]);
    let before = operations(&appliance);
    for list in [&["attach", "b", "c", "d"][..], &["create", "x", "y", "z", "--size", "1G", "--export"]] {
        let error = appliance.json(list).failure(4, "conflict");
        names(message(&error), &["3 volumes", "2 of 3 slots free", "none was begun"]);
        assert_eq!(appliance.json(&[list, &["--dry-run"]].concat()).code, 4);
    }
    assert_eq!((operations(&appliance), appliance.cloud.calls("attachVolume")), (before, 1));

    // What is under way takes a slot before CloudStack has it attached.
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    appliance.ok(&["attach", "b", "--no-wait"]);
    let error = appliance.json(&["attach", "c", "d"]).failure(4, "conflict");
    names(message(&error), &["1 of 3 slots free", "1 under way"]);
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for("b to be attached", || appliance.show("b")["device"].is_object().then_some(()));
    // What is attached already takes none.
    assert_eq!(results(&appliance.json(&["attach", "a", "b", "c"]).success()).len(), 3);
}

#[test]
fn what_is_in_the_way_of_one_refuses_that_one() {
    let appliance = with_volumes(&["a", "b", "c"]);
    appliance.ok(&["attach", "a", "b", "c"]);
    appliance.ok(&["hold", "b", "--note", "keep it"]);
    let ended = appliance.json(&["detach", "a", "b"]);
    assert_eq!((ended.code, kinds(&ended)), (1, vec![json!(null), json!("conflict")]));

    let ended = appliance.json(&["detach", "--all"]);
    assert_eq!((ended.code, results(&ended).len()), (1, 2), "held ones are never passed over");
    names(&ended.stdout, &["keep it"]);
    appliance.ok(&["release", "b"]);
    let ended = appliance.json(&["detach", "--all"]).success();
    assert_eq!(results(&ended).len(), 1, "a list, whatever it has");
    assert_eq!(results(&appliance.json(&["detach", "--all"]).success()), Vec::<Value>::new());
    assert_eq!(appliance.cloud.state()["guests"]["plugged"].as_object().unwrap().len(), 2, "the root disks");
}

#[test]
fn all_of_another_vm_but_its_root_disk() {
    let appliance = with_volumes(&["a", "b"]);
    appliance.ok(&["attach", "a", "b", "--vm", "worker"]);
    appliance.json(&["detach", "--all", "--from", "worker"]).failure(2, "usage");
    let ended = appliance.json(&["detach", "--all", "--from", "worker", "--yes"]).success();
    assert_eq!(results(&ended).len(), 2);
    assert!(appliance.truth("ROOT-worker").unwrap()["virtualmachineid"].is_string());
    appliance.json(&["detach", "a", "--all"]).failure(2, "usage");
    appliance.json(&["detach"]).failure(2, "usage");
}

#[test]
fn names_come_from_standard_input() {
    let appliance = with_volumes(&["a", "b", "c"]);
    let ended = with_input(&appliance, &["attach", "-"], b"a\n\n  \r\nb\r\n").success();
    assert_eq!(results(&ended).len(), 2);
    assert_eq!(results(&with_input(&appliance, &["attach", "-"], b"c").success()).len(), 1, "a list, whatever it has");
    for input in [&b""[..], b"\n\n", b"a\n\xff\xfe\n", &b"x".repeat(2 << 20), &b"x\n".repeat(1000)] {
        with_input(&appliance, &["detach", "-"], input).failure(2, "usage");
    }
    with_input(&appliance, &["delete", "-"], b"a\nb\n").failure(2, "usage");
    let ended = with_input(&appliance, &["detach", "c", "-"], b"a\nb\n").success();
    assert_eq!(results(&ended).len(), 3);
}

#[test]
fn a_request_id_makes_a_list_repeatable() {
    let mut appliance = with_volumes(&["a", "b"]);
    let line = ["attach", "a", "b", "--request-id", "mine"];
    let first = appliance.json(&line).success();
    appliance.kill_daemon();
    appliance.start_daemon();
    let again = appliance.json(&line).success();
    let ids = |ended: &Ended| results(ended).iter().map(|result| result["operation"]["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(appliance.cloud.calls("attachVolume"), 2);
}
