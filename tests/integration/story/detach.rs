//! `volctl detach`: the fixed order, who is asked to go, and what a refusal leaves as it was.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::export::Holder;
use crate::support::appliance::{Appliance, Config};
use crate::support::nbd::Client;
use crate::support::simulator::WORKER;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names, notes};

/// An appliance with the export `disk` of the volume `data1`.
fn exported() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1", "--name", "disk"]);
    appliance
}

fn enter(appliance: &Appliance) -> Client {
    let mut client = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
    client.read(0, 512).unwrap();
    client
}

/// The export, without its rate, which ends by itself.
fn export(appliance: &Appliance) -> Value {
    let mut export = appliance.ok(&["exports"])["exports"][0].clone();
    export["traffic"]["requests_per_second"] = Value::Null;
    export
}

fn moment(document: &Value, key: &str) -> Timestamp {
    document[key].as_str().unwrap_or_else(|| panic!("no {key} in {document}")).parse().unwrap()
}

#[test]
fn the_result_tells_the_last_moments() {
    let appliance = exported();
    let device = appliance.show("data1")["device"]["path"].clone();
    let mut client = enter(&appliance);
    client.write(4096, &[7; 8192]).unwrap();
    drop(client);
    wait_for("the client to be gone", || (export(&appliance)["clients"] == json!([])).then_some(()));

    let before = Timestamp::now();
    let detached = appliance.ok(&["detach", "data1"]);
    assert_eq!((&detached["changed"], &detached["export"]), (&json!(true), &json!(null)));
    assert_eq!((&detached["bytes_written"], &detached["last_client"]), (&json!(8192), &json!("disconnected")));
    let (flushed, gone) = (moment(&detached, "flushed_at"), moment(&detached, "device_gone_at"));
    assert!(before <= flushed && flushed <= gone && gone <= Timestamp::now(), "{detached}");
    let volume = &detached["volume"];
    assert_eq!((&volume["vm_id"], &volume["device"], &volume["state"]), (&json!(null), &json!(null), &json!("Ready")));
    assert!(!std::fs::exists(device.as_str().unwrap()).unwrap());
    assert_eq!(appliance.truth("data1").unwrap().get("virtualmachineid"), Some(&json!(null)));
    assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));

    let again = appliance.ok(&["detach", "data1"]);
    assert_eq!(again["changed"], false);
    assert_eq!(appliance.cloud.calls("detachVolume"), 1);
    let ended = appliance.run(&["detach", "data1"]).success();
    assert_eq!(ended.stdout, "data1 is not attached to this VM: nothing to do\n");
}

/// A daemon that ends by itself leaves all it has counted, a killed one what it had some seconds before.
#[test]
fn what_clients_of_an_earlier_daemon_did_is_told() {
    let mut appliance = exported();
    let mut client = enter(&appliance);
    client.write(0, &[7; 8192]).unwrap();
    drop(client);
    wait_for("the client to be gone", || (export(&appliance)["clients"] == json!([])).then_some(()));
    let before = export(&appliance)["usage"].clone();
    assert_eq!((&before["bytes_written"], &before["bytes_read"]), (&json!(8192), &json!(512)), "{before}");
    assert!(moment(&before, "since") < moment(&before["last_client"], "at"), "{before}");
    assert!(before["last_client"]["address"].as_str().unwrap().starts_with("unix:pid="), "{before}");

    appliance.stop_daemon();
    appliance.start_daemon();
    let after = export(&appliance)["usage"].clone();
    for field in ["/bytes_read", "/bytes_written", "/last_client/address", "/last_client/left"] {
        assert_eq!(after.pointer(field), before.pointer(field), "{field}");
    }
    wait_for("the export", || (export(&appliance)["state"] == "active").then_some(()));
    let mut client = enter(&appliance);
    client.write(0, &[7; 512]).unwrap();
    wait_for("the count to be kept", || kept_bytes(&appliance).filter(|bytes| *bytes == 8704));
    appliance.kill_daemon();
    appliance.start_daemon();
    wait_for("the export", || (export(&appliance)["state"] == "active").then_some(()));
    let detached = appliance.ok(&["detach", "data1"]);
    assert_eq!((&detached["bytes_written"], &detached["last_client"]), (&json!(8704), &json!("cut off")));
}

/// Bytes written that the store knows of.
fn kept_bytes(appliance: &Appliance) -> Option<i64> {
    let database = rusqlite::Connection::open(appliance.path("state").join("volctl.db")).unwrap();
    database.query_row("SELECT bytes_written FROM exports", [], |row| row.get(0)).ok()
}

#[test]
fn without_an_export_there_is_a_flush_but_no_client() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let detached = appliance.ok(&["detach", "data1"]);
    assert_eq!((&detached["bytes_written"], &detached["last_client"]), (&json!(null), &json!(null)));
    assert!(moment(&detached, "flushed_at") <= moment(&detached, "device_gone_at"));
}

#[test]
fn connected_clients_are_named_and_nothing_is_changed() {
    let appliance = exported();
    let mut client = enter(&appliance);
    let before = export(&appliance);
    let ended = appliance.json(&["detach", "data1"]);
    assert_eq!(ended.json()["operation"]["status"], "failed");
    let error = ended.failure(4, "in_use");
    names(message(&error), &["data1", "disk", &format!("unix:pid={}", std::process::id()), "last request", " ago at "]);
    names(hint(&error), &["--drain", "--force"]);
    assert_eq!(export(&appliance), before, "a refusal leaves the export as it was");
    client.read(0, 512).expect("the client is still served");
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
    drop(enter(&appliance));
}

