//! Integration tests: the real binaries, real sockets, files and HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli;
mod generated;
