//! The service manager: what it hands over, what it is told of this daemon's life, and what it keeps for the next one.
//!
//! The protocols are sd_listen_fds(3), sd_notify(3), sd_pid_notify_with_fds(3) and sd_watchdog_enabled(3). Without systemd
//! all of it does nothing.

mod inherited;
mod manager;

pub use inherited::{Inherited, Stored, inherited};
pub use manager::ServiceManager;

/// How the names of what this daemon has stored begin, so that it is not taken for the socket of a .socket unit.
const STORED: &str = "stored-";
