//! What is kept of operations, and for how long; and who watches them live: `volctl ops watch`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::journal;
use crate::support::scenario::attached;
use crate::support::wait_for;

fn operations(appliance: &Appliance) -> Vec<String> {
    let listed = appliance.ok(&["ops"])["operations"].as_array().unwrap().clone();
    listed
        .iter()
        .map(|operation| format!("{} {}", operation["kind"], operation["volume_name"]).replace('"', ""))
        .collect()
}

#[test]
fn what_ended_long_ago_is_forgotten_and_nothing_else() {
    let daemon = "history = \"10d\"\n".to_owned();
    let mut appliance = Appliance::with(Config { daemon, ..Config::default() });
    attached(&appliance);
    appliance.ok(&["hold", "data", "--note", "stays"]);
    appliance.ok(&["create", "recent", "--size", "1G"]);
    appliance.cloud.volume("slow");
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let slow = appliance.ok(&["attach", "slow", "--no-wait"])["operation"]["id"].as_str().unwrap().to_owned();
    wait_for("the job to be sent", || (appliance.cloud.calls("attachVolume") == 2).then_some(()));
    let old = appliance.ok(&["ops", "--volume", "data"])["operations"][0]["id"].as_str().unwrap().to_owned();
    appliance.kill_daemon();
    journal::execute(
        &appliance.path("state"),
        "UPDATE operations SET created_at = '2020-01-01T00:00:00.000000Z', updated_at = '2020-01-02T00:00:00.000000Z'
             WHERE volume_name != 'recent';
         UPDATE operations SET finished_at = updated_at WHERE finished_at IS NOT NULL;
         UPDATE events SET at = '2020-01-01T00:00:00.000000Z'
             WHERE operation IN (SELECT id FROM operations WHERE volume_name != 'recent');",
    );
    appliance.start_daemon();
    let kept = ["attach slow", "create recent"];
    wait_for("the old operation to be forgotten", || (operations(&appliance) == kept).then_some(()));
    appliance.json(&["ops", "show", &old]).failure(3, "not_found");
    let events = appliance.run(&["events", "--json"]).success().stdout;
    assert!(!events.contains(&old) && events.contains(&slow), "{events}");
    assert!(appliance.show("data")["hold"].is_object() && appliance.show("data")["device"].is_object());

    // What has not ended is neither forgotten nor given up, however long ago it began.
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    assert_eq!(appliance.ok(&["ops", "wait", &slow])["operation"]["status"], "succeeded");
    assert_eq!(operations(&appliance), kept);
}

/// `volctl ops watch` with its output in a pipe.
struct Watching {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watching {
    fn start(appliance: &Appliance, words: &[&str]) -> Self {
        let mut command = appliance.command(&[&["ops", "watch"], words].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The lines up to the first that fits; waits for it.
    fn until(&mut self, fits: impl Fn(&str) -> bool) -> Vec<String> {
        let mut read = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended after {read:?}");
            read.push(line.trim_end().to_owned());
            if fits(&line) {
                return read;
            }
        }
    }

    /// Ctrl-C; gives the exit code.
    fn interrupt(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        self.lines.read_to_string(&mut String::new()).unwrap();
        self.child.wait().unwrap().code()
    }
}

#[test]
fn who_watches_sees_what_is_under_way_and_how_it_goes_on() {
    let mut appliance = Appliance::start();
    appliance.cloud.volume("data");
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let id = appliance.ok(&["attach", "data", "--no-wait"])["operation"]["id"].as_str().unwrap().to_owned();
    wait_for("the job to be sent", || (appliance.cloud.calls("attachVolume") == 1).then_some(()));
    let mut json = Watching::start(&appliance, &["--json"]);
    let mut quiet = Watching::start(&appliance, &["-q"]);
    let mut text = Watching::start(&appliance, &[]);
    let document = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let first = json.until(|line| document(line)["id"] == id.as_str());
    assert_eq!(document(first.last().unwrap())["schema"], 1, "what is under way already");
    assert_eq!(quiet.until(|line| line.trim_end() == id).last(), Some(&id));
    text.until(|line| line.contains("attach") && line.contains("data"));

    // It ends where nobody can be told.
    appliance.kill_daemon();
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    appliance.start_daemon();
    json.until(|line| document(line)["status"] == "succeeded" && document(line)["id"] == id.as_str());
    text.until(|line| line.contains("succeeded"));
    appliance.ok(&["detach", "data"]);
    let seen = json.until(|line| document(line)["kind"] == "detach" && document(line)["status"] == "succeeded");
    assert!(seen.iter().any(|line| document(line)["status"] == "running"), "{seen:#?}");
    assert_eq!([json.interrupt(), quiet.interrupt(), text.interrupt()], [Some(130); 3]);
}
