//! Restarts and an upgrade under real systemd, which a client outside does not notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use volctl::api::{Exports, Version};
use volctl::model::VolumeId;

use crate::command::Volctl;
use crate::guest::Guest;
use crate::packaged::Installed;
use crate::story::{uri, volume};
use crate::support::wait_for;
use crate::tool::mortal_tool;
use crate::{image, outside};

/// The longest time that a request may take on a machine with nothing else to do.
const LONGEST: Duration = Duration::from_secs(1);
/// Connects to a URI, and reads once more when its standard input ends.
const CLIENT: &str = "
import nbd, sys
client = nbd.NBD()
client.set_uri_allow_local_file(True)
client.connect_uri(sys.argv[1])
sys.stdin.read()
client.pread(512, 0)
";
/// What fio exits with after SIGINT.
const INTERRUPTED: i32 = 128;

/// fio writes over one connection and reads each block again, while the daemon is restarted 20 times, upgraded, and told
/// to reload.
pub fn no_client_notices(installed: &Installed<'_>) {
    let Installed { guest, volctl, work, .. } = installed;
    let created = volctl.change("create busy --size 1G --export");
    let fio = Fio::start(&uri(&created), work);
    wait_for("fio to connect", || (clients(volctl, volume(&created)) == 1).then_some(()));
    restarts(guest, 10);
    let before = process(guest);
    guest.ok("dpkg --install /usr/local/bin/volctl_99*.deb");
    assert_ne!(process(guest), before, "the package's script restarts it");
    restarts(guest, 10);
    guest.ok("systemctl reload volctld");
    guest.ok("until journalctl --unit volctld --output cat | grep -q 'read again'; do sleep 0.1; done");
    assert_eq!(clients(volctl, volume(&created)), 1);
    fio.stop(guest.stretched(LONGEST));
    let export = &created.export.as_ref().unwrap().name;
    guest.ok(&format!("journalctl --unit volctld --output cat EXPORT={export} | grep -q 'exported again'"));
    volctl.change("detach busy");
    volctl.ask::<Value>("delete --yes busy");
}

/// A TLS connection cannot be handed over where the kernel has no TLS: the package leaves the daemon running, the newer `volctl` works with it and
/// says what is pending.
pub fn a_client_that_would_notice_is_waited_for(installed: &Installed<'_>) {
    let Installed { guest, volctl, .. } = installed;
    guest.ok("echo 'install tls /bin/false' >/etc/modprobe.d/no-tls.conf; modprobe --quiet --remove tls; \
              ! grep --word-regexp tls /proc/sys/net/ipv4/tcp_available_ulp");
    let certificates = certificates(installed);
    volctl.change("create secret --size 1G --attach");
    let exported = volctl.change("export secret --tls required");
    let uris = &exported.export.as_ref().unwrap().uris;
    let uri = uris.iter().find(|uri| uri.starts_with("nbds://")).unwrap();
    let client = mortal_tool("/usr/bin/python3", "python3-libnbd")
        .args(["-c", CLIENT, &format!("{uri}?tls-certificates={}", certificates.display())])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the client to connect", || (clients(volctl, volume(&exported)) == 1).then_some(()));
    assert!(!outside::reachable(uri), "it shows no certificate");
    guest.ok("journalctl --unit volctld --output json | grep -q '\"CLIENT\":\"10.0.2.2:'");
    let before = process(guest);
    let package = image::package();
    let said = guest.ok(&format!("dpkg --install /usr/local/bin/{}", package.file_name().unwrap().display()));
    let pending = "restart pending: 1 client";
    assert!(said.contains(pending), "{said}");
    assert_eq!(process(guest), before);
    for command in ["version", "health"] {
        let said = guest.ok(&format!("volctl {command}"));
        assert!(said.contains(pending), "volctl {command}: {said}");
    }
    volctl.change("create works --size 1G");
    volctl.ask::<Value>("delete --yes works");
    assert!(client.wait_with_output().unwrap().status.success(), "the client was served to its end");
    wait_for("nobody to be waited for", || (!guest.ok("volctl version").contains("pending")).then_some(()));
    guest.ok("rm /etc/modprobe.d/no-tls.conf && systemctl restart volctld");
    assert!(!volctl.ask::<Version>("version").replaced);
    volctl.change("detach secret");
    volctl.ask::<Value>("delete --yes secret");
}

/// Has the daemon offer TLS, and brings a client's certificates out.
fn certificates(Installed { guest, work, .. }: &Installed<'_>) -> PathBuf {
    guest.ok("volctl tls init --name 127.0.0.1 --client outside");
    guest.ok("sed -i '/^plain_public/i tls_certificates = \"/etc/volctl/tls/server\"' /etc/volctl/config.toml && \
              systemctl restart volctld");
    let directory = work.join("certificates");
    fs::create_dir(&directory).unwrap();
    for file in ["ca-cert.pem", "client-cert.pem", "client-key.pem"] {
        fs::write(directory.join(file), guest.ok(&format!("cat /etc/volctl/tls/clients/outside/{file}")) + "\n")
            .unwrap();
    }
    directory
}

/// Another process each time.
fn restarts(guest: &Guest, times: usize) {
    let pid = "systemctl show --property=MainPID --value volctld";
    guest.ok(&format!(
        "for i in $(seq {times}); do before=$({pid}) && systemctl restart volctld && test $({pid}) != $before || exit; done"
    ));
}

/// How many clients a volume's export has.
fn clients(volctl: &Volctl<'_>, volume: VolumeId) -> usize {
    let exports: Exports = volctl.ask("exports");
    exports.exports.iter().filter(|export| export.volume_id == volume).map(|export| export.clients.len()).sum()
}

/// The daemon's process id.
fn process(guest: &Guest) -> String {
    guest.ok("systemctl show --property=MainPID --value volctld")
}

/// fio over one connection, until it is told to stop.
struct Fio(Child);

impl Fio {
    fn start(uri: &str, work: &Path) -> Self {
        let mut fio = mortal_tool("fio", "fio");
        fio.args([
            "--name=verify",
            "--thread",
            "--ioengine=nbd",
            "--rw=randwrite",
            "--bs=64k",
            "--iodepth=8",
            "--size=512M",
        ])
        .args(["--rate=1M,1M", "--time_based", "--runtime=1h", "--output-format=json"])
        .args(["--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64", "--verify_state_save=0"])
        .args([format!("--uri={uri}"), format!("--directory={}", work.display())]);
        Self(fio.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Neither an error nor a wrong byte, and no request that took too long.
    fn stop(mut self, limit: Duration) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        wait_for("fio to end", || self.0.try_wait().unwrap());
        let output = self.0.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(INTERRUPTED), "{output:?}");
        let job = report(&output);
        assert_eq!(job["error"], 0, "{output:?}");
        let of = |direction: &str| {
            let of = &job[direction];
            (of["total_ios"].as_u64().unwrap(), of["clat_ns"]["max"].as_u64().unwrap())
        };
        let ((reads, longest_read), (writes, longest_write)) = (of("read"), of("write"));
        let longest = Duration::from_nanos(longest_read.max(longest_write));
        println!("{writes} blocks written, {reads} verified; the longest request took {longest:.1?} of {limit:.1?}");
        assert!(reads > 0 && longest < limit, "a request took {longest:?}");
    }
}

/// The job of fio's report, before which libnbd's engine has something to say.
fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let document = &text[text.find('{').unwrap_or_else(|| panic!("{output:?}"))..];
    serde_json::from_str::<Value>(document).unwrap()["jobs"][0].take()
}
