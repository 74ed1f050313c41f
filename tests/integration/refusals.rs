//! Bad input, from every side: each is refused with a sentence that names what is wrong, and nothing else is disturbed.

mod cloudstack;
mod config;
mod limits;
mod nbd;
mod socket;
mod words;
