//! The machine misbehaves: no room, nothing writable, a damaged database, a disk that goes, no descriptors, a SIGTERM.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config, Ended};
use crate::support::nbd::{Client, READ};
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

/// Something mounted; ends with the value.
struct Mount(PathBuf);

impl Mount {
    fn new(arguments: &[&str], at: &Path) -> Self {
        let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
        assert!(status.success(), "mount {arguments:?}: {status} (needs root)");
        Self(at.to_owned())
    }

    /// A small file system of its own.
    fn tmpfs(size: &str, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        Self::new(&["-t", "tmpfs", "-o", &format!("size={size}"), "none"], at)
    }

    /// The same directory, in which nobody can write.
    fn read_only(at: &Path) -> Self {
        let mount = Self::new(&["--bind", at.to_str().unwrap()], at);
        let status = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(at).status().unwrap();
        assert!(status.success());
        mount
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().unwrap();
    }
}

/// An appliance with the volume data1 exported as `disk`.
fn exporting() -> (Appliance, Client) {
    let appliance = Appliance::start();
    let client = export(&appliance);
    (appliance, client)
}

fn export(appliance: &Appliance) -> Client {
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1", "--name", "disk"]);
    Client::enter(&appliance.path("nbd.sock"), "disk").unwrap()
}

/// How a daemon ends that does not come up.
fn refused(appliance: &Appliance) -> Ended {
    appliance.daemon_command().stderr(Stdio::piped()).output().unwrap().into()
}

fn check<'a>(health: &'a Value, name: &str) -> &'a Value {
    health["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap()
}

/// Writes a file until there is no room left.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn without_room_nothing_new_is_begun_and_what_runs_goes_on() {
    let mut appliance = Appliance::stopped(Config::default());
    let state = appliance.path("state");
    let _room = Mount::tmpfs("80m", &state);
    appliance.start_daemon();
    let mut client = export(&appliance);
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let attaching = appliance.begin(&["attach", "data2"]);
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 2).then_some(()));

    fs::write(state.join("filler"), vec![1; 24 << 20]).unwrap();
    let error = appliance.json(&["create", "data3", "--size", "1G"]).failure(1, "store");
    names(message(&error), &[state.to_str().unwrap(), "67108864", "bytes"]);
    assert_eq!(error["retryable"], true);
    assert_eq!(appliance.cloud.calls("createVolume"), 2);
    client.write(0, b"still served").unwrap();

    fill(&state.join("more"));
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    wait_for("the daemon to have no room", || appliance.log().contains("cannot be saved").then_some(()));
    assert_eq!(client.read(0, 12).unwrap(), b"still served");
    let listed = appliance.ok(&["ls", "--max-age", "0"]);
    let data2 = listed["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "data2").unwrap();
    assert!(!data2["vm_id"].is_null() && data2["stale"] == false, "it is what CloudStack says now: {data2}");
    let operation = appliance.ok(&["ops"])["operations"][0].clone();
    assert_eq!(operation["status"], "running");
    names(operation["step"].as_str().unwrap(), &["waiting for CloudStack to attach", "state store", "full"]);
    let health = appliance.json(&["health"]);
    assert_eq!((health.code, &check(&health.json(), "store")["ok"]), (1, &json!(false)));

    // Also for a daemon that finds it so.
    appliance.kill_daemon();
    fs::remove_file(state.join("more")).unwrap();
    appliance.start_daemon();
    assert_eq!(attaching.end().success().json()["changed"], true);
    assert_eq!(appliance.ok(&["exports"])["exports"][0]["state"], "active");
    appliance.json(&["detach", "data2"]).failure(1, "store");
    fs::remove_file(state.join("filler")).unwrap();
    appliance.ok(&["detach", "data2"]);
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_serves_and_goes_on_when_there_is_room() {
    for killed in [true, false] {
        let mut appliance = Appliance::stopped(Config::default());
        let state = appliance.path("state");
        let _room = Mount::tmpfs("80m", &state);
        appliance.start_daemon();
        let client = export(&appliance);
        drop(client);
        appliance.ok(&["create", "data2", "--size", "1G"]);
        appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
        let attach = appliance.ok(&["attach", "data2", "--no-wait"])["operation"]["id"].as_str().unwrap().to_owned();
        wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 2).then_some(()));
        fill(&state.join("filler"));
        if killed {
            appliance.kill_daemon();
        } else {
            appliance.stop_daemon();
        }
        fill(&state.join("more"));

        appliance.start_daemon();
        wait_for("the export", || (appliance.ok(&["exports"])["exports"][0]["state"] == "active").then_some(()));
        Client::enter(&appliance.path("nbd.sock"), "disk").unwrap().write(0, b"served").unwrap();
        assert_eq!(appliance.ok(&["ls", "--max-age", "0"])["volumes"].as_array().unwrap().len(), 5);
        assert_eq!(appliance.ok(&["ops", "show", &attach])["operation"]["status"], "running");
        let error = appliance.json(&["detach", "data1"]).failure(1, "store");
        names(message(&error), &[state.to_str().unwrap()]);
        appliance.cloud.admin("POST", "release-jobs", json!({}));

        for file in ["filler", "more"] {
            fs::remove_file(state.join(file)).unwrap();
        }
        appliance.ok(&["ops", "wait", &attach]);
        appliance.ok(&["detach", "data2"]);
        assert_eq!(appliance.cloud.calls("attachVolume"), 2);
    }
}

