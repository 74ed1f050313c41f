//! The crash matrix: the daemon is killed at every point of every journal, and the operation ends as if nothing had
//! happened.
//!
//! Each [`Scenario`] is first run undisturbed: that tells the points that it passes, how often it calls what changes
//! something in CloudStack, and what is there in the end. Then it is run once for each of these points, before and after
//! the step: the daemon stops there by itself (`volctl::operation::pause`), is killed with SIGKILL, and another one is
//! started, while the `volctl` that asked goes on waiting. All that may differ from the undisturbed run is the time.
//!
//! A step of the journal that no scenario passes fails the test.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::json;
use volctl::operation::journal_points;

use crate::support::appliance::Appliance;
use crate::support::journal;
use crate::support::matrix::{announce, side_by_side};
use crate::support::scenario::{self, End, SCENARIOS, Scenario, word};

/// Longer than a request to CloudStack is valid: what is not there then never comes.
const OUTAGE: SignedDuration = SignedDuration::from_secs(75);

#[test]
fn killed_anywhere_it_ends_as_if_nothing_had_happened() {
    let undisturbed = side_by_side(SCENARIOS, Scenario::undisturbed, |scenario| scenario.name.to_owned());
    let mut passed = BTreeSet::new();
    let mut kills = Vec::new();
    for (scenario, (end, steps)) in SCENARIOS.iter().zip(&undisturbed) {
        for step in steps {
            passed.insert(format!("{}/{step}", scenario.kind));
            kills.extend(["before", "after"].map(|side| (scenario, end, format!("{}/{step}/{side}", scenario.kind))));
        }
    }
    let all: BTreeSet<String> = journal_points().iter().map(|(kind, step)| format!("{}/{step}", word(kind))).collect();
    assert_eq!(passed, all, "a step that no scenario passes is not tested");
    let kinds: BTreeSet<&str> = all.iter().filter_map(|point| point.split('/').next()).collect();
    announce(&format!(
        "crash matrix: {} points of {} kinds, {} kills in {} scenarios",
        all.len() * 2,
        kinds.len(),
        kills.len(),
        SCENARIOS.len()
    ));
    side_by_side(
        &kills,
        |(scenario, end, point)| killed_at(scenario, point, end),
        |(scenario, _, point)| format!("{}: killed at {point}", scenario.name),
    );
}

/// Before a step the daemon is off for longer than a request is valid, after it only for a moment.
fn killed_at(scenario: &Scenario, point: &str, undisturbed: &End) {
    let mut appliance = Appliance::pausing_at(point);
    (scenario.prepare)(&appliance);
    let asked = appliance.begin(scenario.words);
    appliance.kill_daemon_at(point);
    if point.ends_with("/before") {
        journal::age(&appliance.path("state"), OUTAGE);
    }
    appliance.start_daemon();
    let answer = asked.end().success().json();
    End::wait_until_as(&appliance, &answer["changed"], undisturbed, End::clone);
}

/// What is undone: the volume of a creation whose attachment CloudStack refuses, and the end of an export whose volume
/// it does not detach.
#[test]
fn killed_while_it_undoes_it_ends_undone() {
    let refused = [
        ("create/await", "attachVolume", Scenario::named("create with attach and export")),
        (
            "detach/withdraw",
            "detachVolume",
            &Scenario { name: "detach of an export", prepare: scenario::exported, ..*Scenario::named("detach") },
        ),
        (
            "move/detach_withdraw",
            "detachVolume",
            &Scenario { name: "move of an export", prepare: scenario::exported, ..*Scenario::named("move") },
        ),
        ("move/attach_check", "attachVolume", Scenario::named("move")),
    ];
    let sides = ["before-undo", "after-undo"];
    let kills: Vec<_> = refused.iter().flat_map(|case| sides.map(|side| (case, side))).collect();
    side_by_side(
        &kills,
        |((step, command, scenario), side)| {
            let refuse = |appliance: &Appliance| {
                (scenario.prepare)(appliance);
                appliance.cloud.fault(json!({"command": command, "mode": "job-fail", "code": 431, "text": "not now"}));
            };
            let undisturbed = Appliance::start();
            refuse(&undisturbed);
            undisturbed.json(scenario.words).failure(5, "cloudstack_refused");

            let point = format!("{step}/{side}");
            let mut appliance = Appliance::pausing_at(&point);
            refuse(&appliance);
            let asked = appliance.begin(scenario.words);
            appliance.kill_daemon_at(&point);
            appliance.start_daemon();
            let error = asked.end().failure(5, "cloudstack_refused");
            assert!(error["message"].as_str().unwrap().contains("not now"), "{error}");
            let none = json!(null);
            End::wait_until_as(&appliance, &none, &End::of(&undisturbed, &none), End::clone);
        },
        |((step, _, scenario), side)| format!("{}: killed at {step}/{side}", scenario.name),
    );
}
