//! Garbage, oversized and out-of-range requests on the NBD socket: refused, and nobody else is disturbed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::appliance::Appliance;
use crate::support::nbd::{Client, READ};

const GIB: u64 = 1 << 30;
/// `NBD_EINVAL`
const EINVAL: u32 = 22;
/// `NBD_EOVERFLOW`
const EOVERFLOW: u32 = 75;

/// An appliance with an export `disk` of 1 GiB, its socket, and a client that must stay undisturbed.
fn exported() -> (Appliance, PathBuf, Client) {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["export", "data1", "--name", "disk"]);
    let socket = appliance.path("nbd.sock");
    let client = Client::enter(&socket, "disk").unwrap();
    (appliance, socket, client)
}

fn undisturbed(appliance: &Appliance, mut client: Client) {
    client.write(0, &[5; 512]).unwrap();
    assert_eq!(client.read(0, 512).unwrap(), [5; 512]);
    let export = appliance.ok(&["exports"])["exports"][0].clone();
    assert_eq!(export["state"], "active");
}

#[test]
fn garbage_instead_of_a_handshake() {
    let (appliance, socket, client) = exported();
    let address = appliance.show("data1")["export"]["uris"][0].as_str().unwrap().to_owned();
    let address = address.trim_start_matches("nbd://").split('/').next().unwrap().to_owned();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xff; 4096],
        &[0; 4096],
        b"\x00\x00\x00\x03garbage, and more of it",
    ] {
        let mut unix = Client::connect(&socket);
        unix.send(garbage).ok();
        unix.until_closed();
        let mut tcp = TcpStream::connect(&address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        tcp.write_all(garbage).ok();
        let ended = tcp.read_to_end(&mut Vec::new());
        assert!(ended.is_ok_and(|length| length < 64) || tcp.peek(&mut [0]).is_err(), "it is kept open");
    }
    undisturbed(&appliance, client);
}

#[test]
fn an_oversized_option() {
    let (appliance, socket, client) = exported();
    let mut hostile = Client::connect(&socket);
    let option = [&3u32.to_be_bytes()[..], b"IHAVEOPT", &7u32.to_be_bytes(), &u32::MAX.to_be_bytes()].concat();
    hostile.send(&option).unwrap();
    hostile.until_closed();
    undisturbed(&appliance, client);
}

#[test]
fn an_export_that_is_not_there() {
    let (appliance, socket, client) = exported();
    for name in ["other", "", "\u{1b}[2J", &"x".repeat(4096)] {
        assert!(Client::enter(&socket, name).is_err(), "{name:?}");
    }
    assert!(!appliance.log().contains('\u{1b}'));
    undisturbed(&appliance, client);
}

#[test]
fn requests_beyond_the_end() {
    let (appliance, socket, client) = exported();
    let mut hostile = Client::enter(&socket, "disk").unwrap();
    for (offset, length) in [(GIB, 512), (GIB - 512, 1024), (u64::MAX, 1), (u64::MAX - 511, 512), (1 << 63, 4096)] {
        assert_eq!(hostile.request(READ, offset, length).unwrap(), EINVAL, "{offset} {length}");
    }
    assert_eq!(hostile.read(GIB - 512, 512).unwrap(), [0; 512], "the connection goes on");
    undisturbed(&appliance, client);
}

#[test]
fn oversized_requests() {
    let (appliance, socket, client) = exported();
    let mut hostile = Client::enter(&socket, "disk").unwrap();
    for length in [(32 << 20) + 1, u32::MAX] {
        let refused = hostile.request(READ, 0, length).unwrap();
        assert!(refused == EINVAL || refused == EOVERFLOW, "{length}: {refused}");
    }
    assert_eq!(hostile.read(0, 512).unwrap().len(), 512);
    undisturbed(&appliance, client);
}

#[test]
fn an_unknown_command() {
    let (appliance, socket, client) = exported();
    let mut hostile = Client::enter(&socket, "disk").unwrap();
    for command in [8, 77, u16::MAX] {
        assert_eq!(hostile.request(command, 0, 512).unwrap(), EINVAL, "{command}");
    }
    undisturbed(&appliance, client);
}

#[test]
fn garbage_after_the_handshake() {
    let (appliance, socket, client) = exported();
    let mut hostile = Client::enter(&socket, "disk").unwrap();
    hostile.send(&[0xaa; 4096]).unwrap();
    hostile.until_closed();
    undisturbed(&appliance, client);
}

#[test]
fn a_write_that_is_cut_off_writes_nothing() {
    let (appliance, socket, mut client) = exported();
    let mut hostile = Client::enter(&socket, "disk").unwrap();
    let head =
        [&0x2560_9513u32.to_be_bytes()[..], &[0, 0, 0, 1], &[0; 8], &4096u64.to_be_bytes(), &65536u32.to_be_bytes()];
    hostile.send(&[&head.concat()[..], &[0xee; 1000]].concat()).unwrap();
    drop(hostile);
    crate::support::wait_for("the client to be gone", || {
        let export = appliance.ok(&["exports"])["exports"][0].clone();
        (export["clients"].as_array().unwrap().len() == 1).then_some(())
    });
    assert_eq!(client.read(4096, 1000).unwrap(), [0; 1000]);
    undisturbed(&appliance, client);
}
