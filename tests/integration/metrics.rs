//! `volctl metrics`: what Prometheus' own tools take, counters that never go back, and a daemon that it does not keep.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::nbd::Client;
use crate::support::wait_for;
use crate::support::wording::{message, names};

/// Each sample of the text, by its name and labels as written.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn scrape(appliance: &Appliance) -> BTreeMap<String, f64> {
    samples(&appliance.run(&["metrics"]).success().stdout)
}

fn export(appliance: &Appliance) -> Client {
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1", "--name", "disk"]);
    Client::enter(&appliance.path("nbd.sock"), "disk").unwrap()
}

#[track_caller]
fn promtool(words: &[&str], input: &str) {
    accepts(Command::new("promtool").args(words), input);
}

/// Has the text read by the strict parser of Prometheus' Python client.
#[track_caller]
fn openmetrics(input: &str) {
    accepts(Command::new("/usr/bin/python3").args(["-c", OPENMETRICS]), input);
}

const OPENMETRICS: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
assert len(families) > 20 and all(family.documentation for family in families), families
";

#[track_caller]
fn accepts(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e} (tests/setup.sh test)"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{input}");
}

#[test]
fn promtool_and_openmetrics_accept_the_text_and_it_tells_what_happened() {
    let appliance = Appliance::start();
    let mut client = export(&appliance);
    client.write(0, &[7; 8192]).unwrap();
    client.read(1 << 40, 512).unwrap_err();
    appliance.cloud.fault(json!({"command": "createVolume", "mode": "error", "code": 535, "text": "a \"limit\"\n\\"}));
    appliance.json(&["create", "data2", "--size", "1G"]);
    let text = appliance.run(&["metrics"]).success().stdout;
    promtool(&["check", "metrics"], &text);
    openmetrics(&text);
    let found = samples(&text);
    let shown = appliance.ok(&["exports"])["exports"][0]["clients"][0]["address"].as_str().unwrap().to_owned();
    let of_client =
        |what: &str| format!("volctl_export_client_{what}{{client=\"{shown}\",export=\"disk\",subject=\"\"}}");
    for (name, value) in [
        ("volctl_operations_total{kind=\"create\",outcome=\"succeeded\"}", 1.0),
        ("volctl_operations_total{kind=\"create\",outcome=\"failed\"}", 1.0),
        ("volctl_operations_total{kind=\"detach\",outcome=\"stuck\"}", f64::NAN),
        ("volctl_operations_total{kind=\"detach\",outcome=\"succeeded\"}", 0.0),
        ("volctl_operations_unfinished{status=\"stuck\"}", 0.0),
        ("volctl_operation_step_duration_seconds_count{kind=\"create\",step=\"send\"}", 2.0),
        ("volctl_cloudstack_calls_total{command=\"createVolume\"}", 2.0),
        ("volctl_cloudstack_errors_total{command=\"createVolume\",error=\"refused\"}", 1.0),
        ("volctl_cloudstack_key_refused", 0.0),
        ("volctl_exports{state=\"active\"}", 1.0),
        ("volctl_nbd_clients", 1.0),
        ("volctl_nbd_written_bytes_total", 8192.0),
        ("volctl_nbd_requests_total", 2.0),
        ("volctl_nbd_errors_total", 1.0),
        ("volctl_nbd_in_flight_requests", 0.0),
        ("volctl_export_written_bytes_total{export=\"disk\"}", 8192.0),
        ("volctl_export_read_bytes_total{export=\"disk\"}", 0.0),
        ("volctl_export_clients{export=\"disk\"}", 1.0),
        ("volctl_export_errors{export=\"disk\"}", 1.0),
        (&of_client("connections"), 1.0),
        ("volctl_vm_disks", 1.0),
        ("volctl_vm_disks_limit", 32.0),
        ("volctl_part_ok{part=\"store\"}", 1.0),
    ] {
        assert_eq!(found.get(name).copied(), (!value.is_nan()).then_some(value), "{name} in\n{text}");
    }
    let build = format!("volctl_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(found[&build], 1.0);
    for name in [
        "volctl_store_size_bytes",
        "volctl_store_free_bytes",
        "volctl_store_created_timestamp_seconds",
        &of_client("since_timestamp_seconds"),
        &of_client("last_request_timestamp_seconds"),
    ] {
        assert!(found[name] > 0.0, "{name}");
    }
    buckets_add_up(&found);
}

/// Each histogram's buckets grow up to its count.
fn buckets_add_up(found: &BTreeMap<String, f64>) {
    let count = "volctl_operation_step_duration_seconds_count{kind=\"create\",step=\"await\"}";
    let bucket = |le: &str| {
        found[&format!("volctl_operation_step_duration_seconds_bucket{{kind=\"create\",le=\"{le}\",step=\"await\"}}")]
    };
    let bounds = ["0.1", "0.5", "1", "2.5", "5", "10", "30", "60", "300", "900", "3600", "+Inf"].map(bucket);
    assert!(bounds.is_sorted() && bounds[11] == found[count] && found[count] == 1.0, "{bounds:?}");
}

#[test]
fn the_document_has_the_same_numbers() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let document = appliance.ok(&["metrics"]);
    assert_eq!(document["schema"], 1);
    let families = document["metrics"].as_array().unwrap();
    let ended = families.iter().find(|family| family["name"] == "volctl_operations_total").unwrap();
    assert_eq!((&ended["type"], &ended["unit"]), (&json!("counter"), &json!(null)));
    let labels = json!({"kind": "create", "outcome": "succeeded"});
    let sample = ended["samples"].as_array().unwrap().iter().find(|sample| sample["labels"] == labels).unwrap();
    assert_eq!(sample, &json!({"name": "volctl_operations_total", "labels": labels, "value": 1}));
    let size = families.iter().find(|family| family["name"] == "volctl_store_size_bytes").unwrap();
    assert_eq!((&size["type"], &size["unit"]), (&json!("gauge"), &json!("bytes")));
}

