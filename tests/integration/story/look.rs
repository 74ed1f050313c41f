//! What is looked at: `volctl device`, `find`, `ls`, `show`, `exports`, `ops`, `health`.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::appliance::{Appliance, Ended};
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

#[test]
fn device_prints_the_stable_path() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let error = appliance.json(&["device", "data1"]).failure(1, "device_missing");
    names(message(&error), &["data1", "no disk has the serial", "seen"]);
    names(hint(&error), &["volctl attach"]);
    let attached = appliance.ok(&["attach", "data1"]);
    let path = attached["volume"]["device"]["path"].as_str().unwrap().to_owned();
    assert_eq!(appliance.run(&["device", "data1"]).success().stdout, format!("{path}\n"));
    let id = attached["volume"]["id"].as_str().unwrap();
    assert_eq!(appliance.run(&["device", &id[..8]]).success().stdout, format!("{path}\n"));
}

#[test]
fn device_waits_where_it_is_told_to() {
    let appliance = Appliance::start();
    appliance.cloud.settings(json!({"device_delay_ms": 1500}));
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let operation = appliance.ok(&["attach", "data1", "--no-wait"])["operation"]["id"].clone();
    let device = appliance.ok(&["device", "data1", "--wait", "20s"]);
    assert_eq!(device["volume_id"], appliance.truth("data1").unwrap()["id"]);
    assert!(fs::exists(device["device"]["path"].as_str().unwrap()).unwrap());
    appliance.ok(&["ops", "wait", operation.as_str().unwrap()]);
}

#[test]
fn find_says_which_volume_a_path_is() {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let device = &created["volume"]["device"];
    let (link, node) = (device["path"].as_str().unwrap(), device["node"].as_str().unwrap());
    let elsewhere = appliance.path("elsewhere");
    symlink(link, &elsewhere).unwrap();
    for path in [link, node, elsewhere.to_str().unwrap()] {
        let found = appliance.ok(&["find", path]);
        assert_eq!(found["volume"]["id"], created["volume"]["id"], "{path}");
        assert_eq!((&found["device"], &found["partition"]), (device, &json!(null)), "{path}");
    }
    let mut relative = appliance.command(&["--json", "find", "elsewhere"]);
    let output = relative.current_dir(elsewhere.parent().unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let ended = appliance.run(&["find", node]).success();
    names(&ended.stdout, &["data1", created["volume"]["id"].as_str().unwrap(), link]);
}

#[test]
fn find_does_not_guess() {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let node = created["volume"]["device"]["node"].as_str().unwrap();
    let copy = appliance.path("copy");
    fs::File::create(&copy).unwrap().set_len(1 << 30).unwrap();
    for path in [copy.to_str().unwrap(), "/dev/null", "/proc/self", "/nowhere/at-all"] {
        let error = appliance.json(&["find", path]).failure(3, "not_found");
        names(message(&error), &[path]);
    }
    // A link with a serial of nobody's volume.
    let link = appliance.path("by-id").join("virtio-0123456789abcdef0123");
    symlink(&copy, &link).unwrap();
    let error = appliance.json(&["find", link.to_str().unwrap()]).failure(3, "not_found");
    names(message(&error), &["0123456789abcdef0123"]);
    assert_eq!(appliance.ok(&["find", node])["volume"]["name"], "data1");
}

#[test]
fn tables_are_plain_columns_in_a_pipe() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1536M", "--export"]);
    appliance.ok(&["create", "data2", "--size", "1G"]);
    let ended = appliance.run(&["ls"]).success();
    let rows: Vec<Vec<&str>> = ended.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "ID", "SIZE", "STATE", "VM", "DEVICE", "EXPORT", "TAGS"]);
    let volume = appliance.show("data1");
    let row = rows.iter().find(|row| row[0] == "data1").unwrap();
    let (id, export) = (volume["id"].as_str().unwrap(), volume["export"]["name"].as_str().unwrap());
    assert_eq!(row[1..], [id, "2G", "Ready", "this-VM", volume["device"]["path"].as_str().unwrap(), export, "-"]);
    let row = rows.iter().find(|row| row[0] == "data2").unwrap();
    assert_eq!(row[2..], ["1G", "Allocated", "-", "-", "-", "-"]);
    assert!(rows.iter().any(|row| row[0] == "ROOT-worker" && row[4] == "worker"), "{rows:?}");

    for (line, words) in [
        (&["show", "data1"][..], &["data1", id, "2G (2147483648 bytes)", "Ready", "appliance", "active", "nbd://"][..]),
        (&["exports"], &[export, "active", "nbd://127.0.0.1:"]),
        (&["ops"], &["create", "data1", "succeeded"]),
        (&["health"], &["cloudstack", "store", "exports", "operations"]),
    ] {
        let ended = appliance.run(line).success();
        names(&ended.stdout, words);
        assert!(!ended.stdout.contains('\u{1b}'), "{line:?}");
    }
}

