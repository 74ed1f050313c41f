//! A hundred clients, thirty volumes, a CloudStack in trouble: afterwards the simulator's truth, the store, `ls` and the
//! exports agree, each acknowledged operation has one outcome, and the daemon has not grown.
//!
//! The sequence is seeded, and the seed printed: `VOLCTL_SEED=... VOLCTL_RACES_SECONDS=...` runs one again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::simulator::APPLIANCE;
use crate::support::{matrix, wait_up_to};

const CLIENTS: usize = 100;
const VOLUMES: usize = 30;
/// Time in which caches and connections reach the size that they keep.
const WARM_UP: f64 = 0.4;
/// What the daemon's private memory may differ by between two moments of the same load.
const SLACK_KIB: u64 = 6 * 1024;

/// A request whose answer was lost is dead after 70 s, and then the operation looks again.
const LONGEST_DOUBT: Duration = Duration::from_secs(150);

/// What a client was told of a request that was accepted.
type Told = BTreeMap<String, Value>;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn a_hundred_clients_and_a_cloud_in_trouble_end_in_agreement() {
    let seed = from_environment("VOLCTL_SEED", fastrand::u64(..));
    let time = Duration::from_secs(from_environment("VOLCTL_RACES_SECONDS", 120));
    matrix::announce(&format!("races: {CLIENTS} clients, {VOLUMES} volumes, {}s, VOLCTL_SEED={seed}", time.as_secs()));
    let appliance = Appliance::with(Config { cloudstack: "timeout = \"2s\"\n".to_owned(), ..Config::default() });
    let volumes: Vec<String> = (0..VOLUMES).map(|index| format!("race-{index}")).collect();
    for volume in &volumes {
        appliance.ok(&["create", volume, "--size", "1G"]);
    }
    appliance.cloud.settings(json!({"latency": {"default": {"min_ms": 1, "max_ms": 40}}}));

    let told: Mutex<Told> = Mutex::default();
    let end = Instant::now() + time;
    let (before, after) = thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (appliance, volumes, told) = (&appliance, &volumes, &told);
            scope.spawn(move || ask_until(end, Rng::with_seed(seed ^ client as u64), client, appliance, volumes, told));
        }
        let trouble = scope.spawn(|| trouble_until(end, Rng::with_seed(!seed), &appliance));
        wait_until(end - time.mul_f64(1.0 - WARM_UP));
        let before = private_kib(appliance.daemon_id());
        wait_until(end - Duration::from_secs(1));
        let after = private_kib(appliance.daemon_id());
        trouble.join().unwrap();
        (before, after)
    });
    appliance.cloud.admin("DELETE", "faults", json!(null));
    appliance.cloud.settings(json!({"maintenance": false}));

    wait_up_to(LONGEST_DOUBT, "all operations to end", || unfinished(&appliance).is_empty().then_some(()));
    matrix::announce(&format!(
        "races: {} operations accepted; daemon at {before} and {after} KiB",
        told.lock().unwrap().len()
    ));
    outcomes_are_one(&appliance, &told.into_inner().unwrap());
    everybody_agrees(&appliance, &volumes);
    assert!(after <= before + SLACK_KIB, "the daemon grew from {before} to {after} KiB (VOLCTL_SEED={seed})");
}

