//! The integration tests: the real binaries over real sockets, against the CloudStack simulator.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli;
mod clients;
mod clocks;
mod completion;
mod config;
mod crash;
mod daemon;
mod drain;
mod events;
mod fuzz_corpus;
mod generated;
mod health;
mod history;
mod human;
mod layering;
mod lost_answers;
mod machine;
mod metrics;
mod outages;
mod races;
mod refusals;
mod restart;
mod rights;
mod rpc;
mod sandbox;
mod simulator;
mod story;
mod support;
mod tls;
mod waits;
mod why;
