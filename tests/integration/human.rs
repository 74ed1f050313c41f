//! What a human can see and do: histories, retry, abandon, cancel, repeated requests, `sync`, a lost store, a backup.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::journal;
use crate::support::nbd::Client;
use crate::support::scenario::changes_called;
use crate::support::simulator::{APPLIANCE, WORKER};
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

fn operation(appliance: &Appliance, id: &str) -> Value {
    appliance.ok(&["ops", "show", id])["operation"].clone()
}

fn wait_for_status(appliance: &Appliance, id: &str, status: &str) -> Value {
    wait_for(&format!("the operation to be {status}"), || {
        Some(operation(appliance, id)).filter(|operation| operation["status"] == status)
    })
}

fn id_of(answer: &Value) -> String {
    answer["operation"]["id"].as_str().unwrap().to_owned()
}

/// A creation of which CloudStack no longer knows whether it was carried out.
fn stuck() -> (Appliance, String) {
    let mut appliance = Appliance::pausing_at("create/send/after");
    let id = id_of(&appliance.ok(&["create", "data", "--size", "1G", "--no-wait"]));
    appliance.kill_daemon_at("create/send/after");
    wait_for("CloudStack's job to end", || {
        let state = appliance.cloud.state();
        state["jobs"].as_array().unwrap().iter().all(|job| job["status"] != "pending").then_some(())
    });
    appliance.cloud.admin("POST", "purge-jobs", json!({}));
    journal::age(&appliance.path("state"), SignedDuration::from_hours(25));
    appliance.start_daemon();
    wait_for_status(&appliance, &id, "stuck");
    (appliance, id)
}

#[test]
fn what_is_stuck_says_both_ways_on_and_retry_looks_again() {
    let (mut appliance, id) = stuck();
    let both = [&*format!("volctl ops retry {id}"), &format!("volctl ops abandon {id} --reason TEXT --yes")];
    let ended = appliance.run(&["ops", "wait", &id]);
    assert_eq!(ended.code, 9);
    names(&ended.stderr, &both);
    names(hint(&operation(&appliance, &id)["error"]), &both);
    let health = appliance.json(&["health"]);
    assert_eq!(health.code, 1);
    assert!(health.stdout.contains("1 stuck"), "{health:?}");

    appliance.ok(&["ops", "retry", &id]);
    let again = wait_for_status(&appliance, &id, "stuck");
    assert_eq!(again["error"]["kind"], "stuck");
    names(hint(&again["error"]), &both);
    assert_eq!(appliance.cloud.calls("createVolume"), 1, "it looks, and sends nothing");
    let shown = appliance.ok(&["ops", "show", &id]);
    let notes: Vec<&Value> = shown["history"].as_array().unwrap().iter().map(|moment| &moment["note"]).collect();
    assert!(notes.contains(&&json!("retried by user 0")), "{shown}");

    // It stays for a human, also over a restart.
    appliance.kill_daemon();
    appliance.start_daemon();
    assert_eq!(operation(&appliance, &id)["status"], "stuck");
    appliance.ok(&["ops", "retry", &id]);
    wait_for_status(&appliance, &id, "stuck");
}

#[test]
fn only_what_can_go_another_way_can_be_retried() {
    let appliance = Appliance::start();
    let ended = id_of(&appliance.ok(&["create", "data", "--size", "1G"]));
    let error = appliance.json(&["ops", "retry", &ended]).failure(4, "conflict");
    names(message(&error), &[&ended, "succeeded"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let running = id_of(&appliance.ok(&["attach", "data", "--no-wait"]));
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 1).then_some(()));
    let error = appliance.json(&["ops", "retry", &running]).failure(4, "conflict");
    names(message(&error), &[&running, "running"]);
    let unknown = "01234567-0000-4000-8000-000000000000";
    for verb in [&["ops", "retry", unknown][..], &["ops", "abandon", unknown, "--reason", "x", "--yes"]] {
        appliance.json(verb).failure(3, "not_found");
    }
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for_status(&appliance, &running, "succeeded");
    assert_eq!(appliance.cloud.calls("attachVolume"), 1);
}

