//! How often each command was called, and how often it failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::error::CallError;

/// The calls of one command since the daemon began; each attempt is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// How many.
    pub made: u64,
    /// How many failed, by [`CallError::word`].
    pub failed: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
pub(super) struct CallLog(Mutex<BTreeMap<&'static str, Calls>>);

impl CallLog {
    pub(super) fn now(&self) -> BTreeMap<&'static str, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a call that is about to be made.
    pub(super) fn made(&self, command: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(command).or_default().made += 1;
    }

    /// Counts one that failed.
    pub(super) fn failed(&self, command: &'static str, error: &CallError) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry(command).or_default().failed.entry(error.word()).or_default() += 1;
    }
}
