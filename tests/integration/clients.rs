//! NBD through the daemon, with the clients that others wrote, over the URIs that it prints.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config};
use crate::support::nbd::Client;
use crate::support::wait_for;
use crate::support::wording::names;

/// Runs a client, which must succeed; gives what it prints.
fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An appliance with the exported volume `data1`, of 1 GiB, and its URIs: TCP first, then the Unix socket.
fn exported(flags: &[&str]) -> (Appliance, Vec<String>) {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let exported = appliance.ok(&[&["export", "data1"], flags].concat());
    let uris = exported["export"]["uris"].as_array().unwrap();
    let uris: Vec<String> = uris.iter().map(|uri| uri.as_str().unwrap().to_owned()).collect();
    assert!(uris[0].starts_with("nbd://") && uris[1].starts_with("nbd+unix://") && uris.len() == 2, "{uris:?}");
    (appliance, uris)
}

/// A file of some MiB that look random, and are the same each time.
fn pattern(appliance: &Appliance, mib: usize) -> PathBuf {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let bytes: Vec<u8> = (0..(mib << 20) / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    let path = appliance.path("pattern");
    fs::write(&path, bytes).unwrap();
    path
}

/// Waits until no client is left, so that a detach is not refused.
fn alone(appliance: &Appliance) {
    wait_for("the clients to be gone", || {
        (appliance.ok(&["exports"])["exports"][0]["clients"] == json!([])).then_some(())
    });
}

#[test]
fn nbdinfo_reads_both_uris() {
    let (appliance, uris) = exported(&[]);
    for uri in &uris {
        let info: Value = serde_json::from_str(&run("nbdinfo", &["--json", uri])).unwrap();
        let export = &info["exports"][0];
        assert_eq!((&export["export-size"], &export["is_read_only"]), (&json!(1 << 30), &json!(false)), "{export}");
        for flag in ["can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"] {
            assert_eq!(export[flag], true, "{flag}: {export}");
        }
        assert_eq!((&info["protocol"], &info["structured"]), (&json!("newstyle-fixed"), &json!(true)));
    }
    let list = run("nbdinfo", &["--list", uris[0].rsplit_once('/').unwrap().0]);
    assert!(list.contains(appliance.show("data1")["export"]["name"].as_str().unwrap()), "{list}");
}

#[test]
fn a_read_only_export_takes_no_writes() {
    let (_appliance, uris) = exported(&["--read-only"]);
    for uri in &uris {
        run("nbdinfo", &["--is", "read-only", uri]);
        let written = Command::new("qemu-io").args(["-f", "raw", "-c", "write 0 4k", uri]).output().unwrap();
        assert!(!written.status.success(), "{written:?}");
        run("qemu-io", &["-f", "raw", "-r", "-c", "read 0 4k", uri]);
    }
}

#[test]
fn nbdcopy_fills_and_drains_a_volume_that_is_detached_between() {
    let (appliance, uris) = exported(&[]);
    let pattern = pattern(&appliance, 8);
    let pattern = pattern.to_str().unwrap();
    run("nbdcopy", &[pattern, &uris[0]]);
    alone(&appliance);
    let detached = appliance.ok(&["detach", "data1"]);
    assert_eq!((&detached["bytes_written"], &detached["last_client"]), (&json!(8 << 20), &json!("disconnected")));

    let again = appliance.ok(&["attach", "data1", "--export", "--read-only"]);
    let copy = appliance.path("copy");
    let copy = copy.to_str().unwrap();
    run("nbdcopy", &[again["export"]["uris"][1].as_str().unwrap(), copy]);
    run("cmp", &["--bytes", &(8 << 20).to_string(), pattern, copy]);
    assert_eq!(fs::metadata(copy).unwrap().len(), 1 << 30);
}

#[test]
fn qemu_img_converts_and_compares() {
    let (appliance, uris) = exported(&[]);
    let image = appliance.path("image.qcow2");
    let image = image.to_str().unwrap();
    let pattern = pattern(&appliance, 8);
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", pattern.to_str().unwrap(), image]);
    run("qemu-img", &["resize", image, "1G"]);
    for (uri, other) in [(&uris[0], &uris[1]), (&uris[1], &uris[0])] {
        run("qemu-img", &["convert", "-n", "-f", "qcow2", "-O", "raw", image, uri]);
        let line = ["compare", "-f", "qcow2", "-F", "raw", image, other];
        assert!(run("qemu-img", &line).contains("Images are identical"));
        run("qemu-io", &["-f", "raw", "-c", "write -P 7 4096 512", uri]);
        let compared = Command::new("qemu-img").args(line).output().unwrap();
        assert_eq!(compared.status.code(), Some(1), "it can fail: {compared:?}");
    }
}

#[test]
fn fio_reads_what_it_wrote() {
    let (appliance, uris) = exported(&[]);
    for uri in &uris {
        let line = format!("--uri={uri}");
        run(
            "fio",
            &[
                "--name=verify",
                "--ioengine=nbd",
                &line,
                "--rw=randwrite",
                "--bsrange=512-128k",
                "--size=64M",
                "--io_size=16M",
                "--iodepth=16",
                "--verify=crc32c",
                "--do_verify=1",
                "--verify_fatal=1",
                "--verify_state_save=0",
                &format!("--directory={}", appliance.path("").display()),
            ],
        );
    }
    alone(&appliance);
    assert!(appliance.ok(&["detach", "data1"])["bytes_written"].as_u64().unwrap() >= 32 << 20);
}

#[test]
fn many_exports_have_one_port_and_one_socket() {
    let appliance = Appliance::start();
    let disks = ["disk-a", "disk-b", "disk-c"];
    for (index, name) in disks.iter().enumerate() {
        appliance.ok(&["create", name, "--size", &format!("{}G", index + 1), "--attach"]);
        appliance.ok(&["export", name, "--name", name]);
    }
    let socket = appliance.path("nbd.sock");
    let mut clients: Vec<_> = disks.iter().map(|name| Client::enter(&socket, name).unwrap()).collect();
    for (client, byte) in clients.iter_mut().zip(1u8..) {
        client.write(0, &[byte; 4096]).unwrap();
    }
    appliance.ok(&["unexport", "disk-b", "--force"]);
    assert!(clients[1].read(0, 512).is_err());
    for (client, byte) in [(0, 1u8), (2, 3)] {
        assert_eq!(clients[client].read(0, 512).unwrap(), [byte; 512], "the others are not disturbed");
    }
    let exports = appliance.ok(&["exports"])["exports"].clone();
    let names: Vec<_> = exports.as_array().unwrap().iter().map(|export| &export["name"]).collect();
    assert_eq!(names, ["disk-a", "disk-c"]);
}

#[test]
fn a_public_address_is_for_the_allowed_networks() {
    let may_connect = |allow: &str| {
        let nbd = format!(
            "listen = [\"0.0.0.0:0\"]\nplain_public = true\nallow = [\"{allow}\"]\nadvertise = \"127.0.0.1\"\n"
        );
        let appliance = Appliance::with(Config { nbd, ..Config::default() });
        let created = appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
        let uri = created["export"]["uris"][0].as_str().unwrap();
        assert!(uri.starts_with("nbd://127.0.0.1:") && !uri.contains(":0/"), "{uri}");
        Command::new("nbdinfo").args(["--size", uri]).output().unwrap().status.success()
    };
    assert!(may_connect("127.0.0.0/8"));
    assert!(!may_connect("192.0.2.0/24"));
}

/// The daemon ends so, and another begins.
fn restart(appliance: &mut Appliance, signal: Signal) {
    match signal {
        Signal::SIGKILL => appliance.kill_daemon(),
        _ => assert!(appliance.stop_daemon().success()),
    }
    appliance.start_daemon();
}

fn export_in_state(appliance: &Appliance, state: &str) -> Value {
    wait_for(&format!("the export to be {state}"), || {
        let export = appliance.ok(&["exports"])["exports"][0].clone();
        (export["state"] == state).then_some(export)
    })
}

#[test]
fn exports_come_back_after_a_restart() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (mut appliance, _) = exported(&["--name", "disk"]);
        let socket = appliance.path("nbd.sock");
        Client::enter(&socket, "disk").unwrap().write(0, &[9; 4096]).unwrap();
        let before = appliance.show("data1");
        restart(&mut appliance, signal);
        let export = export_in_state(&appliance, "active");
        assert_eq!((&export["name"], &export["read_only"]), (&json!("disk"), &json!(false)), "{signal}");
        assert_eq!(appliance.show("data1")["device"], before["device"], "{signal}");
        assert_eq!(Client::enter(&socket, "disk").unwrap().read(0, 4096).unwrap(), [9; 4096], "{signal}");
    }
}