#[test]
fn an_abandoned_operation_frees_its_volume_and_keeps_who_and_why() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let waiting = appliance.begin(&["attach", "data"]);
    let id = wait_for("the attach to be sent", || {
        let newest = appliance.ok(&["ops"])["operations"][0].clone();
        (newest["step"] == "waiting for CloudStack to attach").then(|| newest["id"].as_str().unwrap().to_owned())
    });
    appliance.json(&["detach", "data"]).failure(4, "busy");
    assert_eq!(appliance.json(&["ops", "abandon", &id, "--yes"]).code, 2, "a reason is needed");
    assert_eq!(appliance.json(&["ops", "abandon", &id, "--reason", "x"]).code, 2, "without a terminal --yes is needed");
    assert_eq!(operation(&appliance, &id)["status"], "running");

    let abandoned = appliance.ok(&["ops", "abandon", &id, "--reason", "the host is on fire", "--yes"]);
    assert_eq!(abandoned["operation"]["status"], "abandoned");
    names(
        message(&waiting.end().failure(1, "cancelled")),
        &["abandoned by user 0", "the host is on fire", "not known"],
    );
    for _ in 0..2 {
        let shown = operation(&appliance, &id);
        assert_eq!(shown["status"], "abandoned");
        assert!(!shown["finished_at"].is_null());
        names(message(&shown["error"]), &["user 0", "waiting for CloudStack to attach", "the host is on fire"]);
        appliance.kill_daemon();
        appliance.start_daemon();
    }
    let error = appliance.json(&["ops", "abandon", &id, "--reason", "again", "--yes"]).failure(4, "conflict");
    names(message(&error), &["has ended already", "abandoned"]);
    // The volume is free for the next one, which looks at what is the case.
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for("CloudStack to attach it", || {
        (appliance.truth("data").unwrap()["virtualmachineid"] == APPLIANCE).then_some(())
    });
    appliance.ok(&["detach", "data"]);
}

#[test]
fn what_was_not_sent_can_be_cancelled() {
    for point in ["attach/check/before", "attach/check/after", "detach/withdraw/before", "detach/hold/after"] {
        let mut appliance = Appliance::pausing_at(point);
        let volume = appliance.cloud.volume("data");
        let verb = point.split('/').next().unwrap();
        if verb == "detach" {
            appliance.cloud.job("attachVolume", &[("id", &volume), ("virtualmachineid", APPLIANCE)]);
            appliance.ok(&["export", "data", "--name", "disk"]);
        }
        let sent = changes_called(&appliance.cloud);
        let asked = appliance.begin(&[verb, "data"]);
        wait_for(point, || appliance.log().contains(&format!("paused at {point}")).then_some(()));
        let id = appliance.ok(&["ops"])["operations"][0]["id"].as_str().unwrap().to_owned();
        appliance.ok(&["ops", "cancel", &id]);
        names(message(&asked.end().failure(1, "cancelled")), &["cancelled by user 0", "nothing was sent"]);
        assert_eq!(operation(&appliance, &id)["status"], "cancelled", "{point}");
        assert_eq!(changes_called(&appliance.cloud), sent, "{point}");
        if verb == "detach" {
            wait_for("the export to be as it was", || {
                (appliance.ok(&["exports"])["exports"][0]["state"] == "active").then_some(())
            });
        }
        appliance.json(&["ops", "cancel", &id]).failure(4, "conflict");
        appliance.kill_daemon();
        appliance.configure(|config| config.environment.clear());
        appliance.start_daemon();
        assert_eq!(operation(&appliance, &id)["status"], "cancelled", "{point}: also after a restart");
        appliance.ok(&[verb, "data"]);
    }
}

