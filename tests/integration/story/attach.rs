//! `volctl attach`

use serde_json::json;

use crate::support::appliance::{Appliance, Config};
use crate::support::simulator::{APPLIANCE, OLD, WORKER};
use crate::support::wording::{hint, message, names, notes};

fn with_volume(name: &str) -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", name, "--size", "1G"]);
    appliance
}

#[test]
fn here_it_becomes_a_device() {
    let appliance = with_volume("data1");
    let attached = appliance.ok(&["attach", "data1"]);
    assert_eq!(
        (&attached["changed"], &attached["export"], &attached["notes"]),
        (&json!(true), &json!(null), &json!([]))
    );
    let volume = &attached["volume"];
    assert_eq!((&volume["vm_id"], &volume["state"]), (&json!(APPLIANCE), &json!("Ready")));
    let serial = &volume["id"].as_str().unwrap().replace('-', "")[..20];
    let link = appliance.path("by-id").join(format!("virtio-{serial}"));
    let node = link.canonicalize().unwrap();
    assert_eq!(volume["device"], json!({"path": link, "node": node, "serial": serial, "size_bytes": 1 << 30}));
    assert_eq!(appliance.truth("data1").unwrap()["deviceid"], volume["device_id"]);

    let again = appliance.ok(&["attach", "data1"]);
    assert_eq!((&again["changed"], &again["volume"]["device"]), (&json!(false), &volume["device"]));
    assert_eq!(appliance.cloud.calls("attachVolume"), 1);
    let ended = appliance.run(&["attach", "data1"]).success();
    assert_eq!(ended.stdout, format!("data1 is already attached to this VM: {}\n", link.display()));
}

#[test]
fn on_another_vm_nothing_is_correlated_and_the_output_says_so() {
    let appliance = Appliance::start();
    for (name, vm) in [("data1", WORKER), ("data2", "worker"), ("data3", OLD)] {
        appliance.ok(&["create", name, "--size", "1G"]);
        let attached = appliance.ok(&["attach", name, "--vm", vm]);
        assert_eq!((&attached["changed"], &attached["volume"]["device"]), (&json!(true), &json!(null)));
        names(&notes(&attached), &["not this VM", "no device"]);
        assert_eq!(appliance.truth(name).unwrap()["virtualmachineid"], attached["volume"]["vm_id"]);
        assert_eq!(appliance.ok(&["attach", name, "--vm", vm])["changed"], false);
    }
}

#[test]
fn elsewhere_is_a_conflict() {
    let appliance = with_volume("data1");
    appliance.ok(&["attach", "data1", "--vm", "worker"]);
    for line in [&["attach", "data1"][..], &["attach", "data1", "--vm", "old"]] {
        let error = appliance.json(line).failure(4, "conflict");
        names(message(&error), &["data1", "attached elsewhere", "worker", WORKER, "nothing was sent"]);
        names(hint(&error), &["volctl detach", "--from"]);
    }
    appliance.ok(&["create", "data2", "--size", "1G", "--attach"]);
    let error = appliance.json(&["attach", "data2", "--vm", "worker"]).failure(4, "conflict");
    names(message(&error), &["attached to this VM"]);
    assert_eq!(appliance.cloud.calls("attachVolume"), 2);
}

#[test]
fn free_slots_are_counted_before_anything_is_sent() {
    let device = "timeout = \"2s\"\nmax_disks = 1\n".to_owned();
    let appliance = Appliance::with(Config { device, ..Config::default() });
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["create", "data2", "--size", "1G"]);
    let error = appliance.json(&["attach", "data2"]).failure(4, "conflict");
    names(message(&error), &["appliance", "no free slot", "1 of 1", "nothing was sent"]);
    appliance.json(&["create", "data3", "--size", "1G", "--attach"]).failure(4, "conflict");
    assert!(appliance.truth("data3").is_none(), "it is counted before the volume is created");
    assert_eq!(appliance.cloud.calls("attachVolume"), 1);
    appliance.ok(&["attach", "data2", "--vm", "worker"]);
}

