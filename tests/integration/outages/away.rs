//! CloudStack is away: what needs it fails soon and has sent nothing, what does not need it works, what goes on says so.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{back, cut_off, wait_for_status, wait_for_step};
use crate::support::appliance::{Appliance, Config};
use crate::support::scenario::{attached, changes_called, exported};
use crate::support::wording::message;

const CHANGES: [&[&str]; 4] =
    [&["attach", "data"], &["detach", "data"], &["create", "more", "--size", "1G"], &["delete", "data", "--yes"]];

/// A CloudStack that takes connections and says nothing, until it is dropped.
struct Silent<'a>(&'a Appliance);

impl<'a> Silent<'a> {
    fn begin(appliance: &'a Appliance) -> Self {
        Self::signal(appliance, Signal::SIGSTOP);
        Self(appliance)
    }

    fn signal(appliance: &Appliance, signal: Signal) {
        kill(Pid::from_raw(appliance.cloud.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        Self::signal(self.0, Signal::SIGCONT);
    }
}

fn works_without_cloudstack(appliance: &Appliance) {
    let soon = |words: &[&str]| {
        let begun = Instant::now();
        let answer = appliance.ok(words);
        assert!(begun.elapsed() < Duration::from_secs(15), "{words:?} took {:?}", begun.elapsed());
        answer
    };
    let path = soon(&["device", "data"])["device"]["path"].as_str().unwrap().to_owned();
    assert_eq!(soon(&["find", &path])["volume"]["name"], "data");
    assert_eq!(soon(&["exports"])["exports"].as_array().unwrap().len(), 1);
    assert_eq!(soon(&["unexport", "data"])["changed"], true);
    assert_eq!(soon(&["export", "data"])["export"]["state"], "active");
    assert_eq!(soon(&["ops"])["operations"][0]["status"], "succeeded");
    assert!(soon(&["why", "data"])["notes"].to_string().contains("CloudStack"), "it says whose part is missing");
}

fn fails_soon_and_sends_nothing(appliance: &Appliance) {
    std::thread::scope(|scope| {
        for words in CHANGES {
            scope.spawn(move || {
                let begun = Instant::now();
                let error = appliance.json(words).failure(5, "cloudstack_unreachable");
                assert!(message(&error).contains("nothing was sent"), "{words:?}: {error}");
                assert!(begun.elapsed() < Duration::from_secs(30), "{words:?} took {:?}", begun.elapsed());
            });
        }
    });
}

#[test]
fn connections_are_cut() {
    let appliance = Appliance::start();
    exported(&appliance);
    let before = changes_called(&appliance.cloud);
    cut_off(&appliance);
    works_without_cloudstack(&appliance);
    fails_soon_and_sends_nothing(&appliance);
    back(&appliance);
    assert_eq!(changes_called(&appliance.cloud), before);
}

#[test]
fn nothing_is_said() {
    let appliance = Appliance::start();
    exported(&appliance);
    let before = changes_called(&appliance.cloud);
    let silent = Silent::begin(&appliance);
    works_without_cloudstack(&appliance);
    fails_soon_and_sends_nothing(&appliance);
    drop(silent);
    assert_eq!(changes_called(&appliance.cloud), before);
}

#[test]
fn exports_come_back_without_cloudstack() {
    let mut appliance = Appliance::start();
    exported(&appliance);
    appliance.kill_daemon();
    cut_off(&appliance);
    appliance.start_daemon();
    crate::support::wait_for("the export", || {
        (appliance.ok(&["exports"])["exports"][0]["state"] == "active").then_some(())
    });
}

#[test]
fn what_goes_on_says_since_when_it_is_away_and_goes_on() {
    let appliance = Appliance::with(Config { cloudstack: "timeout = \"1s\"\n".to_owned(), ..Config::default() });
    attached(&appliance);
    appliance.cloud.fault(json!({"command": "detachVolume", "mode": "job-never-ends"}));
    let asked = appliance.begin(&["detach", "data"]);
    wait_for_step(&appliance, "waiting for CloudStack to detach");
    cut_off(&appliance);
    wait_for_step(&appliance, "(CloudStack away for ");
    back(&appliance);
    crate::support::wait_for("the operation to say that CloudStack is back", || {
        (super::newest(&appliance)["step"] == "waiting for CloudStack to detach").then_some(())
    });
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    asked.end().success();
}

#[test]
fn a_rotated_key_is_read_again() {
    let appliance = Appliance::start();
    attached(&appliance);
    appliance.cloud.fault(json!({"command": "detachVolume", "mode": "job-never-ends"}));
    let asked = appliance.begin(&["detach", "data"]);
    wait_for_step(&appliance, "waiting for CloudStack to detach");
    appliance.cloud.settings(json!({"secret_key": "rotated"}));
    wait_for_step(&appliance, "(key refused since ");
    appliance.json(&["attach", "data"]).failure(5, "cloudstack_auth");
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    assert_eq!(super::newest(&appliance)["status"], "running");
    std::fs::write(appliance.path("secret"), "rotated\n").unwrap();
    asked.end().success();
    wait_for_status(&appliance, "succeeded");
    assert!(!appliance.log().contains("rotated"), "a secret is in the log");
}

/// A way to CloudStack that takes no more connections once it is closed; those that are open stay.
struct Way {
    endpoint: String,
    closed: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Way {
    fn to(endpoint: &str) -> Self {
        let server = endpoint.trim_start_matches("http://").trim_end_matches("/client/api").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, closed) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let seen = closed.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if seen.load(Ordering::SeqCst) {
                    return;
                }
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    thread::spawn(move || {
                        io::copy(&mut from, &mut to).ok();
                        to.shutdown(Shutdown::Both).ok();
                    });
                }
            }
        });
        Self { endpoint: format!("http://{address}/client/api"), closed, address }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).unwrap();
    }
}

#[test]
fn a_change_that_gets_no_connection_fails_soon_although_looks_have_one() {
    let mut appliance = Appliance::stopped(Config::default());
    let way = Way::to(appliance.cloud.endpoint());
    appliance.configure(|config| config.endpoint = Some(way.endpoint.clone()));
    appliance.start_daemon();
    appliance.cloud.volume("data");
    appliance.ok(&["ls", "--max-age", "0"]);
    let begun = Instant::now();
    way.close();
    let error = appliance.json(&["attach", "data"]).failure(5, "cloudstack_unreachable");
    assert!(message(&error).contains("nothing was sent"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    assert_eq!(super::newest(&appliance)["status"], "failed", "it had begun, as looks are answered");
    appliance.ok(&["ls", "--max-age", "0"]);
    assert_eq!(appliance.cloud.calls("attachVolume"), 0);
}
