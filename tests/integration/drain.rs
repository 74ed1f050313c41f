//! `volctl drain`: nothing new is taken, what is there ends, the exports go, and what stays attached is said.

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::nbd::Client;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

fn exported() -> (Appliance, String) {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    let name = created["export"]["name"].as_str().unwrap().to_owned();
    (appliance, name)
}

fn attached_names(drained: &Value) -> Vec<&str> {
    drained["attached"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect()
}

#[test]
fn a_drain_ends_the_exports_and_says_what_stays() {
    let (appliance, name) = exported();
    let drained = appliance.ok(&["drain"]);
    assert_eq!(drained["unexported"], json!([name]));
    assert_eq!(drained["detached"], json!([]));
    assert_eq!(attached_names(&drained), ["data1"]);
    assert!(drained["since"].is_string());
    assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
    let text = appliance.run(&["drain"]).success().stdout;
    assert!(text.contains("data1 (") && text.contains("stays attached: ") && text.contains("drained"), "{text}");

    let detached = appliance.ok(&["drain", "--detach"]);
    assert_eq!(detached["detached"][0]["name"], "data1");
    assert_eq!(detached["attached"], json!([]));
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], json!(null));
}

#[test]
fn a_drained_daemon_refuses_changes_also_after_a_restart_until_it_is_ended() {
    let (mut appliance, _) = exported();
    appliance.ok(&["drain"]);
    for _ in 0..2 {
        let error = appliance.json(&["create", "data2", "--size", "1G"]).failure(4, "conflict");
        names(message(&error), &["drained since", "no new change"]);
        names(hint(&error), &["volctl drain --end"]);
        appliance.ok(&["ls"]);
        appliance.kill_daemon();
        appliance.start_daemon();
    }
    assert_eq!(appliance.cloud.calls("createVolume"), 1);
    assert_eq!(appliance.ok(&["drain", "--end"])["since"], json!(null));
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.ok(&["export", "data1"]);
}

#[test]
fn clients_are_waited_for_and_new_ones_refused() {
    let (appliance, name) = exported();
    let socket = appliance.path("nbd.sock");
    let mut client = Client::enter(&socket, &name).unwrap();
    client.write(0, b"still here").unwrap();

    let error = appliance.json(&["drain", "--dry-run"]).failure(4, "in_use");
    names(message(&error), &["client", &name]);
    appliance.ok(&["create", "data2", "--size", "1G"]);

    let error = appliance.json(&["drain", "--timeout", "1s"]).failure(6, "timeout");
    names(message(&error), &["not drained yet", "client", &name]);
    assert!(Client::enter(&socket, &name).is_err(), "no new client comes in");
    assert_eq!(client.read(0, 10).unwrap(), b"still here", "the present one goes on");

    let waiting = appliance.begin(&["drain"]);
    drop(client);
    let drained = waiting.end().success().json();
    assert_eq!(drained["unexported"], json!([name]));
    appliance.ok(&["drain", "--dry-run"]);
}

#[test]
fn an_export_that_comes_back_takes_no_clients_while_it_is_drained() {
    let (mut appliance, name) = exported();
    let socket = appliance.path("nbd.sock");
    let client = Client::enter(&socket, &name).unwrap();
    appliance.json(&["drain", "--timeout", "0s"]).failure(6, "timeout");
    drop(client);
    appliance.kill_daemon();
    appliance.start_daemon();
    let state = || appliance.ok(&["exports"])["exports"][0]["state"].as_str().map(str::to_owned);
    wait_for("the export to come back", || (state().as_deref() == Some("draining")).then_some(()));
    assert!(Client::enter(&socket, &name).is_err());
    appliance.ok(&["drain", "--end"]);
    Client::enter(&socket, &name).unwrap();
}

#[test]
fn operations_are_waited_for() {
    let appliance = Appliance::with(Config::default());
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let attach = appliance.ok(&["attach", "data1", "--no-wait"]);
    let id = attach["operation"]["id"].as_str().unwrap();
    let error = appliance.json(&["drain", "--timeout", "1s"]).failure(6, "timeout");
    names(message(&error), &["operation", id, "data1"]);
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    assert_eq!(attached_names(&appliance.ok(&["drain"])), ["data1"]);
    assert_eq!(appliance.ok(&["ops", "show", id])["operation"]["status"], "succeeded");
}

#[test]
fn a_hold_is_in_the_way_of_its_export_and_is_told_once() {
    let (appliance, _) = exported();
    appliance.ok(&["hold", "data1", "--note", "ask Ann"]);
    names(message(&appliance.json(&["drain", "--dry-run"]).failure(4, "in_use")), &["data1", "held by", "ask Ann"]);
    let waited = appliance.run(&["drain", "--detach", "--timeout", "7s"]);
    assert_eq!(waited.code, 6, "{waited:?}");
    assert_eq!(waited.stderr.matches("waiting for").count(), 1, "{waited:?}");
    assert_eq!(appliance.ok(&["ops", "--kind", "unexport"])["operations"], json!([]), "nothing is tried in vain");
    let waiting = appliance.begin(&["drain"]);
    appliance.ok(&["release", "data1"]);
    assert_eq!(attached_names(&waiting.end().success().json()), ["data1"]);
}
