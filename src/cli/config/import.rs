//! `volctl config import`: the profiles of cmk (`~/.cmk/config`) and of the `cs` tool (`~/.cloudstack.ini`).

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::mistakes;
use crate::cli::answer::Answer;
use crate::cli::render::{Output, Page};
use crate::config::{Environment, Paths};
use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// Such a file is far smaller.
const LARGEST: u64 = 1 << 20;

/// Below the home directory.
const SOURCES: [&str; 2] = [".cmk/config", ".cloudstack.ini"];

/// Make a configuration from a profile of cmk or of the cs tool
///
/// Endpoint and key go to the configuration, the secret key to a file beside it that only its owner can read; it is
/// never printed. Nothing is written over, and what was written is checked.
#[derive(Args, Debug)]
pub struct Import {
    /// Which profile [default: the one that cmk has selected, cloudstack of the cs tool, or the only one]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The file to read [default: ~/.cmk/config or ~/.cloudstack.ini, whichever is there]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The configuration to write [default: that of the caller's daemon]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Import {
    pub fn run(self, output: &Output) -> Answer<u8> {
        let environment = Environment::of_process();
        let from = self.from.map_or_else(found, Ok)?;
        let sections = read(&from)?;
        let profile = pick(&from, &sections, self.profile.as_deref())?;
        let to = self.to.unwrap_or_else(|| Paths::of(&environment).config);
        let to = std::path::absolute(&to).map_err(|error| cannot("write", &to, &error))?;
        let secret = to.with_file_name("secret");
        write(&secret, profile.need(&from, &["secretkey", "secret"])?)?;
        let kept = write(&to, &configuration(&from, profile, &secret)?).and_then(|()| verify(&to, &environment));
        if let Err(error) = kept {
            fs::remove_file(&secret).ok();
            return Err(error.into());
        }
        let document = json!({
            "file": to.display().to_string(), "secret_key_file": secret.display().to_string(),
            "from": from.display().to_string(), "profile": profile.name,
        });
        let [to, secret, from] = [&to, &secret, &from].map(|path| shown(path));
        let text = format!(
            "{to} written from the profile {} of {from}, the secret key to {secret}\n",
            printable(&profile.name)
        );
        Ok(output.answer(Ok(document.into()), |_: &serde_json::Value| Page {
            text: text.clone(),
            quiet: format!("{to}\n"),
            notes: Vec::new(),
        }))
    }
}

/// A section of such a file.
struct Profile {
    name: String,
    entries: Vec<(String, String)>,
}

impl Profile {
    fn get(&self, names: &[&str]) -> Option<&str> {
        let named = |name: &&str| self.entries.iter().find(|(key, _)| key == name);
        names.iter().find_map(named).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn need(&self, from: &Path, names: &[&str]) -> Result<&str> {
        self.get(names).ok_or_else(|| {
            let (profile, names) = (printable(&self.name), names.join(" or "));
            Error::new(Kind::Config, format_args!("{}: the profile {profile} has no {names}", shown(from)))
                .hint("volctl needs the endpoint, an API key and its secret key; it does not log in with a password")
        })
    }

    /// Whether it is a place to connect to: cmk keeps its own settings in a section too.
    fn is_profile(&self) -> bool {
        self.get(&["url", "endpoint"]).is_some()
    }
}

/// The file that is there.
fn found() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let there: Vec<PathBuf> = SOURCES.iter().map(|name| home.join(name)).filter(|path| path.exists()).collect();
    match there.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::new(Kind::NotFound, format_args!("{} has neither {}", shown(&home), SOURCES.join(" nor ")))
            .hint("name the file with --from")),
        _ => Err(Error::new(Kind::Ambiguous, format_args!("{} has both {}", shown(&home), SOURCES.join(" and ")))
            .hint("choose one with --from")),
    }
}

/// The sections of an INI file. What is no section and no assignment is a comment to us, as it may hold a secret.
fn read(path: &Path) -> Result<Vec<Profile>> {
    let mut text = String::new();
    let file = fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text));
    file.map_err(|error| cannot("read", path, &error))?;
    // cmk's own settings are in front of the first section.
    let mut sections = vec![Profile { name: String::new(), entries: Vec::new() }];
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']))
    {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push(Profile { name: name.trim().to_owned(), entries: Vec::new() });
        } else if let (Some(section), Some((key, value))) = (sections.last_mut(), line.split_once(['=', ':'])) {
            section.entries.push((key.trim().to_lowercase(), value.trim().to_owned()));
        }
    }
    Ok(sections)
}

fn pick<'a>(from: &Path, sections: &'a [Profile], wanted: Option<&str>) -> Result<&'a Profile> {
    let profiles: Vec<&Profile> = sections.iter().filter(|section| section.is_profile()).collect();
    let selected = sections.iter().find_map(|section| section.get(&["profile"])).filter(|_| wanted.is_none());
    let name = wanted.or(selected).or_else(|| profiles.iter().any(|p| p.name == "cloudstack").then_some("cloudstack"));
    let listed = profiles.iter().map(|profile| printable(&profile.name)).collect::<Vec<_>>().join(", ");
    match (name, profiles.as_slice()) {
        (Some(name), all) => all.iter().find(|profile| profile.name == name).copied().ok_or_else(|| {
            Error::new(Kind::NotFound, format_args!("{} has no profile {}", shown(from), printable(name)))
                .hint(format_args!("it has: {listed}"))
        }),
        (None, [one]) => Ok(one),
        (None, []) => Err(Error::new(Kind::NotFound, format_args!("{} has no profile with a URL", shown(from)))),
        (None, _) => Err(Error::new(Kind::Ambiguous, format_args!("{} has several profiles: {listed}", shown(from)))
            .hint("choose one with --profile")),
    }
}

fn configuration(from: &Path, profile: &Profile, secret: &Path) -> Result<String> {
    let endpoint = profile.need(from, &["url", "endpoint"])?;
    let key = profile.need(from, &["apikey", "key"])?;
    // JSON's strings are TOML's.
    let [endpoint, key, secret] = [endpoint, key, &secret.to_string_lossy()].map(|text| json!(text));
    let authority = profile.get(&["verify"]).filter(|path| Path::new(path).is_absolute());
    let authority = authority.map_or_else(String::new, |path| format!("ca_file = {}\n", json!(path)));
    Ok(format!("[cloudstack]\nendpoint = {endpoint}\napi_key = {key}\nsecret_key_file = {secret}\n{authority}"))
}

/// Writes a file that is not there yet, for its owner only.
fn write(path: &Path, text: &str) -> Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| {
        let written = writeln!(file, "{}", text.trim_end()).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(path)))
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::new(Kind::Conflict, format_args!("{} is there already, and is not written over", shown(path)))
                .hint("move it away, or write elsewhere with --to")
        }
        _ => cannot("write", path, &error),
    })
}

/// Reads what was written as the daemon will; what it would not take is not kept.
fn verify(path: &Path, environment: &Environment) -> Result<()> {
    match mistakes(Some(path), environment).into_iter().next() {
        None => Ok(()),
        Some(mistake) => {
            fs::remove_file(path).ok();
            Err(mistake.doing("nothing was imported"))
        }
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Config, format_args!("cannot {what} {}: {error}", shown(path)))
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
