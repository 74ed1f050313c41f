//! Clocks that are set: the daemon's wall clock jumps by a day or is off by minutes, while it is idle, while an operation
//! is under way, while CloudStack is away. What waits goes on waiting, what is proven is proven by CloudStack's clock.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::nbd::Client;
use crate::support::simulator::APPLIANCE;
use crate::support::wait_for;
use crate::support::wording::{message, names};

/// The daemon's wall clock; its monotonic one runs on, as the kernel's does.
struct Clock(tempfile::TempDir);

impl Clock {
    fn start(config: Config) -> (Appliance, Self) {
        Self::start_with(config, json!({}))
    }

    /// With settings that the simulator has before the daemon asks it anything.
    fn start_with(config: Config, settings: Value) -> (Appliance, Self) {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set("+0");
        let environment = [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", clock.file()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_str().unwrap().to_owned())).into();
        let mut appliance = Appliance::stopped(Config { environment, ..config });
        appliance.cloud.settings(settings);
        appliance.start_daemon();
        (appliance, clock)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("clock")
    }

    /// Sets it off from the true time: `+1d`, `-600`.
    fn set(&self, offset: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, self.file()).unwrap();
    }
}

fn library() -> PathBuf {
    let architectures = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = architectures.map(|directory| directory.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists()).expect("libfaketime is missing: run tests/setup.sh test")
}

fn operation(appliance: &Appliance, id: &str) -> Value {
    appliance.ok(&["ops", "show", id])["operation"].clone()
}

/// Waits until an operation has such a status, and words in its step.
fn wait_for_step(appliance: &Appliance, id: &str, status: &str, words: &str) -> Value {
    wait_for(&format!("the operation to be {status} at \"{words}\""), || {
        Some(operation(appliance, id))
            .filter(|now| now["status"] == status && now["step"].as_str().unwrap().contains(words))
    })
}

/// Asks for a change without waiting for it; gives its operation.
fn begin(appliance: &Appliance, words: &[&str]) -> String {
    appliance.ok(&[words, &["--no-wait"]].concat())["operation"]["id"].as_str().unwrap().to_owned()
}

/// An attach that CloudStack never finishes, and its operation.
fn endless_attach(appliance: &Appliance) -> String {
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let id = begin(appliance, &["attach", "data"]);
    wait_for_step(appliance, &id, "running", "waiting for CloudStack to attach");
    id
}

#[test]
fn an_idle_daemon_serves_on_and_says_that_its_clock_is_wrong() {
    let (appliance, clock) =
        Clock::start_with(Config::default(), json!({"enforce_post_requests_and_timestamps": true}));
    appliance.ok(&["create", "data", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data", "--name", "disk"]);
    let mut client = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
    for (offset, side) in [("+1d", "ahead of"), ("-1d", "behind")] {
        clock.set(offset);
        client.write(0, b"served").unwrap();
        let error = appliance.json(&["create", "more", "--size", "1G"]).failure(5, "cloudstack_auth");
        names(message(&error), &["this machine's clock is", side, "nothing was sent"]);
        assert_eq!(appliance.ok(&["exports"])["exports"][0]["state"], "active");
        appliance.ok(&["device", "data"]);
        let listed = appliance.ok(&["ls"]);
        assert_eq!(listed["volumes"].as_array().unwrap().len(), 4);
        clock.set("+0");
        assert_eq!(appliance.ok(&["ls"])["volumes"][0]["stale"], false);
    }
    drop(client);
    appliance.ok(&["detach", "data"]);
    assert_eq!(appliance.cloud.calls("createVolume"), 1);
}

#[test]
fn what_was_sent_is_waited_for_over_any_jump() {
    let (appliance, clock) = Clock::start(Config::default());
    appliance.cloud.volume("data");
    appliance.cloud.settings(json!({"enforce_post_requests_and_timestamps": true}));
    let id = endless_attach(&appliance);
    for offset in ["+1d", "-1d"] {
        clock.set(offset);
        wait_for_step(&appliance, &id, "running", "this machine's clock is");
        clock.set("+0");
        wait_for("the operation to say no more of the clock", || {
            (operation(&appliance, &id)["step"] == "waiting for CloudStack to attach").then_some(())
        });
    }
    clock.set("+1d");
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    clock.set("+0");
    wait_for_step(&appliance, &id, "succeeded", "");
    assert_eq!(appliance.cloud.calls("attachVolume"), 1);
}

#[test]
fn a_clock_that_is_set_back_gives_no_more_time_to_begin() {
    let (appliance, clock) = Clock::start(Config::default());
    appliance.cloud.volume("data");
    let holder = endless_attach(&appliance);
    let queued = begin(&appliance, &["detach", "data", "--queue", "--timeout", "2s"]);
    clock.set("-1d");
    names(message(&wait_for_step(&appliance, &queued, "failed", "")["error"]), &["nothing was sent"]);
    clock.set("+0");
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for_step(&appliance, &holder, "succeeded", "");
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
}

#[test]
fn after_a_jump_forward_nothing_begins_that_was_asked_before() {
    let (appliance, clock) = Clock::start(Config::default());
    appliance.cloud.volume("data");
    let holder = endless_attach(&appliance);
    let queued = begin(&appliance, &["detach", "data", "--queue"]);
    // Within what CloudStack takes, so that it would be sent; a machine that was suspended finds its clock so.
    clock.set("+11m");
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for_step(&appliance, &holder, "succeeded", "");
    names(message(&wait_for_step(&appliance, &queued, "failed", "")["error"]), &["nothing was sent"]);
    assert_eq!(appliance.cloud.calls("detachVolume"), 0);
}

#[test]
fn a_jump_while_cloudstack_is_away_ends_nothing_that_was_sent() {
    let (appliance, clock) = Clock::start(Config { cloudstack: "timeout = \"1s\"\n".to_owned(), ..Config::default() });
    appliance.cloud.volume("data");
    let id = endless_attach(&appliance);
    appliance.cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "cut-before"}));
    wait_for_step(&appliance, &id, "running", "CloudStack away for ");
    for offset in ["+1d", "-1d"] {
        clock.set(offset);
        let step = wait_for_step(&appliance, &id, "running", "CloudStack away for ")["step"].clone();
        assert!(step.as_str().unwrap().ends_with("s)"), "seconds, whatever the clock says: {step}");
        let error = appliance.json(&["create", "more", "--size", "1G"]).failure(5, "cloudstack_unreachable");
        names(message(&error), &["nothing was sent"]);
    }
    clock.set("+0");
    appliance.cloud.admin("DELETE", "faults", json!({}));
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for_step(&appliance, &id, "succeeded", "");
}