#[test]
fn where_nothing_can_be_written_it_is_looked_at_and_served() {
    for killed in [true, false] {
        let (mut appliance, client) = exporting();
        drop(client);
        appliance.ok(&["create", "data2", "--size", "1G"]);
        appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
        let attach = appliance.ok(&["attach", "data2", "--no-wait"])["operation"]["id"].as_str().unwrap().to_owned();
        wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 2).then_some(()));
        let before = appliance.ok(&["ls"]);
        if killed {
            appliance.kill_daemon();
        } else {
            appliance.stop_daemon();
        }
        let read_only = Mount::read_only(&appliance.path("state"));
        let calls = appliance.cloud.state()["journal"]["calls"].clone();
        appliance.start_daemon();

        let listed = appliance.ok(&["ls", "--max-age", "0"]);
        assert_eq!(listed["volumes"].as_array().unwrap().len(), before["volumes"].as_array().unwrap().len());
        appliance.ok(&["show", "data1"]);
        appliance.ok(&["device", "data1"]);
        wait_for("the export", || (appliance.ok(&["exports"])["exports"][0]["state"] == "active").then_some(()));
        let mut client = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
        client.write(0, b"served").unwrap();
        for line in [&["create", "data3", "--size", "1G"][..], &["detach", "data1", "--force"], &["unexport", "disk"]] {
            let error = appliance.json(line).failure(1, "store");
            names(message(&error), &["volctl.db", "cannot be written"]);
            names(hint(&error), &["writable", "restart"]);
        }
        assert_eq!(appliance.ok(&["ops", "show", &attach])["operation"]["status"], "running");
        let error = appliance.json(&["ops", "wait", &attach]).failure(1, "store");
        names(message(&error), &["waiting for CloudStack to attach", "cannot be written"]);
        appliance.json(&["ops", "abandon", &attach, "--reason", "x", "--yes"]).failure(1, "store");
        assert_eq!(check(&appliance.json(&["health"]).json(), "store")["ok"], false);
        for change in ["attachVolume", "detachVolume", "createVolume"] {
            assert_eq!(appliance.cloud.state()["journal"]["calls"][change], calls[change], "{change}");
        }

        drop(client);
        appliance.stop_daemon();
        drop(read_only);
        appliance.cloud.admin("POST", "release-jobs", json!({}));
        appliance.start_daemon();
        appliance.ok(&["ops", "wait", &attach]);
        appliance.ok(&["detach", "data2"]);
    }
}

