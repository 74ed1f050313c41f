//! The crash matrix: the daemon is killed at every point of every journal, and the operation ends as if nothing had
//! happened.
//!
//! Each [`Scenario`] is first run undisturbed: that tells the points that it passes, how often it calls what changes
//! something in CloudStack, and what is there in the end. Then it is run once for each of these points, before and after
//! the step: the daemon stops there by itself (`volctl::operation::pause`), is killed with SIGKILL, and another one is
//! started, while the `volctl` that asked goes on waiting. All that may differ from the undisturbed run is the time.
//!
//! A step of the journal that no scenario passes fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use jiff::SignedDuration;
use serde_json::{Value, json};
use volctl::operation::journal_points;
use volctl::operation::pause::VARIABLE;

use crate::support::appliance::Appliance;
use crate::support::journal;
use crate::support::simulator::{APPLIANCE, Simulator, WORKER};
use crate::support::wait_for;

/// How many daemons run at the same time.
const SIDE_BY_SIDE: usize = 8;

/// Longer than a request to CloudStack is valid: what is not there then never comes.
const OUTAGE: SignedDuration = SignedDuration::from_secs(75);

/// The calls that change something.
const CHANGES: [&str; 6] =
    ["createVolume", "attachVolume", "detachVolume", "destroyVolume", "deleteVolume", "recoverVolume"];

/// One operation and the world in which it is asked for.
struct Scenario {
    name: &'static str,
    /// The operation's kind.
    kind: &'static str,
    /// Makes the world, without an operation of this kind.
    prepare: fn(&Appliance),
    /// What the operator types.
    words: &'static [&'static str],
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "create", kind: "create", prepare: |_| {}, words: &["create", "data", "--size", "1G"] },
    Scenario {
        name: "create with attach and export",
        kind: "create",
        prepare: |_| {},
        words: &["create", "data", "--size", "1G", "--export"],
    },
    Scenario { name: "attach", kind: "attach", prepare: new_volume, words: &["attach", "data"] },
    Scenario {
        name: "attach with export",
        kind: "attach",
        prepare: new_volume,
        words: &["attach", "data", "--export"],
    },
    Scenario {
        name: "attach elsewhere",
        kind: "attach",
        prepare: new_volume,
        words: &["attach", "data", "--vm", "worker"],
    },
    Scenario { name: "export", kind: "export", prepare: attached, words: &["export", "data", "--read-only"] },
    Scenario { name: "unexport", kind: "unexport", prepare: exported, words: &["unexport", "data"] },
    Scenario { name: "detach", kind: "detach", prepare: attached, words: &["detach", "data"] },
    Scenario { name: "detach with an export and data", kind: "detach", prepare: written, words: &["detach", "data"] },
    Scenario {
        name: "detach from elsewhere",
        kind: "detach",
        prepare: attached_elsewhere,
        words: &["detach", "data", "--from", "worker", "--yes"],
    },
    Scenario { name: "delete", kind: "delete", prepare: used, words: &["delete", "data", "--yes"] },
    Scenario {
        name: "delete for ever",
        kind: "delete",
        prepare: used,
        words: &["delete", "data", "--expunge", "--yes"],
    },
    Scenario {
        name: "delete what was never made",
        kind: "delete",
        prepare: new_volume,
        words: &["delete", "data", "--yes"],
    },
    Scenario { name: "recover", kind: "recover", prepare: deleted, words: &["recover", "data"] },
];

fn new_volume(appliance: &Appliance) {
    appliance.cloud.volume("data");
}

fn attached(appliance: &Appliance) {
    new_volume(appliance);
    appliance.ok(&["attach", "data"]);
}

fn exported(appliance: &Appliance) {
    new_volume(appliance);
    appliance.ok(&["attach", "data", "--export"]);
}

fn written(appliance: &Appliance) {
    new_volume(appliance);
    let uri = appliance.run(&["attach", "data", "--export", "-q"]).success().stdout;
    let write = ["-f", "raw", "-c", "write -P 0xab 64k 1M", "-c", "flush", uri.trim_end()];
    let written = Command::new("qemu-io").args(write).output().unwrap();
    assert!(written.status.success(), "{written:?}");
}

fn attached_elsewhere(appliance: &Appliance) {
    let id = appliance.cloud.volume("data");
    appliance.cloud.job("attachVolume", &[("id", &id), ("virtualmachineid", WORKER)]);
}

/// A volume that is on storage: it was attached once.
fn used(appliance: &Appliance) {
    let id = appliance.cloud.volume("data");
    appliance.cloud.job("attachVolume", &[("id", &id), ("virtualmachineid", APPLIANCE)]);
    appliance.cloud.job("detachVolume", &[("id", &id)]);
}

fn deleted(appliance: &Appliance) {
    used(appliance);
    let id = appliance.truth("data").unwrap()["id"].clone();
    appliance.cloud.job("destroyVolume", &[("id", id.as_str().unwrap())]);
}

/// What came of a scenario, without what differs from run to run.
#[derive(Debug, PartialEq)]
struct End {
    changed: Value,
    /// Kind and status of each operation.
    operations: Vec<Value>,
    /// How often each change was called.
    calls: BTreeMap<&'static str, u64>,
    /// CloudStack's books.
    volumes: Vec<Value>,
    /// What `volctl ls` shows.
    shown: Vec<Value>,
    exports: Vec<Value>,
    /// Links to devices.
    devices: usize,
    /// Bytes in the volume, where they were written.
    data: Option<bool>,
}