fn impatient() -> Config {
    Config { cloudstack: "timeout = \"1s\"\n".to_owned(), ..Config::default() }
}

/// The answer to the attach is lost, before it was carried out or later than we wait.
fn lost_attach(appliance: &Appliance, fault: Value) -> String {
    appliance.cloud.volume("data");
    let mut fault = fault;
    fault["command"] = "attachVolume".into();
    appliance.cloud.fault(fault);
    let id = begin(appliance, &["attach", "data"]);
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 1).then_some(()));
    id
}

#[test]
fn a_lost_request_is_dead_by_cloudstacks_clock_however_wrong_ours_is() {
    for (offset, tells_time) in [("+8m", true), ("-50", true), ("+8m", false), ("-50", false)] {
        let (appliance, clock) = Clock::start_with(impatient(), json!({"tells_time": tells_time}));
        if tells_time {
            clock.set(offset);
        }
        let id = lost_attach(&appliance, json!({"mode": "cut-before"}));
        wait_for_step(&appliance, &id, "running", "finding out whether it has the request");
        clock.set(offset);
        // Ours says that it is dead, or has long to live; CloudStack's says that it may still arrive.
        let asked = appliance.cloud.calls("queryAsyncJobResult");
        wait_for("it to be asked for again", || {
            (appliance.cloud.calls("queryAsyncJobResult") > asked + 1).then_some(())
        });
        assert_eq!(appliance.cloud.calls("attachVolume"), 1, "{offset}");
        appliance.cloud.admin("POST", "clock", json!({"advance_seconds": 75}));
        if offset == "-50" {
            clock.set("+75");
        }
        wait_for(&format!("success with {offset}, {tells_time}"), || {
            (operation(&appliance, &id)["status"] == "succeeded").then_some(())
        });
        assert_eq!(appliance.cloud.calls("attachVolume"), 2, "{offset}");
    }
}

#[test]
fn what_is_delivered_late_is_found_after_a_jump() {
    for (offset, tells_time) in [("+8m", true), ("+8m", false), ("-50", false)] {
        let (appliance, clock) = Clock::start_with(impatient(), json!({"tells_time": tells_time}));
        let id = lost_attach(&appliance, json!({"mode": "late", "delay_ms": 4000}));
        clock.set(offset);
        wait_for_step(&appliance, &id, "succeeded", "");
        assert_eq!(appliance.cloud.calls("attachVolume"), 1, "{offset}: it was not sent again");
        assert_eq!(appliance.truth("data").unwrap()["virtualmachineid"], APPLIANCE);
    }
}

#[test]
fn a_lost_delete_without_a_job_is_not_called_failed_by_our_clock() {
    let (appliance, clock) = Clock::start(impatient());
    appliance.ok(&["create", "data", "--size", "1G"]);
    let refused = json!({"command": "deleteVolume", "mode": "error", "code": 431, "text": "no", "times": 1_000_000});
    appliance.cloud.admin("POST", "faults", json!([{"command": "deleteVolume", "mode": "cut-before"}, refused]));
    let id = begin(&appliance, &["delete", "data", "--yes"]);
    wait_for("the delete to be sent", || (appliance.cloud.calls("deleteVolume") == 1).then_some(()));
    clock.set("+9m");
    wait_for("it to be refused", || (appliance.cloud.calls("deleteVolume") > 3).then_some(()));
    assert_eq!(operation(&appliance, &id)["status"], "running", "what was lost may still be carried out");
    appliance.cloud.admin("POST", "clock", json!({"advance_seconds": 75}));
    wait_for_step(&appliance, &id, "failed", "");
}