#[test]
fn quiet_prints_one_line() {
    let appliance = Appliance::start();
    let id = appliance.run(&["-q", "create", "data1", "--size", "1G"]).success().stdout;
    assert_eq!(id, format!("{}\n", appliance.truth("data1").unwrap()["id"].as_str().unwrap()));
    let device = appliance.run(&["-q", "attach", "data1"]).success().stdout;
    assert_eq!(device, format!("{}\n", appliance.show("data1")["device"]["path"].as_str().unwrap()));
    let uri = appliance.run(&["-q", "export", "data1"]).success().stdout;
    assert_eq!(uri, format!("{}\n", appliance.show("data1")["export"]["uris"][0].as_str().unwrap()));
    assert_eq!(appliance.run(&["-q", "show", "data1"]).success().stdout, uri);
    assert_eq!(appliance.run(&["-q", "attach", "data1", "--export"]).success().stdout, uri);
    assert_eq!(appliance.run(&["-q", "detach", "data1"]).success().stdout, id);
}

#[test]
fn what_is_old_is_asked_again() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let first = appliance.ok(&["ls", "--max-age", "0"]);
    let calls = appliance.cloud.calls("listVolumes");
    let second = appliance.ok(&["ls"]);
    assert_eq!(appliance.cloud.calls("listVolumes"), calls, "what is younger than 30 s is not");
    assert_eq!(first["volumes"][0]["cloudstack_as_of"], second["volumes"][0]["cloudstack_as_of"]);
    let id = appliance.truth("data1").unwrap()["id"].clone();
    appliance.cloud.admin("POST", "volume", json!({"id": id, "name": "renamed"}));
    let third = appliance.ok(&["ls", "--max-age", "0"]);
    assert!(third["volumes"].as_array().unwrap().iter().any(|volume| volume["name"] == "renamed"), "{third}");
}

#[test]
fn health_names_what_is_wrong() {
    let appliance = Appliance::start();
    assert_eq!(appliance.ok(&["health"])["healthy"], true);
    appliance.cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "cut-before"}));
    let ended = appliance.json(&["health"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let health = ended.json();
    assert_eq!(health["healthy"], false);
    let bad: Vec<_> = health["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(bad.iter().map(|check| &check["name"]).collect::<Vec<_>>(), ["cloudstack"]);
}

#[test]
fn a_volume_of_this_vm_is_shown_there_also_without_its_disk() {
    let appliance = Appliance::start();
    appliance.cloud.volume("data1");
    appliance.cloud.settings(json!({"devices_appear": false}));
    appliance.ok(&["attach", "data1", "--no-wait"]);
    wait_for("CloudStack to have it attached", || {
        appliance.truth("data1").unwrap()["virtualmachineid"].as_str().map(drop)
    });
    let volume = appliance.ok(&["show", "data1", "--max-age", "0s"])["volume"].clone();
    assert_eq!((&volume["this_vm"], &volume["device"]), (&json!(true), &json!(null)));
    let listed = appliance.run(&["ls", "--max-age", "0s"]).success().stdout;
    let line = listed.lines().find(|line| line.contains("data1")).unwrap();
    assert!(line.contains("this-VM"), "{line}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let appliance = Appliance::start();
    let ended: Ended = appliance.command(&["version"]).env("VOLCTL_SOCKET", "").output().unwrap().into();
    assert_ne!(ended.code, 2, "{ended:?}");
    let ended: Ended = appliance.command(&["--socket", "", "ls"]).output().unwrap().into();
    assert_eq!(ended.code, 2, "an empty option is a mistake: {ended:?}");
    let error = appliance.json(&["find", "/dev/disk/by-id/missing"]).failure(3, "not_found");
    names(message(&error), &["there is no /dev/disk/by-id/missing"]);
    names(hint(&error), &["seen here"]);
}
