//! What clients are told of TLS, option by option.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{LOOPBACK, client, export, run, secured, size, uri};
use crate::support::wait_for;

const OPTION: &[u8] = b"IHAVEOPT";
pub const LIST: u32 = 3;
pub const STARTTLS: u32 = 5;
pub const INFO: u32 = 6;
pub const GO: u32 = 7;
pub const STRUCTURED_REPLY: u32 = 8;
pub const META_CONTEXTS: [u32; 2] = [9, 10];
pub const ACK: u32 = 1;
pub const INVALID: u32 = (1 << 31) + 3;
pub const POLICY: u32 = (1 << 31) + 2;
pub const TLS_REQUIRED: u32 = (1 << 31) + 5;

pub fn option(number: u32, data: &[u8]) -> Vec<u8> {
    [OPTION, &number.to_be_bytes(), &(data.len() as u32).to_be_bytes(), data].concat()
}

/// The data of an option: the name of an export, and an empty list.
pub fn named(export: &str) -> Vec<u8> {
    [&(export.len() as u32).to_be_bytes(), export.as_bytes(), &[0; 2]].concat()
}

/// The type of the last reply to options, of a client with such flags.
pub fn reply_to(port: u16, flags: u32, options: &[Vec<u8>]) -> u32 {
    let mut stream = greeted(port, flags);
    let replies = options.iter().map(|option| {
        stream.write_all(option).unwrap();
        reply(&mut stream)
    });
    replies.last().unwrap()
}

/// A connection, greeted, that has sent these bytes at once.
pub fn sent(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = greeted(port, 3);
    stream.write_all(bytes).unwrap();
    stream
}

fn greeted(port: u16, flags: u32) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&flags.to_be_bytes()).unwrap();
    stream
}

/// The type of the reply to an option.
pub fn reply(stream: &mut TcpStream) -> u32 {
    let mut head = [0; 20];
    stream.read_exact(&mut head).unwrap();
    let [kind, length] = [12, 16].map(|at| u32::from_be_bytes(head[at..at + 4].try_into().unwrap()));
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data).unwrap();
    kind
}

#[test]
fn only_who_asks_for_the_export_is_told_that_it_needs_tls() {
    let appliance = secured(LOOPBACK);
    let port = export(&appliance, &["--tls", "required"]);
    for number in [INFO, GO] {
        assert_eq!(reply_to(port, 3, &[option(number, &named("disk"))]), TLS_REQUIRED);
        assert_eq!(reply_to(port, 2, &[option(number, &named("disk"))]), POLICY, "without fixed newstyle");
    }
    for number in META_CONTEXTS {
        let data = [named("disk"), vec![0; 2]].concat();
        assert_eq!(reply_to(port, 3, &[option(STRUCTURED_REPLY, &[]), option(number, &data)]), POLICY);
    }
    assert_eq!(reply_to(port, 2, &[option(STARTTLS, &[])]), POLICY);
}

#[test]
fn what_was_sent_before_tls_is_not_taken_for_what_comes_after() {
    let appliance = secured(LOOPBACK);
    let port = export(&appliance, &["--tls", "required"]);
    let go = option(GO, &[&4_u32.to_be_bytes()[..], b"disk", &[0, 0]].concat());
    assert_eq!(reply(&mut sent(port, &go)), TLS_REQUIRED);
    assert_eq!(reply(&mut sent(port, &option(STARTTLS, b"x"))), INVALID);

    // Not even acknowledged: whoever is between may have added the second option.
    let mut rest = Vec::new();
    let mut stream = sent(port, &[option(STARTTLS, &[]), option(LIST, &[])].concat());
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    wait_for("the log to say so", || appliance.log().contains("bytes after STARTTLS").then_some(()));

    // After the acknowledgement only TLS is understood.
    let mut stream = sent(port, &option(STARTTLS, &[]));
    assert_eq!(reply(&mut stream), ACK);
    stream.write_all(&go).unwrap();
    stream.read_to_end(&mut rest).ok();
    assert!(!rest.starts_with(&0x0003_e889_0455_65a9_u64.to_be_bytes()), "{rest:?}");
    run("nbdinfo", &size(&uri(port, &client(&appliance, "backup1"))));
}
