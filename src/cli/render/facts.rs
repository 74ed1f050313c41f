//! Facts about one thing: a word and its value a line, the values below each other.

use std::fmt;

use super::{Screen, hanging};

/// Words and values, in the order in which they were added.
#[derive(Default)]
pub struct Facts(Vec<(&'static str, String)>);

impl Facts {
    /// Adds a fact.
    pub fn add(&mut self, word: &'static str, value: impl fmt::Display) {
        self.0.push((word, value.to_string()));
    }

    /// Adds a fact where there is one.
    pub fn add_some(&mut self, word: &'static str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.add(word, value);
        }
    }

    /// The lines; a sentence that is longer than the terminal is wide goes on below itself.
    pub fn draw(&self, screen: &Screen) -> String {
        let width = self.0.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
        let line = |(word, value): &(&str, String)| hanging(&format!("{word:width$}  "), value, screen);
        self.0.iter().map(line).collect()
    }
}
