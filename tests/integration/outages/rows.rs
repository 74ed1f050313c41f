//! Rows of the journal that cannot be read: they are stuck, they block nobody, and a human can end them.

use serde_json::json;

use crate::support::appliance::Appliance;
use crate::support::journal;
use crate::support::wait_for;
use crate::support::wording::{message, names};

#[test]
fn a_row_that_cannot_be_read_is_stuck_and_blocks_nobody() {
    for damage in [
        "story = '{'",
        "story = '{\"volume\": 7}'",
        "asker = 'nobody'",
        "deadline = 'tomorrow'",
        "step = 'a step of another version'",
        "error = '}'",
        "vm_id = 'this one'",
    ] {
        let mut appliance = Appliance::pausing_at("attach/send/before");
        for name in ["data", "other"] {
            appliance.cloud.volume(name);
            appliance.ok(&["attach", name, "--no-wait"]);
        }
        wait_for("both to stop", || (appliance.log().matches("paused at").count() == 2).then_some(()));
        appliance.kill_daemon();
        appliance.configure(|config| config.environment.clear());
        let state = appliance.path("state");
        journal::age(&state, jiff::SignedDuration::from_secs(75));
        journal::execute(&state, &format!("UPDATE operations SET {damage} WHERE volume_name = 'data'"));
        appliance.start_daemon();
        let of = |name: &str| {
            let operations = appliance.ok(&["ops"])["operations"].clone();
            let mut operations = operations.as_array().unwrap().clone().into_iter();
            operations.find(|operation| operation["volume_name"] == name).unwrap()
        };
        wait_for("the other to succeed", || (of("other")["status"] == "succeeded").then_some(()));
        let stuck = wait_for("the damaged one to be stuck", || Some(of("data")).filter(|row| row["status"] == "stuck"));
        names(message(&stuck["error"]), &["cannot be read"]);
        assert_eq!(appliance.json(&["health"]).code, 1);
        let id = stuck["id"].as_str().unwrap();
        appliance.json(&["attach", "data"]).failure(4, "busy");
        appliance.ok(&["ops", "abandon", id, "--reason", "damaged", "--yes"]);
        assert_eq!(appliance.ok(&["attach", "data"])["changed"], true, "{damage}");
    }
}

/// One that does not even tell its kind.
#[test]
fn a_row_without_a_kind_is_left_alone_and_said() {
    let mut appliance = Appliance::pausing_at("attach/check/before");
    appliance.cloud.volume("data");
    appliance.ok(&["attach", "data", "--no-wait"]);
    appliance.kill_daemon_at("attach/check/before");
    journal::execute(&appliance.path("state"), "UPDATE operations SET kind = 'teleport'");
    appliance.start_daemon();
    assert_eq!(appliance.ok(&["create", "other", "--size", "1G", "--attach"])["changed"], true);
    assert_eq!(appliance.ok(&["ops"])["operations"].as_array().unwrap().len(), 1);
    let ended = appliance.json(&["health"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stdout.contains("1 rows of the journal cannot be read"), "{ended:?}");
    assert_eq!(appliance.truth("data").unwrap()["virtualmachineid"], json!(null));
}
