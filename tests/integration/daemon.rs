//! The daemon's life, and the devices that come late, never, together or wrong.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::nbd::Client;
use crate::support::simulator::APPLIANCE;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

#[test]
fn an_idle_daemon_leaves() {
    let daemon = "idle_timeout = \"1s\"\n".to_owned();
    let mut appliance = Appliance::with(Config { daemon, ..Config::default() });
    appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    // With an export it stays: longer than the timeout, and it answers.
    std::thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let mut client = Client::enter(&appliance.path("nbd.sock"), &export_name(&appliance)).unwrap();
            let end = Instant::now() + Duration::from_millis(1500);
            while Instant::now() < end {
                client.read(0, 512).unwrap();
            }
        });
        watched.join().unwrap();
    });
    appliance.ok(&["unexport", "data1"]);
    let status = wait_for("the daemon to leave", || appliance.daemon_ended());
    assert!(status.success(), "{status}");
    assert!(!appliance.socket().exists() && !appliance.path("nbd.sock").exists());
    appliance.json(&["ls"]).failure(7, "daemon_unreachable");
}

fn export_name(appliance: &Appliance) -> String {
    appliance.show("data1")["export"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn ls_answers_from_the_store_when_cloudstack_is_down() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    let before = appliance.ok(&["ls", "--max-age", "0"]);
    appliance.kill_daemon();
    appliance.configure(|config| config.endpoint = Some(nothing_listens()));
    appliance.start_daemon();
    let listed = appliance.ok(&["ls", "--max-age", "0"]);
    let (volumes, former) = (listed["volumes"].as_array().unwrap(), before["volumes"].as_array().unwrap());
    assert_eq!(volumes.len(), former.len());
    let of = |volumes: &[Value]| volumes.iter().find(|volume| volume["name"] == "data1").unwrap().clone();
    let (volume, former) = (of(volumes), of(former));
    assert_eq!((&volume["stale"], &former["stale"]), (&json!(true), &json!(false)));
    assert_eq!(volume["cloudstack_as_of"], former["cloudstack_as_of"]);
    assert_eq!((&volume["device"], &volume["id"]), (&former["device"], &former["id"]), "the device is read live");
    assert!(listed["notes"][0].as_str().unwrap().contains("STALE"), "{listed}");

    let ended = appliance.run(&["ls", "--max-age", "0"]).success();
    let row = ended.stdout.lines().find(|line| line.starts_with("data1")).unwrap();
    assert!(row.contains("Ready,STALE"), "{ended:?}");
    assert!(ended.stderr.contains("STALE") && ended.stderr.contains("old"), "{ended:?}");
    appliance.ok(&["device", "data1"]);
}

/// The endpoint of a port on which nothing listens.
fn nothing_listens() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/client/api", listener.local_addr().unwrap())
}

#[test]
fn with_an_empty_store_and_no_cloudstack_there_is_no_empty_list() {
    let appliance = Appliance::with(Config { endpoint: Some(nothing_listens()), ..Config::default() });
    let ended = appliance.json(&["ls"]);
    assert_eq!(ended.code, 5, "{ended:?}");
    appliance.ok(&["exports"]);
    appliance.ok(&["ops"]);
}

#[test]
fn one_daemon_has_a_state_directory() {
    let appliance = Appliance::start();
    let output = Command::new(env!("CARGO_BIN_EXE_volctld"))
        .arg("--config")
        .arg(appliance.path("config.toml"))
        .arg("--socket")
        .arg(appliance.path("second.sock"))
        .arg("--state-dir")
        .arg(appliance.path("state"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("another") && text.contains(appliance.path("state").to_str().unwrap()), "{text}");
    assert!(!appliance.path("second.sock").exists());
    appliance.ok(&["ls"]);
}

#[test]
fn a_termination_ends_it_within_a_second_and_loses_nothing() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let attach = appliance.ok(&["attach", "data2", "--no-wait"])["operation"]["id"].clone();
    let waiting = appliance.begin(&["ops", "wait", attach.as_str().unwrap()]);
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 2).then_some(()));
    let mut client = Client::enter(&appliance.path("nbd.sock"), &export_name(&appliance)).unwrap();
    client.read(0, 512).unwrap();
    let mut idle = UnixStream::connect(appliance.socket()).unwrap();
    idle.write_all(b"{\"half\":").unwrap();

    let before = Instant::now();
    let status = appliance.stop_daemon();
    assert!(before.elapsed() < Duration::from_secs(1), "it took {:?}", before.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(!appliance.socket().exists() && !appliance.path("nbd.sock").exists());

    appliance.start_daemon();
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    assert_eq!(waiting.end().success().json()["operation"]["status"], "succeeded", "whoever waited still does");
    assert_eq!(appliance.truth("data2").unwrap()["virtualmachineid"], APPLIANCE);
    assert_eq!(appliance.cloud.calls("attachVolume"), 2);
}