/// The counters and histograms of a scrape.
fn counters(appliance: &Appliance) -> BTreeMap<String, f64> {
    let grows = |name: &str| name.contains("_total") || name.contains("_duration_seconds");
    scrape(appliance).into_iter().filter(|(name, _)| grows(name)).collect()
}

#[test]
fn counters_never_go_back_but_for_a_new_store() {
    let mut appliance = Appliance::start();
    let mut client = export(&appliance);
    let mut before = counters(&appliance);
    for kill in [false, true, false, true] {
        client.write(0, &[7; 8192]).unwrap();
        let now = counters(&appliance);
        let bytes = "volctl_nbd_written_bytes_total";
        assert!(now[bytes] >= before[bytes] + 8192.0, "{now:?}");
        drop(client);
        if kill {
            appliance.kill_daemon();
        } else {
            appliance.stop_daemon();
        }
        appliance.start_daemon();
        let after = counters(&appliance);
        for (name, value) in &now {
            assert!(after.get(name).is_some_and(|after| after >= value), "{name} was {value}: {after:?}");
        }
        before = after;
        client = wait_for("the export", || Client::enter(&appliance.path("nbd.sock"), "disk").ok());
    }
    drop(client);
    appliance.kill_daemon();
    fs::remove_dir_all(appliance.path("state")).unwrap();
    appliance.start_daemon();
    let ended = "volctl_operations_total{kind=\"create\",outcome=\"succeeded\"}";
    assert_eq!((before[ended], scrape(&appliance)[ended]), (1.0, 0.0));
}

