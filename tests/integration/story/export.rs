//! `volctl export`, `volctl unexport`

use std::fs::File;
use std::process::{Child, Command};

use serde_json::json;

use crate::support::appliance::Appliance;
use crate::support::nbd::Client;
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

fn attached(name: &str) -> (Appliance, String) {
    let appliance = Appliance::start();
    let created = appliance.ok(&["create", name, "--size", "1G", "--attach"]);
    (appliance, created["volume"]["id"].as_str().unwrap().to_owned())
}

/// A process that has a device open; ends with the value.
pub struct Holder(pub Child);

impl Holder {
    /// Opens the device of a volume.
    pub fn of(appliance: &Appliance, volume: &str) -> Self {
        let node = appliance.show(volume)["device"]["node"].as_str().unwrap().to_owned();
        Self(Command::new("sleep").arg("600").stdin(File::open(node).unwrap()).spawn().unwrap())
    }

    /// Its process id, as messages have it.
    pub fn id(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn an_export_has_a_name_and_uris() {
    let (appliance, id) = attached("data1");
    let exported = appliance.ok(&["export", "data1"]);
    let export = &exported["export"];
    assert_eq!((&exported["changed"], &export["name"]), (&json!(true), &json!(format!("vol-{id}"))));
    assert_eq!((&export["volume_id"], &export["state"]), (&json!(id), &json!("active")));
    assert_eq!(export["device_path"], exported["volume"]["device"]["path"]);
    let uris: Vec<_> = export["uris"].as_array().unwrap().iter().map(|uri| uri.as_str().unwrap()).collect();
    assert!(uris[0].starts_with("nbd://127.0.0.1:") && uris[0].ends_with(&format!("/vol-{id}")), "{uris:?}");
    assert!(!uris[0].contains(":0/"), "the bound port is shown: {uris:?}");
    let socket = appliance.path("nbd.sock");
    assert_eq!(uris[1..], [format!("nbd+unix:///vol-{id}?socket={}", socket.display())]);
    let ended = appliance.run(&["export", "data1"]).success();
    assert_eq!(ended.stdout, format!("{}\n{}\n", uris[0], uris[1]), "a pipe gets what a client can use");
}

#[test]
fn a_shared_export_stays_shared_also_after_a_restart() {
    let (mut appliance, _) = attached("data1");
    let exported = appliance.ok(&["export", "data1", "--name", "disk", "--shared"]);
    assert_eq!(exported["export"]["shared"], true);
    assert_eq!(appliance.ok(&["export", "data1", "--name", "disk", "--shared"])["changed"], false);
    let error = appliance.json(&["export", "data1", "--name", "other"]).failure(4, "conflict");
    names(message(&error), &["data1", "writable by several clients", "disk"]);
    names(hint(&error), &["--name"]);
    appliance.json(&["export", "data1", "--shared", "--read-only"]).failure(2, "usage");
    appliance.kill_daemon();
    appliance.start_daemon();
    wait_for("the export to be back", || {
        let export = &appliance.ok(&["exports"])["exports"][0];
        (export["state"] == "active").then(|| assert_eq!(export["shared"], true))
    });
}

#[test]
fn a_client_is_shown_and_can_be_sent_away() {
    let (appliance, _) = attached("data1");
    appliance.ok(&["export", "data1", "--name", "disk"]);
    let mut client = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
    client.write(0, b"bytes").unwrap();
    let address = appliance.ok(&["exports"])["exports"][0]["clients"][0]["address"].as_str().unwrap().to_owned();
    let shown = appliance.run(&["exports"]).success().stdout;
    names(&shown, &["disk", "REQUESTS/S", "WRITTEN", &address, "LAST REQUEST"]);

    for line in [&["exports", "kick", "disc"][..], &["exports", "kick", "disk", "--client", "192.0.2.7"]] {
        let error = appliance.json(line).failure(3, "not_found");
        names(message(&error), &[line[2]]);
    }
    let kicked = appliance.ok(&["exports", "kick", "disk", "--client", &address]);
    assert_eq!(kicked["clients"][0]["address"], address.as_str());
    assert!(client.until_closed().is_empty());
    let again = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
    assert_eq!(appliance.run(&["exports", "kick", "disk"]).success().stdout, format!("{address} sent away\n"));
    assert!(again.until_closed().is_empty());
    assert_eq!(appliance.run(&["exports", "kick", "disk"]).success().stdout, "nobody was there\n");
}

#[test]
fn the_same_again_changes_nothing_and_another_is_a_conflict() {
    let (appliance, id) = attached("data1");
    appliance.ok(&["export", "data1", "--name", "disk", "--read-only"]);
    assert_eq!(appliance.ok(&["export", "data1", "--name", "disk", "--read-only"])["changed"], false);
    for line in [
        &["export", "data1"][..],
        &["export", "data1", "--name", "disk"],
        &["export", "data1", "--name", "other", "--read-only"],
    ] {
        let error = appliance.json(line).failure(4, "conflict");
        names(message(&error), &["data1", &id, "exported already, read-only", "disk"]);
        names(hint(&error), &["unexport"]);
    }
    appliance.ok(&["create", "data2", "--size", "1G", "--attach"]);
    let error = appliance.json(&["export", "data2", "--name", "disk"]).failure(4, "conflict");
    names(message(&error), &[&id, "disk"]);
    assert_eq!(appliance.ok(&["exports"])["exports"].as_array().unwrap().len(), 1);
}

#[test]
fn unexport_takes_a_volume_or_a_name() {
    let (appliance, id) = attached("data1");
    for word in ["data1", &id, "disk"] {
        appliance.ok(&["export", "data1", "--name", "disk"]);
        let ended = appliance.ok(&["unexport", word]);
        assert_eq!((&ended["changed"], &ended["export"]), (&json!(true), &json!(null)), "{word}");
        assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
    }
    assert_eq!(appliance.ok(&["unexport", "data1"])["changed"], false);
    let error = appliance.json(&["unexport", "disk"]).failure(3, "not_found");
    names(message(&error), &["disk"]);
    assert_eq!(appliance.truth("data1").unwrap()["state"], "Ready", "it stays attached");
}

#[test]
fn a_word_that_is_one_volumes_name_and_anothers_export_is_ambiguous() {
    let (appliance, id) = attached("data1");
    let other = appliance.ok(&["create", "data2", "--size", "1G", "--attach"])["volume"]["id"].clone();
    appliance.ok(&["export", "data1", "--name", "data2"]);
    let error = appliance.json(&["unexport", "data2"]).failure(4, "ambiguous");
    names(message(&error), &[&id, other.as_str().unwrap()]);
    appliance.ok(&["unexport", &id]);
}

#[test]
fn a_device_that_is_in_use_here_is_not_exported() {
    let (appliance, _) = attached("data1");
    let holder = Holder::of(&appliance, "data1");
    let error = appliance.json(&["export", "data1"]).failure(4, "in_use");
    names(message(&error), &["data1", &holder.id(), "sleep"]);
    assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
    let error = appliance.json(&["attach", "data1", "--export"]).failure(4, "in_use");
    names(message(&error), &["is attached, but it is not exported", &holder.id()]);
    drop(holder);
    appliance.ok(&["export", "data1"]);
}

#[test]
fn what_is_not_attached_here_is_not_exported() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let error = appliance.json(&["export", "data1"]).failure(1, "device_missing");
    names(message(&error), &["data1", "no disk has the serial"]);
    names(hint(&error), &["volctl attach"]);
    appliance.ok(&["attach", "data1", "--vm", "worker"]);
    let error = appliance.json(&["export", "data1"]).failure(1, "device_missing");
    names(hint(&error), &["another VM"]);
}

#[test]
fn names_that_no_client_could_use_are_refused() {
    let (appliance, _) = attached("data1");
    for name in ["line\nbreak", "safe\u{202e}elif", &"x".repeat(256)] {
        let ended = appliance.json(&["export", "data1", "--name", name]);
        assert_eq!(ended.code, 2, "{ended:?}");
    }
    assert_eq!(appliance.ok(&["exports"])["exports"], json!([]));
    let exported = appliance.ok(&["export", "data1", "--name", "a b/ü?"]);
    let uri = exported["export"]["uris"][0].as_str().unwrap();
    assert!(uri.ends_with("/a%20b%2F%C3%BC%3F"), "{uri}");
}

#[test]
fn clients_keep_an_export_unless_they_are_let_go() {
    let (appliance, _) = attached("data1");
    appliance.ok(&["export", "data1", "--name", "disk"]);
    let mut client = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
    client.read(0, 512).unwrap();
    let error = appliance.json(&["unexport", "disk"]).failure(4, "in_use");
    names(message(&error), &["disk", &format!("unix:pid={}", std::process::id()), "last request"]);
    client.read(0, 512).expect("a refusal leaves the client alone");
    let ended = appliance.ok(&["unexport", "disk", "--force"]);
    assert_eq!((&ended["last_client"], &ended["changed"]), (&json!("cut off"), &json!(true)));
    assert!(client.read(0, 512).is_err());
}

#[test]
fn exports_work_while_cloudstack_is_away() {
    let (appliance, _) = attached("data1");
    appliance.cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "cut-before"}));
    let exported = appliance.ok(&["export", "data1"]);
    names(&crate::support::wording::notes(&exported), &["CloudStack does not answer", "data1"]);
    assert_eq!(appliance.ok(&["exports"])["exports"][0]["state"], "active");
    appliance.ok(&["unexport", "data1"]);
}

