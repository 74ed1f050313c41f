//! Options and requests, one by one, as the protocol document has them.

use std::fs::File;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::raw::{Raw, meta, request};
use super::{KIB, MIB, Place, noise};
use crate::nbd::protocol::{
    Extent, Headers, InfoRequest, MAXIMUM_PAYLOAD, command, command_flag, info, opt, rep, transmission_flag,
};

const ALL_HEADERS: [Headers; 3] = [Headers::Simple, Headers::Structured, Headers::Extended];

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;
const ENOTSUP: u32 = 95;

#[tokio::test(flavor = "multi_thread")]
async fn options_are_answered() {
    let place = Place::new().await;
    place.serve("b", MIB).await;
    place.serve_read_only("a", 3 * MIB).await;
    let mut client = place.connect();

    let names: Vec<_> = client.option(opt::LIST, &[]).into_iter().map(|(_, data)| data).collect();
    assert_eq!(names, [b"\0\0\0\x01a".to_vec(), b"\0\0\0\x01b".to_vec(), vec![]]);
    assert_eq!(client.outcome(opt::LIST, b"x"), rep::ERR_INVALID);
    assert_eq!(client.outcome(opt::STRUCTURED_REPLY, b"x"), rep::ERR_INVALID);
    assert_eq!(client.outcome(opt::STARTTLS, &[]), rep::ERR_POLICY);
    for unknown in [0, 4, 12, 1000, u32::MAX] {
        assert_eq!(client.outcome(unknown, b"data"), rep::ERR_UNSUP, "option {unknown}");
    }
    for name in ["", "c", "A"] {
        assert_eq!(client.outcome(opt::INFO, &InfoRequest::encode(name, &[])), rep::ERR_UNKNOWN, "{name}");
        assert_eq!(client.outcome(opt::GO, &InfoRequest::encode(name, &[])), rep::ERR_UNKNOWN, "{name}");
    }
    assert_eq!(client.outcome(opt::GO, b"\0\0\0\x09a\0\0"), rep::ERR_INVALID);
    assert_eq!(client.outcome(opt::INFO, &[]), rep::ERR_INVALID);

    let replies = client.option(opt::INFO, b"\0\0\0\x01a\0\x03\0\x01\0\x03\0\x63");
    assert_eq!(replies.len(), 4, "export, name, block size, and the end: {replies:?}");
    assert_eq!(replies[0].1[..10], *b"\0\0\0\0\0\0\0\x30\0\0");
    assert_eq!(replies[1].1, [&info::NAME.to_be_bytes()[..], b"a"].concat());
    assert_eq!(replies[2].1, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0");

    assert_eq!(client.option(opt::ABORT, b"ignored"), [(rep::ACK, vec![])]);
    assert_eq!(client.until_closed(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_tell_what_an_export_can_do() {
    use transmission_flag::*;
    let place = Place::new().await;
    place.serve("rw", MIB).await;
    place.serve_read_only("ro", MIB).await;
    let always = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN | SEND_CACHE;
    let writing = SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO;
    assert_eq!(place.connect().go("rw"), (MIB, always | writing));
    assert_eq!(place.connect().go("ro"), (MIB, always | READ_ONLY));
    for headers in [Headers::Structured, Headers::Extended] {
        assert_eq!(place.connect().with(headers).go("rw"), (MIB, always | writing | SEND_DF));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_contexts_are_listed_and_chosen() {
    let place = Place::new().await;
    place.serve("disk", MIB).await;
    place.serve("other", MIB).await;
    let mut client = place.connect();
    for option in [opt::LIST_META_CONTEXT, opt::SET_META_CONTEXT] {
        assert_eq!(client.outcome(option, &meta("disk", &["base:"])), rep::ERR_INVALID, "without structured replies");
    }
    let mut client = client.structured();
    let names = |replies: Vec<(u32, Vec<u8>)>| -> Vec<String> {
        assert_eq!(replies.last().unwrap().0, rep::ACK, "{replies:?}");
        let contexts = replies.iter().filter(|(kind, _)| *kind == rep::META_CONTEXT);
        contexts.map(|(_, data)| String::from_utf8(data[4..].to_vec()).unwrap()).collect()
    };
    let all = ["base:allocation"];
    for (queries, listed, chosen) in [
        (&[][..], &all[..], &[][..]),
        (&["base:"], &all, &[]),
        (&["base:allocation", "base:allocation"], &all, &all),
        (&["x-unknown:a", "base:", "base:allocation", "qemu:allocation-depth"], &all, &all),
        (&["base:allocations", "base", "", "x-unknown:"], &[], &[]),
    ] {
        let data = meta("disk", queries);
        assert_eq!(names(client.option(opt::LIST_META_CONTEXT, &data)), listed, "{queries:?}");
        assert_eq!(names(client.option(opt::SET_META_CONTEXT, &data)), chosen, "{queries:?}");
    }
    for option in [opt::LIST_META_CONTEXT, opt::SET_META_CONTEXT] {
        assert_eq!(client.outcome(option, &meta("disc", &["base:"])), rep::ERR_UNKNOWN);
        assert_eq!(client.outcome(option, &meta("disk", &["base:"])[..20]), rep::ERR_INVALID);
    }

    let refused = [meta("disk", &["base:"]), meta("disc", &[]), b"x".to_vec(), meta("other", &["base:allocation"])];
    for replaced_by in refused {
        let mut client = place.connect().structured().with_allocation("disk");
        client.option(opt::SET_META_CONTEXT, &replaced_by);
        client.go("disk");
        assert_eq!(client.answer(0, command::BLOCK_STATUS, 0, 512, &[]).error, EINVAL, "{replaced_by:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_headers_take_precedence() {
    let place = Place::new().await;
    place.serve("disk", MIB).await;
    let mut client = place.connect();
    assert_eq!(client.outcome(opt::EXTENDED_HEADERS, b"x"), rep::ERR_INVALID);
    let mut client = client.structured().with(Headers::Extended);
    assert_eq!(client.outcome(opt::STRUCTURED_REPLY, &[]), rep::ERR_EXT_HEADER_REQD);
    client.send(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
    assert_eq!(client.until_closed(), b"", "EXPORT_NAME is not for extended headers");

    let mut client = place.connect().with(Headers::Extended);
    client.go("disk");
    assert_eq!(client.answer(0, command::WRITE, 0, 3, b"abc").error, 0);
    assert_eq!(client.answer(0, command::READ, 0, 3, &[]).data, b"abc");
    assert_eq!(client.answer(0, command::TRIM, 0, 3, b"odd").error, EINVAL, "a payload that is not for the command");
    assert_eq!(client.answer(0, command::WRITE_ZEROES, 0, 1 << 40, &[]).error, ENOSPC);
    assert_eq!(client.answer(0, command::READ, 0, 3, &[]).data, b"abc");
    client.ask(command_flag::PAYLOAD_LEN, command::WRITE, 7, 0, u64::from(MAXIMUM_PAYLOAD) + 1, &[]);
    assert_eq!(client.until_closed()[6..8], [0x80, 1], "a payload that is too long ends the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_told() {
    let place = Place::new().await;
    place.serve("disk", 64 * MIB).await;
    let mut writer = place.connect();
    writer.go("disk");
    let data = noise(7, MIB);
    for at in [0, 5 * MIB, 63 * MIB] {
        assert_eq!(writer.answer(0, command::WRITE, at, MIB, &data).error, 0);
    }
    let expected = place.contents("disk");
    let extent = |mib: u64, hole| Extent { length: mib * MIB, hole };
    for headers in [Headers::Structured, Headers::Extended] {
        let mut client = place.connect().with(headers).with_allocation("disk");
        client.go("disk");
        let mut status =
            |flags, offset, length| client.answer(flags, command::BLOCK_STATUS, offset, length, &[]).extents;
        let all = [extent(1, false), extent(4, true), extent(1, false), extent(57, true), extent(1, false)];
        assert_eq!(status(0, 0, 64 * MIB), all);
        assert_eq!(status(command_flag::REQ_ONE, MIB, 64 * MIB - MIB), [extent(4, true)]);
        assert_eq!(status(command_flag::REQ_ONE, 2 * MIB, MIB), [extent(1, true)]);
        assert_eq!(status(0, 512, 512), [Extent { length: 512, hole: false }]);

        for (offset, length, parts, holes) in [
            (0, 8 * MIB, 4, 2),
            (2 * MIB, MIB, 1, 1),
            (0, MIB / 4, 1, 0),
            (0, MIB / 2, 2, 0),
            (20 * MIB, 32 * MIB, 1, 1),
        ] {
            let bytes = &expected[offset as usize..][..length as usize];
            let reply = client.answer(0, command::READ, offset, length, &[]);
            assert!(reply.error == 0 && reply.data == bytes, "{length} at {offset}");
            assert_eq!((reply.parts, reply.holes), (parts, holes), "{length} at {offset}");
            let reply = client.answer(command_flag::DF, command::READ, offset, length, &[]);
            assert!(reply.parts == 1 && reply.data == bytes, "{length} at {offset}, in one part");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_comes_in_chunks_of_one_request() {
    let place = Place::new().await;
    let export = place.serve("disk", 8 * MIB).await;
    let mut client = place.connect_tcp(&export).with(Headers::Extended);
    client.go("disk");
    let data = noise(4, 4 * MIB);
    assert_eq!(client.answer(0, command::WRITE, MIB, 4 * MIB, &data).error, 0);
    assert_eq!(client.answer(0, command::FLUSH, 0, 0, &[]).error, 0);
    // What is not in the page cache any more, where the filesystem can do without it, is read by another thread.
    let file = File::open(place.path("disk")).unwrap();
    posix_fadvise(&file, 3 << 20, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    for (offset, length) in [(MIB + 512, MIB), (MIB / 2, MIB), (2 * MIB, 2 * MIB), (512, 4 * MIB)] {
        let reply = client.answer(0, command::READ, offset, length, &[]);
        assert!(reply.error == 0 && reply.parts >= 2, "{} parts", reply.parts);
        let before = MIB.saturating_sub(offset).min(length);
        assert!(reply.data[..before as usize].iter().all(|byte| *byte == 0));
        let from = (offset + before - MIB) as usize;
        assert!(reply.data[before as usize..] == data[from..][..(length - before) as usize]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_zeroes_are_fast_or_refused() {
    let place = Place::new().await;
    place.serve("disk", 64 * MIB).await;
    for headers in ALL_HEADERS {
        let mut client = place.connect().with(headers);
        client.go("disk");
        let data = noise(8, 128 * KIB);
        assert_eq!(client.answer(0, command::WRITE, MIB, data.len() as u64, &data).error, 0);
        let fast = command_flag::FAST_ZERO;
        assert_eq!(client.answer(fast, command::WRITE_ZEROES, MIB + 5, 64 * KIB, &[]).error, 0);
        let error = client.answer(fast | command_flag::NO_HOLE, command::WRITE_ZEROES, 2 * MIB, MIB, &[]).error;
        assert!([0, ENOTSUP].contains(&error), "{error}");
        let mut expected = data;
        expected[5..][..64 << 10].fill(0);
        assert!(client.answer(0, command::READ, MIB, 128 * KIB, &[]).data == expected);
    }
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
        (0, command::CACHE, end, 513, 0, EINVAL),
        (0, command::CACHE, 0, 512, 0, 0),
        (0, command::BLOCK_STATUS, 0, 512, 0, EINVAL),
        (command_flag::DF, command::READ, 0, 512, 0, EINVAL),
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
