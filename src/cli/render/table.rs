//! Tables: for a terminal fitted to its width, for a pipe plain columns that nothing shortens.

mod fit;

use std::path::Path;

use comfy_table::{
    Attribute, Cell as Drawn, CellAlignment, Color, ColumnConstraint, ContentArrangement, Width, presets,
};

use self::fit::Strip;
pub use self::fit::elided_names;
use super::text::width_of;
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
    alignment: CellAlignment,
    least: usize,
}

impl Column {
    /// A column of texts.
    pub const fn new(word: &'static str) -> Self {
        Self { word, alignment: CellAlignment::Left, least: 0 }
    }

    /// A column of numbers, sizes or ages.
    pub const fn number(word: &'static str) -> Self {
        Self { alignment: CellAlignment::Right, ..Self::new(word) }
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
            (None, _) if screen.colour => lines(&build(&fit::whole(self), screen)),
            (None, _) => unwrapped(&fit::whole(self)),
            (Some(_), true) => format!("no {}\n", self.what),
            (Some(width), false) => match fit::fitted(self, usize::from(width)) {
                Some(strips) => lines(&build(&strips, screen)),
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

/// For a pipe, in which nothing is wrapped, coloured or shortened.
fn unwrapped(strips: &[Strip<'_>]) -> String {
    let height = strips.first().map_or(0, |strip| strip.texts.len());
    let blank = " ".repeat(strips.iter().map(|strip| strip.width).max().unwrap_or(0));
    let mut lines = String::new();
    for row in 0..=height {
        for (index, strip) in strips.iter().enumerate() {
            let text = if row == 0 { strip.column.word } else { &strip.texts[row - 1] };
            let pad = &blank[..strip.width.saturating_sub(width_of(text))];
            let gap = if index == 0 { "" } else { "  " };
            lines.extend(match strip.column.alignment {
                CellAlignment::Right => [gap, pad, text],
                _ => [gap, text, pad],
            });
        }
        lines.truncate(lines.trim_end_matches(' ').len());
        lines.push('\n');
    }
    lines
}

fn build(strips: &[Strip<'_>], screen: &Screen) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if screen.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(strips.iter().map(|strip| heading(strip.column.word, screen.colour)));
    let height = strips.first().map_or(0, |strip| strip.texts.len());
    for row in 0..height {
        table.add_row(strips.iter().map(|strip| drawn(&strip.texts[row], strip.cells[row].tone, screen.colour)));
    }
    for (column, strip) in table.column_iter_mut().zip(strips) {
        let width = u16::try_from(strip.width).unwrap_or(u16::MAX).min(u16::MAX - GAP);
        // None behind the last, whose colour would keep it.
        let gap = if std::ptr::eq(strip, &strips[strips.len() - 1]) { 0 } else { GAP };
        column.set_padding((0, gap));
        column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + gap)));
        column.set_cell_alignment(strip.column.alignment);
    }
    table
}

fn lines(table: &comfy_table::Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn heading(word: &str, colour: bool) -> Drawn {
    let cell = Drawn::new(word);
    if colour { cell.add_attribute(Attribute::Bold) } else { cell }
}

fn drawn(text: &str, tone: Tone, colour: bool) -> Drawn {
    let cell = Drawn::new(text);
    match tone {
        Tone::Good if colour => cell.fg(Color::DarkGreen),
        Tone::Waiting if colour => cell.fg(Color::DarkYellow),
        Tone::Bad if colour => cell.fg(Color::DarkRed),
        _ => cell,
    }
}

#[cfg(test)]
mod tests;
