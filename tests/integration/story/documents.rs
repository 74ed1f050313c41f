//! `--json`: the keys of each document, exactly. What scripts read can gain keys, knowingly, and never lose one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::nbd::Client;

const VOLUME: &[&str] = &[
    "id",
    "name",
    "size_bytes",
    "state",
    "zone_id",
    "vm_id",
    "device_id",
    "device",
    "export",
    "hold",
    "cloudstack_as_of",
    "type",
    "this_vm",
    "vm_name",
    "stale",
    "tags",
];
const DEVICE: &[&str] = &["path", "node", "serial", "size_bytes"];
const EXPORT: &[&str] = &[
    "name",
    "volume_id",
    "volume_name",
    "read_only",
    "shared",
    "access",
    "uris",
    "clients",
    "traffic",
    "device_path",
    "state",
    "usage",
];
const TRAFFIC: &[&str] = &["requests", "requests_per_second", "errors", "last_flush"];
const USAGE: &[&str] = &["since", "bytes_read", "bytes_written", "last_client"];
const CLIENT: &[&str] = &["address", "subject", "since", "last_request"];
const OPERATION: &[&str] = &[
    "id",
    "kind",
    "status",
    "step",
    "volume_id",
    "vm_id",
    "error",
    "created_at",
    "updated_at",
    "usual",
    "finished_at",
    "volume_name",
];
const CHANGE: &[&str] = &["schema", "changed", "operation", "volume", "export", "notes"];
const DEPARTURE: &[&str] = &["flushed_at", "bytes_written", "last_client", "device_gone_at"];
const ERROR: &[&str] = &["kind", "message", "hint", "retryable", "cloudstack"];
const CLOUDSTACK: &[&str] = &["code", "cserrorcode", "text"];

#[track_caller]
fn has(value: &Value, keys: &[&str]) {
    let found: BTreeSet<&str> =
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect();
    assert_eq!(found, keys.iter().copied().collect(), "{value}");
}

fn exported() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    appliance
}

#[test]
fn a_change() {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    has(&created, CHANGE);
    has(&created["volume"], VOLUME);
    has(&created["volume"]["device"], DEVICE);
    has(&created["export"], EXPORT);
    has(&created["operation"], OPERATION);
    assert_eq!((&created["schema"], &created["volume"]["name"]), (&json!(1), &json!("data1")));
    let operation = &created["operation"];
    assert_eq!((&operation["kind"], &operation["status"]), (&json!("create"), &json!("succeeded")));
    assert_eq!((&operation["volume_id"], &operation["error"]), (&created["volume"]["id"], &json!(null)));
    for moment in ["created_at", "updated_at", "finished_at"] {
        operation[moment].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(operation[moment].as_str().unwrap().ends_with('Z'), "{operation}");
    }
    for verb in ["unexport", "detach"] {
        has(&appliance.ok(&[verb, "data1"]), &[CHANGE, DEPARTURE].concat());
    }
    has(&appliance.ok(&["delete", "data1", "--yes"]), CHANGE);
    has(&appliance.ok(&["recover", "data1"]), CHANGE);
}

#[test]
fn looks() {
    let appliance = exported();
    let node = appliance.show("data1")["device"]["node"].as_str().unwrap().to_owned();
    has(&appliance.ok(&["ls"]), &["schema", "volumes", "notes"]);
    has(&appliance.ok(&["ls"])["volumes"][0], VOLUME);
    has(&appliance.ok(&["show", "data1"]), &["schema", "volume", "notes"]);
    has(&appliance.ok(&["device", "data1"]), &["schema", "volume_id", "device"]);
    has(&appliance.ok(&["device", "data1"])["device"], DEVICE);
    has(&appliance.ok(&["find", &node]), &["schema", "volume", "device", "partition"]);
    has(&appliance.ok(&["exports"]), &["schema", "exports"]);
    has(&appliance.ok(&["ops"]), &["schema", "operations"]);
    let id = appliance.ok(&["ops"])["operations"][0]["id"].clone();
    has(&appliance.ok(&["ops", "show", id.as_str().unwrap()])["operation"], OPERATION);
    let health = appliance.ok(&["health"]);
    has(&health, &["schema", "healthy", "checks"]);
    has(&health["checks"][0], &["name", "ok", "message", "age_seconds"]);
}

#[test]
fn a_client_of_an_export() {
    let appliance = exported();
    let name = appliance.show("data1")["export"]["name"].as_str().unwrap().to_owned();
    let mut client = Client::enter(&appliance.path("nbd.sock"), &name).unwrap();
    client.read(0, 512).unwrap();
    let export = appliance.ok(&["exports"])["exports"][0].clone();
    has(&export, EXPORT);
    has(&export["traffic"], TRAFFIC);
    assert_eq!(export["usage"]["bytes_read"], 512);
    has(&export["clients"][0], CLIENT);
    has(&export["usage"], USAGE);
    has(&export["usage"]["last_client"], &["address", "at", "left"]);
    assert_eq!(export["clients"][0]["address"], format!("unix:pid={},uid=0", std::process::id()));
}

#[test]
fn lists_are_empty_and_not_missing() {
    let appliance = Appliance::start();
    assert_eq!(appliance.ok(&["exports"]), json!({"schema": 1, "exports": []}));
    assert_eq!(appliance.ok(&["ops"]), json!({"schema": 1, "operations": []}));
    assert_eq!(appliance.ok(&["ls"])["volumes"].as_array().unwrap().len(), 3, "the root volumes");
}

#[test]
fn errors() {
    let appliance = Appliance::start();
    let early = appliance.json(&["attach", "missing"]);
    has(&early.json(), &["schema", "error", "operation"]);
    has(&early.json()["error"], ERROR);
    assert_eq!((&early.json()["operation"], &early.json()["error"]["cloudstack"]), (&json!(null), &json!(null)));

    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": "no such host"}));
    let late = appliance.json(&["attach", "data1"]).json();
    has(&late, &["schema", "error", "operation"]);
    has(&late["error"], ERROR);
    has(&late["error"]["cloudstack"], CLOUDSTACK);
    has(&late["operation"], OPERATION);
    assert_eq!(late["operation"]["error"], late["error"]);

    let unreachable = appliance.command(&["--json", "--socket", "/nowhere.sock", "ls"]).output().unwrap();
    has(&serde_json::from_slice(&unreachable.stdout).unwrap(), &["schema", "error", "operation"]);
    let usage = appliance.json(&["create"]);
    has(&usage.json()["error"], ERROR);
    assert_eq!((usage.code, usage.stderr.as_str()), (2, ""));
}

#[test]
fn results_of_several() {
    let appliance = exported();
    let several = appliance.json(&["export", "data1", "ROOT-worker"]).json();
    has(&several, &["schema", "results"]);
    has(&several["results"][0], CHANGE);
    has(&several["results"][1], &["schema", "error", "operation"]);
}
