//! `volctl config check --online`: what the configuration meets, while a daemon runs and while none does.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config, Ended};
use crate::support::simulator::{APPLIANCE, CUSTOM, ZONE};
use crate::support::wording::{hint, message, names};

fn run(appliance: &Appliance, words: &[&str]) -> Ended {
    let (config, state) = (appliance.write_config(), appliance.path("state"));
    let line = ["config", "check", config.to_str().unwrap(), "--online", "--state-dir", state.to_str().unwrap()];
    appliance.run(&[words, &line].concat())
}

/// What is found where something is wrong.
fn wrong(appliance: &Appliance) -> Vec<Value> {
    let ended = run(appliance, &["--json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(ended.json()["ok"], false);
    findings(&ended)
}

fn findings(ended: &Ended) -> Vec<Value> {
    ended.json()["checks"].as_array().unwrap().clone()
}

/// The findings of this name that are not ok, each with what to do; those of all other names are.
#[track_caller]
fn only_bad(findings: &[Value], name: &str) -> Vec<Value> {
    let others = findings.iter().find(|finding| finding["state"] != "ok" && finding["name"] != name);
    assert_eq!(others, None, "{findings:#?}");
    let bad: Vec<Value> = findings.iter().filter(|finding| finding["state"] == "bad").cloned().collect();
    assert!(!bad.is_empty(), "{findings:#?}");
    bad.iter().for_each(|finding| assert!(!hint(finding).is_empty()));
    bad
}

#[track_caller]
fn the<'a>(findings: &'a [Value], name: &str) -> &'a Value {
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name}: {findings:#?}"))
}

/// From this check on, each could not be made because of `cause`.
#[track_caller]
fn skipped_because_of(findings: &[Value], cause: &str, skipped: &[&str]) {
    let bad = the(findings, cause);
    assert_eq!(bad["state"], "bad", "{findings:#?}");
    hint(bad);
    for name in skipped {
        let finding = the(findings, name);
        assert_eq!(finding["state"], "skipped", "{findings:#?}");
        names(message(finding), &["not checked", cause]);
        names(hint(finding), &[cause]);
    }
}

const AFTER_KEY: [&str; 5] = ["rights", "project", "this_vm", "slots", "vm_snapshots"];

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Listens on a port of its own, so that who holds it can be told.
fn with_port() -> (u16, Config) {
    let port = free_port();
    (port, Config { nbd: format!("listen = [\"127.0.0.1:{port}\"]\n"), ..Config::default() })
}

#[test]
fn all_is_well_while_no_daemon_runs_and_nothing_is_changed() {
    let (port, config) = with_port();
    let appliance = Appliance::stopped(config);
    let ended = run(&appliance, &["--json"]).success();
    assert_eq!(ended.json()["ok"], true);
    let found = findings(&ended);
    let order: Vec<&str> = found.iter().map(|finding| finding["name"].as_str().unwrap()).collect();
    let expected =
        ["endpoint", "tls", "clock", "key", "rights", "project", "this_vm", "slots", "vm_snapshots", "state"];
    assert_eq!(order[..10], expected);
    assert_eq!(order[10..], ["udev", "listeners", "listeners", "listeners"]);
    names(message(the(&found, "this_vm")), &[APPLIANCE, "proven by the disk", "ROOT-appliance"]);
    names(message(the(&found, "slots")), &["32 of 32 are free"]);
    names(message(the(&found, "state")), &["is not there yet, and can be made"]);
    names(message(found.last().unwrap()), &[&format!("127.0.0.1:{port} is free")]);
    assert!(!appliance.path("state").exists() && !appliance.path("nbd.sock").exists() && !appliance.socket().exists());
    let calls = appliance.cloud.state()["journal"]["calls"].clone();
    assert!(calls.as_object().unwrap().keys().all(|command| command.starts_with("list")), "{calls}");

    let people = run(&appliance, &[]).success();
    names(&people.stdout, &["CHECK", "endpoint", "nothing is wrong\n"]);
    assert_eq!((run(&appliance, &["-q"]).stdout.as_str(), people.stderr.as_str()), ("ok\n", ""));
}

#[test]
fn a_running_daemon_is_not_disturbed_and_its_listeners_are_its_own() {
    let (_, config) = with_port();
    let appliance = Appliance::with(config);
    appliance.ok(&["create", "data1", "--size", "1", "--attach", "--export"]);
    let ended = run(&appliance, &["--json"]).success();
    let found = findings(&ended);
    let held = format!("held by the running volctld (pid {})", appliance.daemon_id());
    let listeners: Vec<&Value> = found.iter().filter(|finding| finding["name"] == "listeners").collect();
    assert_eq!(listeners.len(), 3);
    listeners.iter().for_each(|finding| names(message(finding), &[&held]));
    names(message(the(&found, "state")), &["the running volctld (pid"]);
    names(message(the(&found, "this_vm")), &[APPLIANCE, "proven by the disk"]);
    names(message(the(&found, "slots")), &["31 of 32"]);
    assert_eq!(appliance.ok(&["health"])["healthy"], true);
    assert_eq!(appliance.ok(&["exports"])["exports"][0]["state"], "active");
}

