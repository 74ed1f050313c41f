//! What a sentence has to name.

use serde_json::Value;

/// An error's sentence.
pub fn message(error: &Value) -> &str {
    error["message"].as_str().unwrap()
}

/// An error's hint.
#[track_caller]
pub fn hint(error: &Value) -> &str {
    error["hint"].as_str().unwrap_or_else(|| panic!("no hint: {error}"))
}

/// The notes of an answer, together.
pub fn notes(document: &Value) -> String {
    document["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Panics unless a text has each of these words.
#[track_caller]
pub fn names(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not named in: {text}");
    }
}