fn end_of(appliance: &Appliance, changed: &Value) -> End {
    let operations = appliance.ok(&["ops"])["operations"].clone();
    let shown = appliance.ok(&["ls", "--max-age", "0"])["volumes"].clone();
    let exports = appliance.ok(&["exports"])["exports"].clone();
    let of = |list: &Value, fields: &[&str]| -> Vec<Value> {
        let pick = |item: &Value| fields.iter().map(|field| item[*field].clone()).collect();
        list.as_array().unwrap().iter().map(pick).collect()
    };
    let state = appliance.cloud.state();
    End {
        changed: changed.clone(),
        operations: of(&operations, &["kind", "status"]),
        calls: changes_called(&appliance.cloud),
        volumes: of(&state["volumes"], &["name", "state", "virtualmachineid", "deviceid", "removed"]),
        shown: shown
            .as_array()
            .unwrap()
            .iter()
            .map(|volume| {
                json!([
                    volume["name"],
                    volume["state"],
                    volume["vm_id"],
                    volume["device"].is_object(),
                    volume["export"]["state"]
                ])
            })
            .collect(),
        exports: of(&exports, &["read_only", "state", "clients"]),
        devices: std::fs::read_dir(appliance.path("by-id")).unwrap().count(),
        data: data(appliance),
    }
}

fn changes_called(cloud: &Simulator) -> BTreeMap<&'static str, u64> {
    let calls = &cloud.state()["journal"]["calls"];
    CHANGES.iter().map(|command| (*command, calls[command].as_u64().unwrap_or(0))).collect()
}

fn data(appliance: &Appliance) -> Option<bool> {
    let id = appliance.truth("data")?["id"].as_str()?.to_owned();
    let bytes = std::fs::read(appliance.path("disks").join(id)).ok()?.get((64 << 10)..(64 << 10) + (1 << 20))?.to_vec();
    Some(bytes.iter().all(|byte| *byte == 0xab))
}

impl Scenario {
    /// The undisturbed run: its end, and the steps that it passes.
    fn undisturbed(&self) -> (End, Vec<String>) {
        let appliance = Appliance::start();
        (self.prepare)(&appliance);
        let before = appliance.log().len();
        let answer = appliance.ok(self.words);
        let log = appliance.log()[before..].to_owned();
        let first = journal_points().into_iter().find(|(kind, _)| word(kind) == self.kind).unwrap().1.to_owned();
        let mut steps = vec![first];
        for step in log.lines().filter_map(step_of_transition) {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        (end_of(&appliance, &answer["changed"]), steps)
    }

    /// Kills the daemon at a point, and compares the end with the undisturbed one.
    fn killed_at(&self, point: &str, end: &End) {
        let mut appliance = Appliance::stopped(Default::default());
        appliance.configure(|config| config.environment = vec![(VARIABLE.to_owned(), point.to_owned())]);
        appliance.start_daemon();
        (self.prepare)(&appliance);
        let asked = appliance.begin(self.words);
        wait_for(&format!("the daemon to stop at {point}"), || {
            appliance.log().contains(&format!("paused at {point}\n")).then_some(())
        });
        appliance.kill_daemon();
        if point.ends_with("/before") {
            journal::age(&appliance.path("state"), OUTAGE);
        }
        appliance.configure(|config| config.environment.clear());
        appliance.start_daemon();
        let answer = asked.end().success().json();
        wait_for("the end to be as if nothing had happened", || {
            let now = end_of(&appliance, &answer["changed"]);
            let is_same = now == *end;
            SETTLING.with_borrow_mut(|last| *last = format!("now {now:#?}\nundisturbed {end:#?}"));
            is_same.then_some(())
        });
    }
}

thread_local! {
    /// What was compared last, to be shown where it stays different.
    static SETTLING: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

fn word(kind: &impl std::fmt::Debug) -> String {
    format!("{kind:?}").to_lowercase()
}

/// The step in a line of the log such as `... transition operation=... status=Running step="send"`.
fn step_of_transition(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" transition ")?.1.split_once("step=\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Runs the work side by side and gives the results in its order; each that panics is named.
fn side_by_side<T: Sync, R: Send>(
    work: &[T],
    run: impl Fn(&T) -> R + Sync,
    name: impl Fn(&T) -> String + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((at, item)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    work.get(at).map(|item| (at, item))
                } {
                    match catch_unwind(AssertUnwindSafe(|| run(item))) {
                        Ok(result) => results.lock().unwrap().push((at, result)),
                        Err(_) => failed.lock().unwrap().push(name(item)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), work.len(), failed.join("\n"));
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn killed_anywhere_it_ends_as_if_nothing_had_happened() {
    let undisturbed = side_by_side(SCENARIOS, Scenario::undisturbed, |scenario| scenario.name.to_owned());
    let mut passed = BTreeSet::new();
    let mut matrix = Vec::new();
    for (scenario, (end, steps)) in SCENARIOS.iter().zip(&undisturbed) {
        for step in steps {
            passed.insert(format!("{}/{step}", scenario.kind));
            for side in ["before", "after"] {
                matrix.push((scenario, end, format!("{}/{step}/{side}", scenario.kind)));
            }
        }
    }
    let all: BTreeSet<String> = journal_points().iter().map(|(kind, step)| format!("{}/{step}", word(kind))).collect();
    assert_eq!(passed, all, "a step that no scenario passes is not tested");
    // Past the harness, which keeps what a test prints to itself.
    writeln!(
        std::io::stderr(),
        "crash matrix: {} points of {} kinds, in {} scenarios: {} kills",
        all.len() * 2,
        all.iter().filter_map(|point| point.split('/').next()).collect::<BTreeSet<_>>().len(),
        SCENARIOS.len(),
        matrix.len()
    )
    .unwrap();
    side_by_side(
        &matrix,
        |(scenario, end, point)| scenario.killed_at(point, end),
        |(scenario, _, point)| format!("{}: killed at {point}", scenario.name),
    );
}
