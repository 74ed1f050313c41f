//! Facts in words: ages, labels, and the words that the socket uses.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::api::{Export, Operation, Volume};
use crate::model::{Tag, format_age, format_size, printable};

/// A length of time as the daemon's sentences have it.
pub fn span(seconds: u64) -> String {
    format_age(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

/// A range of seconds, with its unit once where both ends have the same.
pub fn span_between(from: u64, to: u64) -> String {
    if to < 60 { format!("{from}-{to}s") } else { format!("{}-{}", span(from), span(to)) }
}

/// Whole seconds from a moment until now; 0 for one that is ahead.
pub fn age(now: Timestamp, at: Timestamp) -> Duration {
    now.duration_since(at).try_into().unwrap_or_default()
}

/// How long ago a moment was.
pub fn ago(now: Timestamp, at: Timestamp) -> String {
    span(age(now, at).as_secs())
}

/// The word with which the socket writes a unit variant: `attach`, `running`, `cut off`.
pub fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => printable(&word),
        _ => String::new(),
    }
}

/// A volume's name, or its id where it has none.
pub fn name(volume: &Volume) -> String {
    if volume.name.is_empty() { volume.id.to_string() } else { printable(&volume.name) }
}

/// Name, id and size, as questions name a volume.
pub fn label(volume: &Volume) -> String {
    format!("{} ({}), {}", printable(&volume.name), volume.id, format_size(volume.size_bytes))
}

/// Where a volume is attached: `this VM` where that is known or its device is here, else the VM's name or id.
pub fn place(volume: &Volume) -> Option<String> {
    let vm = volume.vm_id?;
    if volume.this_vm.unwrap_or(volume.device.is_some()) {
        return Some("this VM".to_owned());
    }
    Some(volume.vm_name.as_deref().map_or_else(|| vm.to_string(), printable))
}

/// The beginning of an identifier, which is as good as all of it on the command line.
pub fn short_id(id: impl ToString) -> String {
    id.to_string().chars().take(8).collect()
}

/// A path as a person may see it.
pub fn path(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// The URIs of an export.
pub fn uris(export: &Export) -> impl Iterator<Item = String> {
    export.uris.iter().map(|uri| printable(uri))
}

/// Tags: `owner=jo, tier=gold`.
pub fn tags(tags: &[Tag]) -> String {
    tags.iter().map(Tag::to_string).collect::<Vec<_>>().join(", ")
}

/// The command that watches an operation.
pub fn watch_command(operation: &Operation) -> String {
    format!("volctl ops wait {}", operation.id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_moment_ahead_is_no_age() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let ahead: Timestamp = "2026-01-02T03:04:06Z".parse().unwrap();
        assert_eq!(ago(now, ahead), "0s");
        assert_eq!(ago(ahead, now), "1s");
    }
}
