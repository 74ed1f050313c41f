//! Running text: wrapped under a head where a terminal is narrow, coloured where that is wanted.

use console::measure_text_width;

use super::Screen;

/// A text is not wrapped to less than this.
const NARROWEST: usize = 30;

/// A text after a head; on a terminal its further lines stand below its first.
pub fn hanging(head: &str, text: &str, screen: &Screen) -> String {
    let indent = measure_text_width(head);
    let room = screen.width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(indent).max(NARROWEST));
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let taken = measure_text_width(&lines[last]);
        if taken > 0 && taken.saturating_add(1 + measure_text_width(word)) > room {
            lines.push(word.to_owned());
        } else {
            lines[last] += if taken > 0 { " " } else { "" };
            lines[last] += word;
        }
    }
    format!("{head}{}\n", lines.join(&format!("\n{}", " ".repeat(indent))))
}

/// Lines that should be noticed.
pub fn warned(lines: &str, screen: &Screen) -> String {
    if screen.colour { format!("\u{1b}[33m{}\u{1b}[0m\n", lines.trim_end_matches('\n')) } else { lines.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::screen;

    #[test]
    fn text_hangs_below_itself() {
        let text = "one two three four five six seven";
        assert_eq!(hanging("now  ", text, &screen(None)), format!("now  {text}\n"));
        assert_eq!(hanging("now  ", text, &screen(Some(35))), "now  one two three four five six\n     seven\n");
    }
}
