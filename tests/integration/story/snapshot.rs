//! `volctl snapshot`

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names, notes};

const GIB: u64 = 1 << 30;

/// An appliance with the attached volume `data1`.
fn attached() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance
}

fn listed(appliance: &Appliance, options: &[&str]) -> Vec<Value> {
    let document = appliance.ok(&[&["snapshot", "ls"], options].concat());
    document["snapshots"].as_array().unwrap().clone()
}

#[test]
fn a_snapshot_is_done_when_it_is_backed_up() {
    let appliance = attached();
    appliance.cloud.settings(json!({"latency": {"default": {"min_ms": 1, "max_ms": 1},
                                                "backupSnapshot": {"min_ms": 3000, "max_ms": 3000}}}));
    let taking = appliance.begin(&["snapshot", "create", "data1", "--name", "s1", "--tag", "job=nightly"]);
    wait_for("the copy to be waited for", || {
        let newest = appliance.ok(&["ops"])["operations"][0].clone();
        newest["step"].as_str().unwrap().contains("copy to secondary storage").then_some(())
    });
    assert_eq!(appliance.show("data1")["state"], "Ready", "it can be used during the copy");
    let taken = taking.end().success().json();
    assert_eq!((&taken["changed"], &taken["operation"]["kind"]), (&json!(true), &json!("snapshot_create")));
    let snapshot = &taken["snapshot"];
    assert_eq!((&snapshot["name"], &snapshot["state"]), (&json!("s1"), &json!("BackedUp")));
    assert_eq!((&snapshot["volume_name"], &snapshot["size_bytes"]), (&json!("data1"), &json!(GIB)));
    assert_eq!(snapshot["tags"], json!([{"key": "job", "value": "nightly"}]));
    assert_eq!(listed(&appliance, &[]).as_slice(), std::slice::from_ref(snapshot));

    let error = appliance.json(&["snapshot", "create", "data1", "--name", "s1"]).failure(4, "conflict");
    names(message(&error), &["data1", "s1", "already"]);
    let id = appliance.run(&["snapshot", "create", "data1", "-q"]).success().stdout;
    assert!(listed(&appliance, &[]).iter().any(|snapshot| snapshot["id"] == id.trim_end()), "{id}");
}

