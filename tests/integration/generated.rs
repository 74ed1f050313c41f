//! `man/`, the README's tables and the template of the configuration are what the clap definitions and the table of
//! settings say. `UPDATE_GENERATED=1` writes them anew.

mod pages;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use volctl::cloudstack::COMMANDS;
use volctl::config::{SETTINGS, Setting, SettingValue};

/// The files of a folder by name.
type Files = BTreeMap<String, Vec<u8>>;

#[test]
fn man_pages_are_up_to_date() {
    compare("man", |folder| {
        for (name, page) in pages::all() {
            fs::write(folder.join(name), page).unwrap();
        }
    });
}

#[test]
fn groff_has_nothing_to_say_about_the_man_pages() {
    for (name, page) in pages::all() {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-ww", "-z"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut groff = groff.spawn().unwrap();
        groff.stdin.take().unwrap().write_all(&page).unwrap();
        let output = groff.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
    }
}

#[test]
fn every_command_has_examples_that_the_command_line_takes() {
    let mut definition = volctl::cli::definition().disable_help_subcommand(true);
    definition.build();
    try_examples(&definition, &[]);
}

/// Each example of a command, and of those below it, is one that is parsed as that command, or for a group of commands as
/// one of the group.
fn try_examples(command: &clap::Command, path: &[&str]) {
    let sections = pages::help_sections(command);
    let (_, examples) = sections
        .iter()
        .find(|(heading, _)| heading == "Examples")
        .unwrap_or_else(|| panic!("{path:?} has no examples"));
    for (line, meaning) in examples {
        assert!(!meaning.is_empty(), "{line}: what does it do?");
        assert!(line.len() <= 72, "{line}: longer than a line of the manual page");
        let words = shlex::split(line).unwrap();
        let words = words.split(|word| [">", "<", "|"].contains(&word.as_str())).next().unwrap();
        let matches = volctl::cli::definition().try_get_matches_from(words);
        let matches = matches.unwrap_or_else(|error| panic!("{line}: {error}"));
        let taken = std::iter::successors(matches.subcommand(), |(_, below)| below.subcommand());
        let taken: Vec<&str> = taken.map(|(name, _)| name).collect();
        let is_alone = command.get_subcommands().all(clap::Command::is_hide_set);
        assert!(
            taken.starts_with(path) && (!is_alone || taken == path),
            "{line}: an example of {taken:?}, not {path:?}"
        );
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        try_examples(below, &[path, &[below.get_name()]].concat());
    }
}

#[test]
fn the_readmes_commands_are_up_to_date() {
    let mut definition = volctl::cli::definition();
    definition.build();
    let mut table = "| command | what it does |\n| --- | --- |\n".to_owned();
    add_rows(&definition, &mut table);
    compare_table("commands", &table);
}

#[test]
fn the_readmes_settings_are_up_to_date() {
    let default = |value| match value {
        SettingValue::Default(toml) => format!(" (`{toml}`)"),
        SettingValue::Example(_) => String::new(),
    };
    let key = |setting: &Setting| format!("`{}`{}", setting.key, default(setting.value));
    let row = |(section, settings): &(&str, &[Setting])| {
        format!("| `[{section}]` | {} |\n", settings.iter().map(key).collect::<Vec<_>>().join(", "))
    };
    let rows: String = SETTINGS.iter().map(row).collect();
    compare_table("settings", &format!("| section | keys (and defaults) |\n| --- | --- |\n{rows}"));
}

#[test]
fn the_readmes_table_of_rights_is_up_to_date() {
    let row = |(command, without): &(&str, &str)| format!("| `{command}` | {without} |\n");
    let rows: String = COMMANDS.iter().map(row).collect();
    compare_table("rights", &format!("| command | without it |\n| --- | --- |\n{rows}"));
}

/// The README's table between the lines that name it.
fn compare_table(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let (begin, end) = (format!("<!-- {name}: generated -->\n"), format!("<!-- end of {name} -->\n"));
    // Several tests write it.
    static README: Mutex<()> = Mutex::new(());
    let _alone = README.lock().unwrap();
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(&begin).unwrap();
    let (found, after) = rest.split_once(&end).unwrap();
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, [before, &begin, table, &end, after].concat()).unwrap();
    } else {
        assert_eq!(found, table, "README.md has drifted: run the tests with UPDATE_GENERATED=1");
    }
}

#[test]
fn the_template_of_the_configuration_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/config.toml");
    let template = template();
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, &template).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert_eq!(found, template, "packaging/config.toml has drifted: run the tests with UPDATE_GENERATED=1");
}

/// Every setting, each a comment with its default or an example.
fn template() -> String {
    let mut template =
        "# volctld's configuration: see volctl.toml(5). `volctl config check` says what is wrong with it before \
                        a restart.\n# What is commented out is the default, or an example where there is none.\n"
            .to_owned();
    for (section, settings) in SETTINGS {
        template += &format!("\n[{section}]\n");
        for Setting { key, value, about, .. } in *settings {
            let mark = if *key == INSTALLED { "" } else { "#" };
            template += &format!("# {about}\n{mark}{key} = {}\n", value.toml());
        }
    }
    template
}

/// The setting that the packages set: its file is theirs.
const INSTALLED: &str = "secret_key_file";

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
