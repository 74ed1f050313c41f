//! `man/` and the README's table of commands are what the clap definition says. `UPDATE_GENERATED=1` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of a folder by name.
type Files = BTreeMap<String, Vec<u8>>;

#[test]
fn man_pages_are_up_to_date() {
    compare("man", |folder| clap_mangen::generate_to(volctl::cli::definition(), folder).unwrap());
}

/// Between these lines of the README stands the table.
const TABLE: (&str, &str) = ("<!-- commands: generated -->\n", "<!-- end of commands -->\n");

#[test]
fn the_readmes_commands_are_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(TABLE.0).unwrap();
    let (found, after) = rest.split_once(TABLE.1).unwrap();
    let mut definition = volctl::cli::definition();
    definition.build();
    let mut table = "| command | what it does |\n| --- | --- |\n".to_owned();
    add_rows(&definition, &mut table);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, [before, TABLE.0, &table, TABLE.1, after].concat()).unwrap();
    } else {
        assert_eq!(found, table, "README.md has drifted: run the tests with UPDATE_GENERATED=1");
    }
}

/// A row for each command that does something by itself.
fn add_rows(command: &clap::Command, table: &mut String) {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        if !command.is_subcommand_required_set() {
            let values: String = command.get_positionals().map(|value| format!(" {value}")).collect();
            let options: String =
                command.get_arguments().filter(|arg| !arg.is_positional()).filter_map(own_option).collect();
            let usage =
                format!("volctl {}{values}{options}", command.get_bin_name().unwrap().trim_start_matches("volctl "));
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            *table += &format!("| `{}` | {} |\n", usage.replace('|', "\\|"), about.replace('|', "\\|"));
        }
        add_rows(command, table);
    }
}

/// An option that not every command or every change has.
fn own_option(option: &clap::Arg) -> Option<String> {
    let is_own = option.get_help_heading().is_none() && !option.is_hide_set();
    let name = option.get_long().filter(|name| is_own && *name != "help")?;
    let value = option.get_action().takes_values().then(|| option.get_value_names()).flatten();
    let value: String = value.unwrap_or_default().iter().map(|value| format!(" {value}")).collect();
    let text = format!("--{name}{value}");
    Some(if option.is_required_set() { format!(" {text}") } else { format!(" [{text}]") })
}

fn compare(name: &str, generate: impl Fn(&Path)) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::remove_dir_all(&folder).ok();
        fs::create_dir(&folder).unwrap();
        generate(&folder);
    }
    let expected = tempfile::tempdir().unwrap();
    generate(expected.path());
    let (expected, found) = (files(expected.path()), files(&folder));
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected), "{name}/: run the tests with UPDATE_GENERATED=1");
    for (file, content) in &expected {
        assert!(found[file] == *content, "{name}/{file} has drifted: run the tests with UPDATE_GENERATED=1");
    }
}

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}
