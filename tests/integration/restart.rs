//! A restart under a service manager that keeps descriptors: no client notices one, unless the daemon was killed.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::appliance::{Appliance, Config};
use crate::support::nbd::Client;
use crate::support::wait_for;
use crate::support::wording::names;

const BLOCK: usize = 4096;
const LISTENER: &str = "stored-nbd-listener";

/// An appliance whose daemon is managed, with the exported volume `data1`, of 1 GiB, and its TCP URI.
fn exported() -> (Appliance, String) {
    exported_with("")
}

/// The same, with further settings of `[nbd]`.
fn exported_with(settings: &str) -> (Appliance, String) {
    let appliance = Appliance::managed_with(settings);
    let created = appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    assert!(created["changed"] == true);
    let exported = appliance.ok(&["export", "data1", "--name", "disk"]);
    (appliance, exported["export"]["uris"][0].as_str().unwrap().to_owned())
}

fn enter(appliance: &Appliance) -> Client {
    Client::enter(&appliance.path("nbd.sock"), "disk").unwrap()
}

fn restart(appliance: &mut Appliance) {
    let status = appliance.stop_daemon();
    assert!(status.success(), "{status}");
    appliance.start_daemon();
}

/// Writes block after block and reads each again, until it is told to stop; gives the longest time that one took.
fn write_and_read(mut client: Client, from: u64, stop: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    for number in 0u64.. {
        if stop.load(Ordering::SeqCst) {
            return longest;
        }
        let (offset, bytes) = (from + number % 1024 * BLOCK as u64, number.to_be_bytes().repeat(BLOCK / 8));
        let before = Instant::now();
        client.write(offset, &bytes).unwrap();
        assert!(client.read(offset, BLOCK as u32).unwrap() == bytes, "block {number} has other bytes");
        longest = longest.max(before.elapsed());
    }
    unreachable!()
}