#[test]
fn a_textfile_is_put_in_place_whole_for_everybody_to_read() {
    let appliance = Appliance::start();
    let directory = appliance.path("textfiles");
    fs::create_dir(&directory).unwrap();
    let file = directory.join("volctl.prom");
    fs::write(&file, "former").unwrap();
    let former = fs::File::open(&file).unwrap();
    // As a careful cron job has it.
    let line = format!("umask 077; exec {} metrics --textfile {}", env!("CARGO_BIN_EXE_volctl"), file.display());
    let written = appliance
        .command(&[])
        .get_envs()
        .fold(&mut Command::new("sh"), |command, (name, value)| command.env(name, value.unwrap()))
        .arg("-c")
        .arg(line)
        .output()
        .unwrap();
    assert!(written.status.success() && written.stdout.is_empty() && written.stderr.is_empty(), "{written:?}");
    let text = fs::read_to_string(&file).unwrap();
    promtool(&["check", "metrics"], &text);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(std::io::read_to_string(former).unwrap(), "former", "the former file was not written over");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left");

    let error = appliance.json(&["metrics", "--textfile", "/tmp/volctl.txt"]).failure(2, "usage");
    names(message(&error), &[".prom"]);
    let nowhere = directory.join("missing/volctl.prom");
    let error = appliance.json(&["metrics", "--textfile", nowhere.to_str().unwrap()]).failure(1, "internal");
    names(message(&error), &[nowhere.to_str().unwrap(), "cannot be written"]);
    fs::create_dir(directory.join("dir.prom")).unwrap();
    appliance.json(&["metrics", "--textfile", directory.join("dir.prom").to_str().unwrap()]).failure(1, "internal");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "no half file is left");
}

#[test]
fn a_daemon_that_is_scraped_leaves_all_the_same() {
    let daemon = "idle_timeout = \"2s\"\n".to_owned();
    let mut appliance = Appliance::with(Config { daemon, ..Config::default() });
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let mut scrapes = 0;
    let status = wait_for("the daemon to leave", || {
        for words in [["metrics"], ["health"]] {
            scrapes += u32::from(appliance.run(&words).code == 0);
        }
        appliance.daemon_ended()
    });
    assert!(status.success(), "{status}");
    assert!(scrapes > 10, "only {scrapes} scrapes");
}

#[test]
fn a_scrape_asks_cloudstack_nothing_and_waits_for_nothing() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    wait_for("the first comparison", || scrape(&appliance).contains_key("volctl_sync_age_seconds").then_some(()));
    appliance.cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "late", "delay_ms": 60_000}));
    let former = calls(&appliance);
    let asking = appliance.begin(&["ls", "--max-age", "0"]);
    let calls = wait_for("the question", || Some(calls(&appliance)).filter(|calls| *calls > former));
    let before = Instant::now();
    let found = scrape(&appliance);
    assert!(before.elapsed() < Duration::from_secs(1), "it took {:?}", before.elapsed());
    assert_eq!(found["volctl_operations_total{kind=\"create\",outcome=\"succeeded\"}"], 1.0);
    assert_eq!(self::calls(&appliance), calls);
    asking.end().success();
}

fn calls(appliance: &Appliance) -> u64 {
    let calls = appliance.cloud.state()["journal"]["calls"].clone();
    calls.as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

#[test]
fn the_alert_rules_fire_where_they_should() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    promtool(&["check", "rules", root.join("packaging/prometheus/volctl.rules.yml").to_str().unwrap()], "");
    promtool(&["test", "rules", root.join("tests/prometheus/volctl.rules.test.yml").to_str().unwrap()], "");
}

#[test]
fn the_alert_rules_speak_of_metrics_that_there_are() {
    let appliance = Appliance::start();
    wait_for("the first comparison", || scrape(&appliance).contains_key("volctl_sync_age_seconds").then_some(()));
    let found = scrape(&appliance);
    let rules = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus/volctl.rules.yml"));
    let mut looked_at = 0;
    for expression in rules.unwrap().lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        let metric = expression.split(['{', ' ']).next().unwrap();
        assert!(found.keys().any(|name| name.split('{').next() == Some(metric)), "{metric}");
        looked_at += 1;
    }
    assert_eq!(looked_at, 8);
}
