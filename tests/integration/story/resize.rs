//! `volctl resize`

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::nbd::Client;
use crate::support::simulator::FIXED;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names, notes};

const GIB: u64 = 1 << 30;

fn exported() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    appliance
}

#[test]
fn device_and_export_have_grown_when_it_has_ended() {
    let appliance = exported();
    let name = appliance.show("data1")["export"]["name"].as_str().unwrap().to_owned();
    let mut present = Client::enter(&appliance.path("nbd.sock"), &name).unwrap();
    let resized = appliance.ok(&["resize", "data1", "1500M"]);
    assert_eq!((&resized["changed"], &resized["operation"]["kind"]), (&json!(true), &json!("resize")));
    assert_eq!(resized["volume"]["size_bytes"], 2 * GIB);
    assert_eq!(resized["volume"]["device"]["size_bytes"], 2 * GIB);
    names(&notes(&resized), &["1572864000 bytes", "2G", "1 connected"]);
    assert!(present.read(GIB - 512, 512).is_ok(), "it keeps what it was told");
    assert!(present.read(2 * GIB - 512, 512).is_err(), "and no more");

    let uri = format!("nbd+unix:///{name}?socket={}", appliance.path("nbd.sock").display());
    let size = std::process::Command::new("nbdinfo").args(["--size", &uri]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&size.stdout).trim(), (2 * GIB).to_string());

    appliance.ok(&["detach", "data1", "--force"]);
    let shown = appliance.run(&["resize", "data1", "3G"]).success();
    names(&shown.stdout, &["data1 resized: 3G", &(3 * GIB).to_string()]);
    assert_eq!(appliance.ok(&["attach", "data1"])["volume"]["device"]["size_bytes"], 3 * GIB);
}

#[test]
fn the_same_size_is_no_change_and_a_smaller_one_is_refused() {
    let appliance = exported();
    assert_eq!(appliance.ok(&["resize", "data1", "1G"])["changed"], false);
    assert_eq!(appliance.ok(&["resize", "data1", "900M"])["changed"], false, "CloudStack makes whole GiB");
    appliance.ok(&["resize", "data1", "3G"]);
    let error = appliance.json(&["resize", "data1", "2G"]).failure(4, "conflict");
    names(message(&error), &["data1", "3G", "2G", "nothing was sent"]);
    for size in ["0", "-1G", "2GB", "lots", "99999999999T"] {
        assert_eq!(appliance.run(&["resize", "data1", size]).code, 2, "{size}");
    }
    assert_eq!(appliance.run(&["resize", "data1", "2000000T"]).code, 2);
    appliance.json(&["resize", "missing", "2G"]).failure(3, "not_found");
    assert_eq!(appliance.cloud.calls("resizeVolume"), 1);
}

#[test]
fn what_cloudstack_would_refuse_in_the_job_is_refused_before() {
    let appliance = Appliance::start();
    let strict = json!({"name": "strict", "disksizestrictness": true});
    appliance.cloud.admin("POST", "offering", strict);
    appliance.ok(&["create", "data1", "--size", "1G", "--offering", "strict"]);
    let error = appliance.json(&["resize", "data1", "2G"]).failure(4, "conflict");
    names(message(&error), &["data1", "strict"]);

    appliance.ok(&["create", "data2", "--size", "1G", "--offering", "custom"]);
    let id = appliance.truth("data2").unwrap()["id"].clone();
    appliance.cloud.admin("POST", "volume", json!({"id": id, "state": "Migrating"}));
    let error = appliance.json(&["resize", "data2", "2G"]).failure(4, "conflict");
    names(message(&error), &["data2", "Migrating"]);
    appliance.cloud.admin("POST", "volume", json!({"id": id, "state": "Ready"}));
    let taken = json!({"name": "s1", "volumeid": id, "virtualsize": GIB, "state": "BackingUp"});
    appliance.cloud.admin("POST", "snapshot", taken);
    let error = appliance.json(&["resize", "data2", "2G"]).failure(4, "busy");
    names(message(&error), &["s1", "data2", "BackingUp"]);

    let root = appliance.truth("ROOT-appliance").unwrap()["id"].as_str().unwrap().to_owned();
    let error = appliance.json(&["resize", &root, "20G"]).failure(4, "conflict");
    names(message(&error), &["own root disk"]);
    appliance.ok(&["create", "data3", "--offering", FIXED]);
    appliance.ok(&["hold", "data3", "--note", "mine"]);
    let error = appliance.json(&["resize", "data3", "9G"]).failure(4, "conflict");
    names(message(&error), &["data3", "mine"]);
    assert_eq!(appliance.cloud.calls("resizeVolume"), 0);
    appliance.ok(&["release", "data3"]);
    assert_eq!(appliance.ok(&["resize", "data3", "9G"])["volume"]["size_bytes"], 9 * GIB, "a fixed size is not strict");
}

