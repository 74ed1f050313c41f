//! What `volctld --check` finds out, and `volctl config check --online` shows.

use serde::{Deserialize, Serialize};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Something is wrong.
    Bad,
    /// The check could not be made.
    Skipped,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `endpoint`, `key`, `listeners`, ...; several findings can have one name.
    pub name: String,
    /// How it came out.
    pub state: Verdict,
    /// What was found.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}