/// One client: asks for something on some volume, waits for the answer, and so on.
fn ask_until(end: Instant, mut rng: Rng, client: usize, appliance: &Appliance, volumes: &[String], told: &Mutex<Told>) {
    let mut connection = UnixStream::connect(appliance.socket()).unwrap();
    let mut answers = BufReader::new(connection.try_clone().unwrap());
    for number in 0.. {
        if Instant::now() >= end {
            return;
        }
        let volume = rng.choice(volumes).unwrap();
        let request = format!("{client}/{number}");
        let (method, mut params) = match rng.u8(..5) {
            0 => ("volume.attach", json!({"volume": volume})),
            1 => ("volume.attach", json!({"volume": volume, "export": true})),
            2 => ("export.create", json!({"volume": volume})),
            3 => ("export.delete", json!({"export": volume})),
            _ => ("volume.detach", json!({"volume": volume})),
        };
        params["wait"] = json!(true);
        params["queue"] = json!(rng.bool());
        params["timeout_seconds"] = json!(30);
        params["request_id"] = json!(request);
        let line = json!({"jsonrpc": "2.0", "id": number, "method": method, "params": params});
        writeln!(connection, "{line}").unwrap();
        let mut answer = String::new();
        assert!(answers.read_line(&mut answer).unwrap() > 0, "the daemon hung up on {line}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let operation = answer.pointer("/result/operation").or_else(|| answer.pointer("/error/data/operation"));
        if let Some(operation) = operation.filter(|operation| operation.is_object()) {
            told.lock().unwrap().insert(request, operation.clone());
        }
    }
}

/// A CloudStack that loses answers, sends rubbish and turns requests away, now here, now there.
fn trouble_until(end: Instant, mut rng: Rng, appliance: &Appliance) {
    const CHANGES: [&str; 2] = ["attachVolume", "detachVolume"];
    const LOOKS: [&str; 3] = ["listVolumes", "queryAsyncJobResult", "listVirtualMachines"];
    while Instant::now() < end {
        let (command, mode) = if rng.bool() {
            (
                *rng.choice(&CHANGES).unwrap(),
                *rng.choice(&["cut-after", "502-html-after", "empty-200-after", "503"]).unwrap(),
            )
        } else {
            (
                *rng.choice(&LOOKS).unwrap(),
                *rng.choice(&["cut-before", "html-200", "truncate", "429", "non-json"]).unwrap(),
            )
        };
        appliance.cloud.fault(json!({"command": command, "mode": mode, "times": 1}));
        thread::sleep(Duration::from_millis(rng.u64(50..300)));
    }
}

fn wait_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// The daemon's private memory, KiB.
fn private_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn operations(appliance: &Appliance) -> Vec<Value> {
    appliance.ok(&["ops", "--limit", "1000000"])["operations"].as_array().unwrap().clone()
}

fn unfinished(appliance: &Appliance) -> Vec<Value> {
    operations(appliance).into_iter().filter(|operation| operation["finished_at"].is_null()).collect()
}

/// Each operation that a client was told of is in the journal, with the outcome that the client was told.
fn outcomes_are_one(appliance: &Appliance, told: &Told) {
    let journal = operations(appliance);
    let by_id: BTreeMap<&str, &Value> =
        journal.iter().map(|operation| (operation["id"].as_str().unwrap(), operation)).collect();
    assert_eq!(by_id.len(), journal.len(), "an operation stands twice in the journal");
    assert!(told.len() > CLIENTS, "only {} operations were accepted", told.len());
    let ids: BTreeSet<&str> = told.values().map(|operation| operation["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), told.len(), "two requests were answered with one operation");
    for (request, operation) in told {
        let recorded = by_id[operation["id"].as_str().unwrap()];
        if !operation["finished_at"].is_null() {
            assert_eq!(operation["status"], recorded["status"], "request {request} was told otherwise: {recorded}");
        }
        assert!(["succeeded", "failed", "cancelled"].iter().any(|end| recorded["status"] == *end), "{recorded}");
    }
}

/// The simulator's books, its disks, the store, `ls` and the exports say the same.
fn everybody_agrees(appliance: &Appliance, volumes: &[String]) {
    let listed = appliance.ok(&["ls", "--max-age", "0"])["volumes"].as_array().unwrap().clone();
    let exports = appliance.ok(&["exports"])["exports"].as_array().unwrap().clone();
    for name in volumes {
        let truth = appliance.truth(name).unwrap();
        let id = truth["id"].as_str().unwrap();
        let volume = listed.iter().find(|volume| volume["id"] == id).unwrap();
        let attached = truth["virtualmachineid"] == APPLIANCE;
        assert_eq!(volume["vm_id"] == APPLIANCE, attached, "{volume}\n{truth}");
        assert_eq!(volume["device"].is_object(), attached, "{volume}");
        assert_eq!(appliance.cloud.is_plugged(id), attached, "{truth}");
        let export = exports.iter().find(|export| export["volume_id"] == id);
        assert_eq!(export.unwrap_or(&Value::Null), &volume["export"]);
        if let Some(export) = export {
            assert!(attached && export["state"] == "active", "{export}");
        }
    }
}