#[test]
fn a_history_tells_every_step_and_what_a_restart_found() {
    let mut appliance = Appliance::pausing_at("attach/send/after");
    appliance.ok(&["create", "data", "--size", "1G"]);
    let id = id_of(&appliance.ok(&["attach", "data", "--export", "--no-wait", "--reason", "the nightly copy"]));
    appliance.kill_daemon_at("attach/send/after");
    appliance.start_daemon();
    wait_for_status(&appliance, &id, "succeeded");
    let shown = appliance.ok(&["ops", "show", &id]);
    let history = shown["history"].as_array().unwrap();
    let steps: Vec<&str> = history.iter().map(|moment| moment["step"].as_str().unwrap()).collect();
    let wanted = [
        "looking at the volume",
        "asking CloudStack to attach",
        "asking CloudStack to attach",
        "waiting for CloudStack to attach",
        "waiting for device",
        "exporting",
        "exporting",
    ];
    assert_eq!(steps, wanted);
    assert!(history[2]["note"].as_str().unwrap().contains("resumed"), "{shown}");
    assert_eq!((&history[0]["status"], &history[6]["status"]), (&json!("running"), &json!("succeeded")));
    let times: Vec<Timestamp> = history.iter().map(|moment| moment["at"].as_str().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(shown["asked_by"]["uid"], 0);
    assert_eq!(shown["asked_by"]["reason"], "the nightly copy");

    let text = appliance.run(&["ops", "show", &id[..8]]).success().stdout;
    names(&text, &["resumed", "asked by", "user 0", "attach data --export", "the nightly copy", "waiting for device"]);
}

#[test]
fn each_verb_repeats_its_request_also_after_a_restart() {
    let mut appliance = Appliance::start();
    let lines: &[&[&str]] = &[
        &["create", "data", "--size", "1G"],
        &["attach", "data"],
        &["export", "data"],
        &["unexport", "data"],
        &["detach", "data"],
        &["delete", "data", "--yes"],
        &["recover", "data"],
    ];
    let with_id = |line: &[&'static str]| [line, &["--request-id", line[0]]].concat();
    let first: Vec<String> = lines.iter().map(|line| id_of(&appliance.ok(&with_id(line)))).collect();
    let sent = changes_called(&appliance.cloud);
    for _ in 0..2 {
        let again: Vec<String> = lines.iter().map(|line| id_of(&appliance.ok(&with_id(line)))).collect();
        assert_eq!(again, first);
        appliance.kill_daemon();
        appliance.start_daemon();
    }
    assert_eq!(changes_called(&appliance.cloud), sent);
}

/// What `volctl sync` found, and did about it.
fn synced(appliance: &Appliance) -> Vec<(String, String)> {
    let document = appliance.ok(&["sync"]);
    let text = |difference: &Value, key: &str| difference[key].as_str().unwrap().to_owned();
    let differences = document["differences"].as_array().unwrap();
    differences.iter().map(|difference| (text(difference, "found"), text(difference, "done"))).collect()
}

#[track_caller]
fn found(differences: &[(String, String)], words: &[&str]) {
    let fits = |(found, done): &&(String, String)| words.iter().all(|word| found.contains(word) || done.contains(word));
    assert!(differences.iter().any(|difference| fits(&difference)), "{words:?} is not among {differences:#?}");
}

#[test]
fn sync_says_what_differed_and_changes_nothing_in_cloudstack() {
    let appliance = Appliance::start();
    for name in ["same", "moved", "renamed", "lost"] {
        appliance.ok(&["create", name, "--size", "1G", "--attach"]);
    }
    appliance.ok(&["create", "deleted", "--size", "1G"]);
    appliance.ok(&["create", "detached", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "lost", "--name", "disk"]);
    assert_eq!(synced(&appliance), []);
    assert_eq!(appliance.run(&["sync"]).success().stdout, "nothing differed\n");

    let id = |name: &str| appliance.truth(name).unwrap()["id"].clone();
    let edit = |change: Value| drop(appliance.cloud.admin("POST", "volume", change));
    edit(json!({"id": id("moved"), "virtualmachineid": WORKER, "plugged": false}));
    edit(json!({"id": id("renamed"), "name": "other"}));
    edit(json!({"id": id("deleted"), "state": "Expunged", "removed": true}));
    edit(json!({"id": id("detached"), "virtualmachineid": null, "deviceid": null}));
    edit(json!({"id": id("lost"), "plugged": false}));
    appliance.cloud.volume("new");
    let before = appliance.cloud.state()["journal"]["requests"].as_array().unwrap().len();

    let differences = synced(&appliance);
    found(&differences, &["moved", APPLIANCE, WORKER, "taken into the store"]);
    found(&differences, &["other", "its name was renamed"]);
    found(&differences, &["deleted", "no longer has it", "forgotten"]);
    found(&differences, &["detached", "its disk is here", "nothing"]);
    found(&differences, &["lost", "attached here", "no such disk"]);
    found(&differences, &["new", "not known here", "taken into the store"]);
    assert!(!differences.iter().any(|(found, _)| found.contains("same")), "{differences:#?}");
    wait_for("the export to fail", || {
        synced(&appliance).iter().any(|(found, _)| found.contains("disk") && found.contains("failed")).then_some(())
    });
    let requests = appliance.cloud.state()["journal"]["requests"].clone();
    for request in &requests.as_array().unwrap()[before..] {
        let command = request["command"].as_str().unwrap();
        assert!(command.starts_with("list"), "sync calls {command}");
    }
    let text = appliance.run(&["sync"]).success().stdout;
    names(&text, &["detached", "nothing: attach or detach it"]);
}

#[test]
fn what_an_operation_is_at_work_on_is_no_difference() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data", "--size", "1G"]);
    appliance.cloud.settings(json!({"devices_appear": false}));
    appliance.ok(&["attach", "data", "--no-wait"]);
    wait_for("the attach to wait for its device", || {
        (appliance.ok(&["ops"])["operations"][0]["step"] == "waiting for device").then_some(())
    });
    assert_eq!(synced(&appliance), []);
}

#[test]
fn sync_without_cloudstack_keeps_what_is_known() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "*", "times": 1000, "mode": "cut-before"}));
    let error = appliance.json(&["sync"]);
    assert_eq!(error.code, 5, "{error:?}");
    names(message(&error.json()["error"]), &["what the store has is kept"]);
    assert!(appliance.ok(&["ls"])["volumes"].as_array().unwrap().iter().any(|volume| volume["name"] == "data"));
}