#[test]
fn a_read_only_directory_without_a_store_can_be_looked_from() {
    let mut appliance = Appliance::stopped(Config::default());
    fs::create_dir(appliance.path("state")).unwrap();
    let _read_only = Mount::read_only(&appliance.path("state"));
    appliance.start_daemon();
    assert_eq!(appliance.ok(&["ls"])["volumes"].as_array().unwrap().len(), 3, "the three root disks");
    appliance.json(&["create", "data1", "--size", "1G"]).failure(1, "store");
}

#[test]
fn a_store_that_cannot_be_read_is_refused_and_never_replaced() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.stop_daemon();
    let path = appliance.path("state").join("volctl.db");
    let whole = fs::read(&path).unwrap();
    let newer = {
        let mut bytes = whole.clone();
        // `user_version`: a big-endian number at byte 60 of the file format's header.
        bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
        bytes
    };
    let mut torn = whole.clone();
    torn[4096..].fill(0);
    for (bytes, words) in [
        (newer, &["newer volctld", "version 99"][..]),
        (torn, &["damaged", "backup"]),
        (b"not a database at all".repeat(100), &["damaged", "backup"]),
        (Vec::new(), &["damaged", "empty", "backup"]),
    ] {
        fs::write(&path, &bytes).unwrap();
        let ended = refused(&appliance);
        assert_eq!(ended.code, 1, "{ended:?}");
        names(&ended.stderr, words);
        names(&ended.stderr, &[path.to_str().unwrap()]);
        assert!(fs::read(&path).unwrap() == bytes, "it was changed: {words:?}");
        assert!(!appliance.socket().exists());
    }
    fs::write(&path, &whole).unwrap();
    appliance.start_daemon();
    assert_eq!(appliance.ok(&["ops"])["operations"][0]["kind"], "create");
}

#[test]
fn a_disk_that_vanishes_takes_its_export_with_it_until_somebody_says_otherwise() {
    let (mut appliance, mut client) = exporting();
    client.write(0, b"before").unwrap();
    let id = appliance.truth("data1").unwrap()["id"].clone();
    let plug = |appliance: &Appliance, plugged: bool| {
        appliance.cloud.admin("POST", "volume", json!({"id": id, "plugged": plugged}));
    };
    let state = |appliance: &Appliance| appliance.ok(&["exports"])["exports"][0]["state"].clone();
    plug(&appliance, false);
    wait_for("the export to fail", || (state(&appliance) == "failed").then_some(()));
    assert_eq!(client.request(READ, 0, 512).unwrap(), libc::EIO as u32);
    assert!(client.write(0, b"after").is_err());
    let said = check(&appliance.json(&["health"]).json(), "exports").clone();
    assert!(said["ok"] == false && said["message"].as_str().unwrap().contains("; 0 of 1 served"), "{said}");

    plug(&appliance, true);
    wait_for("the disk to be back", || (appliance.json(&["device", "data1"]).code == 0).then_some(()));
    assert_eq!(state(&appliance), "failed");
    assert_eq!(client.request(READ, 0, 512).unwrap(), libc::EIO as u32, "it is not read from another disk");
    drop(client);
    appliance.kill_daemon();
    appliance.start_daemon();
    appliance.ok(&["sync"]);
    assert_eq!(state(&appliance), "failed", "also not after a restart");
    assert!(Client::enter(&appliance.path("nbd.sock"), "disk").is_err());

    appliance.ok(&["unexport", "disk"]);
    appliance.ok(&["export", "data1", "--name", "disk"]);
    Client::enter(&appliance.path("nbd.sock"), "disk").unwrap().read(0, 512).unwrap();

    // Without a restart in between, too.
    plug(&appliance, false);
    wait_for("the export to fail", || (state(&appliance) == "failed").then_some(()));
    appliance.ok(&["unexport", "disk"]);
    plug(&appliance, true);
    wait_for("the disk to be back", || (appliance.json(&["device", "data1"]).code == 0).then_some(()));
    appliance.ok(&["export", "data1", "--name", "disk"]);
}

