//! Who may look and who may change, as other users; who asked is recorded; and no secret is told to anybody.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Config, Ended};
use crate::support::nbd::Client;
use crate::support::simulator::{API_KEY, SECRET_KEY};
use crate::support::wait_for;
use crate::support::wording::{hint, message, names};

/// Group ids that are nobody's.
const LOOK: &str = "54321";
const CHANGE: &str = "54322";
const STRANGER: &str = "54323";

/// Gives the daemon, and nobody else, a machine on which these groups exist.
const WITH_GROUPS: &str = "printf 'root:x:0:\\nvolctl:x:54321:\\nvolctl-admin:x:54322:\\n' > $0 \
                           && mount --bind $0 /etc/group && exec \"$@\"";

/// An appliance on a machine with the groups.
struct Shared(Appliance);

impl Shared {
    fn start() -> Self {
        let mut appliance = Appliance::stopped(Config::default());
        let groups = appliance.path("group").to_str().unwrap().to_owned();
        let launcher = ["unshare", "--mount", "--propagation", "private", "sh", "-c", WITH_GROUPS, &groups];
        appliance.configure(|config| config.launcher = launcher.map(str::to_owned).to_vec());
        // Others come as far as the socket, and no further.
        fs::set_permissions(appliance.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_volctl"), appliance.path("volctl")).unwrap();
        appliance.start_daemon();
        Self(appliance)
    }

    /// Runs `volctl --json` as user 12345, whose primary group is `group` and who is in these too.
    fn run_as(&self, group: &str, groups: &[&str], words: &[&str]) -> Ended {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=12345", &format!("--regid={group}")]);
        match groups {
            [] => command.arg("--clear-groups"),
            groups => command.arg(format!("--groups={}", groups.join(","))),
        };
        command.arg(self.0.path("volctl")).arg("--json").args(words);
        command.env("VOLCTL_SOCKET", self.0.socket()).stdin(Stdio::null()).output().unwrap().into()
    }

    fn run(&self, groups: &[&str], words: &[&str]) -> Ended {
        self.run_as(STRANGER, groups, words)
    }
}

#[test]
fn lookers_have_the_control_socket_and_changers_the_nbd_socket_too() {
    let shared = Shared::start();
    let group = |socket: PathBuf| fs::metadata(socket).unwrap().gid().to_string();
    assert_eq!((group(shared.0.socket()), group(shared.0.path("nbd.sock"))), (LOOK.to_owned(), CHANGE.to_owned()));
}

#[test]
fn a_stranger_does_not_come_in() {
    let shared = Shared::start();
    for groups in [&[][..], &[CHANGE]] {
        let error = shared.run(groups, &["ls"]).failure(8, "not_permitted");
        names(message(&error), &[shared.0.socket().to_str().unwrap()]);
        assert!(!hint(&error).is_empty());
    }
}

#[test]
fn a_member_may_look_and_a_change_is_refused_and_recorded() {
    let shared = Shared::start();
    let appliance = &shared.0;
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["create", "data2", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let operation = appliance.ok(&["attach", "data2", "--no-wait"])["operation"]["id"].as_str().unwrap().to_owned();
    wait_for("the attach to be sent", || (appliance.cloud.calls("attachVolume") == 2).then_some(()));
    for line in [
        &["ls"][..],
        &["show", "data1"],
        &["device", "data1"],
        &["exports"],
        &["ops"],
        &["ops", "show", &operation],
        &["health"],
        &["version"],
    ] {
        shared.run(&[LOOK], line).success();
    }
    // The attach that never ends is asked for all the while.
    let asked = || {
        let mut calls = appliance.cloud.state()["journal"]["calls"].clone();
        calls.as_object_mut().unwrap().remove("queryAsyncJobResult");
        (calls, appliance.ok(&["ops"]))
    };
    let before = asked();
    let copy = appliance.path("copy");
    let changes = [
        &["create", "data3", "--size", "1G"][..],
        &["attach", "data1"],
        &["export", "data1"],
        &["unexport", "data1"],
        &["exports", "kick", "data1"],
        &["detach", "data1"],
        &["delete", "data1", "--yes"],
        &["recover", "data1"],
        &["ops", "cancel", &operation],
        &["ops", "retry", &operation],
        &["ops", "abandon", &operation, "--reason", "x", "--yes"],
        &["store", "backup", copy.to_str().unwrap()],
        &["sync"],
    ];
    for line in changes {
        let error = shared.run(&[LOOK], line).failure(8, "not_permitted");
        names(message(&error), &["12345"]);
        names(hint(&error), &["volctl-admin"]);
    }
    assert_eq!(asked(), before, "nothing was asked of CloudStack, and nothing was accepted");
    assert!(!copy.exists());
    let log = appliance.log();
    for line in changes {
        let recorded = log.lines().any(|entry| {
            entry.contains("a change was refused") && entry.contains("uid=12345") && entry.contains(&line.join(" "))
        });
        assert!(recorded, "{line:?}: {log}");
    }
}

#[test]
fn an_administrator_may_change_and_is_recorded() {
    let shared = Shared::start();
    let line = ["create", "data1", "--size", "1G", "--reason", "ticket 4711"];
    let created = shared.run(&[LOOK, CHANGE], &line).success().json();
    let id = created["operation"]["id"].as_str().unwrap();
    let shown = shared.run(&[LOOK], &["ops", "show", id]).success().json();
    let asker = &shown["asked_by"];
    assert_eq!((&asker["uid"], &asker["reason"]), (&json!(12345), &json!("ticket 4711")));
    names(asker["command"].as_str().unwrap(), &["volctl", "create data1 --size 1G"]);
    let text = shared.0.run(&["ops", "show", id]).success().stdout;
    names(&text, &["user 12345", "create data1 --size 1G", "ticket 4711"]);

    // Whose primary group it is, is a member too.
    shared.run_as(CHANGE, &[LOOK], &["attach", "data1"]).success();
}

#[test]
fn who_logged_in_is_recorded_behind_another_user() {
    let appliance = Appliance::start();
    let as_login = "echo 4711 > /proc/self/loginuid && exec \"$@\"";
    let volctl = env!("CARGO_BIN_EXE_volctl");
    let ended: Ended = Command::new("sh")
        .args(["-c", as_login, "sh", volctl, "--json", "create", "data1", "--size", "1G"])
        .env("VOLCTL_SOCKET", appliance.socket())
        .output()
        .unwrap()
        .into();
    let created = ended.success().json();
    let id = created["operation"]["id"].as_str().unwrap();
    let asker = appliance.ok(&["ops", "show", id])["asked_by"].clone();
    assert_eq!((&asker["uid"], &asker["login_uid"]), (&json!(0), &json!(4711)));
    names(&appliance.run(&["ops", "show", id]).success().stdout, &["user 0", "4711"]);
}

/// Whatever a text tells that is nobody's to know.
fn secrets(text: &str) -> Vec<&str> {
    [SECRET_KEY, "wrong-secret", API_KEY, "signature=", "Signature=", "apikey=", "apiKey="]
        .into_iter()
        .filter(|secret| text.contains(secret))
        .collect()
}

fn command_line(id: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{id}/cmdline")).unwrap()).into_owned()
}

#[test]
fn no_secret_is_told_to_anybody() {
    let environment = vec![("VOLCTLD_LOG".to_owned(), "trace".to_owned())];
    let mut appliance = Appliance::with(Config { environment, ..Config::default() });
    let mut told = String::new();
    let mut tell = |appliance: &Appliance, words: &[&str]| {
        for ended in [appliance.json(words), appliance.run(words)] {
            told += &ended.stdout;
            told += &ended.stderr;
        }
    };
    for line in [
        &["create", "data1", "--size", "1G", "--export", "--reason", "trace"][..],
        &["ls", "--max-age", "0"],
        &["detach", "data1"],
        &["attach", "data1"],
        &["health"],
        &["sync"],
        &["ops"],
        &["delete", "data1", "--yes"],
    ] {
        tell(&appliance, line);
    }
    for fault in [
        json!({"mode": "cut-after"}),
        json!({"mode": "html-200"}),
        json!({"mode": "502-html-after"}),
        json!({"mode": "truncate"}),
        json!({"mode": "non-json"}),
        json!({"mode": "error", "code": 401, "text": "unable to verify user credentials"}),
        json!({"mode": "429"}),
        json!({"mode": "503"}),
    ] {
        let mut fault = fault;
        fault["command"] = "*".into();
        fault["times"] = 2.into();
        appliance.cloud.fault(fault);
        tell(&appliance, &["ls", "--max-age", "0"]);
        tell(&appliance, &["attach", "data1", "--timeout", "1s"]);
        appliance.cloud.admin("DELETE", "faults", json!({}));
    }
    let operation = appliance.ok(&["ops"])["operations"][0]["id"].as_str().unwrap().to_owned();
    tell(&appliance, &["ops", "show", &operation]);
    Client::enter(&appliance.path("nbd.sock"), "nothing").err().unwrap();
    let lines = command_line(appliance.daemon_id());

    appliance.stop_daemon();
    appliance.configure(|config| config.secret_key = "wrong-secret".to_owned());
    appliance.start_daemon();
    for line in [&["ls", "--max-age", "0"][..], &["health"], &["attach", "data1"]] {
        tell(&appliance, line);
    }
    let log = appliance.log();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "the log is as talkative as it can be");
    for (text, what) in [(&log, "the log"), (&told, "volctl"), (&lines, "the command line")] {
        let found: Vec<Value> = secrets(text).into_iter().map(Value::from).collect();
        assert!(found.is_empty(), "{what} tells {found:?}:\n{text}");
    }
}

/// What a role may not have to: nothing is taken away with it.
const DESTRUCTIVE: [&str; 5] =
    ["deleteVolume", "destroyVolume", "deleteSnapshot", "stopVirtualMachine", "destroyVirtualMachine"];

#[test]
fn a_key_that_can_destroy_nothing_does_the_main_job() {
    let appliance = Appliance::start();
    appliance.cloud.settings(json!({"denied_commands": DESTRUCTIVE}));
    appliance.ok(&["create", "data1", "--size", "1G", "--export"]);
    appliance.ok(&["detach", "data1"]);
    appliance.ok(&["attach", "data1"]);
    appliance.ok(&["move", "data1", "--to", "worker"]);
    appliance.ok(&["health"]);
    appliance.ok(&["detach", "data1", "--from", "worker", "--yes"]);
    let error = appliance.json(&["delete", "data1", "--yes"]).failure(5, "cloudstack_refused");
    names(message(&error), &["data1", "destroyVolume", "not available"]);
    // What would be taken back stays, and is for a human.
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": "no such host"}));
    let error = appliance.json(&["create", "data2", "--size", "1G", "--attach"]).failure(9, "stuck");
    names(message(&error), &["no such host", "undoing it failed", "data2", "deleteVolume"]);
    names(hint(&error), &["volctl ops abandon"]);
    let id = appliance.ok(&["ops", "--status", "stuck"])["operations"][0]["id"].as_str().unwrap().to_owned();
    appliance.ok(&["ops", "abandon", &id, "--reason", "kept for later", "--yes"]);
    appliance.ok(&["attach", "data2"]);
    assert_eq!(appliance.show("data1")["state"], "Ready");
}
