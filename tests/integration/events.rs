//! `volctl events`: the history of everything, numbered, and live without a gap.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::journal;
use crate::support::nbd::Client;
use crate::support::scenario::{attach_behind_our_back, attached, detach_behind_our_back, exported};
use crate::support::simulator::{APPLIANCE, SECRET_KEY};
use crate::support::wait_for;
use crate::support::wording::{message, names};

/// What `volctl events` prints, each line read.
fn events(appliance: &Appliance) -> Vec<Value> {
    read(&appliance.run(&["events", "--json"]).success().stdout)
}

fn read(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

/// Waits until there is an event of a kind that fits.
fn wait_for_event(appliance: &Appliance, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("an event {kind}"), || {
        events(appliance).into_iter().find(|event| event["kind"] == kind && fits(event))
    })
}

/// A `volctl events --follow` under way.
struct Following {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Following {
    fn start(appliance: &Appliance, words: &[&str]) -> Self {
        let mut command = appliance.command(&[&["events", "--follow", "--json"], words].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next event; waits for it.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// All up to the first that fits.
    fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            if events.last().is_some_and(&fits) {
                return events;
            }
        }
    }

    /// Ctrl-C; gives the exit code and what was left unread.
    fn interrupt(mut self) -> (Option<i32>, Vec<Value>) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), read(&rest))
    }
}

fn is_end(event: &Value) -> bool {
    event["kind"] == "transition" && event["status"] == "succeeded"
}

#[test]
fn each_thing_that_happens_is_an_event_with_a_number() {
    let appliance = Appliance::start();
    exported(&appliance);
    let export = appliance.show("data")["export"]["name"].as_str().unwrap().to_owned();
    drop(Client::enter(&appliance.path("nbd.sock"), &export).unwrap());
    wait_for_event(&appliance, "client_disconnected", |_| true);
    let detach = appliance.ok(&["detach", "data"])["operation"]["id"].clone();
    wait_for_event(&appliance, "device_left", |_| true);

    let events = events(&appliance);
    assert!(seqs(&events).is_sorted_by(|a, b| a < b), "{events:#?}");
    let volume = appliance.truth("data").unwrap()["id"].clone();
    for kind in
        ["device_arrived", "export_served", "client_connected", "client_disconnected", "export_ended", "device_left"]
    {
        let found: Vec<&Value> =
            of_kind(&events, kind).into_iter().filter(|event| event["volume_id"] == volume).collect();
        assert_eq!(found.len(), 1, "{kind}: {events:#?}");
        assert_eq!(found[0]["volume_name"], "data", "{kind}");
    }
    let calls: Vec<&Value> =
        of_kind(&events, "call").into_iter().filter(|call| call["operation_id"] == detach).collect();
    let texts: Vec<&str> = calls.iter().map(|call| call["text"].as_str().unwrap()).collect();
    assert_eq!(texts[0], "CloudStack accepted the job");
    // Told by the job or by the volume, whichever was asked first.
    assert!(
        matches!(texts[1..], ["CloudStack's job succeeded" | "CloudStack's job is done: the volume shows it"]),
        "{texts:?}"
    );
    let jobs = &appliance.cloud.state()["jobs"];
    let last_job = jobs.as_array().unwrap().last().unwrap();
    assert!(calls.iter().all(|call| call["job_id"] == last_job["id"]), "{calls:?} {jobs}");
    let of_detach = events.iter().filter(|event| event["operation_id"] == detach && event["kind"] == "transition");
    let steps: Vec<&str> = of_detach.map(|event| event["step"].as_str().unwrap()).collect();
    assert_eq!(steps.first(), Some(&"looking at the volume"));
    assert_eq!(steps.last(), Some(&"forgetting the device"));

    // The text has a line for each as well, and -q the numbers.
    let text = appliance.run(&["events"]).success().stdout;
    assert_eq!(text.lines().count(), events.len());
    names(&text, &["client unix:pid=", "came to this machine", "is served, writable", "CloudStack's job "]);
    let numbers = appliance.run(&["events", "-q"]).success().stdout;
    assert_eq!(numbers.lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>(), seqs(&events));
    let middle = seqs(&events)[events.len() / 2];
    let after = read(&appliance.run(&["events", "--json", "--after", &middle.to_string()]).success().stdout);
    assert_eq!(after, events[events.len() / 2 + 1..]);
}

#[test]
fn a_number_that_was_never_given_is_refused() {
    let appliance = Appliance::start();
    for words in [&["events", "--after", "4000"][..], &["events", "--follow", "--after", "4000"]] {
        names(message(&appliance.json(words).failure(4, "conflict")), &["4000", "newest"]);
    }
    assert_eq!(appliance.run(&["events", "--after", "-1"]).code, 2);
    assert_eq!(appliance.run(&["events", "--after", "x"]).code, 2);
}

#[test]
fn who_follows_sees_history_and_the_present_once_each_and_over_a_restart() {
    let mut appliance = Appliance::start();
    attached(&appliance);
    let mut following = Following::start(&appliance, &[]);
    let mut seen = following.until(is_end);
    appliance.ok(&["export", "data"]);
    seen.extend(following.until(|event| is_end(event) && event["operation_kind"] == "export"));
    appliance.kill_daemon();
    appliance.start_daemon();
    appliance.ok(&["detach", "data", "--force"]);
    seen.extend(following.until(|event| is_end(event) && event["operation_kind"] == "detach"));
    let (code, rest) = following.interrupt();
    assert_eq!(code, Some(130));
    seen.extend(rest);
    let all = events(&appliance);
    assert_eq!(seen[..], all[..seen.len()]);
    assert!(all.len() - seen.len() < 3, "{all:#?}");
}