#[test]
fn a_slot_that_only_cloudstack_misses_is_its_refusal() {
    let appliance = with_volume("data1");
    appliance.cloud.settings(json!({"max_data_disks": 0}));
    let ended = appliance.json(&["attach", "data1"]);
    assert_eq!(ended.json()["operation"]["status"], "failed");
    let error = ended.failure(5, "cloudstack_refused");
    names(message(&error), &["attaching volume data1", "maximum"]);
    assert!(error["cloudstack"]["text"].is_string(), "{error}");
}

#[test]
fn an_export_comes_with_it() {
    let appliance = with_volume("data1");
    let attached = appliance.ok(&["attach", "data1", "--export", "--read-only"]);
    assert_eq!((&attached["export"]["read_only"], &attached["export"]["state"]), (&json!(true), &json!("active")));
    assert_eq!(appliance.ok(&["attach", "data1", "--export", "--read-only"])["changed"], false);
    let error = appliance.json(&["attach", "data1", "--export"]).failure(4, "conflict");
    names(message(&error), &["exported already, read-only"]);

    appliance.ok(&["unexport", "data1"]);
    let later = appliance.ok(&["attach", "data1", "--export"]);
    assert_eq!((&later["changed"], &later["export"]["read_only"]), (&json!(true), &json!(false)));
    assert_eq!(appliance.cloud.calls("attachVolume"), 1);
}

#[test]
fn an_export_on_another_vm_is_a_usage_error() {
    let appliance = with_volume("data1");
    appliance.json(&["attach", "data1", "--vm", "worker", "--export"]).failure(2, "usage");
    appliance.json(&["attach", "data1", "--read-only"]).failure(2, "usage");
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}

#[test]
fn several_volumes_have_results_in_their_order() {
    let appliance = with_volume("data1");
    appliance.ok(&["create", "data2", "--size", "1G"]);
    let both = appliance.ok(&["attach", "data2", "data1"]);
    assert_eq!(both["schema"], 1);
    let results = both["results"].as_array().unwrap();
    let names: Vec<_> = results.iter().map(|result| &result["volume"]["name"]).collect();
    assert_eq!(names, ["data2", "data1"]);

    appliance.ok(&["create", "data3", "--size", "1G"]);
    appliance.ok(&["attach", "data3", "--vm", "worker"]);
    let ended = appliance.json(&["detach", "data1", "data3", "data2"]);
    assert_eq!(ended.code, 1, "they did not all fail alike: {ended:?}");
    let results = ended.json()["results"].clone();
    assert_eq!((&results[0]["changed"], &results[2]["changed"]), (&json!(true), &json!(true)));
    assert_eq!(results[1]["error"]["kind"], "conflict");
    assert_eq!(results[1]["operation"], json!(null));
    assert_eq!(appliance.json(&["detach", "missing", "absent"]).code, 3);
    appliance.json(&["attach", "data1", "data1"]).failure(4, "conflict");
}

#[test]
fn the_root_disk_of_this_vm_is_never_touched() {
    let appliance = with_volume("data1");
    for line in [
        &["export", "ROOT-appliance"][..],
        &["attach", "ROOT-appliance"],
        &["detach", "ROOT-appliance", "--force"],
        &["detach", "ROOT-appliance", "--from", "appliance", "--yes"],
        &["delete", "ROOT-appliance", "--yes", "--expunge"],
    ] {
        let error = appliance.json(line).failure(4, "conflict");
        names(message(&error), &["ROOT-appliance", "root"]);
    }
    for command in ["attachVolume", "detachVolume", "destroyVolume", "deleteVolume"] {
        assert_eq!(appliance.cloud.calls(command), 0, "{command}");
    }
}

#[test]
fn what_cloudstack_says_of_a_failed_job_is_in_the_error() {
    let appliance = with_volume("data1");
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": "no such host"}));
    let ended = appliance.json(&["attach", "data1"]);
    assert_eq!(ended.json()["operation"]["status"], "failed");
    let error = ended.failure(5, "cloudstack_refused");
    assert_eq!(error["cloudstack"], json!({"code": 530, "cserrorcode": null, "text": "no such host"}));
    names(message(&error), &["attaching volume data1", "no such host"]);
    assert_eq!(appliance.ok(&["attach", "data1"])["changed"], true, "nothing stands in the way of another try");
}
