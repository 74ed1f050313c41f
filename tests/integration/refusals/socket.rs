//! The control socket, spoken to by hand: what is no request is answered, and costs that connection only.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config, Ended};
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

/// A connection to the daemon.
fn connect(appliance: &Appliance) -> UnixStream {
    let stream = UnixStream::connect(appliance.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// One line of an answer.
fn answer(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// Sends a line and gives its answer.
fn ask(appliance: &Appliance, line: &str) -> Value {
    let mut stream = connect(appliance);
    writeln!(stream, "{line}").unwrap();
    answer(&stream)
}

/// Panics unless the daemon ends the connection.
fn is_closed(mut stream: UnixStream) {
    match stream.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("it is kept open: {error}"),
        _ => {}
    }
}

#[test]
fn nothing_listens_on_the_socket() {
    let appliance = Appliance::stopped(Config::default());
    let error = appliance.json(&["ls"]).failure(7, "daemon_unreachable");
    names(message(&error), &[appliance.socket().to_str().unwrap()]);
    names(hint(&error), &["volctld"]);
    // Left behind by a daemon that was killed.
    drop(UnixListener::bind(appliance.socket()).unwrap());
    let error = appliance.json(&["attach", "data1"]).failure(7, "daemon_unreachable");
    names(message(&error), &[appliance.socket().to_str().unwrap()]);
    let ended = appliance.run(&["ls"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (7, ""));
}

/// `volctl`, run by nobody in particular.
fn as_nobody(appliance: &Appliance, words: &[&str]) -> Ended {
    let copy = appliance.path("volctl");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_volctl"), &copy).unwrap();
        fs::set_permissions(appliance.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    }
    let mut command = Command::new(copy);
    command.env_clear().env("VOLCTL_SOCKET", appliance.socket()).arg("--json").args(words).uid(65_534).gid(65_534);
    command.output().unwrap().into()
}

/// The third, a service that cannot start, is `daemon::a_daemon_that_cannot_start_…`.
#[test]
fn no_socket_nobody_behind_it_and_no_right_on_it_are_told_apart() {
    let appliance = Appliance::stopped(Config::default());
    let error = as_nobody(&appliance, &["ls"]).failure(7, "daemon_unreachable");
    names(message(&error), &["there is no daemon's socket at"]);
    names(hint(&error), &["systemctl start volctld.socket", "--socket"]);
    let listener = UnixListener::bind(appliance.socket()).unwrap();
    fs::set_permissions(appliance.socket(), fs::Permissions::from_mode(0o660)).unwrap();
    let error = as_nobody(&appliance, &["ls"]).failure(8, "not_permitted");
    names(message(&error), &["no right to connect to the daemon's socket"]);
    names(hint(&error), &["usermod -aG volctl"]);
    drop(listener);
    let error = appliance.json(&["ls"]).failure(7, "daemon_unreachable");
    names(message(&error), &["no daemon listens on"]);
    names(hint(&error), &["systemctl start volctld.socket"]);
}

#[test]
fn other_users_may_not_connect_and_never_change() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let error = as_nobody(&appliance, &["ls"]).failure(8, "not_permitted");
    names(message(&error), &[appliance.socket().to_str().unwrap()]);

    // As a member of the group that may look.
    fs::set_permissions(appliance.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(as_nobody(&appliance, &["ls"]).success().json()["volumes"].as_array().unwrap().len(), 4);
    let id = appliance.ok(&["ops"])["operations"][0]["id"].as_str().unwrap().to_owned();
    for line in [
        &["attach", "data1"][..],
        &["create", "data2", "--size", "1G"],
        &["delete", "data1", "--yes"],
        &["recover", "data1"],
        &["detach", "data1"],
        &["export", "data1"],
        &["unexport", "data1"],
        &["ops", "cancel", &id],
    ] {
        let error = as_nobody(&appliance, line).failure(8, "not_permitted");
        names(message(&error), &["65534", "may look"]);
    }
    as_nobody(&appliance, &["ops", "wait", &id]).success();
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}

#[test]
fn what_is_no_request_has_the_standards_codes() {
    let appliance = Appliance::start();
    for (line, code) in [
        ("not json", -32700),
        ("{\"jsonrpc\":\"2.0\",", -32700),
        ("[]", -32600),
        ("42", -32600),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"volume.list\"}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"volume.list\"}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"volume.explode\"}", -32601),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"volume.attach\",\"params\":\"data1\"}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"volume.attach\",\"params\":[\"data1\"]}", -32602),
    ] {
        let answer = ask(&appliance, line);
        assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
        assert_eq!(answer["jsonrpc"], "2.0");
    }
    appliance.ok(&["ls"]);
}

#[test]
fn wrong_types_are_invalid_params_that_name_the_field() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    for (method, params, word) in [
        ("volume.attach", json!({}), "volume"),
        ("volume.attach", json!({"volume": 7}), "7"),
        ("volume.attach", json!({"volume": "data1", "export": "yes"}), "yes"),
        ("volume.attach", json!({"volume": "data1", "wait": 1}), "1"),
        ("volume.attach", json!({"volume": "data1", "timeout_seconds": -1}), "-1"),
        ("volume.attach", json!({"volume": "data1", "timeout_seconds": 1e300}), "1e+300"),
        ("volume.attach", json!({"volume": "data1", "unknown": 1}), "unknown"),
        ("volume.create", json!({"name": "x", "size_bytes": "1G"}), "1G"),
        ("volume.create", json!({"name": null, "size_bytes": 1}), "null"),
        ("export.list", json!({"unknown": 1}), "unknown"),
        ("volume.list", json!({"max_age_seconds": 1.5}), "1.5"),
        ("device.find", json!({"path": ["a"]}), "a list"),
    ] {
        let request = json!({"jsonrpc": "2.0", "id": "x", "method": method, "params": params});
        let answer = ask(&appliance, &request.to_string());
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32602), &json!("x")), "{request}: {answer}");
        names(answer["error"]["message"].as_str().unwrap(), &[word]);
    }
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}

