//! TLS at the NBD server: the certificates that `volctl tls init` makes, and who gets in with which.

mod options;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rcgen::{CertificateParams, CertifiedIssuer, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use self::options::{ACK, GO, INFO, LIST, POLICY, STARTTLS, TLS_REQUIRED, named, option, reply, reply_to, sent};
use crate::support::appliance::Appliance;
use crate::support::nbd::Client;
use crate::support::wait_for;

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
    let listeners = appliance.json(&["health"]).json()["checks"].to_string();
    let (_, after) = listeners.split_once("listening on 127.0.0.1:").unwrap();
    let port = after.split(' ').next().unwrap();
    assert!(text.contains(&format!("tls_certificates = \"{}\"", directory.join("server").display())), "{text}");
    assert!(
        text.contains(&format!("nbdinfo 'nbds://127.0.0.1:{port}/EXPORT?tls-certificates={}'", client.display())),
        "{text}"
    );
    assert!(
        text.contains(&format!("--object tls-creds-x509,id=tls0,endpoint=client,dir={}", client.display())),
        "{text}"
    );
}

/// An appliance that speaks TLS, with a volume `data1` of 64 MiB here, and certificates of `backup1` and `backup2`.
fn secured(nbd: &str) -> Appliance {
    let mut appliance = Appliance::start();
    let directory = appliance.path("tls");
    let clients = ["--client", "backup1", "--client", "backup2"];
    appliance.ok(&[&["tls", "init", "--dir", directory.to_str().unwrap()], &clients[..]].concat());
    restarted_with(&mut appliance, &directory.join("server"), nbd);
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance
}

fn restarted_with(appliance: &mut Appliance, certificates: &Path, nbd: &str) {
    assert!(appliance.stop_daemon().success());
    appliance.configure(|config| config.nbd = format!("tls_certificates = \"{}\"\n{nbd}\n", certificates.display()));
    appliance.start_daemon();
}

const LOOPBACK: &str = "listen = [\"127.0.0.1:0\"]";

/// Exports `data1` as `disk`, and gives the port.
fn export(appliance: &Appliance, flags: &[&str]) -> u16 {
    let exported = appliance.ok(&[&["export", "data1", "--name", "disk"], flags].concat());
    let uri = exported["export"]["uris"][0].as_str().unwrap();
    uri.rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap()
}

/// The URI of `disk` for whoever has the certificates in a directory.
fn uri(port: u16, certificates: &Path) -> String {
    format!("nbds://localhost:{port}/disk?tls-certificates={}", certificates.display())
}

fn client(appliance: &Appliance, name: &str) -> PathBuf {
    appliance.path("tls/clients").join(name)
}

