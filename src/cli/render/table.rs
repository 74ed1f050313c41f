//! Tables: for a terminal fitted to its width, for a pipe plain columns that nothing shortens.

mod draw;
mod fit;

use std::path::Path;

use self::draw::lines;
pub use self::fit::elided_names;
use super::{Screen, hanging, words};

/// Spaces between two columns; also in a pipe, so that `awk -F '  +'` splits them whatever a name holds.
const GAP: u16 = 2;

/// How a cell is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Waiting,
    Bad,
}

/// What stands for a text that finds no room.
#[derive(Debug, PartialEq, Eq)]
enum Short {
    /// Nothing shorter says it.
    None,
    /// Another text.
    Text(String),
    /// As many of its first characters as tell it from the column's others.
    Prefix,
}

/// One cell: its text, and what stands for it where the row finds no room.
pub struct Cell {
    full: String,
    short: Short,
    tone: Tone,
}

impl Cell {
    /// A text; `-` where it is empty, so that columns can be counted.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { full: if text.is_empty() { "-".to_owned() } else { text }, short: Short::None, tone: Tone::Plain }
    }

    /// An identifier, of which a beginning will do.
    pub fn id(id: impl ToString) -> Self {
        Self { short: Short::Prefix, ..Self::text(id.to_string()) }
    }

    /// A path, of which the last part will do.
    pub fn path(path: &Path) -> Self {
        let cell = Self::text(words::path(path));
        match path.file_name() {
            Some(last) => cell.or(words::path(Path::new(last))),
            None => cell,
        }
    }

    /// A state, coloured by what it means; what stands behind a comma adds to it.
    pub fn state(state: impl Into<String>) -> Self {
        let cell = Self::text(state);
        let tone = match cell.full.split(',').next().unwrap_or_default() {
            _ if cell.full.ends_with("STALE") => Tone::Bad,
            "Ready" | "Running" | "BackedUp" | "active" | "succeeded" | "ok" => Tone::Good,
            "Allocated" | "Stopped" | "skipped" | "-" => Tone::Plain,
            "Destroy" | "Expunging" | "Expunged" | "Error" | "failed" | "stuck" | "abandoned" | "bad" => Tone::Bad,
            _ => Tone::Waiting,
        };
        Self { tone, ..cell }
    }

    /// What to show where the row finds no room.
    #[must_use]
    pub fn or(self, short: String) -> Self {
        Self { short: Short::Text(short), ..self }
    }
}

/// A column: its word, where its cells stand, and how wide it is at least, so that a list that is drawn again and again
/// stays where it is while states change.
#[derive(Debug)]
pub struct Column {
    word: &'static str,
    /// Its cells stand on the right.
    is_number: bool,
    least: usize,
}

impl Column {
    /// A column of texts.
    pub const fn new(word: &'static str) -> Self {
        Self { word, is_number: false, least: 0 }
    }

    /// A column of numbers, sizes or ages.
    pub const fn number(word: &'static str) -> Self {
        Self { is_number: true, ..Self::new(word) }
    }

    /// The same, at least so wide.
    #[must_use]
    pub const fn least(self, least: usize) -> Self {
        Self { least, ..self }
    }
}

/// One thing that makes a table narrower, by the word of a column.
#[derive(Clone, Copy, Debug)]
pub enum Narrow {
    /// The short texts will do.
    Short(&'static str),
    /// The column is left out.
    Drop(&'static str),
    /// Names lose their middle, down to so many columns; where two would be the same they are wrapped instead.
    Elide(&'static str, usize),
    /// Sentences lose their end, down to so many columns.
    Cut(&'static str, usize),
    /// Sentences go on below, down to so many columns.
    Wrap(&'static str, usize),
}

/// Rows of cells under a header.
pub struct Table {
    what: &'static str,
    columns: &'static [Column],
    narrowing: &'static [Narrow],
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table of these things (`volumes`); each row has as many cells as there are columns. Where a terminal is too
    /// narrow for all of it, what `narrowing` has is done in its order until it fits.
    pub fn new(
        what: &'static str,
        columns: &'static [Column],
        narrowing: &'static [Narrow],
        rows: impl IntoIterator<Item = Vec<Cell>>,
    ) -> Self {
        Self { what, columns, narrowing, rows: rows.into_iter().collect() }
    }

    /// The lines of the table, without trailing spaces, each ended by a newline. A terminal on which it finds no room
    /// even so gets each row by itself, in full; an empty table is a sentence there.
    pub fn draw(&self, screen: &Screen) -> String {
        match (screen.width, self.rows.is_empty()) {
            (None, _) => lines(&fit::whole(self), screen.colour),
            (Some(_), true) => format!("no {}\n", self.what),
            (Some(width), false) => match fit::fitted(self, usize::from(width)) {
                Some(strips) => lines(&strips, screen.colour),
                None => self.records(screen),
            },
        }
    }

    fn records(&self, screen: &Screen) -> String {
        let widest = self.columns.iter().map(|column| column.word.len()).max().unwrap_or(0);
        let fact =
            |(column, cell): (&Column, &Cell)| hanging(&format!("{:widest$}  ", column.word), &cell.full, screen);
        let record = |row: &Vec<Cell>| self.columns.iter().zip(row).map(fact).collect::<String>();
        self.rows.iter().map(record).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests;
