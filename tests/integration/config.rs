//! `volctl config`: what is wrong in a configuration, and a configuration from another tool's.

mod online;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::appliance::Ended;
use crate::support::wording::{hint, message, names};

fn run(home: &TempDir, words: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volctl"));
    command.env_clear().env("HOME", home.path()).args(words).output().unwrap().into()
}

fn write(home: &TempDir, name: &str, mode: u32, text: &str) -> String {
    let path = home.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_mistake_is_told_at_once() {
    let home = tempfile::tempdir().unwrap();
    let secret = write(&home, "secret", 0o644, "hush-hush");
    let text = format!(
        "[cloudstack]\nendpoint = \"http://cloud.example/client/api\"\napi_kei = \"k\"\nsecret_key_file = \"{secret}\"\n\
         timeout = \"soon\"\nvm_id = \"7\"\n[nbd]\nlisten = [\"10809\", \"0.0.0.0:1\"]\n[device]\nmax_disks = 0\n\
         [demon]\nidle_timeout = \"5m\"\n"
    );
    let file = write(&home, "config.toml", 0o644, &text);
    let ended = run(&home, &["--json", "config", "check", &file]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let document = ended.json();
    assert_eq!(document["ok"], false);
    let mistakes = document["mistakes"].as_array().unwrap();
    let said: Vec<&str> = mistakes.iter().map(message).collect();
    for expected in [
        "line 2: [cloudstack] endpoint is plain http",
        "line 3: unknown key \"api_kei\" in [cloudstack]; the nearest known one is \"api_key\"",
        "line 5: [cloudstack] timeout",
        "line 6: [cloudstack] vm_id must be a VM's UUID",
        "line 8: [nbd] listen must be addresses",
        "line 8: [nbd] listen 0.0.0.0:1: a listen address beyond loopback",
        "line 10: [device] max_disks must be from 1",
        "line 11: unknown section [demon]; the nearest known one is \"daemon\"",
        "has no [cloudstack] api_key",
        "lets others in: group read, others read",
    ] {
        let found = said.iter().filter(|said| said.contains(expected)).count();
        assert_eq!(found, 1, "{expected}: {said:#?}");
    }
    assert!(!ended.stdout.contains("hush"), "{ended:?}");
    let people = run(&home, &["config", "check", &file]);
    assert_eq!((people.code, people.stderr.as_str()), (1, ""));
    names(&people.stdout, &["line 6", "hint: chmod go="]);
}

#[test]
fn what_is_right_is_said_to_be() {
    let home = tempfile::tempdir().unwrap();
    let secret = write(&home, "secret", 0o600, "s");
    let text = format!(
        "[cloudstack]\nendpoint = \"https://cloud.example/client/api\"\napi_key = \"k\"\nsecret_key_file = \"{secret}\"\n"
    );
    let file = write(&home, "config.toml", 0o644, &text);
    let ended = run(&home, &["config", "check", &file]).success();
    assert_eq!(ended.stdout, format!("{file}: nothing is wrong\n"));
    let missing = run(&home, &["--json", "config", "check", "/nowhere/config.toml"]);
    assert_eq!(missing.code, 1);
    names(message(&missing.json()["mistakes"][0]), &["/nowhere/config.toml"]);
    let broken = write(&home, "broken.toml", 0o644, "[cloudstack\n");
    names(message(&run(&home, &["--json", "config", "check", &broken]).json()["mistakes"][0]), &["line 1", "not TOML"]);
}

const CMK: &str = "[cmk]\nprompt = x\nprofile = prod\n\n[local]\nurl = http://localhost:8080/client/api\napikey = lk\n\
                   secretkey = local-secret\n\n[prod]\nurl = https://cloud.example/client/api\nusername = admin\n\
                   apikey = prod-key\nsecretkey = prod-secret=\n";

fn imported(home: &TempDir, words: &[&str]) -> Ended {
    let to = home.path().join("etc/config.toml");
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(home, &[words, &["config", "import", "--to", to.to_str().unwrap()]].concat())
}

fn secret(home: &TempDir) -> String {
    fs::read_to_string(home.path().join("etc/secret")).unwrap()
}

#[test]
fn the_selected_profile_of_cmk_is_imported_and_nothing_is_written_over() {
    let home = tempfile::tempdir().unwrap();
    write(&home, ".cmk/config", 0o600, CMK);
    let ended = imported(&home, &["--json"]).success();
    assert_eq!(ended.json()["profile"], "prod");
    assert!(!format!("{ended:?}").contains("prod-secret"), "{ended:?}");
    let config = fs::read_to_string(home.path().join("etc/config.toml")).unwrap();
    names(
        &config,
        &["endpoint = \"https://cloud.example/client/api\"", "api_key = \"prod-key\"", "secret_key_file = "],
    );
    assert!(!config.contains("prod-secret"), "{config}");
    assert_eq!(secret(&home), "prod-secret=\n");
    let mode = fs::metadata(home.path().join("etc/secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    run(&home, &["config", "check", home.path().join("etc/config.toml").to_str().unwrap()]).success();

    let again = imported(&home, &["--json"]).failure(4, "conflict");
    names(message(&again), &["secret", "not written over"]);
    assert_eq!(secret(&home), "prod-secret=\n");
    fs::remove_file(home.path().join("etc/secret")).unwrap();
    imported(&home, &["--json"]).failure(4, "conflict");
    assert!(!Path::new(&home.path().join("etc/secret")).exists(), "half an import is none");
}

#[test]
fn the_cs_tools_file_and_what_cannot_be_imported() {
    let home = tempfile::tempdir().unwrap();
    imported(&home, &["--json"]).failure(3, "not_found");
    write(&home, ".cloudstack.ini", 0o600, "[cloudstack]\nendpoint = https://c.example/api\nkey = k\nsecret = s\n");
    assert_eq!(imported(&home, &["--json"]).success().json()["profile"], "cloudstack");
    assert_eq!(secret(&home), "s\n");

    write(&home, ".cmk/config", 0o600, CMK);
    names(hint(&imported(&home, &["--json"]).failure(4, "ambiguous")), &["--from"]);
    let import = |words: &[&str]| -> Value {
        let other = tempfile::tempdir().unwrap();
        let to = other.path().join("config.toml");
        let line = [&["--json", "config", "import", "--to", to.to_str().unwrap(), "--from"], words].concat();
        let ended = run(&home, &line);
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), if ended.code == 0 { 2 } else { 0 });
        ended.json()
    };
    let cmk = home.path().join(".cmk/config");
    assert_eq!(import(&[cmk.to_str().unwrap(), "--profile", "local"])["profile"], "local");
    assert_eq!(import(&[cmk.to_str().unwrap(), "--profile", "nine"])["error"]["kind"], "not_found");
    let newer = format!("profile = local\n{}", CMK.split_once("\n\n").unwrap().1);
    assert_eq!(import(&[&write(&home, "newer", 0o600, &newer)])["profile"], "local");
    let colons =
        "\u{feff}[cloudstack]\r\nendpoint: https://c.example/api\r\nkey: k\r\nsecret: s\r\nverify: /etc/ca.pem\r\n";
    let colons = write(&home, "colons", 0o600, colons);
    let to = home.path().join("colons.toml");
    run(&home, &["config", "import", "--to", to.to_str().unwrap(), "--from", &colons]).success();
    let expected = ["endpoint = \"https://c.example/api\"", "api_key = \"k\"", "ca_file = \"/etc/ca.pem\""];
    names(&fs::read_to_string(to).unwrap(), &expected);
    let plain = write(&home, "plain", 0o600, "[p]\nurl = http://c.example/api\napikey = k\nsecretkey = s\n");
    names(message(&import(&[&plain])["error"]), &["nothing was imported", "plain http"]);
    let password = write(&home, "password", 0o600, "[p]\nurl = https://c.example/api\nusername = u\npassword = p\n");
    names(message(&import(&[&password])["error"]), &["the profile p has no secretkey or secret"]);
}
