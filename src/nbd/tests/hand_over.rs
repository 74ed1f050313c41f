//! A client that is handed over in the middle of a request: the next process answers what the client has asked for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::{KIB, MIB, Place, in_time, noise};
use crate::api;
use crate::nbd::ExportSpec;
use crate::nbd::hand_over::{read, write};
use crate::nbd::protocol::{Headers, command, command_flag};

/// Halts the one client of an export, and has another server go on with it, as the next process does. Rests
/// of requests are left.
async fn hand_over(place: &Place, export: &api::Export) -> Place {
    let hall = &place.server.shared.hall;
    hall.halt.raise();
    assert!(place.idle(&export.name).await);
    let halted = std::mem::take(&mut *hall.halted.lock().unwrap());
    let sockets = halted.iter().map(|connection| connection.socket.try_clone().unwrap()).collect();
    let connections = read(write(&halted).unwrap().into(), sockets).unwrap();
    assert_eq!(connections.len(), 1);
    assert!(!connections[0].rest.begun.is_empty());
    let next = Place::new().await;
    let file = File::options().read(true).write(true).open(place.path(&export.name)).unwrap();
    let size = file.metadata().unwrap().len();
    let device = next.device(&export.name, size);
    next.server.add(ExportSpec { volume_id: export.volume_id, file, ..device }).await.unwrap();
    for connection in connections {
        next.server.shared.hall.resume(connection);
    }
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_answered_in_part_is_answered_to_its_end() {
    let place = Place::direct().await;
    let export = place.serve("disk", 4 * MIB).await;
    let data = noise(5, 4 * MIB - 128 * KIB);
    File::options().write(true).open(place.path("disk")).unwrap().write_all_at(&data, 128 * KIB).unwrap();
    let mut client = place.connect().with(Headers::Extended);
    client.go("disk");
    // The hole that each begins with is told at once. The data of 17 are more than what is read at a time, and than what the
    // socket and the server hold for a client that takes nothing.
    let (offset, length) = (124 * KIB, 256 * KIB);
    let read = |cookie| client.encoded(0, command::READ, cookie, offset, length, &[]);
    let requests: Vec<u8> = (0..48).flat_map(read).collect();
    client.send(&requests);
    let deadline = in_time();
    while place.server.in_flight().requests < 17 {
        assert!(Instant::now() < deadline, "they are not begun");
        tokio::task::yield_now().await;
    }
    let _next = hand_over(&place, &export).await;
    let replies = client.replies(48, |_| 0);
    let expected = [vec![0; 4 << 10], data].concat();
    for cookie in 0..48 {
        assert_eq!(replies[&cookie].error, 0);
        assert!(replies[&cookie].data == expected[..length as usize], "READ {cookie}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_has_come_in_part_is_written_to_its_end() {
    let place = Place::new().await;
    let export = place.serve("disk", 4 * MIB).await;
    let payload = noise(6, 3 * MIB);
    let mut client = place.connect().with(Headers::Extended);
    client.go("disk");
    let (now, later) = payload.split_at(2 * MIB as usize + 77);
    client.ask(command_flag::PAYLOAD_LEN, command::WRITE, 8, 4096, payload.len() as u64, &[]);
    client.send(now);
    let deadline = in_time();
    while place.contents("disk")[MIB as usize] == 0 && place.contents("disk")[MIB as usize + 1] == 0 {
        assert!(Instant::now() < deadline, "nothing is written");
    }
    let next = hand_over(&place, &export).await;
    client.send(later);
    assert_eq!(client.replies(1, |_| 0)[&8].error, 0);
    assert!(place.contents("disk")[4096..][..payload.len()] == payload);
    drop(client);
    assert!(next.idle("disk").await);
}