#[test]
fn a_root_disk_is_not_exported_where_it_may_be_this_vms_own() {
    let (mut appliance, _) = attached("data1");
    appliance.kill_daemon();
    // Away before this daemon could prove which VM it is in.
    appliance.cloud.fault(json!({"command": "*", "times": 1_000_000, "mode": "cut-before"}));
    appliance.start_daemon();
    let error = appliance.json(&["export", "ROOT-appliance"]).failure(4, "conflict");
    names(message(&error), &["ROOT-appliance", "may be this VM's own", "not touched"]);
    appliance.ok(&["export", "data1"]);
}

#[test]
fn a_disk_is_marked_for_udev_before_it_is_plugged_and_until_it_is_gone() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    let serial = appliance.show("data1")["id"].as_str().unwrap().replace('-', "")[..20].to_owned();
    let mark = appliance.path("state").join("hands-off").join(serial);
    appliance.cloud.settings(json!({"devices_appear": false}));
    let attach = appliance.begin(&["attach", "data1", "--export"]);
    wait_for("the mark", || mark.exists().then_some(()));
    appliance.cloud.settings(json!({"devices_appear": true}));
    let volume = appliance.truth("data1").unwrap()["id"].clone();
    wait_for("the attach to be done in the cloud", || {
        appliance.truth("data1").unwrap()["virtualmachineid"].is_string().then_some(())
    });
    appliance.cloud.admin("POST", "volume", json!({"id": volume, "plugged": true}));
    attach.end().success();
    appliance.ok(&["unexport", "data1"]);
    assert!(mark.exists(), "as long as the disk is here");
    appliance.ok(&["detach", "data1"]);
    wait_for("the mark to go with the disk", || (!mark.exists()).then_some(()));

    appliance.ok(&["attach", "data1"]);
    assert!(!mark.exists(), "what is not exported is this machine's");
}
