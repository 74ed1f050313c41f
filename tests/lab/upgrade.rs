//! Restarts and an upgrade under real systemd, which a client outside does not notice.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use volctl::api::{Exports, Version};
use volctl::model::VolumeId;

use crate::command::Volctl;
use crate::guest::Guest;
use crate::story::{uri, volume};
use crate::support::wait_for;
use crate::tool::tool;

const RESTARTS: usize = 20;
/// The longest time that a request may take, in nanoseconds.
const LONGEST: u64 = 1_000_000_000;
/// How much fio writes, and how much of it in a second, so that all restarts happen meanwhile.
const BYTES: &str = "256M";
const RATE: &str = "3M";

/// fio writes and verifies over one connection, while the daemon is restarted again and again and upgraded once.
pub fn no_client_notices(guest: &Guest, volctl: &Volctl<'_>, work: &Path) {
    let created = volctl.change("create busy --size 1G --export");
    let mut fio = tool("fio", "fio");
    fio.args(["--name=verify", "--ioengine=nbd", "--rw=randwrite", "--bs=64k", "--iodepth=8", "--size=512M"])
        .args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0"])
        .args(["--output-format=json", &format!("--io_size={BYTES}"), &format!("--rate={RATE}")])
        .args([format!("--uri={}", uri(&created)), format!("--directory={}", work.display())]);
    let mut fio = fio.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let volume = volume(&created);
    wait_for("fio to connect", || (clients(volctl, volume) == 1).then_some(()));
    for restart in 0..RESTARTS {
        let before = process(guest);
        match restart {
            // Its script restarts the daemon.
            10 => drop(guest.ok("dpkg --install /usr/local/bin/volctl_99*.deb")),
            _ => drop(guest.ok("systemctl restart volctld")),
        }
        assert_ne!(process(guest), before);
        assert_eq!(clients(volctl, volume), 1, "after restart {restart}");
    }
    guest.ok("systemctl reload volctld");
    assert!(fio.try_wait().unwrap().is_none(), "fio has ended before the last restart");
    let output = fio.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let longest = |direction: &str| report["jobs"][0][direction]["clat_ns"]["max"].as_u64().unwrap();
    let longest = longest("read").max(longest("write"));
    println!("the longest request took {} ms", longest / 1_000_000);
    assert!(longest < LONGEST, "a request took {longest} ns");
    let version: Version = volctl.ask("version");
    assert!(!version.replaced && version.clients_lost_by_restart == 0, "{version:?}");
    volctl.change("detach busy");
    volctl.ask::<Value>("delete --yes busy");
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