#[test]
fn a_refusal_in_the_job_keeps_its_words_and_the_size() {
    let appliance = exported();
    appliance.cloud.settings(json!({"max_primary_storage_gib": 30}));
    let error = appliance.json(&["resize", "data1", "500G"]).failure(5, "cloudstack_refused");
    names(message(&error), &["data1", "1G", "500G"]);
    assert_eq!(error["cloudstack"]["code"], 535);
    assert_eq!(appliance.show("data1")["size_bytes"], GIB);
    let failed = json!({"command": "resizeVolume", "mode": "job-fail", "code": 530, "after_effect": true});
    appliance.cloud.fault(failed);
    assert_eq!(appliance.ok(&["resize", "data1", "2G"])["changed"], true, "it had its effect");
}

#[test]
fn a_guest_that_is_not_told_is_waited_for_and_a_detach_ends_it() {
    let appliance = exported();
    appliance.ok(&["unexport", "data1"]);
    appliance.cloud.settings(json!({"resize_notifies": false}));
    let ended = appliance.json(&["resize", "data1", "2G"]);
    let operation = ended.json()["operation"].clone();
    let error = ended.failure(6, "timeout");
    names(message(&error), &["data1", "2G", "2147483648 bytes", "in CloudStack", "still shows 1G"]);
    names(hint(&error), &["detach and attach", "volctl ops wait"]);
    assert_eq!(
        (&operation["status"], appliance.show("data1")["size_bytes"].as_u64()),
        (&json!("running"), Some(2 * GIB))
    );
    appliance.ok(&["detach", "data1"]);
    let id = operation["id"].as_str().unwrap();
    wait_for("the resize to make way", || {
        (appliance.ok(&["ops", "show", id])["operation"]["status"] == "cancelled").then_some(())
    });
    assert_eq!(appliance.ok(&["attach", "data1"])["volume"]["device"]["size_bytes"], 2 * GIB);
}

#[test]
fn a_device_that_grows_late_ends_the_resize() {
    let appliance = exported();
    appliance.cloud.settings(json!({"resize_notifies": false}));
    let id = appliance.ok(&["resize", "data1", "2G", "--no-wait"])["operation"]["id"].as_str().unwrap().to_owned();
    wait_for("the device to be waited for", || {
        let step = appliance.ok(&["ops", "show", &id])["operation"]["step"].clone();
        (step == "waiting for the device to show the new size").then_some(())
    });
    let device = appliance.show("data1")["device"]["path"].as_str().unwrap().to_owned();
    std::fs::File::options().write(true).open(device).unwrap().set_len(2 * GIB).unwrap();
    let ended: Value = appliance.ok(&["ops", "wait", &id]);
    assert_eq!(ended["operation"]["status"], "succeeded");
}

#[test]
fn a_dry_run_says_what_it_would_do() {
    let appliance = exported();
    let planned = appliance.ok(&["resize", "data1", "1500M", "--dry-run"]);
    names(&planned["plan"].to_string(), &["resizeVolume", "size=2", "device", "export"]);
    assert_eq!(appliance.ok(&["resize", "data1", "1G", "--dry-run"])["plan"], json!([]));
    assert_eq!(appliance.cloud.calls("resizeVolume"), 0);
}