#[test]
fn a_refused_key_and_a_clock_that_is_off() {
    let mut appliance = Appliance::stopped(Config { secret_key: "wrong".to_owned(), ..Config::default() });
    let found = wrong(&appliance);
    names(message(the(&found, "key")), &["refused the API key or the signature"]);
    skipped_because_of(&found, "key", &AFTER_KEY);
    for name in ["endpoint", "tls", "clock", "state"] {
        assert_eq!(the(&found, name)["state"], "ok", "{found:#?}");
    }

    appliance.cloud.settings(json!({"tells_time": false}));
    names(message(the(&wrong(&appliance), "clock")), &["not checked", "tell no time"]);
    appliance.cloud.settings(json!({"tells_time": true}));
    appliance.configure(|config| *config = Config::default());
    appliance.cloud.settings(json!({"clock_offset_seconds": 600}));
    let found = wrong(&appliance);
    names(message(the(&found, "clock")), &["clock is", "behind CloudStack's"]);
    skipped_because_of(&found, "clock", &["key", "rights", "vm_snapshots"]);
    for (offset, side) in [(45, "behind"), (-120, "ahead of")] {
        appliance.cloud.settings(json!({"clock_offset_seconds": offset}));
        names(message(&only_bad(&wrong(&appliance), "clock")[0]), &["clock is", side]);
    }
    appliance.cloud.settings(json!({"clock_offset_seconds": 0, "tells_time": false}));
    names(message(the(&findings(&run(&appliance, &["--json"]).success()), "clock")), &["tell no time"]);
}

#[test]
fn each_right_that_the_role_lacks_is_told_with_what_will_not_work() {
    let appliance = Appliance::stopped(Config::default());
    appliance.cloud.settings(json!({"denied_commands": ["attachVolume", "resizeVolume", "listProjects"]}));
    let bad = only_bad(&wrong(&appliance), "rights");
    assert_eq!(bad.len(), 2, "listProjects is needed for a project only: {bad:#?}");
    names(message(&bad[0]), &["lacks attachVolume", "no volume can be attached"]);
    names(message(&bad[1]), &["lacks resizeVolume", "no volume can be resized"]);
    names(hint(&bad[1]), &["administrator", "resizeVolume"]);

    appliance.cloud.settings(json!({"denied_commands": ["listVirtualMachines"]}));
    let found = wrong(&appliance);
    names(message(the(&found, "this_vm")), &["not checked", "lacks listVirtualMachines"]);
    names(message(the(&found, "slots")), &["not checked", "this_vm"]);
    appliance.cloud.settings(json!({"denied_commands": ["listVMSnapshot", "listCapabilities"]}));
    let found = wrong(&appliance);
    assert_eq!(the(&found, "key")["state"], "ok", "{found:#?}");
    names(message(the(&found, "vm_snapshots")), &["not checked", "lacks listVMSnapshot"]);
    appliance.cloud.settings(json!({"denied_commands": ["listApis"]}));
    names(message(&only_bad(&wrong(&appliance), "rights")[0]), &["cannot be asked", "432"]);
}

#[test]
fn what_keeps_this_vm_from_taking_a_disk() {
    let mut appliance = Appliance::stopped(Config::default());
    appliance.cloud.admin("POST", "vm", json!({"id": APPLIANCE, "vmsnapshots": true}));
    names(
        message(&only_bad(&wrong(&appliance), "vm_snapshots")[0]),
        &["before-update", "attaches and detaches nothing"],
    );
    appliance.cloud.admin("POST", "vm", json!({"id": APPLIANCE, "vmsnapshots": false}));

    let volume = appliance
        .cloud
        .call("createVolume", &[("name", "full"), ("zoneid", ZONE), ("diskofferingid", CUSTOM), ("size", "1")]);
    let volume = volume.content()["id"].as_str().unwrap().to_owned();
    appliance.cloud.job("attachVolume", &[("id", &volume), ("virtualmachineid", APPLIANCE)]);
    appliance.configure(|config| config.device = "max_disks = 1\n".to_owned());
    names(message(&only_bad(&wrong(&appliance), "slots")[0]), &["no slot is free", "1 of 1"]);

    appliance.configure(|config| {
        config.device = String::new();
        config.cloudstack = "project = \"nowhere\"\n".to_owned();
    });
    let found = wrong(&appliance);
    names(message(the(&found, "project")), &["\"nowhere\""]);
    skipped_because_of(&found, "project", &["this_vm", "slots", "vm_snapshots"]);
    appliance.configure(|config| {
        config.cloudstack.clear();
        config.vm_id = Some("00000000-0000-4000-8000-00000000dead".to_owned());
    });
    let found = wrong(&appliance);
    names(message(the(&found, "this_vm")), &["cannot be proven", APPLIANCE]);
    skipped_because_of(&found, "this_vm", &["slots", "vm_snapshots"]);
}