/// What `volctl ls` says of each volume, without its export and CloudStack's age.
fn listed(appliance: &Appliance) -> Vec<Value> {
    let mut volumes = appliance.ok(&["ls", "--max-age", "0"])["volumes"].as_array().unwrap().clone();
    for volume in &mut volumes {
        let fields = volume.as_object_mut().unwrap();
        fields.remove("export");
        fields.remove("cloudstack_as_of");
    }
    volumes
}

#[test]
fn a_store_that_was_lost_is_rebuilt_and_the_rest_named_as_lost() {
    let lose: [fn(&Path); 2] = [
        |state| fs::remove_dir_all(state).unwrap(),
        |state| {
            fs::remove_file(state.join("volctl.db")).unwrap();
        },
    ];
    for lose in lose {
        let mut appliance = Appliance::start();
        appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
        appliance.ok(&["create", "data2", "--size", "1G"]);
        appliance.ok(&["attach", "data2", "--vm", "worker"]);
        let before = listed(&appliance);
        let log = appliance.log().len();
        appliance.kill_daemon();
        lose(&appliance.path("state"));
        appliance.start_daemon();
        wait_for("everything to be listed as before", || (listed(&appliance) == before).then_some(()));
        assert_eq!(appliance.ok(&["ops"])["operations"], json!([]));
        assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
        wait_for("the log to say what was lost", || {
            appliance.log()[log..].contains("history and export wishes of an earlier one are lost").then_some(())
        });
        let health = appliance.ok(&["health"]);
        let store = health["checks"].as_array().unwrap().iter().find(|check| check["name"] == "store").unwrap();
        names(message(store), &["history and export wishes since 20"]);
        appliance.ok(&["export", "data1"]);
        appliance.ok(&["detach", "data1", "--force"]);
    }
}

#[test]
fn a_rebuilt_store_is_told_to_whoever_syncs_first() {
    let appliance = Appliance::stopped(Config::default());
    appliance.cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "cut-before"}));
    let mut appliance = appliance;
    appliance.start_daemon();
    wait_for("the first look to fail", || appliance.log().contains("not reconciled").then_some(()));
    appliance.cloud.admin("DELETE", "faults", json!({}));
    // A list alone reconciles nothing.
    appliance.ok(&["ls", "--max-age", "0"]);
    found(&synced(&appliance), &["the state store is new", "lost", "taken from CloudStack"]);
    assert_eq!(synced(&appliance), []);
}

