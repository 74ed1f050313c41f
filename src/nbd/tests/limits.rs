//! How much clients may have, and how long: in flight, while they choose, and once they are dead.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::foreign::run;
use super::raw::Raw;
use super::{MIB, Place, in_time};
use crate::config::{InFlight, Network};
use crate::nbd::ExportSpec;
use crate::nbd::protocol::{InfoRequest, command, opt, rep};

/// Until it is so.
async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = in_time();
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_bounded_for_one_client_and_for_all() {
    let place = Place::with(|config| {
        config.limits.in_flight = InFlight { requests: 100, bytes: 5 * MIB };
        config.limits.in_flight_per_client = InFlight { requests: 100, bytes: 3 * MIB };
    })
    .await;
    let export = place.serve_read_only("disk", 64 * MIB).await;
    let inside = |mut client: Raw| {
        client.go("disk");
        client
    };
    let (mut first, mut second) = (inside(place.connect_tcp(&export)), inside(place.connect_tcp(&export)));
    // Far more than sockets hold, and nobody takes it.
    first.request(0, command::READ, 0, 32 << 20);
    wait_for("the first request", || place.server.in_flight().requests == 1).await;
    second.request(0, command::READ, 0, 2 << 20);
    assert!(second.hears_nothing(), "more bytes than one client may have");
    let mut other = inside(place.connect_from("127.0.0.2", &export));
    other.request(0, command::READ, 0, 32 << 20);
    wait_for("another client's request", || place.server.in_flight().requests == 2).await;
    let mut local = inside(place.connect());
    local.request(0, command::READ, 0, 2 << 20);
    assert!(local.hears_nothing(), "more bytes than all may have");
    assert!(place.server.in_flight().bytes <= 5 * MIB);

    // What holds no bytes does not wait, and the rest no longer than until the answers are taken.
    assert_eq!(inside(place.connect()).error_of(0, command::FLUSH, 0, 0, &[]), 0);
    for (client, length) in
        [(&mut first, 32 << 20), (&mut other, 32 << 20), (&mut second, 2 << 20), (&mut local, 2 << 20)]
    {
        assert_eq!(client.simple_reply(length).error, 0);
    }
    wait_for("all answers", || place.server.in_flight() == InFlight::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_others_has_to_go() {
    let place = Place::with(|config| {
        config.limits.in_flight.bytes = 6 * MIB;
        config.limits.stall = Duration::from_millis(500);
    })
    .await;
    let export = place.server.add(ExportSpec { shared: true, ..place.device("disk", 64 * MIB) }).await.unwrap();
    let mut from = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"].map(|address| {
        let mut client = place.connect_from(address, &export);
        client.go("disk");
        client
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    place.server.listen(move |happening| telling.lock().unwrap().push(happening.text));
    let [silent, halting, deaf, other] = &mut from;
    silent.request(0, command::WRITE, 0, 32 << 20);
    halting.request(0, command::WRITE, 0, 32 << 20);
    halting.send(&vec![7; 5 << 20]);
    deaf.request(0, command::READ, 0, 32 << 20);
    wait_for("all room to be taken", || place.server.in_flight().bytes == 6 * MIB).await;
    other.request(0, command::READ, 0, 4096);
    assert_eq!(other.simple_reply(4096).error, 0);
    for client in [silent, halting] {
        assert_eq!(client.until_closed(), b"");
    }
    assert!(deaf.until_closed().len() < 32 << 20);
    wait_for("their places", || place.clients("disk").len() == 1).await;
    assert_eq!(told.lock().unwrap().iter().filter(|text| text.contains("was cut off")).count(), 3);
    assert!(place.contents("disk")[..5 << 20].iter().all(|byte| *byte == 7), "what has come is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_holds_no_room() {
    let place = Place::with(|config| config.limits.in_flight.bytes = 4 * MIB).await;
    let export = place.serve_read_only("disk", MIB).await;
    let mut refused: Vec<Raw> = (0..4).map(|_| place.connect_tcp(&export)).collect();
    for client in &mut refused {
        client.go("disk");
        client.request(0, command::WRITE, 0, 32 << 20);
    }
    wait_for("the headers", || place.server.in_flight().requests == 4).await;
    assert_eq!(place.server.in_flight().bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_on_the_unix_socket_is_one_client() {
    let place = Place::with(|config| config.limits.in_flight_per_client.bytes = 3 * MIB).await;
    place.serve_read_only("disk", 64 * MIB).await;
    let (mut first, mut second) = (place.connect(), place.connect());
    first.go("disk");
    second.go("disk");
    first.request(0, command::READ, 0, 32 << 20);
    wait_for("the first request", || place.server.in_flight().requests == 1).await;
    second.request(0, command::READ, 0, 2 << 20);
    assert!(second.hears_nothing());
    assert_eq!(first.simple_reply(32 << 20).error, 0);
    assert_eq!(second.simple_reply(2 << 20).error, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_room_can_be_sent_away_and_its_export_removed() {
    let place = Place::with(|config| config.limits.in_flight.requests = 1).await;
    place.serve_read_only("disk", 64 * MIB).await;
    place.serve_read_only("other", MIB).await;
    let (mut first, mut second, mut third) = (place.connect(), place.connect(), place.connect());
    first.go("disk");
    second.go("other");
    third.go("other");
    first.request(0, command::READ, 0, 32 << 20);
    wait_for("the first request", || place.server.in_flight().requests == 1).await;
    second.request(0, command::READ, 0, 512);
    assert!(second.hears_nothing());
    place.server.kick("other", None).await.unwrap();
    assert_eq!((second.until_closed(), third.until_closed()), (vec![], vec![]));
    let mut again = place.connect();
    again.go("other");
    again.request(0, command::READ, 0, 512);
    assert!(again.hears_nothing());
    place.server.remove("other", crate::nbd::Clients::Close).await.unwrap();
    again.until_closed();
    assert_eq!(first.simple_reply(32 << 20).error, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_keep_the_others_from_choosing() {
    let place = Place::with(|config| config.limits.connections_per_client = 3).await;
    let export = place.serve("disk", MIB).await;
    let mut choosing: Vec<Raw> = (0..3).map(|_| place.connect_tcp(&export)).collect();
    let mut refused = Raw::tcp_from(Ipv4Addr::LOCALHOST.into(), Place::address(&export));
    assert_eq!(refused.until_closed(), b"", "it is not even greeted");
    place.connect_from("127.0.0.2", &export).go("disk");
    place.connect().go("disk");
    assert_eq!(choosing[0].outcome(opt::INFO, &InfoRequest::encode("disk", &[])), rep::ACK);
    drop(choosing);
    wait_for("a place", || {
        let mut client = Raw::tcp_from(Ipv4Addr::LOCALHOST.into(), Place::address(&export));
        client.try_receive(18).is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_choose_in_time_has_to_go() {
    let place = Place::with(|config| config.limits.handshake = Duration::from_millis(300)).await;
    let export = place.serve("disk", MIB).await;
    let mut inside = place.connect_tcp(&export);
    inside.go("disk");
    let before = Instant::now();
    let (mut silent, mut talkative) = (place.connect(), place.connect_tcp(&export));
    while talkative.try_send(b"IHAVEOPT\0\0\0\x03\0\0\0\0") && talkative.try_receive(20).is_some() {}
    silent.until_closed();
    assert!(before.elapsed() < Duration::from_secs(10), "they stayed for {:?}", before.elapsed());
    assert_eq!(inside.error_of(0, command::FLUSH, 0, 0, &[]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_take_what_it_asks_for_while_it_chooses_has_to_go() {
    let place = Place::with(|config| config.limits.handshake = Duration::from_millis(300)).await;
    for name in 'a'..='p' {
        place.serve(&name.to_string().repeat(250), MIB).await;
    }
    let mut deaf = place.connect();
    // Answered by more than a socket holds.
    deaf.send(&b"IHAVEOPT\0\0\0\x03\0\0\0\0".repeat(1000));
    wait_for("its end", || place.server.shared.hall.choosing.borrow().is_empty()).await;
    assert!(deaf.until_closed().len() < 16 * 1000 * 250);
}

/// A machine of its own, as far as the network goes, at the other end of a cable.
struct Peer {
    process: Child,
    /// This machine's end.
    address: Ipv4Addr,
}

impl Peer {
    /// Runs a program of Python there.
    async fn plug_in(program: &str) -> Self {
        let mut process = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "echo there; read address; exec /usr/bin/python3 -c \"$0\" \"$address\"",
                program,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let (id, own) = (process.id().to_string(), std::process::id());
        let [high, low] = [(own >> 6) as u8, (own << 2) as u8];
        let [address, theirs] = [1, 2].map(|host| Ipv4Addr::new(10, 213, high, low + host));
        let peer = Self { process, address };
        let cable = format!("nbd{own}");
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &id]).await;
        ip(&["address", "add", &format!("{address}/30"), "dev", &cable]).await;
        ip(&["link", "set", &cable, "up"]).await;
        peer.ip(&["address", "add", &format!("{theirs}/30"), "dev", "eth0"]).await;
        peer.ip(&["link", "set", "eth0", "up"]).await;
        peer
    }

    /// Tells the program something, and waits for its word.
    fn tell(&mut self, text: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{text}").unwrap();
        let mut line = String::new();
        BufReader::new(self.process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it has failed");
    }

    async fn ip(&self, words: &[&str]) {
        let id = self.process.id().to_string();
        run("nsenter", "util-linux", &[&["--net", "--target", &id, "ip"], words].concat()).await;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The cable goes with it.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

async fn ip(words: &[&str]) {
    run("ip", "iproute2", words).await;
}

/// One connection that waits, and one that does not take what it has asked for.
const CLIENT: &str = "
import nbd, sys
idle, stalled = nbd.NBD(), nbd.NBD()
idle.connect_uri(sys.argv[1])
stalled.connect_uri(sys.argv[1])
stalled.aio_pread(nbd.Buffer(32 << 20), 0)
print('connected', flush=True)
sys.stdin.read()
";

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_dead_is_found() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: another network takes root");
        return;
    }
    let mut peer = Peer::plug_in(CLIENT).await;
    let place = Place::with(|config| {
        config.listen = vec![(peer.address, 0).into()];
        config.plain_public = true;
        config.allow = vec![Network { address: Ipv4Addr::new(10, 0, 0, 0).into(), prefix: 8 }];
        config.limits.keepalive = Duration::from_secs(3);
    })
    .await;
    let export = place.serve("disk", 64 * MIB).await;
    peer.tell(&export.uris[0]);
    assert_eq!(place.clients("disk").len(), 2);
    peer.ip(&["link", "set", "eth0", "down"]).await;
    wait_for("its connections to end", || place.clients("disk").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_keepalive_is_one_that_the_kernel_takes() {
    let place = Place::with(|config| config.limits.keepalive = Duration::from_secs(18 * 3600)).await;
    let export = place.serve("disk", MIB).await;
    let _client = place.connect_tcp(&export);
}
