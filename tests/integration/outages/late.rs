//! Nothing starts late: what has sent nothing by its deadline ends as `nothing was sent`, whenever CloudStack or the
//! daemon comes back.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::{back, calls, cut_off, newest};
use crate::lost_answers::CLOCK_AHEAD;
use crate::support::appliance::Appliance;
use crate::support::journal;
use crate::support::matrix::side_by_side;
use crate::support::scenario::{End, Scenario, changes_called};
use crate::support::wait_up_to;
use crate::support::wording::message;

/// A scenario, and the last point at which it has sent nothing to CloudStack.
const LAST_POINTS: [(&str, &str); 6] = [
    ("create", "create/send/before"),
    ("attach with export", "attach/send/before"),
    ("detach with an export and data", "detach/send/before"),
    ("delete", "delete/send/before"),
    ("delete what was never made", "delete/erase/before"),
    ("recover", "recover/bring/before"),
];

/// Longer than the usual deadline and the life of a request, shorter than CloudStack remembers.
const LONG: SignedDuration = SignedDuration::from_mins(12);

#[test]
fn a_daemon_that_comes_back_after_the_deadline_sends_nothing() {
    let first_points =
        LAST_POINTS.map(|(name, point)| (name, format!("{}/check/before", point.split('/').next().unwrap())));
    let points: Vec<_> =
        LAST_POINTS.map(|(name, point)| (name, point.to_owned())).into_iter().chain(first_points).collect();
    side_by_side(
        &points,
        |(name, point)| {
            let scenario = Scenario::named(name);
            let mut appliance = Appliance::pausing_at(point);
            (scenario.prepare)(&appliance);
            let (nothing, before) = (json!(null), changes_called(&appliance.cloud));
            let world = End::of(&appliance, &nothing);
            let asked = appliance.begin(&[scenario.words, &["--no-wait"]].concat());
            asked.end().success();
            appliance.kill_daemon_at(point);
            journal::age(&appliance.path("state"), LONG);
            // What has no job may have been sent: that is waited out, by the cloud's clock, of which little is left so.
            appliance.cloud.admin("POST", "clock", json!({"advance_seconds": CLOCK_AHEAD}));
            appliance.start_daemon();
            let ended = wait_up_to(Duration::from_secs(60), "it to be failed", || {
                Some(newest(&appliance)).filter(|operation| operation["status"] == "failed")
            });
            let message = message(&ended["error"]);
            assert!(message.contains("nothing was sent") || message.contains("its time has passed"), "{ended}");
            assert_eq!(changes_called(&appliance.cloud), before);
            let without_operations = |end: &End| End { operations: Vec::new(), ..end.clone() };
            End::wait_until_as(&appliance, &nothing, &world, without_operations);
        },
        |(name, point)| format!("{name}: off from {point} on"),
    );
}

#[test]
fn what_was_asked_before_an_outage_is_not_done_after_it() {
    for (name, point, command) in [
        ("attach with export", "attach/check/before", "attachVolume"),
        ("detach with an export and data", "detach/hold/before", "detachVolume"),
        ("create", "create/check/before", "createVolume"),
    ] {
        let scenario = Scenario::named(name);
        let mut appliance = Appliance::pausing_at(point);
        (scenario.prepare)(&appliance);
        let (nothing, before) = (json!(null), calls(&appliance, command));
        let world = End::of(&appliance, &nothing);
        let asked = appliance.begin(&[scenario.words, &["--timeout", "4s"]].concat());
        appliance.kill_daemon_at(point);
        cut_off(&appliance);
        appliance.start_daemon();
        let ended = asked.end();
        let document = ended.json();
        assert!(message(&ended.failure(5, "cloudstack_unreachable")).contains("nothing was sent"), "{document}");
        assert_eq!(document["operation"]["status"], "failed");
        back(&appliance);
        let without_operations = |end: &End| End { operations: Vec::new(), ..end.clone() };
        End::wait_until_as(&appliance, &nothing, &world, without_operations);
        assert_eq!(calls(&appliance, command), before, "{name}: CloudStack is back, and nothing is done");
    }
}
