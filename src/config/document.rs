//! The TOML file: each value with the place where it stands, so that every refusal can name it.
//!
//! What is known is what was asked for; what is left after that is unknown. No message quotes a value before it is
//! known not to be a secret.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use toml::de::{DeTable, DeValue};

use super::duration::parse_duration;
use crate::error::{Error, Kind, Result};
use crate::model::{format_age, format_size, parse_size, printable};

/// A value, and where it was given.
pub(super) struct Given<T> {
    pub(super) place: String,
    pub(super) value: T,
}

impl<T> Given<T> {
    /// Says what is wrong with it, in words that follow on its name.
    pub(super) fn refuse(&self, why: impl fmt::Display) -> Error {
        Error::new(Kind::Config, format_args!("{} {why}", self.place))
    }

    /// Reads it further.
    pub(super) fn read<U, E: fmt::Display>(&self, read: impl FnOnce(&T) -> Result<U, E>) -> Result<U> {
        read(&self.value).map_err(|why| Error::new(Kind::Config, format_args!("{}: {why}", self.place)))
    }
}

/// A file's path and text.
#[derive(Clone, Copy)]
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, offset: usize) -> String {
        let line = self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        format!("{}, line {line}", printable(&self.path.display().to_string()))
    }
}

/// The file or one of its sections; it gets emptier as values are taken.
pub(super) struct Section<'a> {
    source: Source<'a>,
    /// Empty for the file.
    name: &'static str,
    entries: DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Reads the whole of a file.
    pub(super) fn parse(path: &'a Path, text: &'a str) -> Result<Self> {
        let source = Source { path, text };
        // Only the parser's sentence: its full report quotes the line, in which a secret may stand.
        let entries = DeTable::parse(text).map_err(|error| {
            let place = source.line(error.span().map_or(0, |span| span.start));
            Error::new(Kind::Config, format_args!("{place}: not TOML: {}", printable(error.message())))
        })?;
        Ok(Self { source, name: "", entries: entries.into_inner(), known: Vec::new() })
    }

    /// A section of the file, empty where it is not there.
    pub(super) fn section(&mut self, name: &'static str) -> Result<Section<'a>> {
        let entries = match self.take(name) {
            None => return Ok(self.without(name)),
            Some(Given { value: DeValue::Table(entries), .. }) => entries,
            Some(other) => return Err(wrong_type(&other, "a section")),
        };
        Ok(Section { source: self.source, name, entries, known: Vec::new() })
    }

    /// A section that is taken to be empty.
    pub(super) fn without(&self, name: &'static str) -> Section<'a> {
        Section { source: self.source, name, entries: DeTable::new(), known: Vec::new() }
    }

    /// A refusal of each thing that nobody asked for.
    pub(super) fn unknown(self) -> impl Iterator<Item = Error> {
        let Self { source, name, entries, known } = self;
        entries.into_iter().map(move |(key, value)| {
            let place = source.line(key.span().start);
            let what = match (name, value.get_ref()) {
                ("", DeValue::Table(_)) => format!("unknown section [{}]", printable(key.get_ref())),
                ("", _) => format!("key \"{}\" outside of any section", printable(key.get_ref())),
                (section, _) => format!("unknown key \"{}\" in [{section}]", printable(key.get_ref())),
            };
            let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, key.get_ref()));
            let nearest = nearest.map(|known| format!("; the nearest known one is \"{known}\"")).unwrap_or_default();
            Error::new(Kind::Config, format_args!("{place}: {what}{nearest}"))
                .hint(format_args!("known here: {}", known.join(", ")))
        })
    }

    /// A text; never empty.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<Given<String>>> {
        self.take(key).map(text).transpose()
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Result<Vec<Given<String>>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Given { place, value: DeValue::Array(values) }) => values
                .into_iter()
                .map(|value| text(Given { place: place.clone(), value: value.into_inner() }))
                .collect(),
            Some(other) => Err(wrong_type(&other, "an array of strings")),
        }
    }

    /// An absolute path.
    pub(super) fn path(&mut self, key: &'static str) -> Result<Option<Given<PathBuf>>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let path = Given { place: text.place, value: PathBuf::from(text.value) };
        if path.value.is_absolute() { Ok(Some(path)) } else { Err(path.refuse("must be an absolute path")) }
    }

    /// Yes or no.
    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Given { value: DeValue::Boolean(value), .. }) => Ok(Some(value)),
            Some(other) => Err(wrong_type(&other, "true or false")),
        }
    }

    /// A number from 1 to `most`.
    pub(super) fn count(&mut self, key: &'static str, most: u32) -> Result<Option<u32>> {
        let Some(given) = self.take(key) else { return Ok(None) };
        let DeValue::Integer(integer) = &given.value else { return Err(wrong_type(&given, "an integer")) };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| (1..=most).contains(number));
        number.map(Some).ok_or_else(|| given.refuse(format_args!("must be from 1 to {most}")))
    }

    /// A duration, a text or an integer of seconds: more than nothing, and at most so much.
    pub(super) fn duration(&mut self, key: &'static str, most: Duration) -> Result<Option<Duration>> {
        let Some(given) = self.take(key) else { return Ok(None) };
        let duration = match &given.value {
            DeValue::Integer(integer) => given.read(|_| parse_duration(&integer.to_string()))?,
            DeValue::String(text) => given.read(|_| parse_duration(text))?,
            _ => return Err(wrong_type(&given, "a duration such as \"30s\"")),
        };
        if duration.is_zero() {
            return Err(given.refuse("must be more than 0"));
        }
        if duration > most {
            let most = format_age(SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX));
            return Err(given.refuse(format_args!("must be at most {most}")));
        }
        Ok(Some(duration))
    }

    /// A size, a text or an integer of bytes, in these bounds.
    pub(super) fn size(&mut self, key: &'static str, bounds: RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(given) = self.take(key) else { return Ok(None) };
        let size = match &given.value {
            DeValue::Integer(integer) => given.read(|_| parse_size(&integer.to_string()))?,
            DeValue::String(text) => given.read(|_| parse_size(text))?,
            _ => return Err(wrong_type(&given, "a size such as \"64M\"")),
        };
        if bounds.contains(&size) {
            return Ok(Some(size));
        }
        let [least, most] = [bounds.start(), bounds.end()].map(|bound| format_size(*bound));
        Err(given.refuse(format_args!("must be from {least} to {most}")))
    }

    fn take(&mut self, key: &'static str) -> Option<Given<DeValue<'a>>> {
        self.known.push(key);
        let value = self.entries.remove(key)?;
        let name = if self.name.is_empty() { key.to_owned() } else { format!("[{}] {key}", self.name) };
        let place = format!("{}: {name}", self.source.line(value.span().start));
        Some(Given { place, value: value.into_inner() })
    }
}

fn text(given: Given<DeValue<'_>>) -> Result<Given<String>> {
    match given {
        Given { value: DeValue::String(text), place } if !text.trim().is_empty() => {
            Ok(Given { place, value: text.into_owned() })
        }
        Given { value: DeValue::String(_), .. } => Err(given.refuse("must not be empty")),
        other => Err(wrong_type(&other, "a string")),
    }
}

fn wrong_type(given: &Given<DeValue<'_>>, wanted: &str) -> Error {
    let found = given.value.type_str();
    let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
    given.refuse(format_args!("must be {wanted}, not {article} {found}"))
}