#[test]
fn an_export_that_fails_at_once_is_not_tried_at_once() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1", "--name", "disk"]);
    appliance.kill_daemon();
    let id = appliance.truth("data1").unwrap()["id"].clone();
    let link = fs::read_dir(appliance.path("by-id"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|link| link.to_str().unwrap().ends_with(&id.as_str().unwrap().replace('-', "")[..20]));
    let (link, away) = (link.unwrap(), appliance.path("away"));
    fs::rename(&link, &away).unwrap();
    appliance.configure(|config| {
        config.environment.push(("VOLCTLD_LOG".to_owned(), "volctl=debug".to_owned()));
        config.nbd = "listen = []\n".to_owned();
    });
    appliance.start_daemon();
    // Each try asks its own socket for the export, which is refused at once.
    fs::remove_file(appliance.path("nbd.sock")).unwrap();
    fs::rename(&away, &link).unwrap();
    let tries = || appliance.log().matches("not exported yet").count();
    let first = wait_for("the first tries", || Some(tries()).filter(|tries| *tries > 2));
    let begun = Instant::now();
    wait_for("some more", || (tries() >= first + 5).then_some(()));
    assert!(begun.elapsed() > Duration::from_millis(700), "5 tries in {:?}", begun.elapsed());
}

/// More than the 300 ms that the daemon takes, for a machine that is busy with other tests.
const SOON: Duration = Duration::from_millis(1500);

#[test]
fn a_termination_at_any_step_ends_it_soon_and_whoever_waits_goes_on() {
    for (point, line) in [
        ("create/send/after", &["create", "data2", "--size", "1G"][..]),
        ("attach/check/before", &["attach", "data1", "--export"]),
        ("attach/await/after", &["attach", "data1", "--export"]),
        ("attach/export/after", &["attach", "data1", "--export"]),
        ("detach/withdraw/after", &["detach", "attached"]),
        ("detach/hold/after", &["detach", "attached"]),
        ("detach/gone/before", &["detach", "attached"]),
    ] {
        let mut appliance = Appliance::start();
        appliance.ok(&["create", "data1", "--size", "1G"]);
        appliance.ok(&["create", "attached", "--size", "1G", "--export"]);
        appliance.stop_daemon();
        appliance.configure(|config| config.environment = vec![("VOLCTLD_PAUSE_AT".to_owned(), point.to_owned())]);
        appliance.start_daemon();
        let change = appliance.begin(line);
        wait_for(point, || appliance.log().contains(&format!("paused at {point}")).then_some(()));
        let before = Instant::now();
        assert_eq!(appliance.stop_daemon().code(), Some(0), "{point}");
        assert!(before.elapsed() < SOON, "{point}: it took {:?}", before.elapsed());
        appliance.configure(|config| config.environment.clear());
        appliance.start_daemon();
        assert_eq!(change.end().success().json()["changed"], true, "{point}");
        let operation = appliance.ok(&["ops"])["operations"][0].clone();
        assert_eq!(operation["status"], "succeeded", "{point}");
    }
}

#[test]
fn a_termination_waits_neither_for_cloudstack_nor_for_clients() {
    let (mut appliance, mut client) = exporting();
    appliance.cloud.fault(json!({"command": "*", "times": 1000, "mode": "late", "delay_ms": 600_000}));
    let looks: Vec<_> = (0..5).map(|_| appliance.begin(&["ls", "--max-age", "0"])).collect();
    let creating = appliance.begin(&["create", "data2", "--size", "1G"]);
    wait_for("CloudStack to be asked", || (appliance.cloud.calls("listZones") > 1).then_some(()));
    client.read(0, 512).unwrap();
    let before = Instant::now();
    assert_eq!(appliance.stop_daemon().code(), Some(0));
    assert!(before.elapsed() < SOON, "it took {:?}", before.elapsed());
    appliance.cloud.admin("DELETE", "faults", json!({}));
    appliance.start_daemon();
    creating.end().success();
    for look in looks {
        look.end().success();
    }
}

