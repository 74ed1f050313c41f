//! Who asks, as far as the kernel tells: for the record of an operation, and of a refusal.

use std::fs;

use nix::unistd::{Uid, User};

use crate::api::{Asker, Change};
use crate::model::printable;
use crate::operation::Holder;
use crate::rpc::peer::Peer;

/// The longest command line that is kept, in characters.
const LONGEST: usize = 1000;

/// Who asks for a change.
pub(super) fn asker(peer: &Peer, change: &Change) -> Asker {
    Asker { uid: Some(peer.uid), login_uid: login_uid(peer), command: command(peer), reason: change.reason.clone() }
}

/// The person behind a peer: who logged in, else the user that it runs as.
pub(super) fn person(peer: &Peer) -> u32 {
    login_uid(peer).unwrap_or(peer.uid)
}

/// Who holds a volume. The user's name is for people only.
pub(super) async fn holder(peer: &Peer) -> Holder {
    let uid = person(peer);
    let named = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await;
    let name = named.ok().and_then(Result::ok).flatten().map(|user| user.name);
    Holder { uid, name: name.unwrap_or_else(|| format!("user {uid}")) }
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
