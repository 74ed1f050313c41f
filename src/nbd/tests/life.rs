//! Exports come, drain and go; the server starts and ends.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::raw::{Raw, request};
use super::{KIB, MIB, Place, in_time, noise};
use crate::api::{ExportState, Leaving, Traffic};
use crate::error::Kind;
use crate::nbd::protocol::{InfoRequest, command, opt, rep};
use crate::nbd::{Activity, Clients, ExportSpec, Server};

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_shown_with_its_clients() {
    let place = Place::new().await;
    let mut activity = place.server.activity();
    let export = place.serve("my disk", MIB).await;
    assert_eq!((export.state, export.clients.len()), (ExportState::Active, 0));
    assert!(export.uris[0].starts_with("nbd://127.0.0.1:") && export.uris[0].ends_with("/my%20disk"));
    assert_eq!(export.uris[1], format!("nbd+unix:///my%20disk?socket={}", place.socket().display()));
    assert_eq!(place.server.list(), std::slice::from_ref(&export));
    assert_eq!(place.server.of_volume(export.volume_id), Some(export.clone()));
    assert_eq!(place.server.get("my"), None);

    let mut local = place.connect();
    local.go("my disk");
    let clients = place.clients("my disk");
    let (pid, uid) = (std::process::id(), nix::unistd::geteuid());
    assert_eq!(clients[0].address, format!("unix:pid={pid},uid={uid}"));
    assert_eq!(clients[0].last_request, None);
    assert_eq!(local.error_of(0, command::FLUSH, 0, 0, &[]), 0);
    assert!(place.clients("my disk")[0].last_request >= Some(clients[0].since));

    let mut remote = place.connect_tcp(&export);
    remote.go("my disk");
    assert!(place.clients("my disk")[1].address.starts_with("127.0.0.1:"));
    let both = Activity { exports: 1, clients: 2 };
    assert_eq!(*activity.wait_for(|now| *now == both).await.unwrap(), both);
    drop((local, remote));
    activity.wait_for(|now| now.clients == 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_counts_what_it_does() {
    let place = Place::new().await;
    let export = place.serve("disk", MIB).await;
    assert_eq!(export.traffic, Traffic::default());
    let mut client = place.connect();
    client.go("disk");
    let before = Timestamp::now();
    for _ in 0..3 {
        assert_eq!(client.answer(0, command::WRITE, 0, 5, b"bytes").error, 0);
    }
    assert_eq!(client.answer(0, command::READ, 0, 4096, &[]).error, 0);
    assert_eq!(client.answer(0, command::READ, MIB, 1, &[]).error, 22);
    assert_eq!(client.answer(0, command::FLUSH, 0, 0, &[]).error, 0);
    let shown = place.server.get("disk").unwrap();
    assert_eq!((shown.usage.bytes_read, shown.usage.bytes_written), (4096, 15));
    let traffic = shown.traffic;
    assert_eq!((traffic.requests, traffic.errors), (6, 1));
    assert!(traffic.last_flush >= Some(before));
    let deadline = in_time();
    while place.server.get("disk").unwrap().traffic.requests_per_second == 0 {
        assert!(Instant::now() < deadline, "no rate is told");
        client.answer(0, command::READ, 0, 1, &[]);
    }
    drop(client);
    assert!(place.idle("disk").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_writes_unless_the_export_is_shared() {
    let place = Place::new().await;
    let export = place.serve("disk", MIB).await;
    let shared = place.server.add(ExportSpec { shared: true, ..place.device("shared", MIB) }).await.unwrap();
    place.serve_read_only("ro", MIB).await;
    for (name, outcome) in [("disk", rep::ERR_POLICY), ("shared", rep::ACK), ("ro", rep::ACK)] {
        let mut first = place.connect_tcp(&export);
        first.go(name);
        let mut again = place.connect_tcp(&export);
        again.go(name);
        let mut local = place.connect();
        local.go(name);
        let mut other = place.connect_from("127.0.0.2", &shared);
        let replies = other.option(opt::GO, &InfoRequest::encode(name, &[]));
        let (kind, text) = replies.last().unwrap();
        assert_eq!(*kind, outcome, "{name}");
        let names_the_first = String::from_utf8_lossy(text).contains("the client at 127.0.0.1");
        assert_eq!(names_the_first, outcome == rep::ERR_POLICY, "{name}");
        drop((first, again, local, other));
        assert!(place.idle(name).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_is_not_the_one_that_writes() {
    let place = Place::new().await;
    let export = place.serve("disk", MIB).await;
    for _ in 0..3 {
        let mut first = place.connect_from("127.0.0.2", &export);
        first.go("disk");
        first.request(0, command::DISC, 0, 0);
        assert_eq!(first.until_closed(), b"");
        // Its own end is still open.
        let mut second = place.connect_from("127.0.0.3", &export);
        second.go("disk");
        second.close_write();
        assert_eq!(second.until_closed(), b"");
        place.connect_from("127.0.0.4", &export).go("disk");
        assert!(place.idle("disk").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_connections() {
    let place = Place::new().await;
    let export = place.serve_read_only("disk", MIB).await;
    let connected: Vec<Raw> = (0..128)
        .map(|_| {
            let mut client = place.connect_tcp(&export);
            client.go("disk");
            client
        })
        .collect();
    let go = InfoRequest::encode("disk", &[]);
    let mut crowded = place.connect_tcp(&export);
    assert_eq!(crowded.outcome(opt::GO, &go), rep::ERR_POLICY);
    place.connect_from("127.0.0.2", &export).go("disk");
    place.connect().go("disk");
    drop(connected);
    assert!(place.idle("disk").await);
    assert_eq!(crowded.outcome(opt::GO, &go), rep::ACK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_sent_away_has_its_answers_and_may_come_back() {
    let place = Place::new().await;
    let export = place.serve("disk", MIB).await;
    let (mut local, mut remote) = (place.connect(), place.connect_tcp(&export));
    local.go("disk");
    remote.go("disk");
    let nobody = place.server.kick("disk", Some("192.0.2.7")).await.unwrap_err();
    assert_eq!(nobody.kind, Kind::NotFound);
    assert_eq!(place.server.kick("disc", None).await.unwrap_err().kind, Kind::NotFound);

    remote.ask(0, command::WRITE, 7, 0, 5, b"bytes");
    assert_eq!(remote.replies(1, |_| 0)[&7].error, 0);
    let kicked = place.server.kick("disk", Some("127.0.0.1")).await.unwrap();
    assert_eq!(kicked.len(), 1);
    assert_eq!(remote.until_closed(), b"");
    assert_eq!(place.clients("disk").len(), 1);
    assert_eq!(local.answer(0, command::READ, 0, 5, &[]).data, b"bytes");
    place.connect_tcp(&export).go("disk");

    let busy = std::thread::spawn({
        let mut client = place.connect_tcp(&export);
        client.go("disk");
        move || write_until_closed(client, &AtomicUsize::new(0))
    });
    let mut deaf = place.connect();
    deaf.go("disk");
    for _ in 0..64 {
        deaf.request(0, command::READ, 0, MIB as u32);
    }
    place.server.kick("disk", None).await.unwrap();
    busy.join().unwrap();
    assert_eq!(local.until_closed(), b"");
    assert_eq!(place.clients("disk"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_is_refused() {
    let place = Place::new().await;
    let first = place.serve("first", MIB).await;
    for name in ["", "a\nb", &"x".repeat(256)] {
        let spec = ExportSpec { name: name.to_owned(), ..place.device("other", MIB) };
        assert_eq!(place.server.add(spec).await.unwrap_err().kind, Kind::Usage);
    }
    let taken = place.server.add(ExportSpec { name: "first".to_owned(), ..place.device("other", MIB) }).await;
    assert_eq!(taken.unwrap_err().kind, Kind::Conflict);
    let twice = place.server.add(ExportSpec { volume_id: first.volume_id, ..place.device("other", MIB) }).await;
    assert_eq!(twice.unwrap_err().kind, Kind::Conflict);
    let smaller = place.server.add(ExportSpec { size_bytes: MIB + 1, ..place.device("other", MIB) }).await;
    assert_eq!(smaller.unwrap_err().kind, Kind::DeviceMismatch);
    assert_eq!(place.server.list(), [first]);
    for missing in [place.server.drain("other"), place.server.undrain("other")] {
        assert_eq!(missing.unwrap_err().kind, Kind::NotFound);
    }
    assert_eq!(place.server.remove("other", Clients::Close).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_past_the_page_cache_is_not_served() {
    let place = Place::direct().await;
    // No file of sysfs can.
    let device_path = PathBuf::from("/sys/kernel/notes");
    let file = File::open(&device_path).unwrap();
    let size_bytes = file.metadata().unwrap().len();
    let spec = ExportSpec { read_only: true, device_path, file, size_bytes, ..place.device("disk", 0) };
    let refused = place.server.add(spec).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Config);
    let sentence = "export disk: /sys/kernel/notes cannot be served past the page cache: Invalid argument";
    assert!(refused.message.starts_with(sentence), "{refused}");
    assert_eq!(place.server.list(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_cannot_be_reached_is_not_served() {
    let place = Place::new().await;
    fs::remove_file(place.socket()).unwrap();
    let refused = place.server.add(place.device("disk", MIB)).await.unwrap_err();
    assert!(refused.message.contains("disk does not answer through"), "{refused}");
    assert_eq!(place.server.list(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_waits_for_nobody_and_changes_nothing_while_clients_are_there() {
    let place = Place::new().await;
    place.serve("disk", MIB).await;
    let mut client = place.connect();
    client.go("disk");
    assert_eq!(client.error_of(0, command::WRITE, 0, 5, b"bytes"), 0);

    let refused = place.server.remove("disk", Clients::MustBeGone).await.unwrap_err();
    assert_eq!(refused.kind, Kind::InUse);
    let pid = std::process::id();
    assert!(refused.message.contains(&format!("unix:pid={pid},uid=")), "{refused}");
    assert!(refused.message.contains("(last request "), "{refused}");
    assert_eq!(place.server.get("disk").unwrap().state, ExportState::Active);
    place.connect().go("disk");
    assert_eq!(client.error_of(0, command::WRITE, 5, 5, b"after"), 0);

    client.request(0, command::DISC, 0, 0);
    assert!(place.idle("disk").await);
    let removed = place.server.remove("disk", Clients::MustBeGone).await.unwrap();
    assert!(removed.departure.flushed_at.is_some() && removed.flush_error.is_none());
    assert_eq!(removed.departure.bytes_written, Some(10));
    assert_eq!(removed.departure.last_client, Some(Leaving::Disconnected));
    let mut bytes = [0; 10];
    removed.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"bytesafter");
    let mut late = place.connect();
    assert_eq!(late.outcome(opt::GO, &InfoRequest::encode("disk", &[])), rep::ERR_UNKNOWN);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_real_clients_count_as_clients() {
    let place = Place::new().await;
    place.serve("disk", MIB).await;
    assert_eq!(place.connect().outcome(opt::INFO, &InfoRequest::encode("disk", &[])), rep::ACK);
    let removed = place.server.remove("disk", Clients::MustBeGone).await.unwrap();
    assert_eq!(removed.departure.last_client, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_export_takes_no_new_clients() {
    let place = Place::new().await;
    place.serve("disk", MIB).await;
    let mut client = place.connect();
    client.go("disk");
    place.server.drain("disk").unwrap();
    assert_eq!(place.server.get("disk").unwrap().state, ExportState::Draining);

    let mut refused = place.connect();
    for option in [opt::INFO, opt::GO] {
        assert_eq!(refused.outcome(option, &InfoRequest::encode("disk", &[])), rep::ERR_SHUTDOWN);
    }
    assert_eq!(refused.option(opt::LIST, &[]), [(rep::ACK, vec![])]);
    assert_eq!(client.error_of(0, command::WRITE, 0, 5, b"bytes"), 0);
    assert!(!place.server.wait_idle("disk", Instant::now() + Duration::from_millis(20)).await);

    place.server.undrain("disk").unwrap();
    assert_eq!(refused.outcome(opt::INFO, &InfoRequest::encode("disk", &[])), rep::ACK);
    place.server.drain("disk").unwrap();
    drop(client);
    assert!(place.idle("disk").await);
    let removed = place.server.remove("disk", Clients::MustBeGone).await.unwrap();
    assert_eq!(removed.departure.last_client, Some(Leaving::Disconnected));
}

/// Writes block after block until the server ends it; says how many were acknowledged. Block n of 255 is full of n + 1.
fn write_until_closed(mut client: Raw, acknowledged: &AtomicUsize) {
    for block in 0_u64.. {
        let mut bytes = request(0, command::WRITE, block, block % 255 * 4 * KIB, 4 * KIB as u32);
        bytes.extend([(block % 255) as u8 + 1; 4096]);
        if !client.try_send(&bytes) {
            return;
        }
        let Some(head) = client.try_receive(16) else { return };
        match head[7] {
            0 => acknowledged.fetch_add(1, Ordering::SeqCst),
            108 => continue,
            error => panic!("error {error}"),
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_removal_while_clients_write_loses_nothing_that_was_acknowledged() {
    let place = Place::new().await;
    let export = place.serve("disk", MIB).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = [place.connect(), place.connect_tcp(&export)]
        .into_iter()
        .map(|mut client| {
            client.go("disk");
            let acknowledged = Arc::clone(&acknowledged);
            std::thread::spawn(move || write_until_closed(client, &acknowledged))
        })
        .collect();
    let mut idle = place.connect();
    idle.go("disk");
    let deadline = in_time();
    while acknowledged.load(Ordering::SeqCst) < 1000 {
        assert!(Instant::now() < deadline, "the writers write nothing");
        std::thread::yield_now();
    }

    let removed = place.server.remove("disk", Clients::Close).await.unwrap();
    assert_eq!(idle.until_closed(), b"", "a client without requests is told nothing but the end");
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(removed.departure.last_client, Some(Leaving::CutOff));
    let acknowledged = acknowledged.load(Ordering::SeqCst) as u64;
    let written = removed.departure.bytes_written.unwrap();
    assert!(written >= acknowledged * 4 * KIB, "{written} bytes for {acknowledged} acknowledged blocks");
    let mut bytes = vec![0; MIB as usize];
    removed.file.read_exact_at(&mut bytes, 0).unwrap();
    for (block, bytes) in bytes.chunks(4096).take(255).enumerate() {
        assert!(bytes.iter().all(|byte| *byte == block as u8 + 1 || bytes[0] == 0), "block {block} is torn");
    }
    assert_eq!(place.server.list(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_be_flushed_stays_until_it_is_forced() {
    let place = Place::new().await;
    // fdatasync(2) of /dev/null is EINVAL, and its size is 0.
    let file = File::options().read(true).write(true).open("/dev/null").unwrap();
    place.server.add(ExportSpec { file, size_bytes: 0, ..place.device("disk", 0) }).await.unwrap();
    let mut client = place.connect();
    client.go("disk");
    assert_eq!(client.error_of(0, command::FLUSH, 0, 0, &[]), 5);
    drop(client);
    assert!(place.idle("disk").await);

    let refused = place.server.remove("disk", Clients::MustBeGone).await.unwrap_err();
    assert!(refused.message.contains("could not be flushed"), "{refused}");
    assert_eq!(place.server.get("disk").unwrap().state, ExportState::Failed);
    place.connect().go("disk");
    let removed = place.server.remove("disk", Clients::Close).await.unwrap();
    assert!(removed.departure.flushed_at.is_none() && removed.flush_error.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_ends_in_time_and_loses_nothing() {
    let place = Place::new().await;
    place.serve("disk", 16 * MIB).await;
    place.serve("other", MIB).await;
    let data = noise(3, 8 * MIB);
    let mut client = place.connect();
    client.go("disk");
    assert_eq!(client.error_of(0, command::WRITE, 0, data.len() as u32, &data), 0);
    let mut half = place.connect();
    half.go("other");
    half.request(0, command::WRITE, 0, 4096);

    let started = Instant::now();
    place.server.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(!place.socket().exists());
    assert_eq!(client.until_closed(), b"");
    assert_eq!(half.until_closed(), b"");
    assert!(place.contents("disk")[..data.len()] == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_for_its_group_and_replaces_only_a_dead_one() {
    let directory = tempfile::tempdir().unwrap();
    let config = Place::config(&directory);
    let path = &config.unix_socket;

    let server = Server::bind(&config, Arc::default(), Vec::new()).await.unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o660);
    let second = Server::bind(&config, Arc::default(), Vec::new()).await.err().unwrap();
    assert_eq!(second.kind, Kind::Conflict);
    server.shutdown().await;

    drop(UnixListener::bind(path).unwrap());
    let server = Server::bind(&config, Arc::default(), Vec::new()).await.unwrap();
    fs::remove_file(path).unwrap();
    fs::write(path, "somebody's").unwrap();
    let refused = Server::bind(&config, Arc::default(), Vec::new()).await.err().unwrap();
    assert_eq!(refused.kind, Kind::Conflict);
    server.shutdown().await;
    assert_eq!(fs::read(path).unwrap(), b"somebody's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_nobody_waits_for_any_more_leaves_the_export_as_it_was() {
    let place = Place::new().await;
    place.serve("a", MIB).await;
    tokio::select! {
        biased;
        removed = place.server.remove("a", Clients::MustBeGone) => panic!("{removed:?}"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(place.server.get("a").unwrap().state, ExportState::Active);
    place.connect().go("a");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_client_is_sent_away_by_its_address_with_and_without_brackets() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("not run: this machine has no IPv6");
        return;
    }
    let place = Place::with(|config| config.listen = vec!["[::1]:0".parse().unwrap()]).await;
    let export = place.serve("disk", MIB).await;
    for address in ["::1", "[::1]"] {
        let mut client = place.connect_from("::1", &export);
        client.go("disk");
        assert_eq!(place.server.kick("disk", Some(address)).await.unwrap().len(), 1, "{address}");
    }
}