#[test]
fn extreme_values_are_refused_or_taken_but_never_fatal() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    for (method, params) in [
        ("volume.create", json!({"name": "huge", "size_bytes": u64::MAX, "wait": true})),
        ("volume.create", json!({"name": "none", "size_bytes": 0, "wait": true})),
        ("volume.create", json!({"name": "x".repeat(100_000), "size_bytes": 1, "wait": true})),
        ("volume.attach", json!({"volume": "", "wait": true})),
        ("volume.attach", json!({"volume": "x".repeat(100_000), "wait": true})),
        ("export.create", json!({"volume": "data1", "name": "", "wait": true})),
        ("operation.get", json!({"id": ""})),
        ("operation.list", json!({"limit": u32::MAX})),
        ("volume.list", json!({"max_age_seconds": u64::MAX})),
        ("device.get", json!({"volume": "data1", "wait_seconds": 0})),
        ("device.find", json!({"path": ""})),
        ("device.find", json!({"path": "\u{0}"})),
        (
            "volume.detach",
            json!({"volume": "data1", "drain_seconds": u64::MAX, "timeout_seconds": u64::MAX, "wait": true}),
        ),
    ] {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = ask(&appliance, &request.to_string());
        let (is_answer, code) = (answer.get("result").is_some(), &answer["error"]["code"]);
        assert!(is_answer || *code != json!(-32603), "{method}: {answer}");
        assert_ne!(answer["error"]["data"]["kind"], "internal", "{method}: {answer}");
    }
    assert!(appliance.truth("none").is_none() && appliance.truth("huge").is_none());
    appliance.ok(&["ls"]);
}

#[test]
fn a_line_of_two_mebibytes() {
    let appliance = Appliance::start();
    let mut stream = connect(&appliance);
    let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{}\"}}\n", "x".repeat(2 << 20));
    // It may stop listening before the end.
    stream.write_all(line.as_bytes()).ok();
    let refusal = answer(&stream);
    names(refusal["error"]["message"].as_str().unwrap(), &["longer than 1048576 bytes"]);
    is_closed(stream);
    appliance.ok(&["ls"]);
}

#[test]
fn half_a_line() {
    let appliance = Appliance::start();
    let mut stream = connect(&appliance);
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,").unwrap();
    appliance.ok(&["ls"]);
    let refusal = answer(&stream);
    names(refusal["error"]["message"].as_str().unwrap(), &["10"]);
    is_closed(stream);
    appliance.ok(&["ls"]);
}

#[test]
fn half_a_line_and_the_end() {
    let appliance = Appliance::start();
    let mut stream = connect(&appliance);
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(&stream)["error"]["code"], -32700);
    is_closed(stream);
}

#[test]
fn bytes_that_are_no_text() {
    let appliance = Appliance::start();
    let mut stream = connect(&appliance);
    stream.write_all(b"\xff\xfe\x00\n").unwrap();
    names(answer(&stream)["error"]["message"].as_str().unwrap(), &["UTF-8"]);
    is_closed(stream);
    appliance.ok(&["ls"]);
}

#[test]
fn a_client_that_half_closes_is_answered() {
    let appliance = Appliance::start();
    appliance.cloud.settings(json!({"latency": {"createVolume": {"min_ms": 300, "max_ms": 300}}}));
    let mut stream = connect(&appliance);
    let params = json!({"name": "data1", "size_bytes": 1 << 30, "wait": true});
    let request = json!({"jsonrpc": "2.0", "id": 5, "method": "volume.create", "params": params});
    // Without a newline, as `echo -n` does.
    write!(stream, "{request}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = answer(&stream);
    assert_eq!((&answer["id"], &answer["result"]["changed"]), (&json!(5), &json!(true)), "{answer}");
    is_closed(stream);
}

#[test]
fn socat_speaks_it() {
    let appliance = Appliance::start();
    let mut socat = Command::new("socat");
    socat.arg("-").arg(format!("UNIX-CONNECT:{}", appliance.socket().display()));
    let mut child = socat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "volume.list"});
    writeln!(child.stdin.take().unwrap(), "{request}").unwrap();
    let output = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["result"]["volumes"].as_array().unwrap().len(), 3);
}

#[test]
fn a_client_that_goes_away_changes_nothing() {
    let appliance = Appliance::start();
    appliance.cloud.fault(json!({"command": "createVolume", "mode": "job-never-ends"}));
    let mut stream = connect(&appliance);
    let params = json!({"name": "data1", "size_bytes": 1 << 30, "wait": true, "token": 1});
    writeln!(stream, "{}", json!({"jsonrpc": "2.0", "id": 5, "method": "volume.create", "params": params})).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let sent = |line: &str| line.contains("\"method\":\"progress\"") && line.contains("waiting for CloudStack");
    assert!(lines.any(|line| sent(&line.unwrap())));
    drop(lines);
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for("the creation to end", || {
        (appliance.ok(&["ops"])["operations"][0]["status"] == "succeeded").then_some(())
    });
}
