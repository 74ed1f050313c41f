//! Fuzz target: see `feed/rpc.rs`.

#![no_main]

#[path = "../feed/rpc.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feed::rpc(bytes));
