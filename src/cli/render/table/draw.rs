//! The lines of a table whose columns are fitted: cells side by side, wrapped where a column is narrower than its texts.

use super::fit::Strip;
use super::{GAP, Tone};
use crate::cli::render::text::width_of;

const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

/// All lines, the header first, without trailing spaces, each ended by a newline.
pub fn lines(strips: &[Strip<'_>], colour: bool) -> String {
    let mut drawn = String::new();
    let heads: Vec<_> = strips.iter().map(|strip| (strip.column.word, if colour { BOLD } else { "" })).collect();
    draw_row(&mut drawn, strips, &heads);
    let height = strips.first().map_or(0, |strip| strip.texts.len());
    for row in 0..height {
        let style = |strip: &Strip<'_>| if colour { strip.cells[row].tone.style() } else { "" };
        let cells: Vec<_> = strips.iter().map(|strip| (strip.texts[row].as_str(), style(strip))).collect();
        draw_row(&mut drawn, strips, &cells);
    }
    drawn
}

impl Tone {
    fn style(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\u{1b}[32m",
            Self::Waiting => "\u{1b}[33m",
            Self::Bad => "\u{1b}[31m",
        }
    }
}

/// The cells of a row, each a text and its style.
fn draw_row(drawn: &mut String, strips: &[Strip<'_>], cells: &[(&str, &str)]) {
    let wrapped: Vec<Vec<&str>> =
        strips.iter().zip(cells).map(|(strip, (text, _))| wrapped(text, strip.width)).collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        // Spaces that are due once something follows them.
        let mut due = 0;
        for ((strip, (_, style)), texts) in strips.iter().zip(cells).zip(&wrapped) {
            let text = texts.get(line).copied().unwrap_or_default();
            let left = strip.width.saturating_sub(width_of(text));
            let (before, after) = if strip.column.is_number { (left, 0) } else { (0, left) };
            due += before;
            if !text.is_empty() {
                drawn.extend(std::iter::repeat_n(' ', due));
                due = 0;
                match *style {
                    "" => drawn.push_str(text),
                    style => drawn.extend([style, text, PLAIN]),
                }
            }
            due += after + usize::from(GAP);
        }
        drawn.push('\n');
    }
}

/// A text in lines of at most so many columns: between words where it can be.
fn wrapped(text: &str, width: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while width_of(rest) > width {
        let end = end_of_line(rest, width);
        lines.push(rest[..end].trim_end());
        rest = rest[end..].trim_start();
    }
    lines.push(rest);
    lines
}

/// Where the first line of a text ends that is wider than a line: behind its last word that finds room, or else within one.
fn end_of_line(text: &str, width: usize) -> usize {
    let fits = |end: &usize| width_of(text[..*end].trim_end()) <= width;
    let ends = || text.char_indices().skip(1).map(|(index, _)| index);
    let behind_word = |end: &usize| text[*end..].starts_with(' ') || text[..*end].ends_with(' ');
    let last_of_word = ends().filter(behind_word).take_while(fits).last();
    let last = ends().take_while(fits).last();
    last_of_word.or(last).or_else(|| ends().next()).unwrap_or(text.len())
}
