//! Running text: wrapped under a head where a terminal is narrow, coloured where that is wanted.

use std::os::fd::AsFd;

use console::measure_text_width;
use rustix::termios::tcgetwinsize;

use super::Screen;

/// With what the commands that messages name begin.
const COMMANDS: [&str; 4] = ["volctl", "systemctl", "journalctl", "usermod"];

/// A text is not wrapped to less than this.
const NARROWEST: usize = 30;

/// How many columns a terminal has, where it tells; some tell no rows.
pub fn columns(terminal: &impl AsFd) -> Option<u16> {
    tcgetwinsize(terminal).ok().map(|size| size.ws_col).filter(|columns| *columns > 0)
}

/// How many columns a printable text takes.
pub fn width_of(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { measure_text_width(text) }
}

/// A text after a head; on a terminal its further lines stand below its first.
pub fn hanging(head: &str, text: &str, screen: &Screen) -> String {
    let indent = measure_text_width(head);
    let room = screen.width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(indent).max(NARROWEST));
    let mut lines = vec![String::new()];
    for word in unbroken(text) {
        let last = lines.len() - 1;
        let taken = measure_text_width(&lines[last]);
        if taken > 0 && taken.saturating_add(1 + measure_text_width(&word)) > room {
            lines.push(word);
        } else {
            lines[last] += if taken > 0 { " " } else { "" };
            lines[last] += &word;
        }
    }
    format!("{head}{}\n", lines.join(&format!("\n{}", " ".repeat(indent))))
}

/// The words between which a line may end. A command is one, so that it can be copied: in backquotes, or after a colon
/// to the end of its clause.
fn unbroken(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut until: Option<&[char]> = None;
    for word in text.split(' ') {
        let begins = match words.last() {
            _ if word.starts_with('`') => Some(&['`'][..]),
            Some(last) if last.ends_with(':') && COMMANDS.contains(&word) => Some(&[',', ';'][..]),
            _ => None,
        };
        match words.last_mut() {
            Some(command) if until.is_some() => *command += &format!(" {word}"),
            _ => {
                words.push(word.to_owned());
                until = begins;
            }
        }
        until = until.filter(|ends| !word.trim_start_matches('`').contains(*ends));
    }
    words
}

/// As many lines as a terminal of this height holds above the cursor; the last says how many there are more.
pub fn folded(text: &str, height: usize) -> String {
    let room = height.saturating_sub(1).max(2);
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= room {
        return text.to_owned();
    }
    format!("{}\nand {} more\n", lines[..room - 1].join("\n"), lines.len() - room + 1)
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
    fn a_command_is_not_broken() {
        let text = "`volctl detach data1` detaches it there; watch it with: volctl ops wait 12345678, or leave it";
        let words = unbroken(text);
        assert_eq!((words[0].as_str(), words[1].as_str()), ("`volctl detach data1`", "detaches"));
        assert!(words.contains(&"volctl ops wait 12345678,".to_owned()), "{words:?}");
        assert_eq!(words.join(" "), text);
    }

    #[test]
    fn lines_that_find_no_room_are_counted() {
        assert_eq!(folded("1\n2\n3\n", 4), "1\n2\n3\n");
        assert_eq!(folded("1\n2\n3\n4\n", 4), "1\n2\nand 2 more\n");
    }

    #[test]
    fn text_hangs_below_itself() {
        let text = "one two three four five six seven";
        assert_eq!(hanging("now  ", text, &screen(None)), format!("now  {text}\n"));
        assert_eq!(hanging("now  ", text, &screen(Some(35))), "now  one two three four five six\n     seven\n");
    }
}
