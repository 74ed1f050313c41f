//! The names on a command line, and those that `-` reads from standard input.

use std::io::{self, BufRead, Read};

use super::answer::Answer;
use crate::api::{MOST_CHANGES, Volume};
use crate::error::{Error, Kind, Result};

/// The longest name on standard input, in bytes: a volume's name has at most 255 UTF-16 units, each at most 3 bytes.
const LONGEST: u64 = 255 * 3;

/// What a command is about.
pub struct Names {
    /// Each as it was given, or its id.
    pub words: Vec<String>,
    /// Each as people are told of it.
    pub labels: Vec<String>,
    /// Whether a list was asked for, however many it has: its document has an entry for each.
    pub is_list: bool,
}

impl Names {
    /// The one thing that a command is about.
    pub fn one(word: String) -> Self {
        Self { is_list: false, ..Self::several(vec![word]) }
    }

    /// A list of them, as they were given.
    pub fn several(words: Vec<String>) -> Self {
        Self { labels: words.clone(), words, is_list: true }
    }

    /// Volumes that were looked up.
    pub fn of_volumes<'a>(volumes: impl Iterator<Item = &'a Volume>) -> Self {
        let named = volumes.map(|volume| (volume.id.to_string(), format!("{} ({})", volume.name, volume.id)));
        let (words, labels) = named.unzip();
        Self { words, labels, is_list: true }
    }

    /// The words of a command line; `-` among them stands for the lines of standard input.
    ///
    /// # Errors
    /// `usage` where that has no names, or what can be none.
    pub fn of(words: Vec<String>) -> Answer<Self> {
        let is_list = words.len() > 1 || words.iter().any(|word| word == "-");
        let mut all = Vec::new();
        for word in words {
            match word.as_str() {
                "-" => all.extend(read(io::stdin().lock())?),
                _ => all.push(word),
            }
        }
        refuse_too_many(all.len())?;
        Ok(Self { is_list, ..Self::several(all) })
    }

    /// Refuses more than one volume where `--root` makes it the root disk of a VM, which has one.
    ///
    /// # Errors
    /// `usage` where there are several.
    pub fn refuse_several_as_root(&self, root: bool) -> Result<()> {
        if !root || self.words.len() == 1 {
            return Ok(());
        }
        let what = format!("a VM has one root disk, and {} volumes are named", self.words.len());
        Err(Error::new(Kind::Usage, what).hint("name one volume with --root; nothing was sent"))
    }
}

/// A name a line; what is blank is passed over.
fn read(mut input: impl BufRead) -> Result<Vec<String>> {
    let wrong = |line: usize, what: &str| {
        Error::new(Kind::Usage, format!("line {line} of standard input {what}; nothing was sent"))
    };
    let mut names = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        let limit = LONGEST + "\r\n".len() as u64;
        let read = input.by_ref().take(limit + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|error| Error::new(Kind::Usage, format!("standard input cannot be read: {error}")))?;
        if read == 0 {
            break;
        }
        if line.len() as u64 > limit {
            return Err(wrong(number, "is longer than any name"));
        }
        let line = String::from_utf8(line).map_err(|_| wrong(number, "is not UTF-8"))?;
        if !line.trim().is_empty() {
            names.push(line.trim_end_matches(['\n', '\r']).to_owned());
            refuse_too_many(names.len())?;
        }
    }
    if names.is_empty() {
        return Err(Error::new(Kind::Usage, "standard input names nothing; nothing was sent"));
    }
    Ok(names)
}

fn refuse_too_many(names: usize) -> Result<()> {
    if names <= MOST_CHANGES {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, format!("at most {MOST_CHANGES} can be named at a time; nothing was sent")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_a_line() {
        assert_eq!(read(&b"a\n\n  \nb c\r\nlast"[..]).unwrap(), ["a", "b c", "last"]);
        let longest = "x".repeat(765);
        assert_eq!(read(format!("{longest}\r\n").as_bytes()).unwrap(), [longest]);
    }

    #[test]
    fn what_can_be_no_list_is_refused() {
        let many = "x\n".repeat(257);
        let long = "x".repeat(1 << 20);
        for (input, word) in [
            (&b""[..], "nothing"),
            (b"\n \n", "nothing"),
            (b"a\n\xff\n", "line 2"),
            (many.as_bytes(), "256"),
            (long.as_bytes(), "longer"),
        ] {
            let error = read(input).unwrap_err();
            assert_eq!(error.kind, Kind::Usage);
            assert!(error.message.contains(word), "{error}");
        }
    }
}