#[test]
fn who_follows_keeps_the_daemon_and_who_has_gone_does_not() {
    let config = || Config { daemon: "idle_timeout = \"1s\"\n".to_owned(), ..Config::default() };
    let mut followed = Appliance::with(config());
    followed.ok(&["ls"]);
    let following = Following::start(&followed, &[]);
    let mut alone = Appliance::with(config());
    wait_for("the daemon that nobody follows to leave", || alone.daemon_ended());
    assert!(followed.daemon_ended().is_none());
    following.interrupt();
    wait_for("the daemon that nobody follows any more to leave", || followed.daemon_ended());
}

#[test]
fn a_slow_reader_misses_nothing_and_costs_the_daemon_nothing() {
    const MANY: u64 = 50_000;
    let mut appliance = Appliance::start();
    appliance.stop_daemon();
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})
         INSERT INTO events (at, kind, text) SELECT '2026-01-02T03:04:05Z', 'left_out', 'long ago' || hex(zeroblob(100)) FROM n"
    );
    journal::execute(&appliance.path("state"), &fill);
    appliance.start_daemon();
    let before = resident(&appliance);
    let mut following = Following::start(&appliance, &[]);
    let first = following.next();
    // It reads no further, and work goes on.
    attached(&appliance);
    assert!(resident(&appliance) < before + (8 << 10), "{} KiB, and {before} before", resident(&appliance));
    let mut seen = vec![first];
    seen.extend(following.until(is_end));
    let seqs = seqs(&seen);
    assert!(seqs.len() as u64 > MANY && seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{} events", seqs.len());
    assert_eq!(following.interrupt().0, Some(130));
}

/// What the daemon holds in memory, KiB.
fn resident(appliance: &Appliance) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", appliance.daemon_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn clients_that_come_and_go_too_often_are_counted() {
    let mut appliance = Appliance::start();
    exported(&appliance);
    let export = appliance.show("data")["export"]["name"].as_str().unwrap().to_owned();
    for _ in 0..300 {
        drop(Client::enter(&appliance.path("nbd.sock"), &export).unwrap());
    }
    assert!(appliance.stop_daemon().success());
    appliance.start_daemon();
    let events = events(&appliance);
    let clients = of_kind(&events, "client_connected").len() + of_kind(&events, "client_disconnected").len();
    let left_out: u64 = of_kind(&events, "left_out").iter().map(|event| number(event["text"].as_str().unwrap())).sum();
    assert_eq!(clients as u64 + left_out, 600, "{events:#?}");
    assert!(clients <= 200, "{clients}");
}

fn number(text: &str) -> u64 {
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn what_changes_outside_is_noted_whoever_finds_it() {
    let appliance = Appliance::start();
    attached(&appliance);
    detach_behind_our_back(&appliance);
    appliance.ok(&["ls", "--max-age", "0"]);
    let found = wait_for_event(&appliance, "changed_outside", |event| event["text"] != "it was not known here");
    names(found["text"].as_str().unwrap(), &["it was on VM", APPLIANCE, "no VM"]);
    assert_eq!(found["volume_name"], "data");
    attach_behind_our_back(&appliance, APPLIANCE);
    appliance.ok(&["sync"]);
    wait_for_event(&appliance, "changed_outside", |event| event["text"].as_str().unwrap().contains("is on VM"));
    appliance.ok(&["detach", "data"]);
    appliance.ok(&["sync"]);
    let events = events(&appliance);
    let mut changes = of_kind(&events, "changed_outside");
    changes.retain(|change| change["text"] != "it was not known here");
    assert_eq!(changes.len(), 2, "what we did is not outside: {events:#?}");
}

#[test]
fn cloudstack_away_and_back_and_a_refused_key_are_noted() {
    let mut appliance = Appliance::start();
    appliance.ok(&["ls", "--max-age", "0"]);
    appliance.cloud.fault(json!({"command": "*", "mode": "cut-before", "times": 1000}));
    appliance.run(&["ls", "--max-age", "0"]);
    wait_for_event(&appliance, "cloudstack_away", |_| true);
    appliance.cloud.admin("DELETE", "faults", Value::Null);
    appliance.ok(&["ls", "--max-age", "0"]);
    wait_for_event(&appliance, "cloudstack_back", |_| true);
    appliance.stop_daemon();
    appliance.configure(|config| config.secret_key = "wrong".to_owned());
    appliance.start_daemon();
    appliance.run(&["ls", "--max-age", "0"]);
    wait_for_event(&appliance, "key_refused", |_| true);
    std::fs::write(appliance.path("secret"), SECRET_KEY).unwrap();
    appliance.ok(&["ls", "--max-age", "0"]);
    wait_for_event(&appliance, "key_accepted", |_| true);
}

#[test]
fn devices_that_came_while_no_daemon_ran_are_noted() {
    let mut appliance = Appliance::start();
    attached(&appliance);
    let of_data = |event: &Value| event["volume_name"] == "data";
    wait_for_event(&appliance, "device_arrived", of_data);
    appliance.stop_daemon();
    detach_behind_our_back(&appliance);
    appliance.start_daemon();
    wait_for_event(&appliance, "device_left", of_data);
    let arrivals = of_kind(&events(&appliance), "device_arrived").len();
    appliance.stop_daemon();
    appliance.start_daemon();
    appliance.ok(&["ls"]);
    assert_eq!(of_kind(&events(&appliance), "device_arrived").len(), arrivals, "what was here is not noted again");
}
