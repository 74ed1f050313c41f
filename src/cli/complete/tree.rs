//! What the clap tree has at the end of a line.

use clap::{Arg, Command};

use super::Candidate;
use super::names::Names;

/// What may stand at the end of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of these words.
    Words(Vec<Candidate>),
    /// A name that the daemon knows, after the prefix, except those that were typed before.
    Names { of: Names, prefix: String, typed: Vec<String> },
    /// A file.
    Files,
}

/// How far the words before have led.
struct Place<'a> {
    command: &'a Command,
    /// `ops show`
    path: Vec<&'a str>,
    /// The option whose value is next.
    option: Option<&'a Arg>,
    /// What was given beside options.
    values: Vec<String>,
    /// `--` was given.
    options_over: bool,
}

/// What may follow these words in the place of the last one.
pub fn wanted(mut root: Command, before: &[String], last: &str) -> Wanted {
    root.build();
    let place = place(&root, before);
    if let Some(option) = place.option {
        return place.value_of(option, String::new());
    }
    if !place.options_over && last.starts_with('-') {
        return match last.split_once('=') {
            Some((name, _)) => match place.option_named(name) {
                Some(option) => place.value_of(option, format!("{name}=")),
                None => Wanted::Words(Vec::new()),
            },
            None => Wanted::Words(place.options()),
        };
    }
    if place.values.is_empty() && place.command.has_subcommands() {
        return Wanted::Words(place.subcommands());
    }
    match place.positional() {
        Some(positional) => place.value_of(positional, String::new()),
        None => Wanted::Words(Vec::new()),
    }
}

fn place<'a>(root: &'a Command, words: &[String]) -> Place<'a> {
    let mut place = Place { command: root, path: Vec::new(), option: None, values: Vec::new(), options_over: false };
    for word in words {
        if place.option.take().is_some() {
            continue;
        }
        if !place.options_over && word == "--" {
            place.options_over = true;
        } else if !place.options_over && word.starts_with('-') && word != "-" {
            place.option = place.option_named(word).filter(|option| option.get_action().takes_values());
        } else if let Some(command) = place.command.find_subcommand(word).filter(|_| place.values.is_empty()) {
            place.command = command;
            place.path.push(command.get_name());
        } else {
            place.values.push(word.clone());
        }
    }
    place
}

impl<'a> Place<'a> {
    fn option_named(&self, word: &str) -> Option<&'a Arg> {
        let short = word.strip_prefix('-').and_then(|rest| rest.chars().next());
        let long = word.strip_prefix("--");
        let is_it = |arg: &&Arg| match long {
            Some(long) => arg.get_long() == Some(long),
            None => short.is_some() && arg.get_short() == short,
        };
        self.command.get_opts().find(is_it)
    }

    fn options(&self) -> Vec<Candidate> {
        let shown = self.command.get_arguments().filter(|arg| !arg.is_hide_set());
        let option = |arg: &Arg| Some(Candidate::new(format!("--{}", arg.get_long()?), help(arg.get_help())));
        shown.filter_map(option).collect()
    }

    fn subcommands(&self) -> Vec<Candidate> {
        let shown = self.command.get_subcommands().filter(|command| !command.is_hide_set());
        shown.map(|command| Candidate::new(command.get_name(), help(command.get_about()))).collect()
    }

    /// The positional whose turn it is; the last one takes more where it takes several.
    fn positional(&self) -> Option<&'a Arg> {
        let all: Vec<&Arg> = self.command.get_positionals().collect();
        let takes_more = |arg: &&&Arg| arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        all.get(self.values.len()).or_else(|| all.last().filter(takes_more)).copied()
    }

    fn value_of(&self, arg: &Arg, prefix: String) -> Wanted {
        let possible = arg.get_possible_values();
        if !possible.is_empty() {
            let shown = possible.iter().filter(|value| !value.is_hide_set());
            let word = |value: &clap::builder::PossibleValue| {
                Candidate::new(format!("{prefix}{}", value.get_name()), help(value.get_help()))
            };
            return Wanted::Words(shown.map(word).collect());
        }
        let names = arg.get_value_names().unwrap_or_default();
        let name = names.first().map_or("", |name| name.as_str());
        if matches!(name, "FILE" | "PATH" | "DIR" | "DIRECTORY") {
            return Wanted::Files;
        }
        match Names::of(&self.path, name) {
            Some(of) => Wanted::Names { of, prefix, typed: self.values.clone() },
            None => Wanted::Words(Vec::new()),
        }
    }
}

/// The first line of a help.
fn help(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().expect("a line has a word");
        wanted(crate::cli::definition(), before, last)
    }

    fn words(line: &str) -> Vec<String> {
        match at(line) {
            Wanted::Words(candidates) => candidates.into_iter().map(|candidate| candidate.value).collect(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_options_and_values_come_from_the_tree() {
        let commands = words("");
        assert!(commands.contains(&"attach".to_owned()) && !commands.contains(&"complete".to_owned()), "{commands:?}");
        assert!(words("ops ").contains(&"cancel".to_owned()));
        assert!(words("attach -").contains(&"--dry-run".to_owned()));
        assert!(words("--json attach --").contains(&"--json".to_owned()), "global options are everywhere");
        assert_eq!(words("create "), Vec::<String>::new());
        assert_eq!(at("--socket "), Wanted::Files);
        assert_eq!(at("find "), Wanted::Files);
    }

    #[test]
    fn each_verb_wants_its_own_names() {
        let names = |of, prefix: &str, typed: &[&str]| Wanted::Names {
            of,
            prefix: prefix.to_owned(),
            typed: typed.iter().map(|word| (*word).to_owned()).collect(),
        };
        assert_eq!(at("attach "), names(Names::Free, "", &[]));
        assert_eq!(at("attach data1 "), names(Names::Free, "", &["data1"]));
        assert_eq!(at("attach --vm "), names(Names::Vms, "", &[]));
        assert_eq!(at("attach data1 --vm=w"), names(Names::Vms, "--vm=", &["data1"]));
        assert_eq!(at("detach -- d"), names(Names::Attached, "", &[]));
        assert_eq!(at("ops wait "), names(Names::Unfinished, "", &[]));
        assert_eq!(at("unexport "), names(Names::Exports, "", &[]));
        assert_eq!(words("show data1 "), Vec::<String>::new(), "it takes one");
    }
}
