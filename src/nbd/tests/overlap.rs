//! Many requests in flight over several connections, whose ranges overlap anywhere: each byte that is found is one that
//! somebody has put there, and nobody has lost a neighbour's. `VOLCTL_SEED` runs one again.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::raw::Raw;
use super::{KIB, Place};
use crate::nbd::protocol::{Headers, command, command_flag};

/// No multiple of any block.
const SIZE: u64 = 64 * KIB + 333;
const DEPTH: usize = 32;
const LONGEST: u64 = 3000;
const ROUNDS: usize = 40;

struct Asked {
    command: u16,
    offset: u64,
    length: u64,
    /// What a WRITE or WRITE_ZEROES puts everywhere in its range.
    byte: u8,
}

impl Asked {
    fn any(rng: &mut Rng, byte: u8) -> Self {
        let offset = rng.u64(..SIZE);
        let length = rng.u64(1..=LONGEST.min(SIZE - offset));
        let (command, offset, length, byte) = match rng.u8(..8) {
            0..=2 => (command::READ, offset, length, 0),
            3 => (command::WRITE_ZEROES, offset, length, 0),
            4 => (command::FLUSH, 0, 0, 0),
            _ => (command::WRITE, offset, length, byte),
        };
        Self { command, offset, length, byte }
    }

    fn covers(&self, at: usize) -> bool {
        (self.offset..self.offset + self.length).contains(&(at as u64))
    }

    fn changes(&self) -> bool {
        matches!(self.command, command::WRITE | command::WRITE_ZEROES)
    }
}

/// What a round may have left in each byte: what those wrote that cover it; else what was there.
fn check(before: &[u8], round: &[Asked], found: &[u8], first: usize, is_after: bool) {
    for (at, byte) in (first..).zip(found) {
        let mut writers = round.iter().filter(|asked| asked.changes() && asked.covers(at)).peekable();
        let is_kept = *byte == before[at] && (!is_after || writers.peek().is_none());
        assert!(is_kept || writers.any(|asked| asked.byte == *byte), "byte {at} is {byte}, and was {}", before[at]);
    }
}

async fn overlapping_requests(place: Place) {
    let seed =
        std::env::var("VOLCTL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("VOLCTL_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let export = place.serve("disk", SIZE).await;
    let all = [Headers::Simple, Headers::Structured, Headers::Extended, Headers::Simple];
    let mut clients: Vec<Raw> = all
        .into_iter()
        .enumerate()
        .map(|(n, headers)| {
            let mut client = if n % 2 == 0 { place.connect() } else { place.connect_tcp(&export) }.with(headers);
            client.go("disk");
            client
        })
        .collect();
    let mut bytes = vec![0; SIZE as usize];
    for _ in 0..ROUNDS {
        let round: Vec<Asked> = (0..DEPTH * clients.len()).map(|n| Asked::any(&mut rng, n as u8 + 1)).collect();
        for (cookie, asked) in round.iter().enumerate() {
            let fua = if asked.changes() && rng.u8(..8) == 0 { command_flag::FUA } else { 0 };
            let payload = vec![asked.byte; if asked.command == command::WRITE { asked.length as usize } else { 0 }];
            let client = &mut clients[cookie / DEPTH];
            client.ask(fua, asked.command, cookie as u64, asked.offset, asked.length, &payload);
        }
        let read = |cookie: u64| match &round[cookie as usize] {
            asked if asked.command == command::READ => asked.length as usize,
            _ => 0,
        };
        let replies: BTreeMap<_, _> = clients.iter_mut().flat_map(|client| client.replies(DEPTH, read)).collect();
        for (cookie, reply) in &replies {
            assert_eq!(reply.error, 0, "{}", reply.text);
            check(&bytes, &round, &reply.data, round[*cookie as usize].offset as usize, false);
        }
        assert_eq!(replies.len(), round.len());
        let now = clients[0].answer(0, command::READ, 0, SIZE, &[]).data;
        check(&bytes, &round, &now, 0, true);
        bytes = now;
    }
    drop(clients);
    assert!(place.idle("disk").await);
    assert!(place.contents("disk") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_requests_lose_nothing() {
    overlapping_requests(Place::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_requests_lose_nothing_past_the_page_cache() {
    overlapping_requests(Place::direct().await).await;
}
