//! The trouble that CloudStack is in: one mishap after the other, throttling, and guests that let go late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::simulator::Simulator;

/// What may befall a call that only looks.
const LOOKS: [&str; 7] = ["cut-before", "cut-after", "502-html-before", "truncate", "non-json", "429", "503"];
/// What may befall a change, so that it was carried out although its answer says otherwise, or so that it was not and
/// says so. What was not carried out and does not say so holds its volume for over a minute: it comes now and then.
const CHANGES: [&str; 5] = ["cut-after", "502-html-after", "empty-200-after", "429", "503"];

/// Makes trouble until it is over.
pub fn make(cloud: &Simulator, volumes: &[String], mut random: Rng, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        match random.u8(..20) {
            0 => cloud.settings(json!({"throttle": {"max": 40, "interval_ms": 1000}})),
            1..=3 => cloud.settings(json!({"throttle": null})),
            4..=6 => {
                let hold = random.choice([0.3, 0.6, 1.0]);
                cloud.admin("POST", "guest", json!({"volume": random.choice(volumes), "hold": hold}));
            }
            _ => cloud.fault(fault(&mut random)),
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn fault(random: &mut Rng) -> Value {
    match random.u8(..40) {
        0 => json!({"command": "detachVolume", "mode": "cut-before"}),
        1 => json!({"command": "attachVolume", "mode": "502-html-before"}),
        2..=4 => json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": "no host"}),
        5..=7 => json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "after_effect": true}),
        8..=10 => json!({"command": "detachVolume", "mode": "job-fail", "code": 530, "after_effect": true}),
        11..=20 => json!({
            "command": random.choice(["attachVolume", "detachVolume"]),
            "mode": random.choice(CHANGES),
        }),
        _ => json!({
            "command": random.choice(["listVolumes", "queryAsyncJobResult", "listAsyncJobs", "listVirtualMachines"]),
            "mode": random.choice(LOOKS),
        }),
    }
}

/// Ends it.
pub fn end(cloud: &Simulator, volumes: &[String]) {
    cloud.admin("DELETE", "faults", json!({}));
    cloud.settings(json!({"throttle": null}));
    for volume in volumes {
        cloud.admin("POST", "guest", json!({"volume": volume, "hold": false}));
    }
}
