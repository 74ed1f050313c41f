//! `volctl`: block volumes on CloudStack, from the cloud's API to an NBD client, without ever mixing one up.
//!
//! Imports go down only, and the rooms of one row do not know each other (`tests/integration/layering.rs` holds this):
//!
//! ```text
//! bin
//! cli | daemon                          what is typed          | what is composed
//! operation                             the journal; the only room in which the outside worlds meet
//! store, cloudstack, device, nbd        SQLite, the cloud, this kernel, the clients of the exports
//! api, rpc, systemd                     the contract, its transport, the service manager
//! model, error, config, blocking        words and ways that every room knows
//! ```
//!
//! `cli` sees only `api`, `rpc`'s client and the last row: what the command prints, it was told over the socket.

pub mod api;
pub mod blocking;
pub mod cli;
pub mod cloudstack;
pub mod config;
pub mod daemon;
pub mod device;
pub mod error;
pub mod model;
pub mod nbd;
pub mod operation;
pub mod rpc;
pub mod store;
pub mod systemd;
