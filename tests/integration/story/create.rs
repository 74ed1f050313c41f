//! `volctl create`

use serde_json::json;

use crate::support::appliance::{Appliance, Config};
use crate::support::simulator::{APPLIANCE, CUSTOM, FIXED, ZONE};
use crate::support::wording::{hint, message, names, notes};

const GIB: u64 = 1 << 30;

#[test]
fn what_was_not_said_is_chosen_and_said() {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "10500M"]);
    assert_eq!(created["changed"], true);
    names(&notes(&created), &["zone1", "custom", "11G", &(10500u64 << 20).to_string()]);
    let volume = &created["volume"];
    assert_eq!((&volume["size_bytes"], &volume["state"]), (&json!(11 * GIB), &json!("Allocated")));
    assert_eq!((&volume["vm_id"], &volume["device"], &volume["export"]), (&json!(null), &json!(null), &json!(null)));
    let truth = appliance.truth("data1").unwrap();
    assert_eq!((&truth["size"], &truth["diskofferingid"]), (&json!(11 * GIB), &json!(CUSTOM)));
    assert_eq!(truth["id"], volume["id"]);
}

#[test]
fn people_read_both_sizes_where_they_differ() {
    let appliance = Appliance::start();
    let ended = appliance.run(&["create", "data1", "--size", "1500M"]).success();
    names(&ended.stdout, &["data1", "2G", "1500M asked for"]);
    names(&ended.stderr, &["note: zone zone1", "note: offering custom"]);
}

#[test]
fn a_name_that_is_taken_is_a_conflict() {
    let appliance = Appliance::start();
    let first = appliance.ok(&["create", "data1", "--size", "1G"]);
    let error = appliance.json(&["create", "data1", "--size", "1G"]).failure(4, "conflict");
    names(message(&error), &["data1", first["volume"]["id"].as_str().unwrap(), "nothing was sent"]);
    names(hint(&error), &["--exists-ok"]);
    assert_eq!(appliance.cloud.calls("createVolume"), 1);
}

#[test]
fn an_existing_volume_is_taken_where_it_agrees() {
    let appliance = Appliance::start();
    let first = appliance.ok(&["create", "data1", "--size", "1G"]);
    let again = appliance.ok(&["create", "data1", "--size", "1G", "--exists-ok"]);
    assert_eq!((&again["changed"], &again["volume"]["id"]), (&json!(false), &first["volume"]["id"]));
    // 1000M are rounded up to the same.
    assert_eq!(appliance.ok(&["create", "data1", "--size", "1000M", "--exists-ok"])["changed"], false);

    let error = appliance.json(&["create", "data1", "--size", "2G", "--exists-ok"]).failure(4, "conflict");
    names(message(&error), &["differs", "1G", "2G"]);
    let line = ["create", "data1", "--offering", "fixed-5g", "--exists-ok"];
    names(message(&appliance.json(&line).failure(4, "conflict")), &["differs", "offering"]);
    let zone = json!({"id": "20000000-0000-4000-8000-000000000002", "name": "zone2", "allocationstate": "Enabled"});
    appliance.cloud.admin("POST", "zone", zone);
    let line = ["create", "data1", "--size", "1G", "--zone", "zone2", "--exists-ok"];
    names(message(&appliance.json(&line).failure(4, "conflict")), &["differs", "zone"]);
    assert_eq!(appliance.cloud.calls("createVolume"), 1);
}

#[test]
fn an_existing_volume_is_attached_where_that_is_asked() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let attached = appliance.ok(&["create", "data1", "--size", "1G", "--exists-ok", "--attach"]);
    assert_eq!((&attached["changed"], &attached["volume"]["vm_id"]), (&json!(true), &json!(APPLIANCE)));
    assert_eq!(attached["existed"], true);
    appliance.ok(&["detach", "data1"]);
    let said = appliance.run(&["create", "data1", "--size", "1G", "--exists-ok", "--attach"]).success().stdout;
    names(&said, &["exists already", "attached to this VM"]);
    assert!(!said.contains("created"), "{said}");
    let again = appliance.ok(&["create", "data1", "--size", "1G", "--exists-ok", "--attach"]);
    assert_eq!(again["changed"], false);
}

#[test]
fn where_several_fit_they_are_listed() {
    let appliance = Appliance::start();
    let zone = json!({"id": "20000000-0000-4000-8000-000000000002", "name": "zone2", "allocationstate": "Enabled"});
    appliance.cloud.admin("POST", "zone", zone);
    let error = appliance.json(&["create", "data1", "--size", "1G"]).failure(4, "ambiguous");
    names(message(&error), &["zone1", "zone2"]);
    names(hint(&error), &["--zone"]);
    let offering = json!({"id": "30000000-0000-4000-8000-000000000003", "name": "fast", "disksize": 0});
    appliance.cloud.admin("POST", "offering", offering);
    let error = appliance.json(&["create", "data1", "--size", "1G", "--zone", ZONE]).failure(4, "ambiguous");
    names(message(&error), &["custom", "fast"]);
    assert!(!message(&error).contains("fixed-5g"), "with --size an offering of fixed size does not fit: {error}");
    names(hint(&error), &["--offering"]);
    assert_eq!(appliance.cloud.calls("createVolume"), 0);

    let chosen = appliance.ok(&["create", "data1", "--size", "1G", "--zone", "zone1", "--offering", "fast"]);
    assert_eq!(chosen["notes"], json!([]), "nothing was chosen for the caller");
}

