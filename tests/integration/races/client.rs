//! One client: asks for one thing after the other, notes what was acknowledged, and looks whose bytes an export has.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use serde_json::{Value, json};
use volctl::rpc::client::{CallFailure, Wait};

use super::connect;
use crate::support::appliance::Appliance;
use crate::support::nbd;

/// An operation that the daemon has accepted from this client, and how the client was told that it ended.
pub struct Acknowledged {
    /// Its id.
    pub id: String,
    /// The status in the answer.
    pub status: String,
}

/// Kinds of errors that a race between clients, or a CloudStack in trouble, may end in.
const EXPECTED: [&str; 9] = [
    "busy",
    "conflict",
    "in_use",
    "device_missing",
    "cloudstack_refused",
    "cloudstack_unreachable",
    "timeout",
    "cancelled",
    "not_found",
];

/// Asks until it is over.
pub fn run(
    appliance: &Appliance,
    volumes: &[String],
    mut random: Rng,
    index: u64,
    over: &AtomicBool,
) -> Vec<Acknowledged> {
    let mut connection = connect(appliance);
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let volume = &volumes[random.usize(..volumes.len())];
        let (method, mut params) = choice(volume, &mut random);
        let changes = !method.ends_with(".list");
        if changes {
            params["wait"] = true.into();
            params["request_id"] = format!("{index}-{number}").into();
            params["queue"] = (random.u8(..4) == 0).into();
            params["timeout_seconds"] = [1, 5, 30][random.usize(..3)].into();
        }
        match connection.call(method, &params, &Wait::default(), |_, _| {}) {
            Ok(answer) if changes => {
                acknowledged.extend(noted(&answer.read::<Value>().unwrap()["operation"]));
                if method == "export.create" && random.bool() {
                    look_at_bytes(appliance, volume);
                }
            }
            Ok(_) => {}
            Err(CallFailure::Remote(error)) => {
                let data = error.data.unwrap_or_default();
                let kind = data["kind"].as_str().unwrap_or_default();
                assert!(EXPECTED.contains(&kind), "{method} {params}: {} {data}", error.message);
                acknowledged.extend(noted(&data["operation"]));
            }
            Err(other) => panic!("{method}: {other:?}"),
        }
    }
    acknowledged
}

fn choice(volume: &str, random: &mut Rng) -> (&'static str, Value) {
    match random.u8(..16) {
        0..=2 => ("volume.attach", json!({"volume": volume})),
        3..=5 => ("volume.attach", json!({"volume": volume, "export": true})),
        6..=7 => ("export.create", json!({"volume": volume})),
        8..=9 => ("export.delete", json!({"export": volume, "force": random.bool()})),
        10..=13 => ("volume.detach", json!({"volume": volume, "force": random.bool()})),
        14 => ("volume.list", json!({"max_age_seconds": random.u8(..3)})),
        _ => ("export.list", json!({})),
    }
}

fn noted(operation: &Value) -> Option<Acknowledged> {
    let text = |key: &str| operation[key].as_str().map(str::to_owned);
    Some(Acknowledged { id: text("id")?, status: text("status")? })
}

/// Writes the volume's own id, or finds it there: never another's.
fn look_at_bytes(appliance: &Appliance, volume: &str) {
    let ours = || -> io::Result<Vec<u8>> {
        let mut client = nbd::Client::enter(&appliance.path("nbd.sock"), &format!("vol-{volume}"))?;
        let found = client.read(0, volume.len() as u32)?;
        client.write(0, volume.as_bytes())?;
        Ok(found)
    };
    // The export may be gone again, or go now.
    let Ok(found) = ours() else { return };
    let distinct: BTreeSet<&u8> = found.iter().collect();
    assert!(found == volume.as_bytes() || distinct == BTreeSet::from([&0]), "{volume} has another's bytes: {found:?}");
}
