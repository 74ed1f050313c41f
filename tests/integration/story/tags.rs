//! `--tag` on `create` and `attach`, and the filters of `ls`, `exports` and `ops`.

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::journal;
use crate::support::wording::{message, names};

fn tags(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

#[test]
fn a_volume_is_tagged_as_it_is_created_and_attached() {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--tag", "owner=jo", "--tag", "b=x=y"]);
    assert_eq!(created["volume"]["tags"], tags(&[("b", "x=y"), ("owner", "jo")]));
    let attached = appliance.ok(&["attach", "data1", "--export", "--tag", "owner=jo", "--tag", "tier=gold"]);
    assert_eq!(attached["volume"]["tags"], tags(&[("b", "x=y"), ("owner", "jo"), ("tier", "gold")]));
    assert_eq!(attached["export"]["state"], "active");
    assert_eq!(appliance.cloud.calls("createTags"), 2);
    assert_eq!(appliance.ok(&["attach", "data1", "--export", "--tag", "tier=gold"])["changed"], false);
    assert_eq!(appliance.ok(&["attach", "data1", "--export", "--tag", "new=1"])["changed"], true);
    names(&appliance.run(&["show", "data1"]).success().stdout, &["b=x=y, new=1, owner=jo, tier=gold"]);
}

#[test]
fn another_value_is_refused_before_anything_is_sent() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--tag", "owner=jo"]);
    let error = appliance.json(&["attach", "data1", "--tag", "owner=ann"]).failure(4, "conflict");
    names(message(&error), &["data1", "owner=jo", "nothing was sent"]);
    let again = &["create", "data1", "--size", "1G", "--exists-ok", "--tag", "owner=ann"];
    appliance.json(again).failure(4, "conflict");
    assert_eq!((appliance.cloud.calls("attachVolume"), appliance.cloud.calls("createTags")), (0, 1));
    for bad in ["owner", "=jo", "owner="] {
        assert_eq!(appliance.run(&["attach", "data1", "--tag", bad]).code, 2, "{bad}");
    }
    assert_eq!(appliance.run(&["attach", "data1", "--tag", "a=1", "--tag", "a=2"]).code, 2);
    let planned = appliance.ok(&["attach", "data1", "--tag", "tier=gold", "--dry-run"]);
    names(&planned["plan"].to_string(), &["attachVolume", "createTags", "gold"]);
}

#[test]
fn a_volume_that_cannot_be_tagged_is_undone_unless_it_is_attached() {
    let appliance = Appliance::start();
    let refuse = json!({"command": "createTags", "mode": "job-fail", "code": 530, "text": "not now"});
    appliance.cloud.fault(refuse.clone());
    let error = appliance.json(&["create", "data1", "--size", "1G", "--tag", "a=1"]).failure(5, "cloudstack_refused");
    names(message(&error), &["data1", "deleted again"]);
    assert!(appliance.truth("data1").is_none_or(|volume| volume["removed"] == true));
    appliance.cloud.fault(refuse);
    let ended = appliance.json(&["create", "data2", "--size", "1G", "--attach", "--tag", "a=1"]);
    names(message(&ended.failure(5, "cloudstack_refused")), &["data2", "created and attached", "not tagged"]);
    assert!(appliance.show("data2")["device"].is_object(), "it stays");
}

fn found(appliance: &Appliance, line: &[&str], list: &str, name: &str) -> Vec<String> {
    let document = appliance.ok(line);
    let mut found: Vec<String> =
        document[list].as_array().unwrap().iter().map(|one| one[name].as_str().unwrap_or("-").to_owned()).collect();
    found.sort();
    found
}

#[test]
fn lists_are_filtered_and_all_filters_hold() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "a", "--size", "1G", "--export", "--tag", "job=1", "--tag", "tier=gold"]);
    appliance.ok(&["create", "b", "--size", "1G", "--attach", "--tag", "job=1"]);
    appliance.ok(&["create", "c", "--size", "1G"]);
    appliance.ok(&["attach", "c", "--vm", "worker"]);
    let other = appliance.cloud.volume("other");
    let ls = |options: &[&str]| found(&appliance, &[&["ls", "--max-age", "0"], options].concat(), "volumes", "name");
    assert_eq!(ls(&["--tag", "job=1"]), ["a", "b"]);
    assert_eq!(ls(&["--tag", "job=1", "--tag", "tier=gold"]), ["a"], "CloudStack would take either");
    assert_eq!(ls(&["--here"]), ["ROOT-appliance", "a", "b"]);
    assert_eq!(ls(&["--mine"]), ["a", "b", "c"]);
    assert_eq!(ls(&["--mine", "--here", "--tag", "job=1", "--state", "ready"]), ["a", "b"]);
    assert_eq!(ls(&["--state", "Allocated"]), ["other"]);
    appliance.run(&["hold", "b", "--note", "not now"]).success();
    assert_eq!(ls(&["--state", "held"]), ["b"]);
    appliance.run(&["release", "b"]).success();
    assert_eq!(appliance.run(&["ls", "-q", "--state", "Allocated"]).success().stdout, format!("{other}\n"));
    assert_eq!(appliance.run(&["ls", "--tag", "job"]).code, 2);

    appliance.ok(&["export", "b"]);
    let exports =
        |options: &[&str]| appliance.ok(&[&["exports"], options].concat())["exports"].as_array().unwrap().len();
    assert_eq!(exports(&["--tag", "job=1"]), 2);
    assert_eq!(exports(&["--tag", "tier=gold", "--mine", "--here", "--state", "active"]), 1);
    assert_eq!(exports(&["--state", "failed"]), 0);
    assert_eq!(appliance.run(&["exports", "--state", "fine"]).code, 2);

    appliance.cloud.fault(json!({"command": "detachVolume", "mode": "job-fail", "code": 431, "text": "no"}));
    appliance.json(&["detach", "b"]).failure(5, "cloudstack_refused");
    let ops = |options: &[&str]| found(&appliance, &[&["ops"], options].concat(), "operations", "volume_name");
    assert_eq!(ops(&["--state", "failed"]), ["b"]);
    assert_eq!(ops(&["--tag", "tier=gold"]), ["a"]);
    assert_eq!(ops(&["--here", "--mine", "--state", "succeeded"]), ["a", "b", "b"]);
    assert_eq!(ops(&["--mine", "--limit", "2"]).len(), 2);
}

#[test]
fn mine_is_the_callers() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "a", "--size", "1G"]);
    journal::execute(&appliance.path("state"), "UPDATE operations SET asker = '{\"uid\": 4242}'");
    let ls = |options: &[&str]| found(&appliance, &[&["ls"], options].concat(), "volumes", "name");
    assert_eq!(ls(&["--mine"]), [""; 0]);
    assert_eq!(ls(&["--state", "Allocated"]), ["a"]);
}
