//! The parameters of a request as their type, or a sentence that names the one that is wrong and what it must be.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::model::printable;

/// So many characters of a value are repeated to whoever sent it.
const REPEATED: usize = 60;

/// How serde calls types, and how a sentence does.
const TYPES: [(&str, &str); 12] = [
    ("u8", "a whole number, 0 or more"),
    ("u16", "a whole number, 0 or more"),
    ("u32", "a whole number, 0 or more"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("i64", "a whole number"),
    ("a boolean", "true or false"),
    ("a sequence", "a list"),
    ("a map", "an object"),
    ("string or map", "a word, as a string"),
    ("path string", "a path, as a string"),
    ("a formatted UUID string", "an id, as a string"),
];

/// Reads parameters.
///
/// # Errors
/// What is wrong with them, as a sentence.
pub(super) fn read<T: DeserializeOwned>(params: Map<String, Value>) -> Result<T, String> {
    serde_path_to_error::deserialize(Value::Object(params))
        .map_err(|error| sentence(&error.path().to_string(), &error.inner().to_string()))
}

/// What serde says of the value at a path, for people. What it says in words of ours is kept.
fn sentence(path: &str, told: &str) -> String {
    let at = if path == "." { String::new() } else { format!(" {}", printable(path)) };
    if let Some(missing) = told.strip_prefix("missing field `") {
        let inside = if at.is_empty() { String::new() } else { format!(" in{at}") };
        return format!("the parameter {} is missing{inside}", printable(missing.trim_end_matches('`')));
    }
    if let Some(rest) = told.strip_prefix("unknown field ") {
        let known = rest.rsplit_once(", expected ").map(|(_, known)| format!("; there are: {}", choice(known)));
        return format!("there is no parameter{at}{}", known.unwrap_or_default());
    }
    let invalid =
        ["invalid type: ", "invalid value: ", "unknown variant "].iter().find_map(|kind| told.strip_prefix(kind));
    match invalid.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, wanted)) => format!("the parameter{at} must be {}, not {}", wanted_type(wanted), value(found)),
        None => format!("the parameter{at}: {}", printable(told)),
    }
}

fn wanted_type(wanted: &str) -> String {
    if wanted.starts_with("struct ") {
        return "an object".to_owned();
    }
    let known = TYPES.iter().find(|(name, _)| *name == wanted);
    known.map_or_else(|| choice(wanted), |(_, words)| (*words).to_owned())
}

/// "one of `a`, `b`" without the quotes.
fn choice(told: &str) -> String {
    printable(&told.replace('`', "").replacen("one of ", "", 1))
}

/// "string \"x\"", "integer `5`", "map": the value as it was sent, or what it is.
fn value(found: &str) -> String {
    let bare = ["integer ", "boolean ", "floating point "].iter().find_map(|kind| found.strip_prefix(kind));
    let found = match (bare, found) {
        (Some(number), _) => number.replace('`', ""),
        (None, "map") => "an object".to_owned(),
        (None, "sequence") => "a list".to_owned(),
        (None, other) => other.replace('`', "\""),
    };
    let mut kept: String = found.chars().take(REPEATED).collect();
    if kept.len() < found.len() {
        kept.push_str("...");
    }
    printable(&kept)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{OperationList, SnapshotList, VolumeCreate};

    fn told<T: DeserializeOwned>(params: Value) -> String {
        read::<T>(params.as_object().unwrap().clone()).err().unwrap_or_default()
    }

    #[test]
    fn a_wrong_parameter_is_named_with_what_it_must_be() {
        let create = told::<VolumeCreate>;
        for (given, words) in [
            (json!({}), "the parameter name is missing"),
            (json!({"name": 5}), "the parameter name must be a string, not 5"),
            (
                json!({"name": "a", "size_bytes": "1G"}),
                "the parameter size_bytes must be a whole number, 0 or more, not string \"1G\"",
            ),
            (
                json!({"name": "a", "size_bytes": -1}),
                "the parameter size_bytes must be a whole number, 0 or more, not -1",
            ),
            (json!({"name": "a", "attach": "yes"}), "the parameter attach must be true or false, not string \"yes\""),
            (json!({"name": "a", "tags": {}}), "the parameter tags must be a list, not an object"),
            (json!({"name": null}), "the parameter name must be a string, not null"),
        ] {
            assert_eq!(create(given), words);
        }
        let unknown = create(json!({"name": "a", "sice": 1}));
        assert!(unknown.starts_with("there is no parameter sice; there are: name, size_bytes, "), "{unknown}");
        let status = told::<OperationList>(json!({"status": "done"}));
        assert!(status.contains("must be queued, running, ") && status.ends_with("not \"done\""), "{status}");
        let long = told::<SnapshotList>(json!({"tags": "x".repeat(500)}));
        assert!(long.len() < 200 && long.ends_with("..."), "{long}");
    }
}