/// Sets how many descriptors the daemon may have.
fn limit(appliance: &Appliance, count: usize) {
    let status = Command::new("prlimit")
        .args([format!("--pid={}", appliance.daemon_id()), format!("--nofile={count}:")])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn without_descriptors_it_lives_says_so_and_recovers() {
    let (appliance, mut client) = exporting();
    let open = fs::read_dir(format!("/proc/{}/fd", appliance.daemon_id())).unwrap().count();
    limit(&appliance, open + 4);
    let mut idle = Vec::new();
    let refusal = wait_for("a refusal", || {
        idle.push(UnixStream::connect(appliance.socket()).unwrap());
        let ended = appliance.json(&["ops"]);
        (ended.code != 0).then_some(ended)
    });
    let error = refusal.failure(4, "busy");
    names(message(&error), &["no file descriptor left"]);
    assert_eq!(error["retryable"], true);
    client.write(0, b"still served").unwrap();

    // With one for the connection and none for the work, that is said too.
    let error = wait_for("an answer without a descriptor to find it", || {
        let ended = appliance.json(&["device", "data1"]);
        match (ended.code, ended.json()["error"]["kind"].as_str()) {
            (0, _) => idle.push(UnixStream::connect(appliance.socket()).unwrap()),
            (_, Some("busy")) => drop(idle.pop()),
            _ => return Some(ended.json()["error"].clone()),
        }
        None
    });
    names(message(&error), &["open files"]);
    drop(idle);
    limit(&appliance, 1024);
    appliance.ok(&["create", "data2", "--size", "1G", "--export"]);
    assert_eq!(client.read(0, 12).unwrap(), b"still served");
}

#[test]
fn a_daemon_that_never_comes_back_is_waited_for_for_half_a_minute() {
    let mut appliance = Appliance::start();
    appliance.cloud.volume("data");
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let for_people =
        appliance.command(&["attach", "data", "--request-id", "one"]).stderr(Stdio::piped()).spawn().unwrap();
    let for_programs = appliance.begin(&["attach", "data", "--request-id", "one"]);
    let id = wait_for("the attach to be sent", || {
        let operation = appliance.ok(&["ops"])["operations"].get(0)?.clone();
        (operation["step"] == "waiting for CloudStack to attach").then(|| operation["id"].as_str().unwrap().to_owned())
    });
    wait_for("both to be connected", || {
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        (sockets.matches(appliance.socket().to_str().unwrap()).count() == 3).then_some(())
    });
    // Each was told of its operation while these were answered.
    (0..10).for_each(|_| drop(appliance.ok(&["ops"])));
    appliance.kill_daemon();
    let killed = Instant::now();
    let (document, said) = (for_programs.end(), Ended::from(for_people.wait_with_output().unwrap()));
    let took = killed.elapsed();
    assert!((Duration::from_secs(29)..Duration::from_secs(40)).contains(&took), "they waited for {took:?}");
    assert_eq!(said.code, 7);
    names(&said.stderr, &["lost", "30s", "volctl ops wait", &id]);
    assert_eq!(document.json()["operation"]["id"], *id);
    names(hint(&document.failure(7, "daemon_unreachable")), &["volctl ops wait", &id]);

    // It goes on with the next daemon.
    appliance.start_daemon();
    appliance.cloud.admin("POST", "release-jobs", json!({}));
    appliance.ok(&["ops", "wait", &id]);
    assert_eq!(appliance.cloud.calls("attachVolume"), 1);
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let appliance = Appliance::stopped(Config::default());
    let command = appliance.daemon_command();
    fs::set_permissions(appliance.path("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let ended: Ended =
        Command::new(command.get_program()).args(command.get_args()).env_clear().output().unwrap().into();
    assert_eq!(ended.code, 2, "{ended:?}");
    names(&ended.stderr, &[appliance.path("secret").to_str().unwrap()]);
}