#[test]
fn the_configuration_has_defaults() {
    let cloudstack = "zone = \"zone1\"\ndisk_offering = \"fixed-5g\"\n".to_owned();
    let appliance = Appliance::with(Config { cloudstack, ..Config::default() });
    let created = appliance.ok(&["create", "data1"]);
    assert_eq!((&created["volume"]["size_bytes"], &created["notes"]), (&json!(5 * GIB), &json!([])));
    assert_eq!(appliance.truth("data1").unwrap()["diskofferingid"], FIXED);
    let error = appliance.json(&["create", "data2", "--size", "1G"]).failure(2, "usage");
    names(message(&error), &["fixed-5g", "5G", "--size"]);
    appliance.ok(&["create", "data2", "--size", "1G", "--offering", CUSTOM]);
}

#[test]
fn a_size_and_an_offering_must_fit() {
    let appliance = Appliance::start();
    let fixed = appliance.ok(&["create", "fixed"]);
    assert_eq!(fixed["volume"]["size_bytes"], 5 * GIB);
    names(&notes(&fixed), &["fixed-5g"]);
    let error = appliance.json(&["create", "data1", "--size", "5G", "--offering", "fixed-5g"]).failure(2, "usage");
    names(message(&error), &["fixed-5g", "fixed size 5G"]);
    let error = appliance.json(&["create", "data1", "--offering", "custom"]).failure(2, "usage");
    names(message(&error), &["custom", "--size is needed"]);
    let error = appliance.json(&["create", "data1", "--offering", "other"]).failure(3, "not_found");
    names(message(&error), &["other"]);
    names(hint(&error), &["custom", "fixed-5g"]);
    let error = appliance.json(&["create", "data1", "--size", "1G", "--zone", "other"]).failure(3, "not_found");
    names(message(&error), &["other"]);
    names(hint(&error), &["zone1"]);
    assert!(appliance.truth("data1").is_none());
}

#[test]
fn sizes_and_names_that_cannot_be_are_usage_errors() {
    let appliance = Appliance::start();
    for size in ["10GB", "0", "ten", "1.5G", "-1G", "99999999999999T"] {
        let size = format!("--size={size}");
        appliance.json(&["create", "data1", &size]).failure(2, "usage");
    }
    for name in ["", " ", "line\nbreak", "\u{1b}[2J", &"x".repeat(256)] {
        let ended = appliance.run(&["create", name, "--size", "1G"]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
    }
    assert_eq!(appliance.cloud.calls("createVolume"), 0);
}

#[test]
fn export_implies_attach() {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    let volume = &created["volume"];
    assert_eq!((&created["changed"], &volume["vm_id"]), (&json!(true), &json!(APPLIANCE)));
    assert_eq!(volume["device"]["serial"], volume["id"].as_str().unwrap().replace('-', "")[..20]);
    let export = &created["export"];
    assert_eq!((&export["state"], &export["read_only"]), (&json!("active"), &json!(false)));
    assert_eq!(export, &volume["export"]);
}

#[test]
fn a_refused_attach_takes_the_new_volume_with_it() {
    let appliance = Appliance::start();
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": "no such host"}));
    let ended = appliance.json(&["create", "data1", "--size", "1G", "--export"]);
    assert_eq!(ended.json()["operation"]["status"], "failed");
    let error = ended.failure(5, "cloudstack_refused");
    assert_eq!(error["cloudstack"]["text"], "no such host");
    names(message(&error), &["data1", "no such host", "deleted again"]);
    assert!(appliance.truth("data1").is_none_or(|volume| volume["removed"] == true), "it is still there");
    assert_eq!(appliance.ok(&["ls", "--max-age", "0"])["volumes"].as_array().unwrap().len(), 3, "the root volumes");
    assert_eq!(appliance.ok(&["ops"])["operations"][0]["status"], "failed");

    // What was there before is not taken away.
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": "no such host"}));
    let line = ["create", "data2", "--size", "1G", "--exists-ok", "--attach"];
    appliance.json(&line).failure(5, "cloudstack_refused");
    assert_eq!(appliance.truth("data2").unwrap()["removed"], false);
}

#[test]
fn a_refused_creation_says_what_cloudstack_said() {
    let appliance = Appliance::start();
    appliance.cloud.settings(json!({"max_volumes": 3}));
    let error = appliance.json(&["create", "data1", "--size", "1G"]).failure(5, "cloudstack_refused");
    assert_eq!(error["cloudstack"]["code"], 535);
    names(message(&error), &["creating volume data1", "535"]);
    names(hint(&error), &["limit"]);
}
