//! Tables on terminals of 80 and 160 columns, under `watch`, and in a pipe.

use std::collections::HashSet;
use std::io::{Read, pipe};
use std::process::Stdio;

use console::measure_text_width;
use serde_json::json;

use crate::support::appliance::Appliance;

const NAMES: [&str; 10] = [
    "db1",
    "prod-log",
    "with space",
    "production-database-primary-01-data",
    "production-database-primary-02-data",
    "archive-2025-12-31-customer-north-sea-harbour-logistics-hamburg",
    "archive-2025-12-31-customer-north-sea-harbour-logistics-bremen1",
    "bücher-größe-日本語",
    "scratch",
    "worker-data",
];

/// An appliance with volumes here, elsewhere and nowhere, exports, a hold, a snapshot, and what failed.
fn busy() -> Appliance {
    let appliance = Appliance::start();
    let long = json!({"id": "a0000000-0000-4000-8000-0000000000aa", "name": "production-database-primary-01", "state": "Running"});
    let whole = json!({"zoneid": "20000000-0000-4000-8000-000000000001", "hypervisor": "KVM", "account": "volctl"});
    let mut vm = long.as_object().unwrap().clone();
    vm.extend(whole.as_object().unwrap().clone());
    appliance.cloud.admin("POST", "vm", vm.into());
    for name in NAMES {
        appliance.ok(&["create", name, "--size", "1000G"]);
    }
    for name in [NAMES[0], NAMES[3], NAMES[7]] {
        appliance.ok(&["attach", name, "--export", "--tag", "owner=jo", "--tag", "tier=gold"]);
    }
    appliance.ok(&["attach", "prod-log", "--vm", "production-database-primary-01"]);
    appliance.ok(&["attach", "worker-data", "--vm", "worker"]);
    appliance.run(&["hold", "db1", "--note", "the last copy runs"]).success();
    appliance.ok(&["snapshot", "create", NAMES[3], "--tag", "keep=yes"]);
    let text = "Failed to attach volume to VM; internal error: unable to execute QEMU command";
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": text}));
    appliance.json(&["attach", "scratch"]).failure(5, "cloudstack_refused");
    appliance
}

fn assert_fits(shown: &str, width: u16, what: &str) {
    let widest = shown.lines().map(measure_text_width).max().unwrap_or_default();
    assert!(widest <= usize::from(width), "{what} at {width} columns is {widest} wide:\n{shown}");
}

#[test]
fn a_terminal_has_one_line_for_each_thing_and_none_is_too_long() {
    let appliance = busy();
    let count = |list: &str, words: &[&str]| appliance.ok(words)[list].as_array().unwrap().len();
    for width in [80, 160] {
        for (list, words) in [
            ("volumes", &["ls"][..]),
            ("operations", &["ops"]),
            ("exports", &["exports"]),
            ("snapshots", &["snapshot", "ls"]),
            ("vms", &["vm", "ls"]),
            ("exports", &["exports", "check"]),
        ] {
            let shown = appliance.on_terminal(width, words);
            assert_fits(&shown, width, list);
            let rows = shown.lines().filter(|line| !line.starts_with("note: ")).count();
            assert_eq!(rows, 1 + count(list, words), "{words:?} at {width}:\n{shown}");
        }
        for words in [&["vm", "show"][..], &["health"], &["ops", "show", &appliance.run(&["ops", "-q"]).stdout[..8]]] {
            assert_fits(&appliance.on_terminal(width, words), width, words[0]);
        }
    }
}