#[test]
fn the_control_socket_is_not_for_others() {
    let appliance = Appliance::start();
    appliance.ok(&["health"]);
    for socket in [appliance.socket(), appliance.path("nbd.sock")] {
        let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o660, "{}", socket.display());
    }
}

/// `systemd-socket-activate` in front of a daemon; ends with the value.
struct Activated(Child);

impl Drop for Activated {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn activated(appliance: &Appliance) -> Activated {
    let daemon = appliance.daemon_command();
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(appliance.socket()).arg(daemon.get_program());
    let log = fs::File::create(appliance.path("volctld.log")).unwrap();
    command.args(daemon.get_args()).stdin(Stdio::null()).stderr(log);
    let activated = Activated(command.spawn().unwrap());
    wait_for("systemd-socket-activate to listen", || appliance.socket().exists().then_some(()));
    activated
}

#[test]
fn a_daemon_that_cannot_start_tells_who_started_it_why() {
    let appliance = Appliance::stopped(Config { daemon: "idle_timeot = \"1s\"\n".to_owned(), ..Config::default() });
    let mut activated = activated(&appliance);
    let error = appliance.json(&["ls"]).failure(7, "daemon_unreachable");
    names(message(&error), &["the service failed: volctld cannot start", "idle_timeot", "[daemon]"]);
    names(hint(&error), &["idle_timeout"]);
    assert_eq!(activated.0.wait().unwrap().code(), Some(2));
}

#[test]
fn systemd_hands_the_socket_over() {
    let appliance = Appliance::stopped(Config::default());
    let activated = activated(&appliance);
    let name = fs::read_to_string(format!("/proc/{}/comm", activated.0.id())).unwrap();
    assert!(name.starts_with("systemd-socket"), "nothing has been asked yet: {name}");
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let name = fs::read_to_string(format!("/proc/{}/comm", activated.0.id())).unwrap();
    assert_eq!(name, "volctld\n");
    assert!(appliance.socket().exists());
}

#[test]
fn a_device_that_never_appears_is_waited_for_until_a_detach() {
    let lines: [&[&str]; 2] = [&["attach", "data1", "--export"], &["create", "data2", "--size", "1G", "--attach"]];
    let impatient = || Config { device: "timeout = \"1s\"\n".to_owned(), ..Config::default() };
    for line in lines {
        let appliance = Appliance::with(impatient());
        appliance.ok(&["create", "data1", "--size", "1G"]);
        appliance.ok(&["create", "here", "--size", "1G", "--attach"]);
        appliance.cloud.settings(json!({"devices_appear": false}));
        let ended = appliance.json(line);
        let operation = ended.json()["operation"].clone();
        assert_eq!((&operation["status"], &operation["step"]), (&json!("running"), &json!("waiting for device")));
        let error = ended.failure(6, "timeout");
        let here = appliance.show("here")["device"]["serial"].as_str().unwrap().to_owned();
        names(message(&error), &[line[1], "is attached", "within 1s", "seen: ", &here]);
        names(hint(&error), &["volctl detach"]);
        assert_eq!(appliance.truth(line[1]).unwrap()["virtualmachineid"], APPLIANCE, "nothing is detached by itself");

        let detached = appliance.ok(&["detach", line[1]]);
        assert_eq!(detached["changed"], true);
        assert_eq!(appliance.truth(line[1]).unwrap()["virtualmachineid"], json!(null));
        let former = appliance.ok(&["ops", "show", operation["id"].as_str().unwrap()])["operation"].clone();
        assert_eq!(former["status"], "cancelled");
        let by = detached["operation"]["id"].as_str().unwrap();
        assert!(message(&former["error"]).contains(by), "{former}");
    }
}

#[test]
fn a_late_device_is_adopted() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.cloud.settings(json!({"devices_appear": false}));
    let ended = appliance.json(&["attach", "data1", "--export"]);
    let id = ended.json()["operation"]["id"].as_str().unwrap().to_owned();
    ended.failure(6, "timeout");
    // Also by a daemon that came later.
    appliance.kill_daemon();
    appliance.start_daemon();
    appliance.json(&["attach", "data1"]).failure(4, "busy");
    let volume = appliance.truth("data1").unwrap()["id"].clone();
    appliance.cloud.settings(json!({"devices_appear": true}));
    appliance.cloud.admin("POST", "volume", json!({"id": volume, "plugged": true}));
    appliance.ok(&["ops", "wait", &id]);
    assert_eq!(appliance.show("data1")["export"]["state"], "active");
}

