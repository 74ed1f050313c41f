//! Clients that break the protocol, on purpose or by dying: each loses its own connection and nothing else.

use std::time::Instant;

use super::raw::Raw;
use super::{MIB, Place};
use crate::nbd::protocol::{OptionHead, command, opt, rep};

/// An honest client is served.
fn serves(place: &Place) {
    let mut client = place.connect();
    client.go("disk");
    assert_eq!(client.error_of(0, command::WRITE, 0, 3, b"abc"), 0);
    client.request(0, command::READ, 0, 3);
    assert_eq!(client.simple_reply(3).data, b"abc");
}

async fn place() -> Place {
    let place = Place::new().await;
    place.serve("disk", 4 * MIB).await;
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_client_flags_end_the_connection() {
    let place = place().await;
    for flags in [[0, 0, 0, 4], [0x80, 0, 0, 3], *b"GET "] {
        let mut client = Raw::unix(&place.socket());
        client.receive(18);
        client.send(&flags);
        assert_eq!(client.until_closed(), b"");
    }
    serves(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_the_connection_after_what_was_said() {
    let place = place().await;
    let mut client = place.connect();
    client.send(&[0x5a; 16]);
    assert_eq!(client.until_closed(), b"");

    let mut client = place.connect();
    client.go("disk");
    let mut bytes = super::raw::request(0, command::FLUSH, 7, 0, 0);
    bytes.extend([0x5a; 4096]);
    client.send(&bytes);
    assert_eq!(client.until_closed().len(), 16, "the flush before the garbage is answered");
    assert!(place.idle("disk").await);
    serves(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_of_4_gib_is_refused() {
    let place = place().await;
    for (option, said) in [(opt::GO, 20), (77, 20), (opt::EXPORT_NAME, 0)] {
        let mut client = place.connect();
        client.send(&[b"IHAVEOPT".to_vec(), option.to_be_bytes().to_vec(), vec![0xff; 4]].concat());
        let answer = client.until_closed();
        assert!(answer.len() >= said, "option {option}");
        assert_eq!(answer.is_empty(), said == 0, "option {option}");
    }
    let mut client = place.connect();
    assert_eq!(client.outcome(77, &vec![0; 64 << 10]), rep::ERR_UNSUP, "64 KiB are read and dropped");
    serves(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_options_are_too_many() {
    let place = place().await;
    let mut client = place.connect();
    let many = OptionHead::encode(opt::LIST, &[]).repeat(1000);
    for _ in 0..1000 {
        if !client.try_send(&many) {
            break;
        }
    }
    // Each is answered by the one export and the end of the list.
    assert_eq!(client.until_closed().len(), 1024 * (20 + 8 + 20));
    serves(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_handshake_ends_in_time() {
    let place = place().await;
    let started = Instant::now();
    let mut silent = Raw::unix(&place.socket());
    let mut half = place.connect();
    half.send(b"IHAVEOPT\0\0");
    assert_eq!(silent.receive(18).len(), 18);
    serves(&place);
    for mut client in [silent, half] {
        assert_eq!(client.until_closed(), b"");
    }
    assert!(started.elapsed().as_secs() >= 9, "the server does not wait at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_4_gib_ends_the_connection() {
    let place = place().await;
    let mut client = place.connect();
    client.go("disk");
    client.request(0, command::WRITE, 0, u32::MAX);
    assert_eq!(client.simple_reply(0).error, 22);
    assert_eq!(client.until_closed(), b"");
    serves(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_in_the_middle_leaves_nothing_behind() {
    let place = place().await;
    for (sent, payload) in [(10, 0), (28, 0), (28, 1000), (28, 4095)] {
        let mut client = place.connect();
        client.go("disk");
        client.send(&super::raw::request(0, command::WRITE, 7, MIB, 4096)[..sent]);
        client.send(&vec![9; payload]);
        client.close_write();
        assert_eq!(client.until_closed(), b"");
        assert!(place.idle("disk").await);
    }
    assert!(place.contents("disk").iter().all(|byte| *byte == 0), "half a request was carried out");
    serves(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_is_only_its_own_problem() {
    let place = place().await;
    let mut client = place.connect();
    client.go("disk");
    for _ in 0..64 {
        client.request(0, command::READ, 0, 4 * MIB as u32);
    }
    serves(&place);
    let started = Instant::now();
    place.server.remove("disk", crate::nbd::Clients::Close).await.unwrap();
    assert!(started.elapsed().as_secs() < 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_at_once() {
    let place = place().await;
    let export = place.server.get("disk").unwrap();
    let mut clients: Vec<Raw> =
        (0..50).map(|n| if n % 2 == 0 { place.connect() } else { place.connect_tcp(&export) }).collect();
    for client in &mut clients {
        client.go("disk");
    }
    assert_eq!(place.clients("disk").len(), 50);
    for (n, client) in clients.iter_mut().enumerate() {
        client.request(0, command::WRITE, n as u64 * 4096, 4096);
        client.send(&[n as u8; 4096]);
    }
    for client in &mut clients {
        assert_eq!(client.simple_reply(0).error, 0);
    }
    for (n, client) in clients.iter_mut().rev().enumerate() {
        client.request(0, command::READ, n as u64 * 4096, 4096);
        assert_eq!(client.simple_reply(4096).data, [n as u8; 4096]);
    }
    drop(clients);
    assert!(place.idle("disk").await);
}
