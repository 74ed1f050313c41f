//! Fuzz target: see `feed/nbd.rs`.

#![no_main]

#[path = "../feed/nbd.rs"]
mod feed;

use std::sync::LazyLock;

use feed::Place;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    PLACE.answer_to(bytes);
});
