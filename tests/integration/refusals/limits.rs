//! Over the limit: connections, requests, clients of an export, and operations that have not ended.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::journal;
use crate::support::nbd::Client;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

#[test]
fn the_connection_that_is_too_much_is_told_so() {
    let appliance = Appliance::start();
    let mut idle = Vec::new();
    let error = wait_for("a refusal", || {
        idle.push(UnixStream::connect(appliance.socket()).unwrap());
        let ended = appliance.json(&["exports"]);
        (ended.code != 0).then_some(ended)
    });
    assert!(idle.len() > 200, "refused after {}", idle.len());
    let error = error.failure(4, "busy");
    names(message(&error), &["256 connections"]);
    assert_eq!(error["retryable"], true);
    idle.pop();
    wait_for("a place", || (appliance.json(&["exports"]).code == 0).then_some(()));
}

#[test]
fn the_request_that_is_too_much_is_told_so_and_the_others_stay() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let operation = appliance.ok(&["attach", "data", "--no-wait"])["operation"]["id"].clone();
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 1).then_some(()));
    let mut connection = UnixStream::connect(appliance.socket()).unwrap();
    let mut answers = BufReader::new(connection.try_clone().unwrap());
    for id in 0..=256 {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "operation.wait", "params": {"id": operation}});
        writeln!(connection, "{request}").unwrap();
    }
    let mut next = || -> Value {
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let refused = next();
    assert_eq!((&refused["id"], &refused["error"]["data"]["kind"]), (&json!(256), &json!("busy")), "{refused}");
    names(refused["error"]["message"].as_str().unwrap(), &["256 requests"]);
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    for _ in 0..256 {
        assert_eq!(next()["result"]["operation"]["status"], "succeeded");
    }
}

#[test]
fn the_client_of_an_export_that_is_too_much_is_not_let_in() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data", "--name", "disk"]);
    let socket = appliance.path("nbd.sock");
    let mut inside: Vec<Client> = (0..256).map(|_| Client::enter(&socket, "disk").unwrap()).collect();
    assert!(Client::enter(&socket, "disk").is_err(), "one more than 256");
    inside[0].read(0, 512).expect("the others stay");
    assert_eq!(appliance.ok(&["exports"])["exports"][0]["clients"].as_array().unwrap().len(), 256);
    drop(inside.pop());
    wait_for("a place", || Client::enter(&socket, "disk").ok());
}

#[test]
fn the_operation_that_is_too_much_is_not_begun() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data", "--size", "1G"]);
    appliance.kill_daemon();
    // As many as may be unfinished, all for a human.
    journal::execute(
        &appliance.path("state"),
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 4096)
         INSERT INTO operations (id, kind, status, step, step_words, new_name, request, asker, story, deadline,
                                 created_at, updated_at)
         SELECT printf('00000000-0000-4000-8000-%012d', n), kind, 'stuck', step, step_words, 'stuck' || n, request,
                asker, story, deadline, created_at, updated_at
         FROM operations, numbers",
    );
    appliance.start_daemon();
    let error = appliance.json(&["attach", "data"]).failure(4, "busy");
    names(message(&error), &["4096 operations"]);
    names(hint(&error), &["volctl ops"]);
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
    let first = "00000000-0000-4000-8000-000000000001";
    appliance.ok(&["ops", "abandon", first, "--reason", "to make room", "--yes"]);
    appliance.ok(&["attach", "data"]);
}
