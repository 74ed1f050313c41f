//! The result of `system.metrics`: families of samples, which `volctl metrics` writes as text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The result of `system.metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// In a fixed order.
    pub metrics: Vec<Family>,
}

/// What is measured in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Family {
    /// Its name; a counter's ends in `_total`.
    pub name: String,
    /// How it behaves.
    #[serde(rename = "type")]
    pub metric_type: MetricType,
    /// `seconds` or `bytes`; none where it has none.
    pub unit: Option<String>,
    /// What it says.
    pub help: String,
    /// The values.
    pub samples: Vec<Sample>,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MetricType {
    /// Only grows, but for a new store, with which it begins again.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counters of what was at most so much.
    Histogram,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sample {
    /// The family's name; of a histogram with `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// What it is about.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: Number,
}

/// A value, exact where it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Number {
    /// Whole.
    Whole(u64),
    /// With a fraction.
    Real(f64),
}
