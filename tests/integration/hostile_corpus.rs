//! The stored corpus of the fuzz targets, through the same code that `make fuzz` feeds at length.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[path = "../fuzz/feed/cloudstack.rs"]
mod cloudstack;
#[path = "../fuzz/feed/nbd.rs"]
mod nbd;
#[path = "../fuzz/feed/rpc.rs"]
mod rpc;

/// Each seed of a target by its name. Its beginnings are as hostile as the whole.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let seeds: BTreeMap<_, _> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    assert!(seeds.len() >= 10, "only {} seeds of {target}", seeds.len());
    seeds
}

/// A seed and what is left of it when it is cut at some 64 places.
fn cuts(seed: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..seed.len()).step_by(seed.len() / 64 + 1).map(|end| &seed[..end]).chain([seed])
}

#[test]
fn lines_are_requests_or_refused_in_one_line() {
    for seed in corpus("rpc").values() {
        cuts(seed).for_each(rpc::rpc);
    }
}

#[test]
fn answers_of_cloudstack_are_values_or_readable_errors() {
    for seed in corpus("cloudstack").values() {
        cuts(seed).for_each(cloudstack::cloudstack);
    }
}

#[test]
fn nbd_clients_cost_only_their_own_connection() {
    let place = nbd::Place::new();
    let seeds = corpus("nbd");
    for seed in seeds.values() {
        for cut in cuts(seed) {
            place.answer_to(cut);
        }
    }
    // Greeting, INFO_EXPORT and ACK of GO, a simple reply with its data: the server is still as it was.
    assert_eq!(place.answer_to(&seeds["handshake-go-read"]), 18 + 32 + 20 + 16 + 4096);
}
