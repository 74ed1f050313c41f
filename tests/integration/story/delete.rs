//! `volctl delete`, `volctl recover`

use serde_json::json;

use crate::support::appliance::Appliance;
use crate::support::wording::{hint, message, names};

/// An appliance with a volume that was created on storage, and is detached again.
fn used(name: &str) -> (Appliance, String) {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", name, "--size", "1G", "--attach"]);
    appliance.ok(&["detach", name]);
    (appliance, created["volume"]["id"].as_str().unwrap().to_owned())
}

#[test]
fn a_deleted_volume_can_be_recovered() {
    let (appliance, id) = used("data1");
    let ended = appliance.run(&["delete", "data1", "--yes"]).success();
    names(&ended.stdout, &["data1 deleted", &format!("volctl recover {id}")]);
    assert_eq!(appliance.truth("data1").unwrap()["state"], "Destroy");
    assert_eq!(appliance.cloud.calls("destroyVolume"), 1);

    let recovered = appliance.ok(&["recover", "data1"]);
    assert_eq!((&recovered["changed"], &recovered["volume"]["state"]), (&json!(true), &json!("Ready")));
    assert_eq!(appliance.ok(&["recover", &id])["changed"], false);
    appliance.ok(&["attach", "data1"]);
}

#[test]
fn what_is_deleted_is_no_name_any_more_but_says_how_it_comes_back() {
    let (appliance, id) = used("data1");
    let deleted = appliance.ok(&["delete", "data1", "--yes"]);
    assert_eq!((&deleted["changed"], &deleted["volume"]["state"]), (&json!(true), &json!("Destroy")));
    for line in [&["attach", "data1"][..], &["detach", &id]] {
        let error = appliance.json(line).failure(4, "conflict");
        names(hint(&error), &["volctl recover"]);
    }
    assert_eq!(appliance.ok(&["delete", "data1", "--yes"])["changed"], false);
    let other = appliance.ok(&["create", "data1", "--size", "1G"]);
    assert_ne!(other["volume"]["id"], id, "the name is free");
    let error = appliance.json(&["recover", "data1"]).failure(4, "ambiguous");
    names(message(&error), &[&id, other["volume"]["id"].as_str().unwrap()]);
    assert_eq!(appliance.ok(&["recover", &id])["changed"], true);
}

#[test]
fn expunged_is_for_ever() {
    let (appliance, id) = used("data1");
    let ended = appliance.run(&["delete", "data1", "--expunge", "--yes"]).success();
    names(&ended.stdout, &["data1", "gone for ever"]);
    assert!(appliance.truth("data1").is_none_or(|volume| volume["state"] == "Expunged"));
    appliance.json(&["recover", &id]).failure(3, "not_found");
    appliance.json(&["show", &id, "--max-age", "0"]).failure(3, "not_found");
}

#[test]
fn what_was_deleted_before_can_be_expunged() {
    let (appliance, id) = used("data1");
    appliance.ok(&["delete", "data1", "--yes"]);
    assert_eq!(appliance.ok(&["delete", &id, "--expunge", "--yes"])["changed"], true);
    appliance.json(&["recover", &id]).failure(3, "not_found");
}

#[test]
fn a_volume_that_was_never_created_on_storage_goes_at_once() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let ended = appliance.run(&["delete", "data1", "--yes"]).success();
    names(&ended.stdout, &["data1", "gone for ever"]);
    assert_eq!((appliance.cloud.calls("destroyVolume"), appliance.cloud.calls("deleteVolume")), (0, 1));
    appliance.json(&["recover", "data1"]).failure(3, "not_found");
}

#[test]
fn what_is_used_is_not_deleted() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    for flags in [&["--yes"][..], &["--yes", "--expunge"]] {
        let error = appliance.json(&[&["delete", "data1"], flags].concat()).failure(4, "conflict");
        names(message(&error), &["data1", "attached", "appliance", "nothing was sent"]);
        names(hint(&error), &["volctl detach"]);
    }
    appliance.ok(&["export", "data1"]);
    appliance.json(&["delete", "data1", "--yes"]).failure(4, "conflict");
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.ok(&["attach", "data2", "--vm", "worker"]);
    let error = appliance.json(&["delete", "data2", "--yes"]).failure(4, "conflict");
    names(message(&error), &["worker"]);
    names(hint(&error), &["--from"]);
    assert_eq!((appliance.cloud.calls("destroyVolume"), appliance.cloud.calls("deleteVolume")), (0, 0));
}

#[test]
fn destructive_verbs_take_no_id_prefixes() {
    let (appliance, id) = used("data1");
    let prefix = &id[..13];
    assert_eq!(appliance.show(prefix)["id"], id, "others do");
    appliance.ok(&["attach", prefix]);
    for line in [
        &["detach", prefix][..],
        &["delete", prefix, "--yes"],
        &["delete", prefix, "--yes", "--expunge"],
        &["recover", prefix],
    ] {
        let error = appliance.json(line).failure(3, "not_found");
        names(message(&error), &[prefix]);
    }
    assert_eq!(appliance.truth("data1").unwrap()["state"], "Ready");
}

#[test]
fn where_nobody_can_be_asked_it_must_be_said() {
    let (appliance, _) = used("data1");
    let error = appliance.json(&["delete", "data1"]).failure(2, "usage");
    names(message(&error), &["no terminal"]);
    names(hint(&error), &["--yes"]);
    assert_eq!(appliance.truth("data1").unwrap()["state"], "Ready");
}
