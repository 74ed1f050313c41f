//! A CloudStack that is not there, is something else, refuses, or thinks that we are somebody else.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::json;

use crate::support::appliance::{Appliance, Config};
use crate::support::simulator::{APPLIANCE, SECRET_KEY, Simulator, WORKER};
use crate::support::wording::{hint, message, names};

/// Every way to begin a change, and a look that asks now.
const LINES: [&[&str]; 5] = [
    &["create", "data1", "--size", "1G"],
    &["attach", "data1"],
    &["detach", "data1"],
    &["delete", "data1", "--yes"],
    &["ls", "--max-age", "0"],
];

/// An appliance whose cloud was so before the daemon first asked it anything.
fn beginning_with(change: impl FnOnce(&Simulator)) -> Appliance {
    let mut appliance = Appliance::stopped(Config::default());
    change(&appliance.cloud);
    appliance.start_daemon();
    appliance
}

#[test]
fn wrong_keys() {
    let appliance = Appliance::with(Config { secret_key: "another-secret".to_owned(), ..Config::default() });
    for line in LINES {
        let ended = appliance.json(line);
        assert!(!ended.stdout.contains("another-secret"), "{ended:?}");
        let error = ended.failure(5, "cloudstack_auth");
        names(message(&error), &["API key or the signature", "401"]);
        names(hint(&error), &["api_key", "secret"]);
        assert_eq!(error["cloudstack"]["code"], 401);
    }
    assert_eq!(appliance.json(&["health"]).code, 1);
    assert!(!appliance.log().contains("another-secret"), "a secret is in the log");
}

#[test]
fn the_environment_overrides_the_configuration() {
    let environment = vec![("CLOUDSTACK_SECRET".to_owned(), SECRET_KEY.to_owned())];
    let appliance =
        Appliance::with(Config { secret_key: "another-secret".to_owned(), environment, ..Config::default() });
    appliance.ok(&["create", "data1", "--size", "1G"]);
}

#[test]
fn nothing_answers() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = Some(format!("http://{port}/client/api"));
    let appliance = Appliance::with(Config { endpoint, ..Config::default() });
    for line in LINES {
        let error = appliance.json(line).failure(5, "cloudstack_unreachable");
        names(message(&error), &[&port.to_string(), "refused"]);
        assert_eq!(error["retryable"], true);
        if line[0] != "ls" {
            names(message(&error), &["nothing was sent"]);
        }
    }
}

#[test]
fn html_instead_of_json() {
    let appliance = beginning_with(|cloud| {
        cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "html-200"}));
    });
    for line in LINES {
        let error = appliance.json(line).failure(5, "cloudstack_unreachable");
        names(message(&error), &["text/html", "HTTP 200"]);
        assert!(!message(&error).contains('<'), "no page is quoted: {error}");
        names(hint(&error), &["endpoint"]);
    }
}

#[test]
fn something_else_behind_the_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Some(format!("http://{}/client/api", listener.local_addr().unwrap()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // It takes the request's first line, and talks as another kind of server does.
            BufReader::new(&stream).read_line(&mut String::new()).ok();
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").ok();
        }
    });
    let appliance = Appliance::with(Config { endpoint, ..Config::default() });
    appliance.json(&["create", "data1", "--size", "1G"]).failure(5, "cloudstack_unreachable");
}

#[test]
fn a_clock_that_is_off() {
    let appliance = beginning_with(|cloud| cloud.settings(json!({"clock_offset_seconds": 3 * 3600 + 60})));
    for line in LINES {
        let error = appliance.json(line).failure(5, "cloudstack_auth");
        names(message(&error), &["401", "this machine's clock is 3h", "behind CloudStack's"]);
        names(hint(&error), &["clock"]);
    }
}

#[test]
fn a_clock_that_is_right_is_not_blamed() {
    let appliance = beginning_with(|cloud| {
        cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "error", "code": 401, "text": "unable"}));
    });
    for line in LINES {
        let error = appliance.json(line).failure(5, "cloudstack_auth");
        assert!(!message(&error).contains("clock"), "{error}");
    }
}

#[test]
fn the_vm_id_of_another_appliance() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.kill_daemon();
    // A copied configuration: the disk of data1, seen here, proves another VM.
    appliance.configure(|config| config.vm_id = Some(WORKER.to_owned()));
    appliance.start_daemon();
    for line in [
        &["attach", "data2"][..],
        &["detach", "data1"],
        &["create", "data3", "--size", "1G"],
        &["delete", "data2", "--yes"],
        &["recover", "data2"],
        &["export", "data1"],
    ] {
        let error = appliance.json(line).failure(4, "conflict");
        names(message(&error), &[WORKER, APPLIANCE, "vm_id", "data1", "every change is refused"]);
    }
    let device = appliance.ok(&["device", "data1"])["device"]["path"].as_str().unwrap().to_owned();
    assert_eq!(appliance.ok(&["find", &device])["volume"]["name"], "data1", "looking goes on");
    let truth = appliance.truth("data1").unwrap();
    assert_eq!((&truth["virtualmachineid"], appliance.cloud.calls("detachVolume")), (&json!(APPLIANCE), 0));
}

/// Takes away what proves which VM this is: the links to its disks.
fn forget_proofs(appliance: &Appliance) {
    for link in std::fs::read_dir(appliance.path("by-id")).unwrap() {
        std::fs::remove_file(link.unwrap().path()).unwrap();
    }
}

#[test]
fn a_store_of_another_appliance() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.kill_daemon();
    forget_proofs(&appliance);
    appliance.configure(|config| config.vm_id = Some(WORKER.to_owned()));
    appliance.start_daemon();
    let error = appliance.json(&["attach", "data1"]).failure(4, "conflict");
    names(message(&error), &[WORKER, APPLIANCE, appliance.path("state").to_str().unwrap()]);
    appliance.ok(&["ls"]);
}

#[test]
fn a_vm_id_of_nobody() {
    let nobody = "a0000000-0000-4000-8000-00000000ffff";
    let mut appliance = Appliance::stopped(Config { vm_id: Some(nobody.to_owned()), ..Config::default() });
    forget_proofs(&appliance);
    appliance.start_daemon();
    let error = appliance.json(&["create", "data1", "--size", "1G"]).failure(2, "config");
    names(message(&error), &[nobody, "nothing was sent"]);
    names(hint(&error), &["vm_id"]);
}

#[test]
fn a_volume_that_was_deleted_behind_our_back() {
    let appliance = Appliance::start();
    let id = appliance.ok(&["create", "data1", "--size", "1G"])["volume"]["id"].as_str().unwrap().to_owned();
    appliance.cloud.call("deleteVolume", &[("id", &id)]);
    for word in ["data1", &id] {
        appliance.json(&["attach", word]).failure(3, "not_found");
    }
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}
