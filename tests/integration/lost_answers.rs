//! The answer that does not come: for each call that changes something, and each look while it is under way, carried out
//! or not, or delivered after we gave up. There is exactly one effect, and the right outcome.

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::matrix::{announce, side_by_side};
use crate::support::scenario::{CHANGES, End, Scenario};
use crate::support::simulator::Simulator;

/// A scenario for each call that changes something.
const CALLS: [(&str, &str); 13] = [
    ("createVolume", "create"),
    ("attachVolume", "attach with export"),
    ("detachVolume", "detach with an export and data"),
    ("destroyVolume", "delete"),
    ("deleteVolume", "delete what was never made"),
    ("recoverVolume", "recover"),
    ("resizeVolume", "resize"),
    ("createSnapshot", "snapshot"),
    ("revertSnapshot", "snapshot revert"),
    ("deleteSnapshot", "snapshot delete"),
    ("createTags", "attach with tags"),
    ("stopVirtualMachine", "reclaim"),
    ("destroyVirtualMachine", "reclaim and destroy"),
];

/// The clock of the cloud in the cases in which a request must be proven dead: its `expires` and the margin, 70 s, are
/// over in a third of that, and every request is still taken.
pub const CLOCK_AHEAD: i64 = 48;

/// What a call is met by.
struct Fault {
    name: &'static str,
    mode: fn() -> Value,
    carried_out: bool,
}

const FAULTS: [Fault; 8] = [
    Fault { name: "cut, carried out", mode: || json!({"mode": "cut-after"}), carried_out: true },
    Fault { name: "502, carried out", mode: || json!({"mode": "502-html-after"}), carried_out: true },
    Fault { name: "empty 200, carried out", mode: || json!({"mode": "empty-200-after"}), carried_out: true },
    Fault { name: "half an answer", mode: || json!({"mode": "truncate"}), carried_out: true },
    Fault { name: "no JSON object", mode: || json!({"mode": "non-json"}), carried_out: true },
    // Later than we wait.
    Fault { name: "delivered late", mode: || json!({"mode": "late", "delay_ms": 2500}), carried_out: true },
    Fault { name: "cut, not carried out", mode: || json!({"mode": "cut-before"}), carried_out: false },
    Fault { name: "502, not carried out", mode: || json!({"mode": "502-html-before"}), carried_out: false },
];

fn impatient() -> Config {
    Config { cloudstack: "timeout = \"1s\"\n".to_owned(), ..Config::default() }
}

#[test]
fn a_change_whose_answer_is_lost_happens_once() {
    assert!(CALLS.iter().map(|(command, _)| *command).eq(CHANGES.iter().copied()), "each change is met");
    let undisturbed =
        side_by_side(&CALLS, |(_, name)| Scenario::named(name).undisturbed().0, |(_, name)| (*name).into());
    let calls = CALLS.iter().zip(&undisturbed);
    let cases: Vec<_> = calls.flat_map(|(call, end)| FAULTS.iter().map(move |fault| (call, end, fault))).collect();
    announce(&format!("lost answers: {} faults x {} changes", FAULTS.len(), CALLS.len()));
    side_by_side(
        &cases,
        |((command, scenario), end, fault)| lost(command, Scenario::named(scenario), end, fault),
        |((command, _), _, fault)| format!("{command}: {}", fault.name),
    );
}

fn lost(command: &str, scenario: &Scenario, undisturbed: &End, fault: &Fault) {
    let appliance = Appliance::with(impatient());
    (scenario.prepare)(&appliance);
    if !fault.carried_out {
        appliance.cloud.admin("POST", "clock", json!({"advance_seconds": CLOCK_AHEAD}));
    }
    let (jobs_before, calls_before) = (jobs(&appliance.cloud, command), calls(&appliance.cloud, command));
    meet(&appliance.cloud, command, (fault.mode)());
    let answer = appliance.ok(scenario.words);
    let without_calls = |end: &End| End { calls: Default::default(), ..end.clone() };
    End::wait_until_as(&appliance, &answer["changed"], undisturbed, without_calls);

    let sent = calls(&appliance.cloud, command) - calls_before;
    if matches!(command, "deleteVolume" | "recoverVolume") {
        // Without a job: asking again is safe, and what is still to come is refused then.
        assert!(sent <= 2, "{sent} calls");
    } else {
        assert_eq!(jobs(&appliance.cloud, command) - jobs_before, 1, "one job was accepted");
        assert_eq!(sent, if fault.carried_out { 1 } else { 2 }, "it is sent again only where it never arrived");
    }
}

fn jobs(cloud: &Simulator, command: &str) -> usize {
    cloud.state()["jobs"].as_array().unwrap().iter().filter(|job| job["command"] == command).count()
}

fn calls(cloud: &Simulator, command: &str) -> u64 {
    cloud.state()["journal"]["calls"][command].as_u64().unwrap_or(0)
}

fn meet(cloud: &Simulator, command: &str, mode: Value) {
    let mut fault = mode;
    fault["command"] = json!(command);
    cloud.fault(fault);
}

/// The looks of an operation: one that fails ends nothing.
const LOOKS: [&str; 3] = ["listVolumes", "listVirtualMachines", "queryAsyncJobResult"];

const TROUBLES: [fn() -> Value; 9] = [
    || json!({"mode": "429"}),
    || json!({"mode": "503"}),
    || json!({"mode": "html-200"}),
    || json!({"mode": "502-html-before"}),
    || json!({"mode": "cut-before"}),
    || json!({"mode": "truncate"}),
    || json!({"mode": "endless"}),
    || json!({"mode": "slow", "interval_ms": 20}),
    || json!({"mode": "non-json"}),
];

#[test]
fn a_look_that_fails_ends_nothing() {
    let (attach, detach) = (Scenario::named("attach with export"), Scenario::named("detach"));
    let undisturbed =
        side_by_side(&[attach, detach], |scenario| scenario.undisturbed().0, |scenario| scenario.name.into());
    let mut cases = Vec::new();
    for (scenario, end) in [attach, detach].into_iter().zip(&undisturbed) {
        for command in LOOKS {
            // Whichever of its looks it is that meets the trouble.
            cases.extend(
                TROUBLES.iter().flat_map(|trouble| [1, 2, 4].map(|nth| (scenario, end, command, trouble(), nth))),
            );
        }
    }
    announce(&format!("failing looks: {} troubles x {} calls, {} cases", TROUBLES.len(), LOOKS.len(), cases.len()));
    side_by_side(
        &cases,
        |(scenario, end, command, trouble, nth)| {
            let appliance = Appliance::with(impatient());
            (scenario.prepare)(&appliance);
            let mut fault = trouble.clone();
            (fault["nth"], fault["times"]) = (json!(nth), json!(2));
            meet(&appliance.cloud, command, fault);
            let answer = appliance.ok(scenario.words);
            appliance.cloud.admin("DELETE", "faults", json!({}));
            End::wait_until_as(&appliance, &answer["changed"], end, End::clone);
        },
        |(scenario, _, command, trouble, nth)| format!("{}: call {nth} of {command} met by {trouble}", scenario.name),
    );
}
