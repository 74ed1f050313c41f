//! The simulator does what the facts sheet says of the server: every other test stands on it.

mod faults;
mod hypervisor;
mod jobs;
mod lists;
mod requests;
mod vms;
mod volumes;
