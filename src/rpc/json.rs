//! JSON as it is written: nothing of a long answer is read before it is known as what.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// One JSON value, unread.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Writes a value.
    ///
    /// # Errors
    /// Where it cannot be JSON: a map with keys that are no texts.
    pub fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        to_raw_value(value).map(Self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.0.get())
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.get().starts_with('{')
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(RawValue::from_string(value.to_string()).expect("a value's text is JSON"))
    }
}