#[test]
fn an_export_whose_device_was_replaced_does_not_come_back() {
    let (mut appliance, _) = exported(&["--name", "disk"]);
    let node = appliance.show("data1")["device"]["node"].as_str().unwrap().to_owned();
    appliance.kill_daemon();
    // The same name and size, and yet another disk.
    fs::rename(&node, appliance.path("former")).unwrap();
    fs::File::create_new(&node).unwrap().set_len(1 << 30).unwrap();
    appliance.start_daemon();
    export_in_state(&appliance, "failed");
    assert!(Client::enter(&appliance.path("nbd.sock"), "disk").is_err());
    assert_eq!(appliance.json(&["health"]).json()["healthy"], false);
    // Only a person brings it back.
    appliance.ok(&["unexport", "disk"]);
    assert_eq!(appliance.ok(&["export", "data1", "--name", "disk"])["export"]["state"], "active");
}

#[test]
fn an_export_whose_device_is_not_there_yet_waits_for_it() {
    let (mut appliance, _) = exported(&["--name", "disk"]);
    let link = appliance.show("data1")["device"]["path"].as_str().unwrap().to_owned();
    let node = fs::read_link(&link).unwrap();
    appliance.kill_daemon();
    fs::remove_file(&link).unwrap();
    appliance.start_daemon();
    export_in_state(&appliance, "pending");
    let health = appliance.json(&["health"]).json();
    let part = health["checks"].as_array().unwrap().iter().find(|check| check["name"] == "exports").unwrap();
    assert_eq!(part["ok"], false, "{part}");
    names(part["message"].as_str().unwrap(), &["not served: disk", "0 of 1"]);
    std::os::unix::fs::symlink(node, &link).unwrap();
    export_in_state(&appliance, "active");
    Client::enter(&appliance.path("nbd.sock"), "disk").unwrap().read(0, 512).unwrap();
}

#[test]
fn a_device_that_goes_away_under_its_export_fails_it() {
    let (appliance, _) = exported(&["--name", "disk"]);
    let link = appliance.show("data1")["device"]["path"].as_str().unwrap().to_owned();
    let node = fs::read_link(&link).unwrap();
    fs::remove_file(&link).unwrap();
    export_in_state(&appliance, "failed");
    std::os::unix::fs::symlink(node, &link).unwrap();
    appliance.ok(&["device", "data1", "--wait", "10s"]);
    assert_eq!(appliance.ok(&["exports"])["exports"][0]["state"], "failed", "it does not come back by itself");
    let exported = appliance.ok(&["export", "data1", "--name", "disk"]);
    assert_eq!((&exported["changed"], &exported["export"]["state"]), (&json!(true), &json!("active")));
}
