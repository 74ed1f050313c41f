//! TLS connections over restarts of the daemon: the kernel goes on with their keys.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::Lab;
use crate::tool::tool;

/// Writes and reads again until it is told to end; then says how often.
const CLIENT: &str = "
import nbd, os, sys, threading
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.connect_uri(sys.argv[1])
print('inside', flush=True)
told = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), told.set())).start()
rounds = 0
while not told.is_set():
    offset, bytes = rounds % 64 << 20, os.urandom((1 << 20) - 512)
    h.pwrite(bytes, offset)
    assert h.pread(len(bytes), offset) == bytes
    rounds += 1
h.shutdown()
print(rounds, flush=True)
";

/// A client outside that stays inside.
struct Client(Child);

impl Client {
    fn enter(uri: &str) -> Self {
        let mut command = tool("/usr/bin/python3", "python3-libnbd");
        command.args(["-c", CLIENT, uri]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = Self(command.spawn().unwrap());
        assert_eq!(client.line(), "inside\n");
        client
    }

    /// Tells it to end, and gives the number of its rounds.
    fn end(mut self) -> u64 {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.line().trim().parse().unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Keys go from this process to the kernel at the first restart, and stay there at the next ones.
pub fn restarts_are_not_noticed_by_clients_with_tls(lab: &Lab) {
    let (guest, volctl) = (&lab.guest, &lab.volctl);
    guest.ok("volctl tls init --dir /root/tls --name localhost --client backup1");
    let certificates = lab.work.path().join("backup1");
    fs::create_dir(&certificates).unwrap();
    for name in ["ca-cert.pem", "client-cert.pem", "client-key.pem"] {
        let text = guest.ok(&format!("cat /root/tls/clients/backup1/{name}"));
        fs::write(certificates.join(name), text + "\n").unwrap();
    }
    let own = "tls_certificates = \"/root/tls/server\"";
    guest.ok(&format!("sed -i.plain 's|^plain_public.*|{own}|' /etc/volctl/config.toml && modprobe tls"));
    volctl.stop_daemon();
    guest.ok("systemd-run --quiet --collect --unit=volctld -p Type=notify -p FileDescriptorStoreMax=64 volctld");
    volctl.attached("create secret1 --size 1G --attach");
    volctl.change("export secret1 --name secret1");
    let (port, directory) = (guest.nbd_port(), certificates.display());
    let client = Client::enter(&format!("nbds://localhost:{port}/secret1?tls-certificates={directory}"));

    let shown = || -> Value {
        let exports: Value = volctl.ask("exports");
        let export = exports["exports"].as_array().unwrap().iter().find(|export| export["name"] == "secret1");
        export.unwrap()["clients"][0].clone()
    };
    let before = shown();
    assert_eq!(before["subject"], "CN=backup1", "{before}");
    assert_eq!(volctl.ask::<Value>("version")["clients_lost_by_restart"], 0);
    for _ in 0..3 {
        guest.ok("systemctl restart volctld");
        let after = shown();
        for field in ["address", "subject", "since"] {
            assert_eq!(after[field], before[field], "{after}");
        }
    }
    assert!(client.end() > 0);

    volctl.stop_daemon();
    guest.ok("mv /etc/volctl/config.toml.plain /etc/volctl/config.toml");
    volctl.start_daemon();
    volctl.change("unexport secret1");
    volctl.change("detach secret1");
    volctl.ask::<Value>("delete --yes secret1");
}
