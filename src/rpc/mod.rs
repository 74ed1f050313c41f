//! JSON-RPC 2.0 over a Unix socket, one message a line. Knows no method.
//!
//! [`message`] is the format, [`json`] what answers carry; [`server`] serves it on tokio; [`client`] is blocking, for the command line.

pub mod client;
mod connection;
pub mod json;
mod lines;
pub mod message;
pub mod peer;
pub mod server;
pub mod socket;
#[cfg(test)]
mod tests;
