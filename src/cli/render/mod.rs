//! The only code that prints: data on stdout, everything else on stderr.

mod document;
mod event;
pub mod exposition;
mod facts;
mod progress;
mod table;
mod text;
mod words;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::document::{answer_document, error_document, results_document, with_schema};
pub use self::event::line as event_line;
pub use self::facts::Facts;
pub use self::progress::{Progress, Waiting, lines as progress_lines};
pub use self::table::{Cell, Column, Narrow, Table};
pub use self::text::{folded, hanging, warned};
pub use self::words::{age, ago, label, name, path, place, span, tags, uris, watch_command, word};
use super::answer::{Answer, Refusal};
use crate::error::{Error, Kind, Result};
use crate::model::printable;
use crate::rpc::json::Json;

/// An answer to a question is read up to so many bytes.
const LONGEST_REPLY: u64 = 1024;

/// What is wanted on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, and for `awk`.
    Text,
    /// Just the identifier, path or URI.
    Quiet,
    /// One JSON document.
    Json,
}

/// What text is drawn for.
#[derive(Clone, Debug)]
pub struct Screen {
    /// Columns of the terminal; none where a program reads.
    pub width: Option<u16>,
    /// Whether colour is wanted.
    pub colour: bool,
    /// When it is shown, for ages.
    pub now: Timestamp,
}

/// What a person is shown of one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// For stdout, a newline after each line.
    pub text: String,
    /// For stdout with `-q`, a newline after each line.
    pub quiet: String,
    /// Sentences for stderr.
    pub notes: Vec<String>,
}

/// Where everything is printed.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    screen: Screen,
    stdout_terminal: bool,
    stderr_terminal: bool,
    /// What messages are drawn for.
    stderr_screen: Screen,
    stdin_terminal: bool,
}

