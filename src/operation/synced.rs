//! What the reconciliations came to, for health and metrics.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::api::Synced;
use crate::error::{Error, Result};

/// The reconciliations of this daemon.
#[derive(Clone, Debug, Default)]
pub struct SyncLog {
    /// The last one that came to an end.
    pub last: Option<LastSync>,
    /// Why the one after that did not.
    pub failure: Option<Error>,
    /// How many differences all of them found.
    pub differences: u64,
}

/// A reconciliation that came to an end.
#[derive(Clone, Copy, Debug)]
pub struct LastSync {
    /// When.
    pub at: Timestamp,
    /// How many differences it found.
    pub differences: usize,
    /// How many of them stand until somebody acts.
    pub standing: usize,
}

/// Where they are written down.
#[derive(Default)]
pub(super) struct SyncLogged(Mutex<SyncLog>);

impl SyncLogged {
    pub fn now(&self) -> SyncLog {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn note(&self, outcome: &Result<Synced>) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Err(error) => log.failure = Some(error.clone()),
            Ok(Synced { differences }) => {
                let standing = differences.iter().filter(|difference| difference.standing).count();
                log.last = Some(LastSync { at: Timestamp::now(), differences: differences.len(), standing });
                log.failure = None;
                log.differences += differences.len() as u64;
            }
        }
    }
}
