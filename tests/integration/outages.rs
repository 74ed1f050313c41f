//! Time passes: CloudStack is away or in trouble, jobs do not end, the daemon is off for a day, the store is an old copy.
//! Nothing starts late, nothing is sent twice, and what goes on says what it waits for.

mod away;
mod jobs;
mod late;
mod off;
mod rows;
mod stuck_detach;

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::wait_for;

/// The newest operation as `volctl ops` shows it.
fn newest(appliance: &Appliance) -> Value {
    appliance.ok(&["ops"])["operations"][0].clone()
}

/// Waits until the newest operation stands at a step whose words have these in them.
fn wait_for_step(appliance: &Appliance, words: &str) -> Value {
    wait_for(&format!("the operation to be at \"{words}\""), || {
        Some(newest(appliance)).filter(|operation| operation["step"].as_str().is_some_and(|step| step.contains(words)))
    })
}

/// Waits until the newest operation has this status.
fn wait_for_status(appliance: &Appliance, status: &str) -> Value {
    wait_for(&format!("the operation to be {status}"), || {
        Some(newest(appliance)).filter(|operation| operation["status"] == status)
    })
}

/// How often a command was called.
fn calls(appliance: &Appliance, command: &str) -> u64 {
    appliance.cloud.state()["journal"]["calls"][command].as_u64().unwrap_or(0)
}

/// Cuts every call from now on.
fn cut_off(appliance: &Appliance) {
    appliance.cloud.fault(json!({"command": "*", "times": 1_000_000_000, "mode": "cut-before"}));
}

/// CloudStack is back.
fn back(appliance: &Appliance) {
    appliance.cloud.admin("DELETE", "faults", json!({}));
}
