//! Integration tests: the real binaries, real sockets, files and HTTP.

mod cli;
mod generated;
