//! The integration tests: real processes, real sockets, real files.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod simulator;
mod support;