#[test]
fn they_are_listed_by_volume_vm_and_tag() {
    let appliance = attached();
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.ok(&["attach", "data2", "--vm", "worker"]);
    appliance.ok(&["snapshot", "create", "data1", "--name", "a", "--tag", "k=1", "--tag", "l=1"]);
    appliance.ok(&["snapshot", "create", "data2", "--name", "b", "--tag", "k=1"]);
    let found = |options: &[&str]| -> Vec<String> {
        listed(&appliance, options).iter().map(|snapshot| snapshot["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found(&[]), ["b", "a"]);
    assert_eq!(found(&["--volume", "data1"]), ["a"]);
    assert_eq!(found(&["--vm", "worker"]), ["b"]);
    assert_eq!(found(&["--tag", "k=1"]), ["b", "a"]);
    assert_eq!(found(&["--tag", "k=1", "--tag", "l=1"]), ["a"], "all of them");
    assert_eq!(found(&["--tag", "k=2"]), [""; 0]);
    let shown = appliance.run(&["snapshot", "ls"]).success().stdout;
    names(&shown, &["VOLUME", "data1", "BackedUp", "1G", "k=1, l=1"]);
    assert_eq!(appliance.run(&["snapshot", "ls", "--tag", "k"]).code, 2);
    appliance.json(&["snapshot", "ls", "--volume", "missing"]).failure(3, "not_found");
}

#[test]
fn a_revert_gives_content_and_size_back() {
    let appliance = attached();
    let id = appliance.truth("data1").unwrap()["id"].as_str().unwrap().to_owned();
    let disk = appliance.path("disks").join(format!("{id}.img"));
    let write = |text: &str| {
        use std::io::Write;
        std::fs::File::options().write(true).open(&disk).unwrap().write_all(text.as_bytes()).unwrap();
    };
    write("before");
    appliance.ok(&["snapshot", "create", "data1", "--name", "s1"]);
    write("after!");
    appliance.ok(&["resize", "data1", "2G"]);
    let error = appliance.json(&["snapshot", "revert", "s1", "--yes"]).failure(4, "conflict");
    names(message(&error), &["data1", "attached to VM appliance", "Running", "nothing was sent"]);
    appliance.ok(&["detach", "data1"]);

    let planned = appliance.ok(&["snapshot", "revert", "s1", "--dry-run"]);
    names(&planned["plan"].to_string(), &["revertSnapshot"]);
    let error = appliance.json(&["snapshot", "revert", "s1"]).failure(2, "usage");
    names(hint(&error), &["--yes"]);
    appliance.ok(&["hold", "data1", "--note", "mine"]);
    let error = appliance.json(&["snapshot", "revert", "s1", "--yes"]).failure(4, "conflict");
    names(message(&error), &["mine"]);
    appliance.ok(&["release", "data1"]);
    assert_eq!(appliance.cloud.calls("revertSnapshot"), 0);

    let reverted = appliance.ok(&["snapshot", "revert", "s1", "--yes"]);
    assert_eq!((&reverted["changed"], &reverted["volume"]["size_bytes"]), (&json!(true), &json!(GIB)));
    names(&notes(&reverted), &["2G", "1G"]);
    assert_eq!(&std::fs::read(&disk).unwrap()[..6], b"before");
    assert_eq!(appliance.ok(&["attach", "data1"])["volume"]["device"]["size_bytes"], GIB);
}

#[test]
fn a_deleted_snapshot_is_gone() {
    let appliance = attached();
    appliance.ok(&["snapshot", "create", "data1", "--name", "s1"]);
    appliance.ok(&["snapshot", "create", "data1", "--name", "s2"]);
    let id = listed(&appliance, &[])[0]["id"].as_str().unwrap().to_owned();
    let error = appliance.json(&["snapshot", "delete", &id[..13], "--yes"]).failure(3, "not_found");
    names(message(&error), &["only the beginning"]);
    appliance.json(&["snapshot", "delete", "s1"]).failure(2, "usage");
    let deleted = appliance.ok(&["snapshot", "delete", "s1", &id, "--yes"]);
    assert_eq!(
        deleted["results"].as_array().unwrap().iter().map(|one| &one["changed"]).collect::<Vec<_>>(),
        [true, true]
    );
    assert!(listed(&appliance, &[]).is_empty());
    appliance.json(&["snapshot", "delete", &id, "--yes"]).failure(3, "not_found");
    assert_eq!(appliance.show("data1")["state"], "Ready");
}

/// The order in which CloudStack was asked for snapshots, and what each volume's has come to.
fn in_order(results: &Value) -> Vec<(String, String)> {
    let one = |result: &Value| {
        let kind = result["error"]["kind"].as_str().unwrap_or("taken").to_owned();
        (result["snapshot"]["volume_name"].as_str().unwrap_or_default().to_owned(), kind)
    };
    results.as_array().unwrap().iter().map(one).collect()
}

#[test]
fn the_volumes_of_a_vm_are_taken_one_by_one_up_to_the_first_that_fails() {
    let appliance = attached();
    appliance.ok(&["create", "data2", "--size", "1G", "--attach"]);
    let line = ["snapshot", "create", "--vm", "appliance", "--name", "nightly"];
    let planned = appliance.ok(&[&line[..], &["--dry-run"]].concat());
    names(&planned["notes"].to_string(), &["not consistent in time"]);
    let plans: Vec<String> =
        planned["results"].as_array().unwrap().iter().map(|planned| planned["plan"].to_string()).collect();
    assert!(plans.len() == 3 && plans.iter().all(|plan| plan.contains("createSnapshot")), "{plans:?}");
    let error = appliance.json(&[&line[..], &["--no-wait"]].concat()).failure(2, "usage");
    names(message(&error), &["--no-wait", "one before has ended", "nothing was sent"]);
    assert_eq!(appliance.cloud.calls("createSnapshot"), 0);

    let fail = json!({"command": "createSnapshot", "nth": 2, "mode": "job-fail", "code": 530, "text": "generic"});
    appliance.cloud.fault(fail);
    let ended = appliance.json(&line);
    assert_eq!(ended.code, 1, "{ended:?}");
    names(&ended.stderr, &["not consistent in time"]);
    names(&ended.json()["notes"].to_string(), &["not consistent in time"]);
    let results = ended.json()["results"].clone();
    let told = [("ROOT-appliance", "taken"), ("", "stuck"), ("", "cancelled")];
    assert_eq!(in_order(&results), told.map(|(volume, kind)| (volume.to_owned(), kind.to_owned())));
    names(message(&results[1]["error"]), &["data1", "nightly"]);
    names(hint(&results[1]["error"]), &["same text for every cause"]);
    names(message(&results[2]["error"]), &["data2", "not begun", "data1", "kept"]);
    assert_eq!((appliance.cloud.calls("createSnapshot"), appliance.cloud.calls("deleteSnapshot")), (2, 0));
    assert_eq!(listed(&appliance, &[]).iter().filter(|snapshot| snapshot["state"] == "BackedUp").count(), 1);

    let error = appliance.json(&["snapshot", "revert", "nightly", "--yes"]).failure(4, "ambiguous");
    names(message(&error), &["nightly", "2 snapshots"]);
    appliance.json(&["snapshot", "create", "--vm", "nobody"]).failure(3, "not_found");
    assert_eq!(appliance.run(&["snapshot", "create"]).code, 2);
}

#[test]
fn a_snapshot_of_a_vm_begins_when_the_one_before_is_backed_up() {
    let appliance = attached();
    appliance.cloud.settings(json!({"latency": {"default": {"min_ms": 1, "max_ms": 1},
                                                "backupSnapshot": {"min_ms": 1500, "max_ms": 1500}}}));
    let taking = appliance.begin(&["snapshot", "create", "--vm", "appliance"]);
    wait_for("the copy of the first", || {
        listed(&appliance, &[]).iter().any(|one| one["state"] == "BackingUp").then_some(())
    });
    assert_eq!(appliance.cloud.calls("createSnapshot"), 1);
    let taken = taking.end().success().json();
    assert!(taken["results"].as_array().unwrap().iter().all(|one| one["snapshot"]["state"] == "BackedUp"), "{taken}");

    appliance.cloud.fault(json!({"command": "createSnapshot", "mode": "job-never-ends"}));
    let ended = appliance.json(&["snapshot", "create", "--vm", "appliance", "--timeout", "1s"]);
    let results = ended.json()["results"].clone();
    assert_eq!(in_order(&results).iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>(), ["timeout", "cancelled"]);
    assert_eq!(appliance.cloud.calls("createSnapshot"), 3);
}

#[test]
fn what_cannot_be_taken_is_refused_before_anything_is_sent() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let error = appliance.json(&["snapshot", "create", "data1"]).failure(4, "conflict");
    names(message(&error), &["data1", "Allocated", "nothing was sent"]);
    appliance.ok(&["attach", "data1"]);
    for tags in [&["--tag", "k"][..], &["--tag", "k=1", "--tag", "k=2"], &["--tag", "=v"]] {
        assert_eq!(appliance.run(&[&["snapshot", "create", "data1"], tags].concat()).code, 2, "{tags:?}");
    }
    assert_eq!(appliance.cloud.calls("createSnapshot"), 0);
    appliance.cloud.settings(json!({"max_snapshots": 0}));
    let error = appliance.json(&["snapshot", "create", "data1"]).failure(5, "cloudstack_refused");
    assert_eq!(error["cloudstack"]["code"], 535);
    appliance.ok(&["detach", "data1"]);
    let id = appliance.truth("data1").unwrap()["id"].clone();
    appliance.cloud.settings(json!({"max_snapshots": null}));
    appliance.cloud.admin(
        "POST",
        "snapshot",
        json!({"name": "s1", "volumeid": id, "virtualsize": GIB, "state": "BackingUp"}),
    );
    for line in [&["snapshot", "revert", "s1", "--yes"][..], &["snapshot", "delete", "s1", "--yes"]] {
        let error = appliance.json(line).failure(4, "busy");
        names(message(&error), &["s1", "BackingUp"]);
    }
}
