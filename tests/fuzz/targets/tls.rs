#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../harness/tls.rs"]
mod harness;
#[path = "../harness/nbd.rs"]
mod nbd;

static DOOR: LazyLock<harness::Door> = LazyLock::new(harness::Door::open);

fuzz_target!(|bytes: &[u8]| DOOR.try_bytes(bytes));