fn ran(program: &str, words: &[&str]) -> Output {
    Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a client, which must succeed; gives what it prints.
fn run(program: &str, words: &[&str]) -> String {
    let output = ran(program, words);
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a client, which must fail; gives what it says.
fn fails(program: &str, words: &[&str]) -> String {
    let output = ran(program, words);
    assert!(!output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn size(uri: &str) -> [&str; 2] {
    ["--size", uri]
}

#[test]
fn clients_that_others_wrote_copy_both_ways() {
    let appliance = secured(LOOPBACK);
    let port = export(&appliance, &["--tls", "required"]);
    let (directory, pattern) = (client(&appliance, "backup1"), appliance.path("pattern"));
    let bytes: Vec<u8> = (0..8_u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    fs::write(&pattern, &bytes).unwrap();
    let (pattern, copy) = (pattern.to_str().unwrap(), appliance.path("copy"));
    let uri = uri(port, &directory);
    run("nbdcopy", &["--connections=4", pattern, &uri]);
    run("nbdcopy", &["--connections=4", &uri, copy.to_str().unwrap()]);
    run("cmp", &["--bytes", &bytes.len().to_string(), pattern, copy.to_str().unwrap()]);
    let allocated = fs::metadata(&copy).unwrap().blocks() * 512;
    assert!(allocated < 32 << 20, "of a sparse GiB {allocated} bytes are allocated");

    let credentials = format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", directory.display());
    let image = format!("driver=nbd,host=localhost,port={port},export=disk,tls-creds=tls0");
    let compared = run(
        "qemu-img",
        &[
            "compare",
            "--object",
            &credentials,
            "--image-opts",
            &image,
            &format!("driver=raw,file.filename={}", copy.display()),
        ],
    );
    assert!(compared.contains("Images are identical"), "{compared}");
    let out = appliance.path("out.qcow2");
    run(
        "qemu-img",
        &["convert", "--object", &credentials, "--image-opts", &image, "-O", "qcow2", out.to_str().unwrap()],
    );
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", out.to_str().unwrap(), copy.to_str().unwrap()]);
    let list = run("nbdinfo", &["--list", &uri.replace("/disk", "/")]);
    assert!(list.contains("disk") && list.contains("with TLS"), "{list}");
}

#[test]
fn an_export_that_needs_tls_is_nobodys_without() {
    let appliance = secured(LOOPBACK);
    let port = export(&appliance, &["--tls", "required"]);
    let shown = appliance.show("data1")["export"].clone();
    assert_eq!(shown["access"], json!({"tls": "required", "clients": []}));
    assert!(shown["uris"].as_array().unwrap().iter().all(|uri| uri.as_str().unwrap().starts_with("nbds")), "{shown}");
    let unix = format!("nbd+unix:///disk?socket={}", appliance.path("nbd.sock").display());
    for plain in [format!("nbd://localhost:{port}/disk"), unix.clone()] {
        let said = fails("nbdinfo", &size(&plain));
        assert!(said.contains("TLS"), "{said}");
        let list = run("nbdinfo", &["--list", "--no-content", &plain.replace("/disk", "/")]);
        assert!(!list.contains("export=\"disk\""), "{list}");
    }
    let certificates = client(&appliance, "backup1").display().to_string();
    run("nbdinfo", &size(&format!("{}&tls-certificates={certificates}", unix.replace("nbd+unix", "nbds+unix"))));
}

#[test]
fn only_certificates_of_the_authority_get_in() {
    let appliance = secured(LOOPBACK);
    let port = export(&appliance, &["--tls", "required"]);
    let other = appliance.path("other");
    appliance.ok(&["tls", "init", "--dir", other.to_str().unwrap(), "--client", "backup1"]);

    // The server is whom the client trusts, and the client's own certificate is of another authority, or none.
    let (known, foreign) = (client(&appliance, "backup1"), other.join("clients/backup1"));
    fs::copy(known.join("ca-cert.pem"), foreign.join("ca-cert.pem")).unwrap();
    let nobody = appliance.path("nobody");
    fs::create_dir(&nobody).unwrap();
    fs::copy(known.join("ca-cert.pem"), nobody.join("ca-cert.pem")).unwrap();
    let expired = appliance.path("expired");
    fs::create_dir(&expired).unwrap();
    fs::copy(known.join("ca-cert.pem"), expired.join("ca-cert.pem")).unwrap();
    let authority = appliance.path("tls/ca");
    sign_expired(&authority, &expired);
    for refused in [&foreign, &nobody, &expired] {
        fails("nbdinfo", &size(&uri(port, refused)));
        wait_for("the refusal in the log", || appliance.log().contains("TLS handshake failed").then_some(()));
    }
    run("nbdinfo", &size(&uri(port, &known)));
}

/// A client's certificate of the authority in a directory, which has expired.
fn sign_expired(authority: &Path, directory: &Path) {
    let text = |name: &str| fs::read_to_string(authority.join(name)).unwrap();
    let key = KeyPair::from_pem(&text("ca-key.pem")).unwrap();
    let subject = run(
        "openssl",
        &["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", authority.join("ca-cert.pem").to_str().unwrap()],
    );
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = DistinguishedName::new();
    issuer.distinguished_name.push(DnType::CommonName, subject.trim().strip_prefix("subject=CN=").unwrap());
    let issuer = rcgen::Issuer::new(issuer, key);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "backup1");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let own = KeyPair::generate().unwrap();
    fs::write(directory.join("client-cert.pem"), params.signed_by(&own, &issuer).unwrap().pem()).unwrap();
    fs::write(directory.join("client-key.pem"), own.serialize_pem()).unwrap();
}

/// Debian's own, which has libnbd.
const PYTHON: &str = "/usr/bin/python3";
/// Enters the export of a URI.
const ENTER: &str = "import nbd, sys\nh = nbd.NBD()\nh.set_uri_allow_local_file(True)\nh.connect_uri(sys.argv[1])\n";

/// A client that is inside and stays there: a request for each line that it is sent.
struct Inside(Child);

impl Inside {
    fn enter(uri: &str) -> Self {
        let reading = "import sys\nfor line in sys.stdin:\n  h.pread(512, 0)\n  print('read', flush=True)\n";
        let mut command = Command::new(PYTHON);
        command.args(["-c", &format!("{ENTER}{reading}"), uri]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    fn reads(&mut self) -> bool {
        let asked = self.0.stdin.as_mut().unwrap().write_all(b"\n").is_ok();
        let mut answer = String::new();
        let mut stdout = BufReader::new(self.0.stdout.as_mut().unwrap());
        asked && stdout.read_line(&mut answer).unwrap() > 0
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_list_of_clients_is_kept_and_who_is_taken_off_it_loses_the_connection() {
    let mut appliance = secured(LOOPBACK);
    let port = export(&appliance, &["--client", "CN=backup1", "--client", "192.0.2.0/24"]);
    let [first, second] = ["backup1", "backup2"].map(|name| uri(port, &client(&appliance, name)));
    fails("nbdinfo", &size(&second));
    assert!(appliance.log().contains("(CN=backup2) refused: export disk is not for it"));
    let list = |uri: &str| run("nbdinfo", &["--list", "--no-content", &uri.replace("/disk", "/")]);
    assert!(list(&first).contains("export=\"disk\"") && !list(&second).contains("export=\"disk\""));
    assert!(fails("nbdinfo", &size(&format!("nbd://localhost:{port}/disk"))).contains("TLS"));

    let mut inside = Inside::enter(&first);
    assert!(inside.reads());
    let shown = appliance.ok(&["exports"])["exports"][0]["clients"][0].clone();
    assert_eq!(shown["subject"], "CN=backup1", "{shown}");
    // The same again changes nothing, and nothing said of the clients leaves them as they are.
    let clients = ["--client", "CN=backup1", "--client", "192.0.2.0/24"];
    for flags in [&clients[..], &[]] {
        let again = appliance.ok(&[&["export", "data1", "--name", "disk"], flags].concat());
        assert_eq!(again["changed"], false, "{again}");
    }
    assert!(inside.reads());
    let plan = appliance.ok(&["export", "data1", "--name", "disk", "--client", "backup2", "--dry-run"]);
    assert!(plan["plan"][0].as_str().unwrap().contains("change who may open"), "{plan}");
    assert!(inside.reads());

    let changed = appliance.ok(&["export", "data1", "--name", "disk", "--client", "backup2"]);
    assert_eq!((&changed["changed"], &changed["export"]["access"]["clients"]), (&json!(true), &json!(["backup2"])));
    assert_eq!(changed["export"]["clients"], json!([]));
    assert!(!inside.reads());
    run("nbdinfo", &size(&second));
    fails("nbdinfo", &size(&first));

    assert!(appliance.stop_daemon().success());
    appliance.start_daemon();
    let export = wait_for("the export to be back", || {
        let export = appliance.ok(&["exports"])["exports"][0].clone();
        (export["state"] == "active").then_some(export)
    });
    assert_eq!(export["access"]["clients"], json!(["backup2"]));
    let opened = appliance.ok(&["export", "data1", "--name", "disk", "--any-client"]);
    assert_eq!(opened["export"]["access"], json!({"tls": "allowed", "clients": []}));

    for wrong in ["192.0.2.7/24", "XX=y", " "] {
        appliance.json(&["export", "data1", "--name", "disk", "--client", wrong]).failure(2, "usage");
    }
}

#[test]
fn one_subject_is_one_client() {
    let mut appliance = secured(LOOPBACK);
    let port = export(&appliance, &[]);
    let [first, second] = ["backup1", "backup2"].map(|name| uri(port, &client(&appliance, name)));
    let mut inside = Inside::enter(&first);
    assert!(inside.reads());
    let mut again = Inside::enter(&first);
    assert!(again.reads());
    for other in [&second, &format!("nbd://localhost:{port}/disk")] {
        fails(PYTHON, &["-c", ENTER, other]);
    }
    assert_eq!(appliance.log().matches("export disk is written by the client CN=backup1").count(), 2);
    let refused = wait_for("the refusals to be written down", || {
        let events = appliance.run(&["events", "--json"]).success().stdout;
        let refused = events.lines().filter(|event| event.contains("\"client_refused\"")).map(str::to_owned);
        Some(refused.collect::<Vec<_>>()).filter(|refused| refused.len() == 2)
    });
    let said = "(CN=backup2) was refused: the export is written by the client CN=backup1";
    assert!(refused[0].contains(said), "{refused:?}");
    let metrics = appliance.run(&["metrics"]).success().stdout;
    let of_client = "volctl_export_client_connections{client=\"127.0.0.1\",export=\"disk\",subject=\"CN=backup1\"} 2";
    assert!(metrics.lines().any(|line| line == of_client), "{metrics}");
    run(PYTHON, &["-c", ENTER, &format!("nbd+unix:///disk?socket={}", appliance.path("nbd.sock").display())]);

    let words = ["export", "data1", "--name", "disk", "--shared"];
    let plan = appliance.ok(&[&words[..], &["--dry-run"]].concat());
    assert!(plan["plan"][0].as_str().unwrap().starts_with("let several clients write at a time"), "{plan}");
    let lifted = appliance.ok(&words);
    assert_eq!((&lifted["changed"], &lifted["export"]["shared"]), (&json!(true), &json!(true)));
    assert!(inside.reads(), "who was there stays");
    assert!(Inside::enter(&second).reads());
    assert_eq!(appliance.ok(&words)["changed"], false);
    drop((inside, again));
    assert!(appliance.stop_daemon().success());
    appliance.start_daemon();
    wait_for("the export to be back", || {
        let export = appliance.ok(&["exports"])["exports"][0].clone();
        (export["state"] == "active" && export["shared"] == true).then_some(())
    });
}

#[test]
fn what_is_said_of_an_export_again_is_changed_and_the_rest_stays() {
    let appliance = secured(LOOPBACK);
    let [backup1, backup2] = ["backup1", "backup2"].map(|name| client(&appliance, name));
    for named in [&[][..], &["--name", "own"]] {
        let made = ["export", "data1", "--shared", "--client", "backup1", "--client", "backup2"];
        let made = appliance.ok(&[&made[..], named].concat())["export"].clone();
        let at = made["uris"][0].as_str().unwrap().replace("127.0.0.1", "localhost");
        let uri = |certificates: &Path| format!("{at}?tls-certificates={}", certificates.display());
        let (mut first, mut second) = (Inside::enter(&uri(&backup1)), Inside::enter(&uri(&backup2)));
        assert!(first.reads() && second.reads());
        assert_eq!(appliance.ok(&["export", "data1"])["changed"], false);

        // Neither may lose its connection because somebody else wants to write alone.
        for dry_run in [&["--dry-run"][..], &[]] {
            let words = [&["export", "data1", "--one-writer"], dry_run].concat();
            let refused = appliance.json(&words).failure(4, "in_use");
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains("(CN=backup1)") && message.contains("(CN=backup2)"), "{refused}");
        }
        assert_eq!(appliance.ok(&["exports"])["exports"][0]["shared"], true);
        assert!(first.reads() && second.reads());

        let changed = appliance.ok(&["export", "data1", "--client", "backup2"])["export"].clone();
        assert_eq!((&changed["name"], &changed["shared"]), (&made["name"], &json!(true)));
        assert_eq!(changed["access"]["clients"], json!(["backup2"]));
        assert!(!first.reads() && second.reads());

        appliance.ok(&["export", "data1", "--client", "backup1", "--client", "backup2"]);
        let mut first = Inside::enter(&uri(&backup1));
        assert!(first.reads());
        let changed = appliance.ok(&["export", "data1", "--one-writer", "--client", "backup2"])["export"].clone();
        assert_eq!((&changed["name"], &changed["shared"]), (&made["name"], &json!(false)));
        assert!(!first.reads() && second.reads());
        appliance.ok(&["export", "data1", "--any-client"]);
        fails(PYTHON, &["-c", ENTER, &uri(&backup1)]);
        assert!(second.reads());
        drop(second);
        appliance.ok(&["unexport", "data1", "--force"]);
    }
}

/// With it, TLS clients are not lost; the lab has it.
fn kernel_has_tls() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").is_ok_and(|names| names.contains("tls"))
}

#[test]
fn without_the_kernels_tls_a_restart_costs_connections_and_that_is_said_before() {
    if kernel_has_tls() {
        eprintln!("not run: this kernel goes on with TLS connections");
        return;
    }
    let mut appliance = Appliance::managed();
    let directory = appliance.path("tls");
    appliance.ok(&["tls", "init", "--dir", directory.to_str().unwrap(), "--client", "backup1"]);
    restarted_with(&mut appliance, &directory.join("server"), LOOPBACK);
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let port = export(&appliance, &[]);
    let uri = uri(port, &client(&appliance, "backup1"));
    let mut plain = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
    let lost = |appliance: &Appliance| appliance.ok(&["version"])["clients_lost_by_restart"].clone();
    assert_eq!(lost(&appliance), 0, "the service manager keeps what is not encrypted");
    let mut inside = Inside::enter(&uri);
    assert!(inside.reads());
    assert_eq!(lost(&appliance), 1);

    assert!(appliance.stop_daemon().success());
    appliance.start_daemon();
    assert!(!inside.reads(), "its keys were in the process before");
    plain.write(0, &[7; 512]).expect("the other goes on");
    assert!(Inside::enter(&uri).reads());
}

#[test]
fn a_subject_has_so_many_connections_and_a_handshake_so_much_time() {
    let nbd = format!("{LOOPBACK}\nmax_connections_per_client = 3\nhandshake_timeout = \"3s\"");
    let appliance = secured(&nbd);
    let port = export(&appliance, &["--shared"]);
    let [first, second] = ["backup1", "backup2"].map(|name| uri(port, &client(&appliance, name)));
    let mut inside: Vec<Inside> = (0..3).map(|_| Inside::enter(&first)).collect();
    assert!(inside.iter_mut().all(Inside::reads));
    fails(PYTHON, &["-c", ENTER, &first]);
    assert!(appliance.log().contains("(CN=backup1) refused: export disk is not for more than its 3 connections"));
    assert!(Inside::enter(&second).reads(), "another subject at the same address");
    drop(inside);
    wait_for("a place", || ran(PYTHON, &["-c", ENTER, &first]).status.success().then_some(()));

    // Nothing of TLS, and a record that never ends.
    for begun in [&b""[..], b"\x16\x03\x01\x40\x00\x01"] {
        let mut stream = sent(port, &option(STARTTLS, &[]));
        assert_eq!(reply(&mut stream), ACK);
        stream.write_all(begun).unwrap();
        assert!(stream.read_to_end(&mut Vec::new()).is_ok(), "it is kept");
    }
}

#[test]
fn beyond_loopback_there_is_nothing_but_tls() {
    let appliance = secured("listen = [\"0.0.0.0:0\"]\nadvertise = \"localhost\"");
    let port = export(&appliance, &[]);
    let shown = appliance.show("data1")["export"]["uris"].clone();
    assert!(shown[0].as_str().unwrap().starts_with("nbds://localhost:"), "{shown}");
    for word in [&["--list"][..], &["--size"]] {
        fails("nbdinfo", &[word, &[&format!("nbd://localhost:{port}/disk")]].concat());
    }
    run("nbdinfo", &size(&uri(port, &client(&appliance, "backup1"))));
    assert_eq!(reply_to(port, 3, &[option(LIST, &[])]), TLS_REQUIRED);
    for number in [LIST, STARTTLS, GO] {
        assert_eq!(reply_to(port, 2, &[option(number, &[])]), POLICY, "without fixed newstyle there is no TLS");
    }
}

#[test]
fn without_certificates_there_is_no_tls_to_ask_for() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    for flags in [["--tls", "required"], ["--client", "CN=backup1"]] {
        let refused = appliance.json(&[&["export", "data1"], &flags[..]].concat()).failure(2, "usage");
        assert!(refused["hint"].as_str().unwrap().contains("tls init"), "{refused}");
    }
    let port = export(&appliance, &["--client", "127.0.0.0/8"]);
    assert_eq!(reply_to(port, 3, &[option(STARTTLS, &[])]), POLICY);
    run("nbdinfo", &size(&format!("nbd://localhost:{port}/disk")));
    appliance.ok(&["export", "data1", "--name", "disk", "--client", "192.0.2.0/24"]);
    fails("nbdinfo", &size(&format!("nbd://localhost:{port}/disk")));
    appliance.ok(&["export", "data1", "--name", "disk", "--client", "192.0.2.0/24", "--client", "CN=backup1"]);
    for number in [INFO, GO] {
        assert_eq!(reply_to(port, 3, &[option(number, &named("disk"))]), POLICY, "there is no TLS to begin with");
    }
    run("nbdinfo", &size(&format!("nbd+unix:///disk?socket={}", appliance.path("nbd.sock").display())));
}

#[test]
fn certificates_may_come_after_the_daemon_and_until_then_nobody_gets_in() {
    let mut appliance = Appliance::start();
    let (directory, server) = (appliance.path("tls"), appliance.path("tls/server"));
    restarted_with(&mut appliance, &server, "listen = [\"0.0.0.0:0\", \"127.0.0.1:0\"]\nadvertise = \"localhost\"");
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1", "--name", "disk", "--tls", "required"]);
    let backup1 = client(&appliance, "backup1");
    let with = |place: &str| {
        let sign = if place.contains('?') { "&" } else { "?" };
        format!("nbds{place}{sign}tls-certificates={}", backup1.display())
    };
    let init = ["tls", "init", "--dir", directory.to_str().unwrap()];
    for clients in [&["--client", "backup1"][..], &[]] {
        let uris = appliance.show("data1")["export"]["uris"].as_array().unwrap().clone();
        let places: Vec<&str> = uris.iter().map(|uri| uri.as_str().unwrap().strip_prefix("nbds").unwrap()).collect();
        let (is_well, said) = health(&appliance);
        assert!(!is_well && said.contains("nobody gets in over TLS") && said.contains("tls init"), "{said}");
        for place in &places {
            fails("nbdinfo", &size(&format!("nbd{place}")));
            fails("nbdinfo", &size(&with(place)));
        }
        let made = appliance.ok(&[&init[..], clients].concat());
        assert_eq!(made["server"]["names"], json!(["localhost", "127.0.0.1", "::1"]));
        for command in made["clients"].as_array().unwrap().iter().flat_map(|made| made["commands"].as_array().unwrap())
        {
            let typed = command.as_str().unwrap().replace("EXPORT", "disk").replace("disk.img", "/dev/null");
            run("sh", &["-c", &typed]);
        }
        assert!(health(&appliance).0, "{:?}", health(&appliance));
        for place in &places {
            run("nbdinfo", &size(&with(place)));
            fails("nbdinfo", &size(&format!("nbd{place}")));
        }
        // As the manual renews a certificate, while no daemon runs.
        assert!(appliance.stop_daemon().success());
        fs::remove_dir_all(&server).unwrap();
        appliance.start_daemon();
        wait_for("the export to be back", || (appliance.show("data1")["export"]["state"] == "active").then_some(()));
    }
}

/// The check of the certificates, and whether all is well with them.
fn health(appliance: &Appliance) -> (bool, String) {
    let checks = appliance.json(&["health"]).json()["checks"].clone();
    let check = checks.as_array().unwrap().iter().find(|check| check["name"] == "tls").unwrap().clone();
    (check["ok"] == true, check["message"].as_str().unwrap().to_owned())
}

#[test]
fn certificates_are_read_again_and_their_end_is_told_before_it_comes() {
    let appliance = secured(LOOPBACK);
    let port = export(&appliance, &["--tls", "required"]);
    let (server, backup) = (appliance.path("tls/server"), client(&appliance, "backup1"));
    assert!(health(&appliance).0, "{:?}", health(&appliance));

    let expiring = |days: i64| {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let at = jiff::Zoned::now().checked_add(jiff::Span::new().days(days)).unwrap();
        leaf.not_after = rcgen::date_time_ymd(at.year().into(), at.month() as u8, at.day() as u8);
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &ca).unwrap();
        let [new_certificate, new_key] = ["server-cert.new", "server-key.new"].map(|name| server.join(name));
        fs::write(&new_certificate, certificate.pem()).unwrap();
        fs::write(&new_key, key.serialize_pem()).unwrap();
        fs::set_permissions(&new_key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new_certificate, server.join("server-cert.pem")).unwrap();
        fs::rename(new_key, server.join("server-key.pem")).unwrap();
        ca.pem()
    };
    let ca = expiring(10);
    fails("nbdinfo", &size(&uri(port, &backup)));
    fs::write(backup.join("ca-cert.pem"), ca).unwrap();
    run("nbdinfo", &size(&uri(port, &backup)));
    let (is_well, said) = health(&appliance);
    assert!(!is_well && said.contains("the server's certificate expires on"), "{said}");
    expiring(-10);
    let (is_well, said) = health(&appliance);
    assert!(!is_well && said.contains("the server's certificate expired on"), "{said}");
    fs::write(backup.join("ca-cert.pem"), expiring(100)).unwrap();
    assert!(health(&appliance).0);

    // What cannot be read is told, and what was read before is used.
    fs::set_permissions(server.join("server-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let (is_well, said) = health(&appliance);
    assert!(!is_well && said.contains("others read") && said.contains("before is used"), "{said}");
    run("nbdinfo", &size(&uri(port, &backup)));
}