#[test]
fn a_backup_is_made_live_and_can_be_put_back() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1", "--name", "disk"]);
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let running = id_of(&appliance.ok(&["attach", "data2", "--no-wait"]));
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 2).then_some(()));

    let copy = appliance.path("copy.db");
    let answer = appliance.command(&["--json", "store", "backup", "copy.db"]).current_dir(appliance.path("")).output();
    assert!(answer.unwrap().status.success());
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&copy).unwrap();
    let error = appliance.json(&["store", "backup", copy.to_str().unwrap()]).failure(1, "store");
    names(message(&error), &[copy.to_str().unwrap(), "exists"]);
    assert!(fs::read(&copy).unwrap() == bytes, "what is there is never written over");
    let nowhere = appliance.path("missing/copy.db");
    appliance.json(&["store", "backup", nowhere.to_str().unwrap()]).failure(1, "store");

    let before = appliance.ok(&["ops"])["operations"].clone();
    appliance.ok(&["create", "after", "--size", "1G"]);
    appliance.kill_daemon();
    fs::remove_dir_all(appliance.path("state")).unwrap();
    fs::create_dir(appliance.path("state")).unwrap();
    fs::copy(&copy, appliance.path("state").join("volctl.db")).unwrap();
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    appliance.start_daemon();
    wait_for_status(&appliance, &running, "succeeded");
    let ids = |operations: &Value| -> Vec<Value> {
        operations.as_array().unwrap().iter().map(|operation| operation["id"].clone()).collect()
    };
    assert_eq!(ids(&appliance.ok(&["ops"])["operations"]), ids(&before));
    assert_eq!(appliance.cloud.calls("attachVolume"), 2);
    wait_for("the export", || (appliance.ok(&["exports"])["exports"][0]["state"] == "active").then_some(()));
    Client::enter(&appliance.path("nbd.sock"), "disk").unwrap().read(0, 512).unwrap();
    assert!(listed(&appliance).iter().any(|volume| volume["name"] == "after"), "CloudStack is the truth about volumes");
}

#[test]
fn what_cannot_be_undone_says_so_once_however_often_it_is_retried() {
    let appliance = Appliance::start();
    for (command, text) in [("attachVolume", "no room"), ("deleteVolume", "not now")] {
        let refusal = json!({"command": command, "mode": "error", "code": 431, "text": text, "times": 1_000_000});
        appliance.cloud.fault(refusal);
    }
    let error = appliance.json(&["create", "data", "--size", "1G", "--attach"]).failure(9, "stuck");
    names(message(&error), &["no room", "undoing it failed", "not now"]);
    let id = id_of(&json!({"operation": appliance.ok(&["ops"])["operations"][0]}));
    for calls in 2..4 {
        appliance.ok(&["ops", "retry", &id]);
        wait_for("it to be tried again", || (appliance.cloud.calls("deleteVolume") >= calls).then_some(()));
        let again = wait_for_status(&appliance, &id, "stuck");
        assert_eq!(message(&again["error"]), message(&error));
    }
    appliance.cloud.admin("DELETE", "faults", json!({}));
    appliance.ok(&["ops", "retry", &id]);
    let ended = wait_for_status(&appliance, &id, "failed");
    names(message(&ended["error"]), &["no room"]);
    assert!(appliance.truth("data").is_none_or(|volume| volume["removed"] == true), "it was deleted again");
}

#[test]
fn sync_reports_a_disk_that_cannot_be_told_and_goes_on() {
    let appliance = Appliance::start();
    for name in ["data1", "data2"] {
        appliance.ok(&["create", name, "--size", "1G", "--attach"]);
    }
    let link = |name: &str| {
        let id = appliance.truth(name).unwrap()["id"].as_str().unwrap().replace('-', "");
        appliance.path("by-id").join(format!("virtio-{}", &id[..20]))
    };
    let file = fs::canonicalize(link("data1")).unwrap();
    fs::remove_file(link("data2")).unwrap();
    std::os::unix::fs::symlink(file, link("data2")).unwrap();
    appliance.cloud.volume("new");
    let differences = synced(&appliance);
    found(&differences, &["data1", "cannot be told", "two serials"]);
    found(&differences, &["data2", "cannot be told", "two serials"]);
    found(&differences, &["new", "not known here"]);
}

#[test]
fn a_creation_whose_volume_somebody_else_has_waits_for_it_and_says_so() {
    let mut appliance = Appliance::pausing_at("create/send/after");
    let creating = appliance.begin(&["create", "data", "--size", "1G"]);
    wait_for("the volume", || appliance.truth("data").filter(|volume| volume["state"] == "Allocated"));
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let attach = id_of(&appliance.ok(&["attach", "data", "--no-wait"]));
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 1).then_some(()));
    appliance.kill_daemon_at("create/send/after");
    appliance.start_daemon();
    let waiting = wait_for("the creation to say what it waits for", || {
        let operations = appliance.ok(&["ops"])["operations"].clone();
        let creation = operations.as_array().unwrap().iter().find(|operation| operation["kind"] == "create")?;
        Some(creation["step"].as_str().unwrap().to_owned()).filter(|step| step.contains("is busy"))
    });
    names(&waiting, &["volume", "operation", &attach, "waiting for CloudStack to attach"]);
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    assert_eq!(creating.end().success().json()["changed"], true);
    assert_eq!(operation(&appliance, &attach)["status"], "succeeded");
}