impl Output {
    /// Looks at what stdin, stdout and stderr are, and at `NO_COLOR`, `CLICOLOR_FORCE`, `TERM` and `COLUMNS`.
    pub fn new(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = if terminal { Some(text::columns(&io::stdout()).unwrap_or(80)) } else { told_width() };
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let forced = set("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let (now, stderr_terminal) = (Timestamp::now(), io::stderr().is_terminal());
        let stderr_width = if stderr_terminal { Some(console::Term::stderr().size().1) } else { told_width() };
        let colour = forced || (terminal && set("TERM").is_none_or(|term| term != "dumb"));
        Self {
            format,
            screen: Screen { width, colour: colour && set("NO_COLOR").is_none(), now },
            stdout_terminal: terminal,
            stderr_terminal,
            stderr_screen: Screen { width: stderr_width, colour: false, now },
            stdin_terminal: io::stdin().is_terminal(),
        }
    }

    /// What tables are drawn for, now.
    pub fn screen(&self) -> Screen {
        Screen { now: Timestamp::now(), ..self.screen.clone() }
    }

    /// How many lines the terminal has that stdout is.
    pub fn height(&self) -> usize {
        usize::from(console::Term::stdout().size().0)
    }

    /// Whether stderr is looked at by a person.
    pub fn watched(&self) -> bool {
        self.stderr_terminal
    }

    /// The progress line, which is seen only where a person looks and did not ask for quiet.
    pub fn progress(&self) -> Progress {
        Progress::new(self.stderr_terminal && self.format != Format::Quiet)
    }

    /// Prints the answer to one request, and says the exit code.
    pub fn answer<T: DeserializeOwned>(&self, answer: Answer, page: impl Fn(&T) -> Page) -> u8 {
        self.answers(vec![answer], false, page)
    }

    /// Prints the answers to what was asked of each thing on the line, and says the common exit code. What was asked
    /// of one thing has one plain document, unless it was asked for as a list.
    pub fn answers<T: DeserializeOwned>(&self, answers: Vec<Answer>, is_list: bool, page: impl Fn(&T) -> Page) -> u8 {
        if self.format != Format::Json {
            let mut told = HashSet::new();
            return common_code(answers.into_iter().map(|answer| self.show(answer, &page, &mut told)));
        }
        let code = code_of(&answers);
        match answers.as_slice() {
            [answer] if !is_list => self.document(&answer_document(answer), code),
            several => self.document(&results_document(several), code),
        }
    }

    /// As [`answers`](Self::answers) to a list, whose document also has what was remarked about all of it.
    pub fn answers_about<T: DeserializeOwned>(
        &self,
        note: &str,
        answers: Vec<Answer>,
        page: impl Fn(&T) -> Page,
    ) -> u8 {
        if self.format != Format::Json {
            return self.answers(answers, true, page);
        }
        let mut document = results_document(&answers);
        document["notes"] = json!([note]);
        self.document(&document, code_of(&answers))
    }

    /// Whether a person looks at stdout and no JSON or identifier is wanted.
    pub fn draws(&self) -> bool {
        self.stdout_terminal && self.format == Format::Text
    }

    /// Prints lines for a program, and says the exit code.
    pub fn lines(&self, text: &str) -> u8 {
        self.print(text, 0)
    }

    /// One of many things that are printed as they come: a JSON document a line, its identifier, or its text.
    ///
    /// # Errors
    /// `internal` where the document is none.
    pub fn item(&self, document: &Json, quiet: &str, text: impl FnOnce() -> String) -> Result<String> {
        Ok(match self.format {
            Format::Json => format!("{}\n", with_schema(read(document)?)),
            Format::Quiet => quiet.to_owned(),
            Format::Text => text(),
        })
    }

    /// Prints lines of which more will come; the exit code where nobody reads them any more.
    pub fn stream(&self, lines: &str) -> ControlFlow<u8> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(self.unwritten(&e, 0)),
        }
    }

    /// Prints a result as it came over the socket, whatever was wanted on stdout, and says the exit code.
    pub fn result(&self, answer: Answer) -> u8 {
        match answer {
            Ok(result) => match read::<Value>(&result) {
                Ok(document) => self.document(&document, 0),
                Err(error) => self.refuse(&Box::<Refusal>::from(error)),
            },
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Prints why nothing was done, and says the exit code.
    pub fn refuse(&self, refusal: &Refusal) -> u8 {
        let code = refusal.exit_code();
        if self.format == Format::Json {
            self.document(&error_document(refusal), code)
        } else {
            self.complain(&refusal.error);
            code
        }
    }

    /// Prints help or the version.
    pub fn help(&self, help: &clap::builder::StyledStr) -> u8 {
        let text = if self.screen.colour { help.ansi().to_string() } else { help.to_string() };
        self.print(&text, 0)
    }

    /// Asks a yes-or-no question on the terminal; anything but yes is no.
    ///
    /// # Errors
    /// `internal` where the terminal cannot be read.
    pub fn confirm(&self, question: &str) -> Result<bool> {
        self.stderr(&format!("{question} [y/N] "));
        let mut reply = Vec::new();
        let read = io::stdin().lock().take(LONGEST_REPLY).read_until(b'\n', &mut reply);
        read.map_err(|e| Error::new(Kind::Internal, format_args!("cannot read the answer from the terminal: {e}")))?;
        let reply = String::from_utf8_lossy(&reply).trim().to_ascii_lowercase();
        Ok(reply == "y" || reply == "yes")
    }

    /// Makes sure that there is a terminal on which `what` can be confirmed.
    ///
    /// # Errors
    /// `usage` where there is none.
    pub fn can_ask(&self, what: &str) -> Result<()> {
        if self.stdin_terminal && self.stderr_terminal {
            return Ok(());
        }
        let message = format!("{what} must be confirmed, and there is no terminal to ask on");
        Err(Error::new(Kind::Usage, message).hint("add --yes where you are sure"))
    }

    /// Tells whoever looks on what a long wait is for.
    pub fn remark(&self, text: &str) {
        self.stderr(&hanging("", text, &self.stderr_screen));
    }

    /// Shows one answer of several; a note or an error that was told of another one is not told again.
    fn show<T: DeserializeOwned>(&self, answer: Answer, page: impl Fn(&T) -> Page, told: &mut HashSet<String>) -> u8 {
        let page = answer.and_then(|document| Ok(page(&read(&document)?)));
        match page {
            Ok(page) => {
                for note in page.notes.iter().filter(|note| told.insert((*note).clone())) {
                    self.stderr(&hanging("note: ", &printable(note), &self.stderr_screen));
                }
                self.print(if self.format == Format::Quiet { &page.quiet } else { &page.text }, 0)
            }
            Err(refusal) if !told.insert(refusal.error.message.clone()) => refusal.exit_code(),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    fn document(&self, document: &Value, code: u8) -> u8 {
        let text = if self.stdout_terminal { format!("{document:#}\n") } else { format!("{document}\n") };
        self.print(&text, code)
    }

    /// Prints data. A reader that has gone away is none of our business; data that could not be written is.
    fn print(&self, text: &str, code: u8) -> u8 {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => code,
            Err(e) => self.unwritten(&e, code),
        }
    }

    fn unwritten(&self, error: &io::Error, code: u8) -> u8 {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return code;
        }
        self.stderr(&format!("volctl: cannot write to stdout: {error}\n"));
        Kind::Internal.exit_code()
    }

    fn complain(&self, error: &Error) {
        let mut text = self.message("volctl: ", &error.message);
        if let Some(said) = error.cloudstack.as_ref().and_then(|fault| fault.text.as_deref())
            && !error.message.contains(said)
        {
            text += &hanging("CloudStack: ", &printable(said), &self.stderr_screen);
        }
        if let Some(hint) = &error.hint {
            text += &self.message("hint: ", hint);
        }
        self.stderr(&text);
    }

    /// A text of several lines under its head, each escaped; what is indented stays so.
    fn message(&self, head: &str, text: &str) -> String {
        let mut head = head;
        let line = |line: &str| {
            let bare = line.trim_start_matches(' ');
            let indent = &line[..line.len() - bare.len()];
            hanging(&format!("{}{indent}", std::mem::take(&mut head)), &printable(bare), &self.stderr_screen)
        };
        text.lines().map(line).collect()
    }

    /// Where even stderr is gone there is nobody left to tell.
    fn stderr(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

fn code_of(answers: &[Answer]) -> u8 {
    common_code(answers.iter().map(|answer| answer.as_ref().map_or_else(|refusal| refusal.exit_code(), |_| 0)))
}

/// The width that `watch` and its like tell: they take stdout and stderr by one pipe, and show what comes. A pipe of its
/// own has a program behind it, whatever `COLUMNS` says.
fn told_width() -> Option<u16> {
    let width = std::env::var("COLUMNS").ok()?.parse().ok()?;
    let file = |stream: &dyn AsFd| {
        let metadata = File::from(stream.as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    (file(&io::stdout())? == file(&io::stderr())?).then_some(width).filter(|width| *width > 0)
}

/// The one code of several: 0 if all did, the code of all if all failed alike, 130 after Ctrl-C, else 1.
fn common_code(codes: impl IntoIterator<Item = u8>) -> u8 {
    codes
        .into_iter()
        .reduce(|common, code| match (common, code) {
            (super::INTERRUPTED, _) | (_, super::INTERRUPTED) => super::INTERRUPTED,
            _ if common == code => common,
            _ => 1,
        })
        .unwrap_or(0)
}

/// Reads an answer as its type.
///
/// # Errors
/// `internal` where it is something else.
pub fn read<T: DeserializeOwned>(document: &Json) -> Result<T> {
    document.read().map_err(|e| {
        Error::new(Kind::Internal, format_args!("the daemon's answer is not what this volctl understands: {e}"))
            .hint("compare the two with: volctl version")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A screen at a fixed moment, without colour.
    pub fn screen(width: Option<u16>) -> Screen {
        let now = Timestamp::from_second(1_767_323_045).unwrap();
        Screen { width, colour: false, now }
    }

    #[test]
    fn several_answers_have_one_code() {
        assert_eq!(common_code([0, 0]), 0);
        assert_eq!(common_code([3, 3]), 3);
        assert_eq!(common_code([0, 3]), 1);
        assert_eq!(common_code([3, 4, 3]), 1);
        assert_eq!(common_code([0, 130, 4]), 130);
    }

    #[test]
    fn only_line_ends_and_indents_survive_in_messages() {
        let output = Output { stderr_screen: screen(None), ..Output::new(Format::Text) };
        assert_eq!(output.message("volctl: ", "in use:\n  /mnt\u{1b}[2J"), "volctl: in use:\n  /mnt\\u{1b}[2J\n");
        let output = Output { stderr_screen: screen(Some(38)), ..output };
        let text = "some words and then more than a line";
        assert_eq!(output.message("volctl: ", text), "volctl: some words and then more than\n        a line\n");
    }
}
