//! Random requests over several connections, in all kinds of headers, and a model that knows each answer.
//!
//! The requests of a round are in flight together and touch different slots of the disk, so that their order does not
//! matter. `VOLCTL_SEED` runs one again.

use fastrand::Rng;

use super::raw::{Raw, Reply};
use super::{KIB, Place};
use crate::nbd::protocol::{Headers, command, command_flag};

const SLOT: u64 = 192 * KIB;
const SLOTS: u64 = 48;
const SIZE: u64 = SLOT * SLOTS;
const ROUNDS: usize = 400;

/// What a byte of the disk is; what was trimmed may be anything until it is written again.
type Model = Vec<Option<u8>>;

struct Asked {
    flags: u16,
    command: u16,
    offset: u64,
    length: u64,
    payload: Vec<u8>,
    fails: Option<u32>,
}

impl Asked {
    fn range(&self) -> std::ops::Range<usize> {
        self.offset as usize..(self.offset + self.length) as usize
    }
}

/// A request that stays inside a slot, or must be refused.
fn any_request(rng: &mut Rng, slot: u64, headers: Headers) -> Asked {
    let start = rng.u64(..SLOT);
    let length = if rng.bool() { rng.u64(1..=SLOT - start) } else { rng.u64(1..=(SLOT - start).min(9000)) };
    let fua = if rng.u8(..4) == 0 { command_flag::FUA } else { 0 };
    let maybe = |rng: &mut Rng, flag| if rng.bool() { flag } else { 0 };
    let structured = headers != Headers::Simple;
    let (command, flags) = match rng.u8(..16) {
        0..=4 => (command::READ, if structured { maybe(rng, command_flag::DF) } else { 0 }),
        5..=8 => (command::WRITE, 0),
        9..=10 => (command::WRITE_ZEROES, maybe(rng, command_flag::NO_HOLE)),
        11 => (command::TRIM, 0),
        12 => (command::CACHE, 0),
        13 if structured => (command::BLOCK_STATUS, maybe(rng, command_flag::REQ_ONE)),
        13 | 14 => (command::FLUSH, 0),
        _ => return refused(rng, headers),
    };
    let payload = if command == command::WRITE { (0..length).map(|_| rng.u8(..)).collect() } else { Vec::new() };
    let (offset, length) = if command == command::FLUSH { (0, 0) } else { (slot * SLOT + start, length) };
    Asked { flags: flags | fua, command, offset, length, payload, fails: None }
}

fn refused(rng: &mut Rng, headers: Headers) -> Asked {
    let length = rng.u64(1..4096);
    let offset = SIZE - length + 1;
    let request = |command, flags, error| Asked { flags, command, offset, length, payload: vec![], fails: Some(error) };
    match rng.u8(..5) {
        0 => request(command::READ, 0, 22),
        1 => Asked { payload: vec![9; length as usize], ..request(command::WRITE, 0, 28) },
        2 => request(command::WRITE_ZEROES, 0, 28),
        3 => request(command::TRIM, command_flag::DF, 22),
        _ if headers == Headers::Simple => request(command::BLOCK_STATUS, 0, 22),
        _ => request(99, 0, 22),
    }
}

/// Compares an answer with the model, and does to the model what was asked of the disk.
fn check(model: &mut Model, asked: &Asked, reply: &Reply) {
    let label = || format!("command {} flags {} at {} for {}", asked.command, asked.flags, asked.offset, asked.length);
    assert_eq!(reply.error, asked.fails.unwrap_or(0), "{}: {}", label(), reply.text);
    if asked.fails.is_some() {
        return;
    }
    let range = asked.range();
    match asked.command {
        command::READ => {
            assert_eq!(reply.data.len() as u64, asked.length, "{}", label());
            for (known, found) in model[range].iter_mut().zip(&reply.data) {
                assert_eq!(*known.get_or_insert(*found), *found, "{}", label());
            }
            assert!(asked.flags & command_flag::DF == 0 || reply.parts == 1, "{}", label());
        }
        command::WRITE => model[range].iter_mut().zip(&asked.payload).for_each(|(byte, new)| *byte = Some(*new)),
        command::WRITE_ZEROES => model[range].fill(Some(0)),
        command::TRIM => model[range].fill(None),
        command::BLOCK_STATUS => {
            let mut at = range.start;
            for extent in &reply.extents {
                assert!(extent.length > 0, "{}", label());
                let end = at + extent.length as usize;
                let as_told = |byte: &Option<u8>| !extent.hole || byte.is_none_or(|byte| byte == 0);
                assert!(model[at..end].iter().all(as_told), "{}: a hole with data", label());
                at = end;
            }
            let one = asked.flags & command_flag::REQ_ONE != 0;
            assert!(at == range.end || one && at <= range.end && reply.extents.len() == 1, "{}", label());
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_are_answered_as_the_model_says() {
    random_requests(Place::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_past_the_page_cache_are_answered_as_the_model_says() {
    random_requests(Place::direct().await).await;
}

async fn random_requests(place: Place) {
    let seed =
        std::env::var("VOLCTL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("VOLCTL_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let export = place.serve("disk", SIZE).await;
    let all = [Headers::Simple, Headers::Structured, Headers::Extended, Headers::Structured, Headers::Extended];
    let mut clients: Vec<(Headers, Raw)> = all
        .into_iter()
        .enumerate()
        .map(|(n, headers)| {
            let client = if n % 2 == 0 { place.connect() } else { place.connect_tcp(&export) }.with(headers);
            let mut client = if headers == Headers::Simple { client } else { client.with_allocation("disk") };
            client.go("disk");
            (headers, client)
        })
        .collect();

    let mut model: Model = vec![Some(0); SIZE as usize];
    for _ in 0..ROUNDS {
        let mut slots: Vec<u64> = (0..SLOTS).collect();
        rng.shuffle(&mut slots);
        slots.truncate(rng.usize(1..20));
        let mut rounds: Vec<Vec<Asked>> = clients.iter().map(|_| Vec::new()).collect();
        for slot in slots {
            let to = rng.usize(..clients.len());
            let (headers, client) = &mut clients[to];
            let asked = any_request(&mut rng, slot, *headers);
            client.ask(asked.flags, asked.command, rounds[to].len() as u64, asked.offset, asked.length, &asked.payload);
            rounds[to].push(asked);
        }
        for ((_, client), round) in clients.iter_mut().zip(&rounds) {
            let read = |cookie: u64| match &round[cookie as usize] {
                asked if asked.command == command::READ => asked.length as usize,
                _ => 0,
            };
            let replies = client.replies(round.len(), read);
            for (asked, (_, reply)) in round.iter().zip(&replies) {
                check(&mut model, asked, reply);
            }
        }
    }
    drop(clients);
    assert!(place.idle("disk").await);
    for (at, (known, found)) in model.iter().zip(place.contents("disk")).enumerate() {
        assert!(known.is_none_or(|known| known == found), "byte {at}");
    }
}
