//! Fuzz target: see `feed/cloudstack.rs`.

#![no_main]

#[path = "../feed/cloudstack.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feed::cloudstack(bytes));
