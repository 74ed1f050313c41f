//! Configurations with which the daemon does not start: exit 2, and a sentence that names file, line and setting.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::wording::names;

const GOOD: &str = "[cloudstack]\nendpoint = \"http://127.0.0.1:1/client/api\"\napi_key = \"the-key\"\n\
                    secret_key = \"the-secret\"\n";

/// What a daemon says that does not start with this configuration.
fn refusal(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    started(directory.path(), &path)
}

fn started(directory: &Path, config: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_volctld"))
        .env_clear()
        .arg("--config")
        .arg(config)
        .arg("--socket")
        .arg(directory.join("socket"))
        .arg("--state-dir")
        .arg(directory.join("state"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!said.contains("the-secret") && !said.contains("the-key"), "{said}");
    assert!(!directory.join("socket").exists());
    said
}

#[test]
fn an_unknown_key_has_a_nearest_one() {
    names(
        &refusal(&format!("{GOOD}vmid = \"x\"\n")),
        &["config.toml", "line 5", "\"vmid\"", "[cloudstack]", "\"vm_id\""],
    );
    names(&refusal(&format!("{GOOD}[device]\nby_id = \"/x\"\n")), &["\"by_id\"", "[device]", "\"by_id_dir\""]);
    names(&refusal(&format!("{GOOD}[nbds]\nlisten = []\n")), &["[nbds]", "\"nbd\""]);
}

#[test]
fn values_of_the_wrong_kind() {
    for (line, words) in [
        ("[nbd]\nlisten = \"127.0.0.1:0\"\n", &["[nbd] listen", "array"][..]),
        ("[nbd]\nlisten = [\"localhost\"]\n", &["[nbd] listen", "ports"]),
        ("[device]\nmax_disks = 0\n", &["[device] max_disks"]),
        ("[device]\ntimeout = \"soon\"\n", &["[device] timeout", "soon"]),
        ("[device]\nby_id_dir = \"relative\"\n", &["[device] by_id_dir", "absolute"]),
        ("[daemon]\nidle_timeout = \"0s\"\n", &["[daemon] idle_timeout"]),
        ("vm_id = \"appliance\"\n", &["[cloudstack] vm_id", "UUID"]),
        ("this is no TOML\n", &["line 5", "TOML"]),
    ] {
        names(&refusal(&format!("{GOOD}{line}")), &[words, &["config.toml"]].concat());
    }
}

#[test]
fn what_is_missing() {
    names(&refusal(""), &["config.toml", "endpoint", "CLOUDSTACK_ENDPOINT"]);
    names(&refusal("[cloudstack]\nendpoint = \"http://127.0.0.1:1/\"\n"), &["api_key", "CLOUDSTACK_KEY"]);
    let directory = tempfile::tempdir().unwrap();
    names(&started(directory.path(), Path::new("/nowhere/config.toml")), &["/nowhere/config.toml"]);
}

#[test]
fn a_secret_that_others_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let (config, secret) = (directory.path().join("config.toml"), directory.path().join("secret"));
    fs::write(&config, GOOD).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o666] {
        fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
        let said = started(directory.path(), &config);
        names(&said, &["config.toml", "secret", "chmod"]);
    }
    let in_file = GOOD.replace("secret_key = \"the-secret\"", &format!("secret_key_file = \"{}\"", secret.display()));
    fs::write(&config, in_file).unwrap();
    fs::write(&secret, "the-secret\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    names(&started(directory.path(), &config), &[secret.to_str().unwrap(), "644", "chmod"]);
    fs::remove_file(&secret).unwrap();
    names(&started(directory.path(), &config), &[secret.to_str().unwrap()]);
}

#[test]
fn a_public_address_needs_two_words_more() {
    let sentence =
        "a listen address beyond loopback needs tls_certificates, or plain_public = true and allow = [networks]";
    for nbd in [
        "listen = [\"0.0.0.0:10809\"]",
        "listen = [\"[::]:10809\"]",
        "listen = [\"127.0.0.1:0\", \"192.0.2.1:10809\"]",
        "listen = [\"0.0.0.0:10809\"]\nplain_public = true",
        "listen = [\"0.0.0.0:10809\"]\nallow = [\"192.0.2.0/24\"]",
        "listen = [\"0.0.0.0:10809\"]\nplain_public = true\nallow = []",
    ] {
        names(&refusal(&format!("{GOOD}[nbd]\n{nbd}\n")), &[sentence]);
    }
}

#[test]
fn plain_http_to_another_machine() {
    let said = refusal(&GOOD.replace("127.0.0.1:1", "cloud.example"));
    names(&said, &["plain http", "allow_plain_http"]);
}

#[test]
fn a_directory_that_is_none() {
    names(&refusal(&format!("{GOOD}[device]\nby_id_dir = \"/etc/passwd\"\n")), &["/etc/passwd", "directory"]);
    names(&refusal(&format!("{GOOD}ca_file = \"/nowhere/ca.pem\"\n")), &["/nowhere/ca.pem"]);
}
