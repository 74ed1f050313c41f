//! Options and requests, one by one, as the protocol document has them.

use super::raw::{Raw, request};
use super::{MIB, Place, noise};
use crate::nbd::protocol::{
    InfoRequest, MAXIMUM_PAYLOAD, command, command_flag, info, option, option_reply as reply, transmission_flag,
};

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;

#[tokio::test(flavor = "multi_thread")]
async fn options_are_answered() {
    let place = Place::new().await;
    place.serve("b", MIB).await;
    place.serve_read_only("a", 3 * MIB).await;
    let mut client = place.connect();

    let names: Vec<_> = client.option(option::LIST, &[]).into_iter().map(|(_, data)| data).collect();
    assert_eq!(names, [b"\0\0\0\x01a".to_vec(), b"\0\0\0\x01b".to_vec(), vec![]]);
    assert_eq!(client.outcome(option::LIST, b"x"), reply::ERR_INVALID);
    assert_eq!(client.outcome(option::STRUCTURED_REPLY, b"x"), reply::ERR_INVALID);
    for unknown in [0, 4, 5, 9, 10, 11, 1000, u32::MAX] {
        assert_eq!(client.outcome(unknown, b"data"), reply::ERR_UNSUP, "option {unknown}");
    }
    for name in ["", "c", "A"] {
        assert_eq!(client.outcome(option::INFO, &InfoRequest::encode(name)), reply::ERR_UNKNOWN, "{name}");
        assert_eq!(client.outcome(option::GO, &InfoRequest::encode(name)), reply::ERR_UNKNOWN, "{name}");
    }
    assert_eq!(client.outcome(option::GO, b"\0\0\0\x09a\0\0"), reply::ERR_INVALID);
    assert_eq!(client.outcome(option::INFO, &[]), reply::ERR_INVALID);

    let replies = client.option(option::INFO, b"\0\0\0\x01a\0\x03\0\x01\0\x03\0\x63");
    assert_eq!(replies.len(), 4, "export, name, block size, and the end: {replies:?}");
    assert_eq!(replies[0].1[..10], *b"\0\0\0\0\0\0\0\x30\0\0");
    assert_eq!(replies[1].1, [&info::NAME.to_be_bytes()[..], b"a"].concat());
    assert_eq!(replies[2].1, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0");

    assert_eq!(client.option(option::ABORT, b"ignored"), [(reply::ACK, vec![])]);
    assert_eq!(client.until_closed(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_tell_what_an_export_can_do() {
    use transmission_flag::*;
    let place = Place::new().await;
    place.serve("rw", MIB).await;
    place.serve_read_only("ro", MIB).await;
    let always = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN;
    assert_eq!(place.connect().go("rw"), (MIB, always | SEND_TRIM | SEND_WRITE_ZEROES));
    assert_eq!(place.connect().go("ro"), (MIB, always | READ_ONLY));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_option_enters_too() {
    let place = Place::new().await;
    place.serve("disk", MIB).await;
    for (flags, length) in [(3, 10), (1, 134), (0, 134)] {
        let mut client = Raw::unix(&place.socket());
        client.receive(18);
        client.send(&[0, 0, 0, flags]);
        client.send(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
        assert_eq!(client.receive(length)[..8], MIB.to_be_bytes(), "client flags {flags}");
        assert_eq!(client.error_of(0, command::FLUSH, 0, 0, &[]), 0);
    }
    for name in ["", "disc"] {
        let mut client = place.connect();
        client.send(b"IHAVEOPT\0\0\0\x01\0\0\0");
        client.send(&[name.len() as u8]);
        client.send(name.as_bytes());
        assert_eq!(client.until_closed(), b"", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_by_all() {
    let place = Place::new().await;
    let export = place.serve("disk", 64 * MIB).await;
    let data = noise(1, 32 * MIB);
    let mut writer = place.connect_tcp(&export);
    writer.go("disk");
    let mut reader = place.connect().structured();
    reader.go("disk");

    for (offset, length) in [(0, 1), (511, 4098), (MIB - 7, 3 * MIB), (3 * MIB + 1, MAXIMUM_PAYLOAD.into())] {
        let payload = &data[..length as usize];
        assert_eq!(writer.error_of(0, command::WRITE, offset, length as u32, payload), 0);
        writer.request(0, command::READ, offset, length as u32);
        assert!(writer.simple_reply(payload.len()).data == payload, "{length} at {offset}");
        reader.request(0, command::READ, offset, length as u32);
        assert!(reader.structured_reply().data == payload, "{length} at {offset}");
        assert!(place.contents("disk")[offset as usize..][..payload.len()] == *payload);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_are_each_answered() {
    let place = Place::new().await;
    place.serve("disk", MIB).await;
    let mut client = place.connect();
    client.go("disk");
    let mut bytes = Vec::new();
    for cookie in 0..200 {
        bytes.extend(request(0, command::WRITE, cookie, cookie * 512, 512));
        bytes.extend([cookie as u8 + 1; 512]);
        bytes.extend(request(0, command::READ, cookie + 1000, cookie * 512, 512));
    }
    client.send(&bytes);
    for cookie in 0..200 {
        assert_eq!(client.simple_reply(0).cookie, cookie);
        let reply = client.simple_reply(512);
        assert_eq!((reply.cookie, reply.data), (cookie + 1000, vec![cookie as u8 + 1; 512]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zeroes_trims_and_flushes() {
    let place = Place::new().await;
    place.serve("disk", 4 * MIB).await;
    let mut client = place.connect();
    client.go("disk");
    let data = noise(2, 4 * MIB);
    assert_eq!(client.error_of(command_flag::FUA, command::WRITE, 0, data.len() as u32, &data), 0);
    let mut expected = data;
    for (flags, offset, length) in [(0, 1, 5), (command_flag::NO_HOLE, 5000, 9000), (command_flag::FUA, MIB, MIB)] {
        assert_eq!(client.error_of(flags, command::WRITE_ZEROES, offset, length as u32, &[]), 0);
        expected[offset as usize..][..length as usize].fill(0);
    }
    assert_eq!(client.error_of(command_flag::FUA, command::TRIM, 3 * MIB, MIB as u32, &[]), 0);
    assert_eq!(client.error_of(0, command::FLUSH, 0, 0, &[]), 0);
    assert!(place.contents("disk")[..3 * MIB as usize] == expected[..3 * MIB as usize]);

    client.request(0, command::DISC, 0, 0);
    assert_eq!(client.until_closed(), b"");
    assert!(place.idle("disk").await);
    let removed = place.server.remove("disk", crate::nbd::Clients::MustBeGone).await.unwrap();
    assert_eq!(removed.departure.bytes_written, Some(5 * MIB + 9005));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_has_its_error_and_the_connection_lives() {
    let place = Place::new().await;
    place.serve("disk", MIB).await;
    place.serve_read_only("ro", MIB).await;
    let mut client = place.connect();
    client.go("disk");
    let end = MIB - 512;
    for (flags, kind, offset, length, payload, expected) in [
        (0, command::READ, end, 513, 0, EINVAL),
        (0, command::READ, u64::MAX, 1, 0, EINVAL),
        (0, command::READ, 0, MAXIMUM_PAYLOAD + 1, 0, EOVERFLOW),
        (0, command::READ, 0, 0, 0, 0),
        (0, command::READ, MIB, 0, 0, 0),
        (0, command::WRITE, 0, 0, 0, 0),
        (0, command::WRITE, end, 1024, 1024, ENOSPC),
        (0, command::WRITE, u64::MAX - 1, 1024, 1024, ENOSPC),
        (0, command::WRITE, 0, MAXIMUM_PAYLOAD + 1, MAXIMUM_PAYLOAD as usize + 1, EINVAL),
        (1 << 9, command::WRITE, 0, 512, 512, EINVAL),
        (0, command::TRIM, end, 513, 0, EINVAL),
        (0, command::WRITE_ZEROES, end, 513, 0, ENOSPC),
        (0, command::WRITE_ZEROES, 0, u32::MAX, 0, ENOSPC),
        (0, 5, 0, 512, 0, EINVAL),
        (0, 999, 0, 512, 0, EINVAL),
        (command_flag::FUA, command::FLUSH, 0, 0, 0, 0),
    ] {
        let error = client.error_of(flags, kind, offset, length, &vec![1; payload]);
        assert_eq!(error, expected, "command {kind} flags {flags} at {offset} for {length}");
    }
    assert!(place.contents("disk").iter().all(|byte| *byte == 0), "a refused write wrote");

    let mut client = place.connect();
    client.go("ro");
    assert_eq!(client.error_of(0, command::WRITE, 0, 512, &[1; 512]), EPERM);
    assert_eq!(client.error_of(0, command::TRIM, 0, 512, &[]), EPERM);
    assert_eq!(client.error_of(0, command::WRITE_ZEROES, 0, 512, &[]), EPERM);
    assert_eq!(client.error_of(0, command::FLUSH, 0, 0, &[]), 0);
    client.request(0, command::READ, 0, 512);
    assert_eq!(client.simple_reply(512).data, [0; 512]);
}

#[tokio::test(flavor = "multi_thread")]
async fn structured_errors_say_why() {
    let place = Place::new().await;
    place.serve("disk", 4 * MIB).await;
    let mut client = place.connect().structured();
    client.go("disk");
    client.request(0, command::READ, 0, 0);
    let reply = client.structured_reply();
    assert_eq!((reply.error, reply.data.len()), (0, 0));
    client.request(0, command::READ, 4 * MIB, 1);
    let reply = client.structured_reply();
    assert_eq!((reply.error, reply.cookie, reply.text.as_str()), (EINVAL, 7, "the range ends beyond the export"));
    client.request(0, command::WRITE, 4 * MIB, 1);
    client.send(b"x");
    assert_eq!(client.structured_reply().error, ENOSPC);
    assert_eq!(client.error_of(0, command::WRITE, 0, 1, b"x"), 0, "success may be a simple reply");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_went_away_is_an_error_and_the_export_has_failed() {
    let place = Place::new().await;
    place.serve("disk", 4 * MIB).await;
    place.serve("other", MIB).await;
    std::fs::File::options().write(true).open(place.path("disk")).unwrap().set_len(MIB + 512).unwrap();

    let mut client = place.connect();
    client.go("disk");
    client.request(0, command::READ, 0, 4096);
    assert_eq!(client.simple_reply(4096).error, 0);
    client.request(0, command::READ, 3 * MIB, 4096);
    assert_eq!(client.simple_reply(4096).error, EIO);
    assert_eq!(place.server.get("disk").unwrap().state, crate::api::ExportState::Failed);
    client.request(0, command::READ, 0, 2 * MIB as u32);
    assert_eq!(client.simple_reply(0).error, EIO);
    // A simple reply that has begun to arrive can only be broken off.
    client.request(0, command::READ, 0, 3 * MIB as u32);
    assert!(client.until_closed().len() < 3 * MIB as usize);

    let mut client = place.connect().structured();
    client.go("disk");
    client.request(0, command::READ, 0, 2 * MIB as u32);
    assert_eq!(client.structured_reply().error, EIO);
    client.request(0, command::READ, 0, 512);
    assert_eq!(client.structured_reply().data, [0; 512], "the connection lives");

    place.connect().go("other");
    assert_eq!(place.server.get("other").unwrap().state, crate::api::ExportState::Active);
}
