//! Who may look and who may change: members of `volctl` connect and look, members of `volctl-admin` too may change.
//!
//! Decided on the kernel's word about the peer (SO_PEERCRED, SO_PEERGROUPS); names are looked up once, at start.

use std::path::Path;

use nix::unistd::{Gid, Group, Uid, chown};

use super::asker;
use crate::error::{Error, Kind, Result};
use crate::rpc::peer::Peer;

/// Members may connect and look.
const LOOK_GROUP: &str = "volctl";
/// Members may change.
const CHANGE_GROUP: &str = "volctl-admin";

/// The rights on this machine.
pub(super) struct Rights {
    own_uid: u32,
    change_gid: Option<u32>,
}

impl Rights {
    /// With the groups as they are now.
    pub fn of_this_machine() -> Self {
        Self { own_uid: Uid::effective().as_raw(), change_gid: gid(CHANGE_GROUP).map(Gid::as_raw) }
    }

    /// Refuses a change to whoever may only look.
    pub fn may_change(&self, peer: &Peer) -> Result<()> {
        let is_member = self.change_gid.is_some_and(|gid| peer.gid == gid || peer.groups.contains(&gid));
        if peer.uid == 0 || peer.uid == self.own_uid || is_member {
            return Ok(());
        }
        let command = asker::command(peer).unwrap_or_default();
        tracing::warn!(uid = peer.uid, pid = peer.pid, command, "a change was refused: no right");
        Err(Error::new(Kind::NotPermitted, format!("user {} may look but not change anything", peer.uid))
            .hint(format!("an administrator can add the user to the group {CHANGE_GROUP}")))
    }
}

/// Lets the looking group connect to the control socket, where there is one.
pub(super) fn give_to_lookers(socket: &Path) -> Result<()> {
    give(socket, LOOK_GROUP)
}

/// Lets the changing group connect to the NBD socket, where there is one: whoever writes to a volume changes it.
pub(super) fn give_to_changers(socket: &Path) -> Result<()> {
    give(socket, CHANGE_GROUP)
}

/// Root's to do. Under the unit the directory gives its group to what is made in it, since a sandboxed daemon may not.
fn give(socket: &Path, group: &str) -> Result<()> {
    let Some(gid) = gid(group) else { return Ok(()) };
    if !Uid::effective().is_root() {
        return Ok(());
    }
    chown(socket, None, Some(gid)).map_err(|error| {
        Error::new(Kind::Internal, format!("{} cannot be given to the group {group}: {error}", socket.display()))
    })
}

fn gid(name: &str) -> Option<Gid> {
    Group::from_name(name).ok().flatten().map(|group| group.gid)
}