/// Stops the others when this test fails.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// fio writes and verifies again and again, with a new connection each time, until it is told to stop.
fn fio(uri: &str, directory: &str, stop: &AtomicBool) -> usize {
    for runs in 1.. {
        let output = Command::new("fio")
            .args(["--name=verify", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-256k", "--size=64M"])
            .args(["--io_size=32M", "--iodepth=16", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1"])
            .args(["--verify_state_save=0", &format!("--uri={uri}"), &format!("--directory={directory}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        if stop.load(Ordering::SeqCst) {
            return runs;
        }
    }
    unreachable!()
}

#[test]
fn twenty_restarts_are_not_noticed_by_clients_that_write() {
    restarts_are_not_noticed("", 20);
}

#[test]
fn restarts_are_not_noticed_past_the_page_cache() {
    restarts_are_not_noticed("direct = true\n", 5);
}

fn restarts_are_not_noticed(settings: &str, restarts: usize) {
    let (mut appliance, uri) = exported_with(settings);
    let stop = AtomicBool::new(false);
    let directory = appliance.path("").display().to_string();
    let clients = [512 << 20, 768 << 20].map(|from| (enter(&appliance), from));
    std::thread::scope(|scope| {
        let (stop, _stopped) = (&stop, Stopped(&stop));
        let clients = clients.map(|(client, from)| scope.spawn(move || write_and_read(client, from, stop)));
        let fio = scope.spawn(move || fio(&uri, &directory, stop));
        for _ in 0..restarts {
            let before = Instant::now();
            let status = appliance.stop_daemon();
            assert!(status.success() && before.elapsed() < Duration::from_secs(1), "{status}, {:?}", before.elapsed());
            appliance.start_daemon();
            let clients = &appliance.ok(&["exports"])["exports"][0]["clients"];
            assert!(clients.as_array().unwrap().len() >= 2, "{clients}");
        }
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            let longest = client.join().unwrap();
            assert!(longest < Duration::from_secs(1), "a request took {longest:?}");
        }
        assert!(fio.join().unwrap() > 0);
    });
    assert_eq!(appliance.manager().names(), [LISTENER, LISTENER], "nothing else is left there");
}

#[test]
fn a_request_that_has_arrived_in_part_is_not_lost() {
    let (mut appliance, _) = exported();
    let request = |command: u16, offset: u64, length: u32| {
        let head = [&0x2560_9513_u32.to_be_bytes()[..], &[0, 0], &command.to_be_bytes(), b"a cookie"].concat();
        [&head[..], &offset.to_be_bytes(), &length.to_be_bytes()].concat()
    };
    const MIB: usize = 1 << 20;
    let payload: Vec<u8> = (0..5 * MIB).map(|n| (n / 11) as u8).collect();
    let write = [request(1, 4096, payload.len() as u32), payload.clone()].concat();
    // Nothing, a part of the head, the head, parts of the payload, and all but a byte of it.
    for sent in [0, 13, 28, 28 + 5000, 28 + 3 * MIB + 77, write.len() - 1] {
        let mut client = enter(&appliance);
        client.write(4096, &vec![0; payload.len()]).unwrap();
        client.send(&write[..sent]).unwrap();
        restart(&mut appliance);
        client.send(&write[sent..]).unwrap();
        assert_eq!(client.receive(16).unwrap()[4..8], [0; 4], "after {sent} bytes");
        assert!(client.read(4096, payload.len() as u32).unwrap() == payload, "after {sent} bytes");
    }
    // Many requests at once, whose answers nobody takes before the restart.
    let mut client = enter(&appliance);
    let reads: Vec<u8> = (0..16).flat_map(|n| request(0, 4096 + n * 4096, MIB as u32)).collect();
    client.send(&reads).unwrap();
    restart(&mut appliance);
    for n in 0..16 {
        assert_eq!(client.receive(16).unwrap()[4..8], [0; 4]);
        assert!(client.receive(MIB).unwrap() == payload[n * 4096..][..MIB], "read {n}");
    }
}

#[test]
fn clients_keep_their_place_and_history_says_nothing_of_the_restart() {
    let (mut appliance, uri) = exported();
    let mut client = enter(&appliance);
    client.write(0, &[7; 512]).unwrap();
    let clients = |appliance: &Appliance| appliance.ok(&["exports"])["exports"][0]["clients"].clone();
    let (before, id) = (clients(&appliance), appliance.daemon_id());
    restart(&mut appliance);
    assert_ne!(appliance.daemon_id(), id);
    let after = clients(&appliance);
    assert_eq!((&after[0]["address"], &after[0]["since"]), (&before[0]["address"], &before[0]["since"]));
    let history = appliance.json(&["events"]).success().stdout;
    assert_eq!(history.matches("client unix:").count(), 1, "it has come once, and not gone: {history}");
    appliance.json(&["detach", "data1"]).failure(4, "in_use");
    assert_eq!(client.read(0, 512).unwrap(), [7; 512]);
    drop(client);
    let again = appliance.ok(&["exports"])["exports"][0]["uris"][0].clone();
    assert_eq!(again, uri.as_str(), "the port is the same");
}

#[test]
fn after_a_kill_clients_are_closed_and_the_listeners_stay() {
    let (mut appliance, uri) = exported();
    let mut client = enter(&appliance);
    client.read(0, 512).unwrap();
    // Also one that was handed over before.
    restart(&mut appliance);
    client.read(0, 512).unwrap();
    assert_eq!(appliance.manager().names(), [LISTENER, LISTENER]);
    appliance.kill_daemon();
    appliance.start_daemon();
    assert_eq!(client.until_closed(), b"");
    assert_eq!(appliance.ok(&["exports"])["exports"][0]["uris"][0], uri.as_str());
    enter(&appliance).read(0, 512).unwrap();
}

#[test]
fn without_the_mark_of_a_clean_hand_over_clients_are_closed() {
    let (mut appliance, _) = exported();
    let mut client = enter(&appliance);
    client.read(0, 512).unwrap();
    assert!(appliance.stop_daemon().success());
    assert_eq!(appliance.manager().names(), ["stored-nbd-client", "stored-nbd-letter", LISTENER, LISTENER]);
    appliance.manager().lose("stored-nbd-letter");
    appliance.start_daemon();
    assert_eq!(client.until_closed(), b"");
    assert_eq!(appliance.manager().names(), [LISTENER, LISTENER]);
    names(&appliance.log(), &["clients of the process before are closed"]);
}

#[test]
fn clients_of_a_device_that_was_replaced_are_closed() {
    let (mut appliance, _) = exported();
    let mut client = enter(&appliance);
    client.read(0, 512).unwrap();
    let node = appliance.show("data1")["device"]["node"].as_str().unwrap().to_owned();
    assert!(appliance.stop_daemon().success());
    fs::rename(&node, appliance.path("former")).unwrap();
    fs::File::create_new(&node).unwrap().set_len(1 << 30).unwrap();
    appliance.start_daemon();
    assert_eq!(client.until_closed(), b"");
    assert_eq!(appliance.ok(&["exports"])["exports"][0]["state"], "failed");
    names(&appliance.log(), &["is closed after the restart: export disk has not come back"]);
}

#[test]
fn a_reload_keeps_everything() {
    let (appliance, _) = exported();
    let mut client = enter(&appliance);
    let id = nix::unistd::Pid::from_raw(appliance.daemon_id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGHUP).unwrap();
    wait_for("the reload", || appliance.log().contains("was read again").then_some(()));
    client.write(0, &[7; 512]).unwrap();
}

#[test]
fn a_restart_that_clients_would_notice_is_pending_after_an_upgrade() {
    let mut appliance = Appliance::stopped(Config::default());
    let program = appliance.path("volctld");
    fs::copy(env!("CARGO_BIN_EXE_volctld"), &program).unwrap();
    let launcher = ["sh", "-c", r#"exec "$PROGRAM" "$@""#].map(str::to_owned).to_vec();
    appliance.configure(|config| {
        config.launcher = launcher;
        config.environment.push(("PROGRAM".to_owned(), program.display().to_string()));
    });
    appliance.start_daemon();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1", "--name", "disk"]);
    let clients = [enter(&appliance), enter(&appliance)];
    let version = |appliance: &Appliance| appliance.run(&["version"]).success().stdout;
    let health = |appliance: &Appliance| {
        let checks = appliance.ok(&["health"])["checks"].clone();
        checks.as_array().unwrap().last().unwrap()["message"].as_str().unwrap().to_owned()
    };
    assert!(!version(&appliance).contains("restart pending") && !health(&appliance).contains("restart"));
    assert_eq!(appliance.ok(&["version"])["clients_lost_by_restart"], 2);

    fs::rename(&program, appliance.path("former")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_volctld"), &program).unwrap();
    fs::remove_file(appliance.path("former")).unwrap();
    let said = version(&appliance);
    assert!(said.lines().any(|line| line == "restart pending: 2 clients"), "{said}");
    names(&health(&appliance), &["restart pending: 2 clients"]);
    drop(clients);
    wait_for("the clients to go", || (!version(&appliance).contains("restart pending")).then_some(()));
    names(&health(&appliance), &["another one is installed", "systemctl restart volctld"]);
}
