//! Which program runs, and whether it is still the installed one.

use std::fs;

use crate::api::{self, Version};
use crate::nbd::Server;

/// What the daemon says of itself.
pub(super) fn version(nbd: &Server) -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: api::SCHEMA,
        replaced: is_replaced(),
        clients_lost_by_restart: nbd.clients_lost_by_restart(),
    }
}

/// Whether an upgrade has put another program in this one's place; proc(5) tells by the link's name.
fn is_replaced() -> bool {
    fs::read_link("/proc/self/exe").is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
}