#[test]
fn two_volumes_of_one_size_at_the_same_moment_are_not_mixed_up() {
    let appliance = Appliance::start();
    for name in ["data1", "data2", "data3", "data4"] {
        appliance.ok(&["create", name, "--size", "1G"]);
    }
    // Their jobs wait for each other, and their devices come while others are still attached.
    let latency = json!({"attachVolume": {"min_ms": 50, "max_ms": 50}});
    appliance.cloud.settings(json!({"latency": latency, "device_delay_ms": 75}));
    let all = appliance.ok(&["attach", "data1", "data2", "data3", "data4", "--export"]);
    let socket = appliance.path("nbd.sock");
    for result in all["results"].as_array().unwrap() {
        let volume = &result["volume"];
        let (id, device) = (volume["id"].as_str().unwrap(), &volume["device"]);
        assert_eq!(device["serial"], id.replace('-', "")[..20]);
        Client::enter(&socket, &format!("vol-{id}")).unwrap().write(0, id.as_bytes()).unwrap();
    }
    for name in ["data1", "data2", "data3", "data4"] {
        let id = appliance.truth(name).unwrap()["id"].as_str().unwrap().to_owned();
        let link = appliance.path("by-id").join(format!("virtio-{}", &id.replace('-', "")[..20]));
        let mut bytes = vec![0; id.len()];
        fs::File::open(link).unwrap().read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, id.as_bytes(), "{name} has another's bytes");
    }
}

#[test]
fn a_device_that_was_there_before_the_daemon_is_found() {
    let mut appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.kill_daemon();
    fs::remove_dir_all(appliance.path("state")).unwrap();
    appliance.start_daemon();
    assert_eq!(appliance.ok(&["device", "data1"])["device"], created["volume"]["device"]);
    assert_eq!(appliance.ok(&["attach", "data1"])["changed"], false);
}

#[test]
fn a_wrong_size_is_an_error_that_says_what_stands() {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let node = created["volume"]["device"]["node"].as_str().unwrap();
    fs::File::options().write(true).open(node).unwrap().set_len(1 << 29).unwrap();
    for line in [&["attach", "data1"][..], &["export", "data1"], &["attach", "data1", "--export"]] {
        let error = appliance.json(line).failure(1, "device_mismatch");
        names(message(&error), &["data1", &(1u64 << 30).to_string(), &(1u64 << 29).to_string()]);
    }
    assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
    assert_eq!(appliance.truth("data1").unwrap()["virtualmachineid"], APPLIANCE, "it stays attached");
    appliance.ok(&["detach", "data1"]);
}

#[test]
fn a_change_is_one_line_of_the_log_and_a_reload_changes_its_filter() {
    let appliance = Appliance::stopped(Config { daemon: "log = \"warn\"\n".to_owned(), ..Config::default() });
    let daemon = Activated(appliance.daemon_command().env_remove("VOLCTLD_LOG").spawn().unwrap());
    wait_for("volctld to answer", || UnixStream::connect(appliance.socket()).ok());
    let reload = |appliance: &Appliance, filter: &str, heard: &str| {
        let text = fs::read_to_string(appliance.path("config.toml")).unwrap();
        let filtered = text.lines().map(|line| if line.starts_with("log =") { filter } else { line });
        fs::write(appliance.path("config.toml"), filtered.collect::<Vec<_>>().join("\n")).unwrap();
        signal::kill(Pid::from_raw(daemon.0.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
        wait_for("the reload", || appliance.log().contains(heard).then_some(()));
    };
    appliance.ok(&["create", "data1", "--size", "1G", "--reason", "first"]);
    let log = appliance.log();
    assert!(!log.contains("data1"), "at this level a change without trouble is silent: {log}");

    reload(&appliance, "log = \"info\"", "was read again");
    appliance.ok(&["attach", "data1", "--export", "--reason", "the night's copy"]);
    let log = appliance.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("data1")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    names(lines[0], &["attach of data1 asked for by user", "the night's copy", "operation=", "volume="]);

    reload(&appliance, "log = \"loud\"", "cannot be read");
    names(&appliance.log(), &["[daemon] log", "must be a level"]);
    appliance.ok(&["ls"]);
}
