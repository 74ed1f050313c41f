//! `volctl exports check` and `volctl exports prune`.

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::nbd::Client;
use crate::support::scenario::{detach_behind_our_back, id};
use crate::support::wait_for;
use crate::support::wording::names;

/// An appliance with the export `disk` of the volume `data`.
fn exported() -> Appliance {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data", "--name", "disk"]);
    appliance
}

/// What is wrong with the one export, together.
fn findings(appliance: &Appliance) -> String {
    let ended = appliance.json(&["exports", "check"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let document = ended.json();
    assert_eq!(document["healthy"], false);
    let findings = document["exports"][0]["findings"].as_array().unwrap().clone();
    findings.iter().map(|finding| finding.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

fn count(appliance: &Appliance) -> usize {
    appliance.ok(&["exports"])["exports"].as_array().unwrap().len()
}

fn pruned(document: &Value, list: &str) -> Vec<String> {
    document[list].as_array().unwrap().iter().map(|export| export["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_as_it_should_be_is_said_to_be_so() {
    let appliance = exported();
    let checked = appliance.ok(&["exports", "check"]);
    assert_eq!((&checked["healthy"], &checked["exports"][0]["findings"]), (&json!(true), &json!([])));
    assert_eq!(checked["exports"][0]["export"]["clients"], json!([]), "the check is no client");
    names(&appliance.run(&["exports", "check"]).success().stdout, &["NAME", "disk", "ok"]);
}

#[test]
fn each_thing_that_is_wrong_is_a_sentence() {
    let appliance = exported();
    appliance.cloud.admin("POST", "volume", json!({"id": id(&appliance), "size": 2_u64 << 30}));
    names(&findings(&appliance), &["1073741824 bytes where CloudStack says 2147483648"]);
    appliance.cloud.admin("POST", "volume", json!({"id": id(&appliance), "virtualmachineid": null}));
    names(&findings(&appliance), &["attached nowhere"]);
    appliance.cloud.fault(json!({"command": "listVolumes", "mode": "cut-before", "times": 1000}));
    let ended = appliance.json(&["exports", "check"]);
    assert_eq!(
        (ended.code, &ended.json()["exports"][0]["findings"]),
        (1, &json!([])),
        "what is not known is no finding"
    );
    names(&ended.stdout, &["could not be looked at in CloudStack"]);
}

#[test]
fn an_export_that_has_lost_its_volume_is_pruned_and_others_are_not() {
    let appliance = exported();
    appliance.ok(&["create", "other", "--size", "1G", "--export"]);
    assert_eq!(appliance.run(&["exports", "prune"]).success().stdout, "nothing to prune\n");
    detach_behind_our_back(&appliance);
    wait_for("the disk to be gone", || (appliance.show("data")["device"] == json!(null)).then_some(()));
    names(&findings(&appliance), &["attached nowhere", "its device is not here"]);

    appliance.cloud.fault(json!({"command": "listVolumes", "mode": "cut-before", "times": 1000}));
    let unknown = appliance.ok(&["exports", "prune", "--yes"]);
    assert_eq!((&unknown["exports"], count(&appliance)), (&json!([]), 2), "unknown is never an orphan");
    names(&unknown["notes"].to_string(), &["could not be looked at in CloudStack"]);
    appliance.cloud.admin("DELETE", "faults", json!({}));

    appliance.json(&["exports", "prune"]).failure(2, "usage");
    assert_eq!(pruned(&appliance.ok(&["exports", "prune", "--dry-run"]), "exports").len(), 1);
    appliance.ok(&["hold", "data", "--note", "keep it"]);
    let held = appliance.ok(&["exports", "prune", "--yes"]);
    assert_eq!((&held["exports"], count(&appliance)), (&json!([]), 2));
    names(&pruned(&held, "left").join(""), &["held by", "keep it"]);
    appliance.ok(&["release", "data"]);
    let ended = appliance.ok(&["exports", "prune", "--yes"]);
    assert_eq!(ended["exports"][0]["operation"]["status"], "succeeded");
    assert_eq!(appliance.ok(&["exports"])["exports"][0]["volume_id"], appliance.show("other")["id"]);
}

#[test]
fn an_export_without_a_client_for_long_is_pruned_one_with_a_client_never() {
    let appliance = exported();
    let mut client = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
    client.read(0, 512).unwrap();
    assert_eq!(appliance.ok(&["exports", "prune", "--idle-for", "7d", "--yes"])["exports"], json!([]));
    let since = jiff::Timestamp::now();
    wait_for("a second to pass", || (since.duration_until(jiff::Timestamp::now()).as_secs() > 0).then_some(()));
    assert_eq!(appliance.ok(&["exports", "prune", "--idle-for", "1s", "--yes"])["exports"], json!([]));
    client.read(0, 512).expect("the client is still served");
    drop(client);
    let ended = wait_for("it to be idle for a second", || {
        let pruned = appliance.ok(&["exports", "prune", "--idle-for", "1s", "--yes"]);
        (pruned["exports"] != json!([])).then_some(pruned)
    });
    names(&pruned(&ended, "exports").join(""), &["last client", "ago"]);
    assert_eq!(count(&appliance), 0);
    assert!(appliance.show("data")["device"].is_object(), "the volume stays attached");
}
