//! The daemon was off for longer than CloudStack remembers jobs, or its store is a copy of yesterday's: the volume is
//! asked, nothing is sent a second time, and what cannot be told is stuck.

use std::path::Path;
use std::process::Command;

use jiff::SignedDuration;
use serde_json::json;

use super::{newest, wait_for_status};
use crate::support::appliance::Appliance;
use crate::support::journal;
use crate::support::matrix::side_by_side;
use crate::support::scenario::{Scenario, changes_called, exported, new_volume};
use crate::support::simulator::APPLIANCE;
use crate::support::wait_for;
use crate::support::wording::{hint, names};

/// Longer than finished jobs are kept.
const DAY: SignedDuration = SignedDuration::from_hours(25);

/// A scenario, the point at which the daemon was killed, and how its operation ends.
const CASES: [(&str, &str, &str); 12] = [
    ("create", "create/send/before", "failed"),
    ("create", "create/send/after", "stuck"),
    ("create", "create/await/before", "succeeded"),
    ("attach with export", "attach/send/before", "failed"),
    ("attach with export", "attach/send/after", "succeeded"),
    ("attach with export", "attach/await/before", "succeeded"),
    ("detach with an export and data", "detach/send/before", "failed"),
    ("detach with an export and data", "detach/send/after", "succeeded"),
    ("detach with an export and data", "detach/await/before", "succeeded"),
    ("delete", "delete/send/before", "failed"),
    ("delete", "delete/send/after", "succeeded"),
    ("delete for ever", "delete/await/before", "succeeded"),
];

#[test]
fn a_day_off_sends_nothing_again() {
    side_by_side(
        &CASES,
        |(name, point, status)| {
            let scenario = Scenario::named(name);
            let mut appliance = Appliance::pausing_at(point);
            (scenario.prepare)(&appliance);
            let exports = appliance.ok(&["exports"])["exports"].as_array().unwrap().len();
            appliance.ok(&[scenario.words, &["--no-wait"]].concat());
            appliance.kill_daemon_at(point);
            forget_jobs(&appliance);
            journal::age(&appliance.path("state"), DAY);
            let sent = changes_called(&appliance.cloud);
            appliance.start_daemon();
            let ended = wait_for_status(&appliance, status);
            assert_eq!(changes_called(&appliance.cloud), sent, "nothing is sent again: {ended}");
            if *point == "detach/send/before" {
                wait_for("the export to be as it was", || {
                    let now = appliance.ok(&["exports"])["exports"].clone();
                    (now.as_array().unwrap().len() == exports && now[0]["state"] == "active").then_some(())
                });
            }
        },
        |(name, point, status)| format!("{name}: off from {point} on, {status}"),
    );
}

/// All jobs end, and are purged.
fn forget_jobs(appliance: &Appliance) {
    wait_for("the jobs to end", || {
        let state = appliance.cloud.state();
        state["jobs"].as_array().unwrap().iter().all(|job| job["status"] != "pending").then_some(())
    });
    appliance.cloud.admin("POST", "purge-jobs", json!({}));
}

#[test]
fn what_cannot_be_told_is_for_a_human() {
    let mut appliance = Appliance::pausing_at("create/send/after");
    appliance.ok(&["create", "data", "--size", "1G", "--no-wait"]);
    appliance.kill_daemon_at("create/send/after");
    forget_jobs(&appliance);
    journal::age(&appliance.path("state"), DAY);
    appliance.start_daemon();
    let id = wait_for_status(&appliance, "stuck")["id"].as_str().unwrap().to_owned();
    let error = appliance.json(&["ops", "wait", &id]).failure(9, "stuck");
    names(hint(&error), &["data"]);
    appliance.json(&["create", "data", "--size", "1G", "--exists-ok"]).failure(4, "busy");
    appliance.ok(&["ops", "abandon", &id, "--reason", "it is there", "--yes"]);
    assert_eq!(newest(&appliance)["status"], "abandoned");
    appliance.ok(&["create", "data", "--size", "1G", "--exists-ok"]);
}

