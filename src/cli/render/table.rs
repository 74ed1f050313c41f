//! Tables: for a terminal fitted to its width, for a pipe plain columns that nothing truncates.

use std::path::Path;

use comfy_table::{Cell as Drawn, Color, ColumnConstraint, ContentArrangement, presets};

use super::{Facts, Screen, words};

/// Spaces between two columns; also in a pipe, so that `awk -F '  +'` splits them whatever a name holds.
const GAP: u16 = 2;

/// A wrapped column is at least this wide.
const NARROWEST: usize = 20;

/// How many characters of an identifier are shown where it does not fit.
const SHORT_ID: usize = 8;

/// How a cell is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Waiting,
    Bad,
}

/// One cell: its text, and a shorter one for a terminal that is too narrow for the row.
pub struct Cell {
    full: String,
    short: Option<String>,
    tone: Tone,
}

impl Cell {
    /// A text; `-` where it is empty, so that columns can be counted.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { full: if text.is_empty() { "-".to_owned() } else { text }, short: None, tone: Tone::Plain }
    }

    /// An identifier: its first characters where the row does not fit.
    pub fn id(id: impl ToString) -> Self {
        let full = id.to_string();
        let short = full.chars().take(SHORT_ID).collect();
        Self::text(full).or(short)
    }

    /// A path: its last part where the row does not fit.
    pub fn path(path: &Path) -> Self {
        let cell = Self::text(words::path(path));
        match path.file_name() {
            Some(last) => cell.or(words::path(Path::new(last))),
            None => cell,
        }
    }

    /// A state, coloured by what it means.
    pub fn state(state: impl Into<String>) -> Self {
        let cell = Self::text(state);
        let tone = match cell.full.as_str() {
            "Ready" | "BackedUp" | "active" | "succeeded" | "ok" => Tone::Good,
            "Destroy" | "Expunging" | "Expunged" | "Error" | "failed" | "stuck" | "abandoned" | "bad" => Tone::Bad,
            stale if stale.ends_with("STALE") => Tone::Bad,
            _ => Tone::Waiting,
        };
        Self { tone, ..cell }
    }

    /// What to show where the row does not fit.
    #[must_use]
    pub fn or(self, short: String) -> Self {
        Self { short: Some(short), ..self }
    }
}

/// Rows of cells under a header.
pub struct Table {
    header: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table of rows; each has as many cells as the header.
    pub fn new(header: &'static [&'static str], rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        Self { header, rows: rows.into_iter().collect() }
    }

    /// The lines of the table, without trailing spaces, each ended by a newline. A terminal that is too narrow gets the
    /// short texts, with only the last column wrapped; where that leaves no room, each row stands by itself in full.
    pub fn draw(&self, screen: &Screen) -> String {
        let full = self.build(screen, |cell| &cell.full);
        let Some(width) = screen.width.filter(|width| natural_width(&full) > usize::from(*width)) else {
            return lines(&full);
        };
        let mut short = self.build(screen, |cell| cell.short.as_ref().unwrap_or(&cell.full));
        let last = short.column_max_content_widths().last().copied().map_or(0, usize::from);
        if natural_width(&short) - last + last.min(NARROWEST) > usize::from(width) {
            return self.records();
        }
        short.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        for column in short.column_iter_mut().take(self.header.len() - 1) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        lines(&short)
    }

    fn records(&self) -> String {
        let record = |row: &Vec<Cell>| {
            let mut facts = Facts::default();
            self.header.iter().zip(row).for_each(|(word, cell)| facts.add(word, &cell.full));
            facts.to_string()
        };
        self.rows.iter().map(record).collect::<Vec<_>>().join("\n")
    }

    fn build<'a>(&'a self, screen: &Screen, text: impl Fn(&'a Cell) -> &'a String) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if screen.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(self.header);
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| drawn(text(cell), cell.tone, screen.colour)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        table
    }
}

fn lines(table: &comfy_table::Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn natural_width(table: &comfy_table::Table) -> usize {
    let widths = table.column_max_content_widths();
    let gaps = usize::from(GAP) * widths.len().saturating_sub(1);
    widths.into_iter().map(usize::from).sum::<usize>() + gaps
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
mod tests {
    use super::*;
    use crate::cli::render::tests::screen;

    fn table() -> Table {
        let row = |name: &str| {
            vec![
                Cell::text(name),
                Cell::id("5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6"),
                Cell::state("Ready"),
                Cell::text(""),
                Cell::text("y"),
            ]
        };
        Table::new(&["NAME", "ID", "STATE", "VM", "LAST"], [row("data1"), row("a long name")])
    }

    #[test]
    fn a_pipe_gets_everything_in_aligned_columns() {
        assert_eq!(
            table().draw(&screen(None)),
            "NAME         ID                                    STATE  VM  LAST\n\
             data1        5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6  Ready  -   y\n\
             a long name  5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6  Ready  -   y\n"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_short_identifiers() {
        assert!(table().draw(&screen(Some(66))).contains("a1b2c3d4e5f6"));
        let narrow = table().draw(&screen(Some(65)));
        assert!(narrow.contains("a long name  5f0c8a52  Ready"), "{narrow}");
        assert!(!narrow.contains("a1b2c3d4e5f6"));
    }

    #[test]
    fn a_terminal_too_narrow_for_a_table_gets_records() {
        let long = vec![Cell::text("data1"), Cell::text("x".repeat(30)), Cell::text("y".repeat(30))];
        let table = Table::new(&["NAME", "FIRST", "LAST"], [long]);
        let (x, y) = ("x".repeat(30), "y".repeat(30));
        assert_eq!(table.draw(&screen(Some(50))), format!("NAME   data1\nFIRST  {x}\nLAST   {y}\n"));
        assert!(table.draw(&screen(Some(60))).starts_with("NAME   FIRST "));
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        let coloured = Screen { colour: true, ..screen(Some(100)) };
        assert!(table().draw(&coloured).contains("\u{1b}["));
        assert!(!table().draw(&screen(Some(100))).contains('\u{1b}'));
    }
}
