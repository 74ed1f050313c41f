//! The main job, one chapter a verb: what an operator types, what comes of it, and what CloudStack then has.

mod attach;
mod create;
mod delete;
mod detach;
mod documents;
mod export;
mod look;
mod waiting;

use serde_json::Value;

/// The sentences of a change, together.
fn notes(document: &Value) -> String {
    document["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// An error's sentence.
fn message(error: &Value) -> &str {
    error["message"].as_str().unwrap()
}

/// An error's hint.
fn hint(error: &Value) -> &str {
    error["hint"].as_str().unwrap()
}

/// Panics unless a text has each of these words.
#[track_caller]
fn names(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not named in: {text}");
    }
}
