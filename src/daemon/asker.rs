//! Who asks, as far as the kernel tells: for the record of an operation, and of a refusal.

use std::fs;

use crate::api::{Asker, Change};
use crate::model::printable;
use crate::rpc::peer::Peer;

/// The longest command line that is kept, in characters.
const LONGEST: usize = 1000;

/// Who asks for a change.
pub(super) fn asker(peer: &Peer, change: &Change) -> Asker {
    Asker { uid: Some(peer.uid), login_uid: login_uid(peer), command: command(peer), reason: change.reason.clone() }
}

/// The peer's command line; none where the process is gone.
pub(super) fn command(peer: &Peer) -> Option<String> {
    let line = read(peer, "cmdline")?.trim_end_matches('\0').replace('\0', " ");
    Some(printable(&line).chars().take(LONGEST).collect())
}

/// Who logged in, behind a `sudo` say; none where nobody did.
fn login_uid(peer: &Peer) -> Option<u32> {
    read(peer, "loginuid")?.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

fn read(peer: &Peer, file: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{}/{file}", peer.pid)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