#[test]
fn what_is_shortened_still_says_which() {
    let appliance = busy();
    let shown = appliance.on_terminal(80, &["ls"]);
    let rows: Vec<&str> = shown.lines().skip(1).filter(|line| !line.starts_with("note: ")).collect();
    let names: HashSet<&str> = rows.iter().map(|row| row.split("  ").next().unwrap()).collect();
    assert_eq!(names.len(), rows.len(), "{shown}");
    assert!(shown.contains('…') && shown.contains("active") && shown.contains("Ready,held"), "{shown}");
    let ids = appliance.run(&["ls", "-q"]).success().stdout;
    for id in ids.lines() {
        assert!(rows.iter().any(|row| row.contains(&format!("  {}  ", &id[..8]))), "{id}\n{shown}");
        assert_eq!(appliance.show(&id[..8])["id"], id);
    }
    let shown = appliance.on_terminal(80, &["exports"]);
    assert!(
        shown.contains("01-data") && shown.contains("bücher") && shown.contains("ERRORS"),
        "exports name their volumes:\n{shown}"
    );
    let shown = appliance.on_terminal(160, &["vm", "ls"]);
    assert!(shown.contains("000000000001") && shown.contains("000000000002"), "ids that begin alike:\n{shown}");
    assert!(appliance.on_terminal(160, &["ops"]).contains("Failed to attach volume to VM"));
}

#[test]
fn columns_stay_where_they_are_while_states_change() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let header = || appliance.on_terminal(80, &["ls", "--max-age", "0"]).lines().next().unwrap().to_owned();
    let before = header();
    appliance.ok(&["attach", "data1", "--export"]);
    assert_eq!(header(), before);
    appliance.run(&["hold", "data1", "--note", "wait"]).success();
    assert_eq!(header(), before);
}

#[test]
fn watch_gets_a_terminals_table_and_a_pipe_the_whole_one() {
    let appliance = busy();
    let (mut reader, writer) = pipe().unwrap();
    let mut command = appliance.command(&["ls"]);
    command.env("COLUMNS", "80").stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut shown = String::new();
    reader.read_to_string(&mut shown).unwrap();
    assert!(child.wait().unwrap().success());
    assert_fits(&shown, 80, "ls under watch");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let mut command = appliance.command(&["ls"]);
    let piped = command.env("COLUMNS", "80").env("CLICOLOR_FORCE", "1").stdin(Stdio::null()).output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    assert!(piped.contains(NAMES[5]) && piped.contains("/virtio-") && piped.contains("owner=jo, tier=gold"), "{piped}");
    assert!(piped.contains("\u{1b}["), "colour where it is asked for");
}

#[test]
fn what_happened_and_what_is_wrong_is_wrapped_between_words() {
    let appliance = busy();
    let id = appliance.show("db1")["id"].as_str().unwrap().to_owned();
    for width in [80, 160] {
        let events = appliance.on_terminal(width, &["events"]);
        let lines: Vec<&str> =
            events.lines().filter(|line| !line.contains("/virtio-") && !line.contains("archive-")).collect();
        assert_fits(&lines.join("\n"), width, "events");
        for words in [
            &["detach", "db1", "--yes"][..],
            &["delete", NAMES[3], "--yes"],
            &["why", "scratch"],
            &["ls", "--max-age", "x"],
        ] {
            assert_fits(&appliance.on_terminal(width, words), width, words[0]);
        }
    }
    let refused = appliance.on_terminal(80, &["detach", "db1", "--yes"]);
    assert!(refused.contains(&format!("hint: `volctl release {id}`")), "a command is whole:\n{refused}");
    assert_eq!(appliance.run(&["detach", "db1", "--yes"]).stderr.lines().count(), 2, "no wrapping in a pipe");
}

#[test]
fn an_empty_list_is_a_sentence_on_a_terminal() {
    let appliance = Appliance::start();
    for (words, sentence) in [
        (&["ls", "--tag", "no=one"][..], "no volumes\n"),
        (&["exports"], "no exports\n"),
        (&["ops"], "no operations\n"),
        (&["snapshot", "ls"], "no snapshots\n"),
    ] {
        assert_eq!(appliance.on_terminal(80, words), sentence);
        assert_eq!(appliance.run(words).success().stdout.lines().count(), 1, "a pipe has the header");
    }
}
