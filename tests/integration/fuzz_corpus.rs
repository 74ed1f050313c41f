//! The stored corpus of the fuzz targets, through the same doors as they use: no panic, no hang, and answers that hold.
//! `make fuzz` looks for more.

use std::fs;
use std::panic;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[path = "../fuzz/harness/cloudstack.rs"]
mod cloudstack;
#[path = "../fuzz/harness/nbd.rs"]
mod nbd;
#[path = "../fuzz/harness/rpc.rs"]
mod rpc;
#[path = "../fuzz/harness/tls.rs"]
mod tls;

/// Panics in the threads of the servers under test, which no test would see otherwise.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let name = thread::current().name().unwrap_or_default().to_owned();
            if name == "nbd-client" || name.starts_with("tokio") {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

fn each(target: &str, try_bytes: impl Fn(&[u8])) {
    count_panics();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 10, "{} has only {} files", directory.display(), files.len());
    for file in files {
        println!("{}", file.display());
        let bytes = fs::read(&file).unwrap();
        try_bytes(&bytes);
        // And each of its beginnings, as far as they differ much.
        for end in (0..bytes.len()).step_by((bytes.len() / 40).max(1)) {
            try_bytes(&bytes[..end]);
        }
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{}", file.display());
    }
}

#[test]
fn at_the_nbd_servers_door() {
    let door = nbd::Door::open();
    each("nbd", |bytes| door.try_bytes(bytes));
}

#[test]
fn where_the_nbd_server_expects_tls() {
    let door = tls::Door::open();
    each("tls", |bytes| door.try_bytes(bytes));
}

#[test]
fn at_the_control_sockets_door() {
    let door = rpc::Door::open();
    each("rpc", |bytes| door.try_bytes(bytes));
}

#[test]
fn in_cloudstacks_answers() {
    let door = cloudstack::Door::open();
    each("cloudstack", |bytes| door.try_bytes(bytes));
}