#[test]
fn drain_lets_clients_finish_and_takes_no_new_ones() {
    let appliance = exported();
    let mut client = enter(&appliance);
    let detaching = appliance.begin(&["detach", "data1", "--drain", "20s"]);
    wait_for("the export to drain", || (export(&appliance)["state"] == "draining").then_some(()));
    assert!(Client::enter(&appliance.path("nbd.sock"), "disk").is_err(), "a new client came in");
    client.write(0, &[1; 512]).expect("the client may finish");
    drop(client);
    let detached = detaching.end().success().json();
    assert_eq!((&detached["bytes_written"], &detached["last_client"]), (&json!(512), &json!("disconnected")));
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], json!(null));
}

#[test]
fn a_drain_that_is_over_gives_the_export_back() {
    let appliance = exported();
    let mut client = enter(&appliance);
    let error = appliance.json(&["detach", "data1", "--drain", "1s"]).failure(4, "in_use");
    names(message(&error), &["disk", &format!("unix:pid={}", std::process::id())]);
    assert_eq!(export(&appliance)["state"], "active");
    client.read(0, 512).unwrap();
    drop(enter(&appliance));
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
}

#[test]
fn force_closes_the_clients() {
    let appliance = exported();
    let mut client = enter(&appliance);
    client.write(0, &[1; 512]).unwrap();
    let detached = appliance.ok(&["detach", "data1", "--force"]);
    assert_eq!((&detached["last_client"], &detached["bytes_written"]), (&json!("cut off"), &json!(512)));
    assert!(client.read(0, 512).is_err());
}

#[test]
fn a_process_that_has_the_disk_open_is_named_and_not_overridden() {
    let appliance = exported();
    let before = export(&appliance);
    let holder = Holder::of(&appliance, "data1");
    for line in [&["detach", "data1"][..], &["detach", "data1", "--force"], &["detach", "data1", "--drain", "1s"]] {
        let error = appliance.json(line).failure(4, "in_use");
        names(message(&error), &["data1", &holder.id(), "sleep", "to free it"]);
        assert_eq!(export(&appliance), before);
    }
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
    drop(holder);
    assert_eq!(appliance.ok(&["detach", "data1"])["changed"], true);
}

#[test]
fn a_detach_that_cloudstack_refuses_gives_the_export_back() {
    let appliance = exported();
    appliance.cloud.fault(json!({"command": "detachVolume", "mode": "error", "code": 431, "text": "not today"}));
    let error = appliance.json(&["detach", "data1"]).failure(5, "cloudstack_refused");
    names(message(&error), &["detaching volume data1", "not today"]);
    assert_eq!(export(&appliance)["state"], "active");
    drop(enter(&appliance));
    appliance.ok(&["detach", "data1"]);
}

#[test]
fn from_a_stopped_vm_nothing_is_asked() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.ok(&["attach", "data1", "--vm", "old"]);
    let error = appliance.json(&["detach", "data1"]).failure(4, "conflict");
    names(message(&error), &["data1", "attached elsewhere", "old"]);
    names(hint(&error), &["--from"]);
    let detached = appliance.ok(&["detach", "data1", "--from", "old"]);
    assert_eq!(detached["changed"], true);
    names(&notes(&detached), &["old", "could not be checked"]);
    assert_eq!((&detached["flushed_at"], &detached["device_gone_at"]), (&json!(null), &json!(null)));
    assert_eq!(appliance.ok(&["detach", "data1", "--from", "old"])["changed"], false);
}

#[test]
fn from_a_running_vm_it_must_be_confirmed() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.ok(&["attach", "data1", "--vm", "worker"]);
    let error = appliance.json(&["detach", "data1", "--from", "worker"]).failure(2, "usage");
    names(message(&error), &["worker", WORKER, "running", "cannot be checked"]);
    names(hint(&error), &["--yes"]);
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
    let error = appliance.json(&["detach", "data1", "--from", "old", "--yes"]).failure(4, "conflict");
    names(message(&error), &["worker", "old"]);
    let detached = appliance.ok(&["detach", "data1", "--from", WORKER, "--yes"]);
    assert_eq!(detached["changed"], true);
    names(&notes(&detached), &["worker", "could not be checked"]);
}

#[test]
fn a_guest_that_holds_the_disk_is_waited_for_and_cloudstack_corrected() {
    let device = "timeout = \"1s\"\n".to_owned();
    let appliance = Appliance::with(Config { device, ..Config::default() });
    appliance.cloud.settings(json!({"wait_detach_device_ms": 100}));
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1"]);
    let id = appliance.truth("data1").unwrap()["id"].clone();
    appliance.cloud.admin("POST", "guest", json!({"volume": id, "hold": true}));
    let ended = appliance.json(&["detach", "data1"]);
    let operation = ended.json()["operation"].clone();
    assert_eq!(operation["status"], "running");
    names(operation["step"].as_str().unwrap(), &["waiting for the guest to let go", "CloudStack gave up"]);
    names(message(&ended.failure(6, "timeout")), &["data1", "still has the disk"]);
    assert_eq!(appliance.cloud.calls("detachVolume"), 1);
    appliance.json(&["export", "data1"]).failure(4, "busy");

    appliance.cloud.admin("POST", "guest", json!({"volume": id, "hold": false}));
    appliance.ok(&["ops", "wait", operation["id"].as_str().unwrap()]);
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], json!(null));
    assert_eq!(appliance.cloud.calls("detachVolume"), 2, "one more corrects what CloudStack lists");
}
