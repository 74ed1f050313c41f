//! TLS at the NBD server: the certificates that `volctl tls init` makes, and who gets in with which.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::appliance::Appliance;

/// The files below a directory with their modes, by path.
fn files(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::metadata(&path).unwrap().permissions().mode() & 0o777)),
        }
    }
    found.sort();
    found
}

/// What OpenSSL says of a certificate.
fn verified(authority: &Path, certificate: &Path, purpose: &str) {
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
        .args([authority, certificate])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn tls_init_makes_what_clients_read_and_overwrites_nothing() {
    let appliance = Appliance::start();
    let directory = appliance.path("tls");
    let dir = directory.to_str().unwrap();
    let made = appliance.ok(&["tls", "init", "--dir", dir, "--name", "nbd.example", "--client", "backup1"]);
    assert_eq!(made["server"]["names"], json!(["nbd.example", "localhost", "127.0.0.1", "::1"]));
    assert_eq!(made["clients"][0]["subject"], "CN=backup1");
    assert!(!made.to_string().contains("PRIVATE KEY"), "{made}");

    let (server, client) = (directory.join("server"), directory.join("clients/backup1"));
    let expected = [
        (directory.join("ca/ca-cert.pem"), 0o644),
        (directory.join("ca/ca-key.pem"), 0o600),
        (client.join("ca-cert.pem"), 0o644),
        (client.join("client-cert.pem"), 0o644),
        (client.join("client-key.pem"), 0o600),
        (server.join("ca-cert.pem"), 0o644),
        (server.join("server-cert.pem"), 0o644),
        (server.join("server-key.pem"), 0o600),
    ];
    assert_eq!(files(&directory), expected);
    verified(&client.join("ca-cert.pem"), &server.join("server-cert.pem"), "sslserver");
    verified(&server.join("ca-cert.pem"), &client.join("client-cert.pem"), "sslclient");

    let texts = || files(&directory).into_iter().map(|(path, _)| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>();
    let before = texts();
    for words in
        [&["--client", "backup1"][..], &["--name", "other.example"], &["--client", "new", "--client", "backup1"], &[]]
    {
        let refused = appliance.json(&[&["tls", "init", "--dir", dir], words].concat()).failure(4, "conflict");
        assert!(refused["hint"].is_string(), "{refused}");
    }
    for name in ["../x", ".", "a/b", "a b"] {
        appliance.json(&["tls", "init", "--dir", dir, "--client", name]).failure(2, "usage");
    }
    assert_eq!(texts(), before);

    appliance.ok(&["tls", "init", "--dir", dir, "--client", "backup2"]);
    verified(&server.join("ca-cert.pem"), &directory.join("clients/backup2/client-cert.pem"), "sslclient");
    assert!(before.iter().all(|file| texts().contains(file)), "what was there has changed");

    fs::rename(directory.join("ca/ca-key.pem"), appliance.path("elsewhere")).unwrap();
    appliance.json(&["tls", "init", "--dir", dir, "--client", "backup3"]).failure(4, "conflict");
}

#[test]
fn the_text_of_tls_init_can_be_typed() {
    let appliance = Appliance::start();
    let directory = appliance.path("tls");
    let text = appliance.run(&["tls", "init", "--dir", directory.to_str().unwrap()]).success().stdout;
    let client = directory.join("clients/client");
    assert!(text.contains(&format!("tls_certificates = \"{}\"", directory.join("server").display())), "{text}");
    assert!(
        text.contains(&format!("nbdinfo 'nbds://127.0.0.1/EXPORT?tls-certificates={}'", client.display())),
        "{text}"
    );
    assert!(
        text.contains(&format!("--object tls-creds-x509,id=tls0,endpoint=client,dir={}", client.display())),
        "{text}"
    );
}
