//! `volctl why`: one timeline of cause and effect, and what a volume waits for. `volctl ops` with its filters.

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::scenario::{attached, detach_behind_our_back, exported, new_volume};
use crate::support::wait_for;
use crate::support::wording::{message, names};

fn texts(why: &Value, source: &str) -> Vec<String> {
    let timeline = why["timeline"].as_array().unwrap();
    let of_source = timeline.iter().filter(|cause| cause["source"] == source);
    of_source.map(|cause| cause["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_timeline_has_who_asked_the_job_the_disk_and_the_export() {
    let appliance = Appliance::start();
    exported(&appliance);
    let why = wait_for("the whole timeline", || {
        Some(appliance.ok(&["why", "data"]))
            .filter(|why| !texts(why, "device").is_empty() && !texts(why, "export").is_empty())
    });
    names(&texts(&why, "asked").join("\n"), &["attach", "by user 0", "attach data --export"]);
    names(&texts(&why, "call").join("\n"), &["accepted the job", "CloudStack's job ", "(job "]);
    names(&texts(&why, "end").join("\n"), &["succeeded"]);
    names(why["summary"].as_str().unwrap(), &["Nothing is under way", "attached here", "exported as"]);
    let text = appliance.run(&["why", "data"]).success().stdout;
    names(&text, &["data (", " UTC", "asked", "device", "export", "now   data is Ready"]);
    let none = appliance.ok(&["why", "data", "--until", "2020-01-01"]);
    assert_eq!(none["timeline"], json!([]));
    assert_eq!(appliance.run(&["why", "data", "--since", "yesterday"]).code, 2);
    assert_eq!(appliance.run(&["why", "data", "--since", "1h", "--until", "2h"]).code, 2);
    appliance.json(&["why", "nothing"]).failure(3, "not_found");
}

#[test]
fn what_was_done_outside_is_explained_by_cloudstack_and_missed_when_it_is_away() {
    let appliance = Appliance::start();
    attached(&appliance);
    let id = appliance.truth("data").unwrap()["id"].clone();
    appliance.cloud.admin("POST", "volume", json!({"id": id, "size": 2_147_483_648u64}));
    let why = appliance.ok(&["why", "data"]);
    let outside = texts(&why, "outside").join("\n");
    names(&outside, &["admin", "not volctl", "VOLUME.UPDATE"]);
    assert!(!outside.contains("VOLUME.ATTACH"), "that was us: {outside}");
    appliance.cloud.fault(json!({"command": "*", "mode": "cut-before", "times": 100_000}));
    let why = appliance.ok(&["why", "data"]);
    names(&why["notes"].to_string(), &["missing", "listEvents"]);
    names(&texts(&why, "call").join("\n"), &["CloudStack's job "]);
}

#[test]
fn what_volctl_did_to_another_volume_or_by_a_reclaim_is_not_told_as_done_outside() {
    let appliance = Appliance::start();
    exported(&appliance);
    appliance.ok(&["ls"]);
    appliance.ok(&["move", "data", "--to", "old", "--root", "--swap-root", "--yes"]);
    appliance.ok(&["reclaim", "data", "--from", "old", "--yes"]);
    appliance.ok(&["sync"]);
    for volume in ["data", "ROOT-old"] {
        let why = appliance.ok(&["why", volume]);
        let outside = texts(&why, "outside").join("\n");
        assert!(!outside.contains("TACH") && !outside.contains("it was on"), "{volume}: {outside}");
        names(&texts(&why, "asked").join("\n"), &["move", "--swap-root"]);
    }
    let root = appliance.ok(&["why", "ROOT-old"]);
    names(&texts(&root, "step").join("\n"), &["asking CloudStack to detach the root disk that makes way"]);
    names(root["summary"].as_str().unwrap(), &["not attached", "The last operation, move", "succeeded"]);
}

#[test]
fn a_way_back_is_told_once() {
    let appliance = Appliance::start();
    exported(&appliance);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": "not now"}));
    appliance.json(&["move", "data", "--to", "worker"]).failure(5, "cloudstack_refused");
    let steps = texts(&appliance.ok(&["why", "data"]), "step");
    assert_eq!(steps.iter().filter(|step| step.contains("undoing it, since")).count(), 1, "{steps:#?}");
}

#[test]
fn a_hold_is_told_with_who_and_why() {
    let appliance = Appliance::start();
    attached(&appliance);
    appliance.ok(&["hold", "data", "--note", "ask Ann"]);
    let why =
        wait_for("the hold", || Some(appliance.ok(&["why", "data"])).filter(|why| texts(why, "asked").len() == 2));
    names(&texts(&why, "asked")[1], &["holds it: \"ask Ann\""]);
    names(why["summary"].as_str().unwrap(), &["It is held by", "\"ask Ann\""]);
    appliance.ok(&["release", "data"]);
    let why =
        wait_for("the release", || Some(appliance.ok(&["why", "data"])).filter(|why| texts(why, "asked").len() == 3));
    names(&texts(&why, "asked")[2], &["released it", "it was held by", "\"ask Ann\""]);
    assert!(!why["summary"].as_str().unwrap().contains("held"), "{why}");
}

#[test]
fn it_says_what_is_waited_for_and_what_can_be_done() {
    let appliance = Appliance::start();
    new_volume(&appliance);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let id = appliance.ok(&["attach", "data", "--no-wait"])["operation"]["id"].as_str().unwrap().to_owned();
    let why = wait_for("the attach to wait", || {
        let why = appliance.ok(&["why", "data"]);
        why["summary"].as_str().unwrap().contains("waiting for CloudStack to attach").then_some(why)
    });
    names(why["summary"].as_str().unwrap(), &["attach", &id[..8], "under way"]);
    names(why["hint"].as_str().unwrap(), &[&format!("volctl ops wait {id}")]);
    assert!(!why["since"].is_null());
}

#[test]
fn a_volume_that_is_no_more_is_known_by_its_id_and_last_name() {
    let appliance = Appliance::start();
    attached(&appliance);
    let id = appliance.truth("data").unwrap()["id"].as_str().unwrap().to_owned();
    appliance.ok(&["detach", "data"]);
    appliance.ok(&["delete", "data", "--yes", "--expunge"]);
    appliance.ok(&["ls", "--max-age", "0"]);
    for word in ["data", &id] {
        let why = appliance.ok(&["why", word]);
        assert_eq!((&why["volume_id"], &why["volume_name"]), (&json!(id), &json!("data")));
        names(&texts(&why, "asked").join("\n"), &["attach", "detach", "delete"]);
        names(why["summary"].as_str().unwrap(), &["no more", "delete"]);
    }
}

#[test]
fn operations_are_listed_as_filters_want() {
    let appliance = Appliance::start();
    attached(&appliance);
    appliance.cloud.volume("other");
    appliance.ok(&["delete", "other", "--yes"]);
    let count = |words: &[&str]| appliance.ok(&[&["ops"], words].concat())["operations"].as_array().unwrap().len();
    assert_eq!(count(&[]), 2);
    assert_eq!(count(&["--kind", "attach"]), 1);
    assert_eq!(count(&["--kind", "resize"]), 0);
    assert_eq!(count(&["--status", "succeeded"]), 2);
    assert_eq!(count(&["--status", "failed"]), 0);
    assert_eq!(count(&["--volume", "other"]), 1);
    let id = appliance.truth("data").unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!((count(&["--volume", &id]), count(&["--volume", &id[..8]]), count(&["--volume", "x"])), (1, 1, 0));
    assert_eq!((count(&["--vm", "appliance"]), count(&["--vm", "worker"])), (1, 0));
    assert_eq!((count(&["--user", "0"]), count(&["--user", "root"]), count(&["--user", "54321"])), (2, 2, 0));
    assert_eq!((count(&["--since", "1h"]), count(&["--until", "1h"]), count(&["--limit", "1"])), (2, 0, 1));
    names(&appliance.run(&["ops", "--kind", "x"]).stderr, &["create", "attach", "detach"]);
    names(&appliance.run(&["ops", "--status", "x"]).stderr, &["running", "stuck", "abandoned"]);
    for bad in [["--kind", "x"], ["--status", "x"], ["--user", "nobody-at-all"], ["--since", "soon"], ["--limit", "0"]]
    {
        assert_eq!(appliance.run(&["ops", bad[0], bad[1]]).code, 2, "{bad:?}");
    }
    let error = appliance.json(&["ops", "--vm", "no such vm"]).failure(3, "not_found");
    names(message(&error), &["no such vm"]);
    detach_behind_our_back(&appliance);
}

/// Deletes a detached volume for ever, and lets the daemon learn that it is gone.
fn expunge(appliance: &Appliance, volume: &str) {
    appliance.ok(&["delete", volume, "--yes", "--expunge"]);
    appliance.ok(&["ls", "--max-age", "0"]);
}

#[test]
fn of_several_that_are_no_more_none_is_guessed() {
    let appliance = Appliance::start();
    let twins = [(); 2].map(|()| {
        let id = appliance.ok(&["create", "twin", "--size", "1G"])["volume"]["id"].as_str().unwrap().to_owned();
        expunge(&appliance, &id);
        id
    });
    let error = appliance.json(&["why", "twin"]).failure(4, "ambiguous");
    names(message(&error), &["twin", "several", &twins[0], &twins[1]]);
    for id in &twins {
        assert_eq!(&appliance.ok(&["why", id])["volume_id"], id);
    }
}

#[test]
fn a_renamed_volume_is_known_by_its_last_name() {
    let appliance = Appliance::start();
    let id = appliance.ok(&["create", "before", "--size", "1G"])["volume"]["id"].as_str().unwrap().to_owned();
    appliance.cloud.admin("POST", "volume", json!({"id": id, "name": "after"}));
    appliance.ok(&["ls", "--max-age", "0"]);
    let why = appliance.ok(&["why", "after"]);
    names(&texts(&why, "asked").join("\n"), &["create before"]);
    expunge(&appliance, "after");
    for word in ["after", id.as_str()] {
        let why = appliance.ok(&["why", word]);
        assert_eq!((&why["volume_id"], &why["volume_name"]), (&json!(id), &json!("after")), "{word}");
        names(&texts(&why, "asked").join("\n"), &["create before", "delete after"]);
    }
    // The name that it had before is free for another volume.
    let other = appliance.ok(&["create", "before", "--size", "1G"])["volume"]["id"].clone();
    expunge(&appliance, "before");
    assert_eq!(appliance.ok(&["why", "before"])["volume_id"], other);
}

#[test]
fn without_the_right_to_look_at_events_the_rest_is_told_with_a_note() {
    let appliance = Appliance::start();
    attached(&appliance);
    let told = |appliance: &Appliance| {
        let why = appliance.ok(&["why", "data"]);
        names(&texts(&why, "call").join("\n"), &["CloudStack's job "]);
        names(why["summary"].as_str().unwrap(), &["attached here"]);
        names(&why["notes"].to_string(), &["missing here", "listEvents"]);
    };
    appliance.cloud.settings(json!({"denied_commands": ["listEvents"]}));
    told(&appliance);
    appliance.cloud.settings(json!({"denied_commands": []}));
    for fault in [
        json!({"command": "listEvents", "mode": "error", "code": 401, "text": "no such command"}),
        json!({"command": "listEvents", "mode": "non-json"}),
        json!({"command": "listEvents", "mode": "html-200"}),
    ] {
        appliance.cloud.fault(fault);
        told(&appliance);
    }
    assert_eq!(appliance.ok(&["why", "data"])["notes"], json!([]));
}