#[test]
fn a_cloudstack_that_is_away_is_told_in_bounded_time() {
    let rest = [&["tls", "clock", "key"], &AFTER_KEY[..]].concat();
    let mut appliance = Appliance::stopped(Config::default());
    let endpoint = |appliance: &mut Appliance, endpoint: String| {
        appliance.configure(|config| config.endpoint = Some(endpoint));
        wrong(appliance)
    };
    let port = free_port();
    let found = endpoint(&mut appliance, format!("http://127.0.0.1:{port}/client/api"));
    names(message(the(&found, "endpoint")), &[&port.to_string(), "refused"]);
    skipped_because_of(&found, "endpoint", &rest);
    assert_eq!(the(&found, "state")["state"], "ok", "this machine is looked at all the same");
    let found = endpoint(&mut appliance, "http://localhost.invalid:1/client/api".replace("http:", "https:"));
    names(message(the(&found, "endpoint")), &["name cannot be resolved"]);

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    appliance.configure(|config| config.cloudstack = "timeout = \"1s\"\n".to_owned());
    let began = Instant::now();
    let found = endpoint(&mut appliance, format!("http://{}/client/api", silent.local_addr().unwrap()));
    assert!(began.elapsed() < Duration::from_secs(20));
    names(message(the(&found, "endpoint")), &["did not answer within 1s"]);
    skipped_because_of(&found, "endpoint", &rest);

    let plain = appliance.cloud.endpoint().replace("http:", "https:");
    let found = endpoint(&mut appliance, plain);
    assert_eq!(the(&found, "endpoint")["state"], "ok");
    names(message(the(&found, "tls")), &["TLS failed", "does not speak TLS"]);
    skipped_because_of(&found, "tls", &rest[1..]);
    appliance.configure(|config| config.cloudstack = "ca_file = \"/nowhere/ca.pem\"\n".to_owned());
    names(message(the(&wrong(&appliance), "tls")), &["ca_file /nowhere/ca.pem cannot be read"]);
    let html = appliance.cloud.endpoint().replace("/client/api", "/elsewhere");
    appliance.configure(|config| config.cloudstack.clear());
    assert_eq!(the(&endpoint(&mut appliance, html), "endpoint")["state"], "bad");
}

#[test]
fn this_machine_is_looked_at() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let nbd = format!("listen = [\"{address}\", \"127.0.0.1:0\"]\n");
    let appliance = Appliance::stopped(Config { nbd, ..Config::default() });
    fs::write(appliance.path("nbd.sock"), "no socket").unwrap();
    fs::write(appliance.path("state"), "no directory").unwrap();
    let found = wrong(&appliance);
    names(message(the(&found, "state")), &["cannot be used", "not a directory"]);
    let listeners: Vec<&Value> = found.iter().filter(|finding| finding["name"] == "listeners").collect();
    names(message(listeners[1]), &["nbd.sock", "something else is there"]);
    let own = format!("(pid {})", std::process::id());
    names(message(listeners[2]), &[&address.to_string(), "in use by", &own]);
    assert_eq!(listeners[3]["state"], "ok");

    fs::remove_dir_all(appliance.path("by-id")).unwrap();
    let people = run(&appliance, &[]);
    assert_eq!((people.code, people.stderr.as_str()), (1, ""));
    names(&people.stdout, &["by_id_dir", "cannot be read", "leave [device] by_id_dir out"]);
    assert_eq!(run(&appliance, &["-q"]).stdout, "wrong\n");
}

#[test]
fn a_configuration_with_mistakes_is_mended_first() {
    let appliance = Appliance::stopped(Config { daemon: "idle_timeout = \"soon\"\n".to_owned(), ..Config::default() });
    let ended = run(&appliance, &["--json"]);
    assert_eq!((ended.code, ended.json()["mistakes"].as_array().unwrap().len()), (1, 1));
    names(message(&findings(&ended)[0]), &["not checked", "mistakes"]);
    assert_eq!(appliance.cloud.state()["journal"]["calls"], json!({}), "nothing is asked");
    assert_eq!(appliance.run(&["config", "check", "--state-dir", "/x"]).code, 2, "it is for --online");
}