/// The state directory as it is while no daemon runs, to be put back later.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "-T"]).args([from, to]).status().unwrap();
    assert!(copied.success());
}

fn restore(appliance: &Appliance) {
    std::fs::remove_dir_all(appliance.path("state")).unwrap();
    copy(&appliance.path("yesterday"), &appliance.path("state"));
    journal::age(&appliance.path("state"), DAY);
}

#[test]
fn yesterdays_copy_attaches_nothing_again() {
    for (point, forgotten) in
        [("attach/send/before", true), ("attach/send/after", false), ("attach/await/before", true)]
    {
        let mut appliance = Appliance::pausing_at(point);
        new_volume(&appliance);
        appliance.ok(&["attach", "data", "--no-wait"]);
        appliance.kill_daemon_at(point);
        copy(&appliance.path("state"), &appliance.path("yesterday"));
        if point == "attach/send/before" {
            journal::age(&appliance.path("state"), SignedDuration::from_secs(75));
        }
        appliance.start_daemon();
        wait_for_status(&appliance, "succeeded");
        appliance.ok(&["detach", "data"]);
        appliance.kill_daemon();
        if forgotten {
            forget_jobs(&appliance);
        }
        restore(&appliance);
        let sent = changes_called(&appliance.cloud);
        appliance.start_daemon();
        wait_for_status(&appliance, "failed");
        assert_eq!(changes_called(&appliance.cloud), sent, "{point}");
        assert_eq!(appliance.truth("data").unwrap()["virtualmachineid"], json!(null), "{point}");
    }
}

#[test]
fn yesterdays_copy_detaches_nothing_again() {
    for (point, forgotten) in [("detach/hold/after", true), ("detach/send/after", true), ("detach/send/after", false)] {
        let mut appliance = Appliance::pausing_at(point);
        exported(&appliance);
        appliance.ok(&["detach", "data", "--no-wait"]);
        appliance.kill_daemon_at(point);
        copy(&appliance.path("state"), &appliance.path("yesterday"));
        appliance.start_daemon();
        wait_for_status(&appliance, "succeeded");
        appliance.ok(&["attach", "data", "--export"]);
        appliance.kill_daemon();
        if forgotten {
            forget_jobs(&appliance);
        }
        restore(&appliance);
        let sent = changes_called(&appliance.cloud);
        appliance.start_daemon();
        wait_for_status(&appliance, "failed");
        assert_eq!(changes_called(&appliance.cloud), sent, "{point}");
        assert_eq!(appliance.truth("data").unwrap()["virtualmachineid"], APPLIANCE, "{point}");
        wait_for("the export", || (appliance.ok(&["exports"])["exports"][0]["state"] == "active").then_some(()));
    }
}

/// In a copy of the appliance the journal is another machine's.
#[test]
fn a_copy_of_the_appliance_sends_nothing() {
    for (name, point) in
        [("attach", "attach/send/before"), ("detach", "detach/hold/before"), ("recover", "recover/check/after")]
    {
        let scenario = Scenario::named(name);
        let mut appliance = Appliance::pausing_at(point);
        (scenario.prepare)(&appliance);
        appliance.ok(&[scenario.words, &["--no-wait"]].concat());
        appliance.kill_daemon_at(point);
        journal::age(&appliance.path("state"), SignedDuration::from_secs(75));
        // The copy has no disk of the original's.
        for link in std::fs::read_dir(appliance.path("by-id")).unwrap() {
            std::fs::remove_file(link.unwrap().path()).unwrap();
        }
        appliance.configure(|config| config.vm_id = Some(crate::support::simulator::WORKER.to_owned()));
        let sent = changes_called(&appliance.cloud);
        appliance.start_daemon();
        let ended = wait_for_status(&appliance, "failed");
        names(ended["error"]["message"].as_str().unwrap(), &[APPLIANCE, crate::support::simulator::WORKER]);
        assert_eq!(changes_called(&appliance.cloud), sent, "{name}: {ended}");
    }
}
