//! The manual pages: of each command from its clap definition, of the configuration from its table of settings.
//!
//! The help of a command ends with sections of its own: a line with the heading and a colon, then terms that are indented
//! by two, each above what it means, which is indented further.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use volctl::config::{SETTINGS, Setting, SettingValue};

const MANUAL: &str = "volctl";
const SEE_ALSO: &[(&str, &str)] = &[("volctl", "1"), ("volctld", "8"), ("volctl.toml", "5")];

/// Every page by the name of its file.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let mut volctl = volctl::cli::definition().disable_help_subcommand(true);
    volctl.build();
    let mut pages = vec![settings_page(), command_page(volctl::daemon::definition(), "8")];
    add_pages(&volctl, &mut pages);
    pages
}

fn add_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    pages.push(command_page(command.clone(), "1"));
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        add_pages(command, pages);
    }
}

fn command_page(mut command: Command, section: &str) -> (String, Vec<u8>) {
    let usage = command.render_usage().to_string();
    let command = command.override_usage(usage.trim_start_matches("Usage: ").to_owned());
    let mut ending = Roff::new();
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    for (heading, items) in help_sections(&command) {
        add_items(&mut ending, &heading, items);
    }
    add_see_also(&mut ending, &name);
    let has_subcommands = command.get_subcommands().any(|command| !command.is_hide_set());
    let man = Man::new(command).section(section).source("volctl").manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    if has_subcommands {
        man.render_subcommands_section(&mut page).unwrap();
    }
    ending.to_writer(&mut page).unwrap();
    (man.get_filename(), page)
}

/// A term, and what it means.
type Item = (String, String);

/// The sections that end a command's help, each with its heading.
pub fn help_sections(command: &Command) -> Vec<(String, Vec<Item>)> {
    let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let mut sections: Vec<(String, Vec<Item>)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim_start().to_owned();
        match (indent, sections.last_mut()) {
            (0, _) => sections.push((word.trim_end_matches(':').to_owned(), Vec::new())),
            (2, Some((_, items))) => items.push((word, String::new())),
            (_, Some((_, items))) => items.last_mut().unwrap().1.push_str(&word),
            _ => panic!("{line} stands below no heading"),
        }
    }
    sections
}

fn add_items(page: &mut Roff, heading: &str, items: Vec<Item>) {
    page.control("SH", [heading.to_uppercase().as_str()]);
    for (term, meaning) in items {
        page.control("TP", []).text([bold(term)]).text([roman(meaning)]);
    }
}

fn add_see_also(page: &mut Roff, own: &str) {
    page.control("SH", ["SEE ALSO"]);
    let others = SEE_ALSO.iter().filter(|(name, _)| *name != own);
    let separator = |at: usize| roman(if at == 0 { "" } else { ", " });
    page.text(
        others
            .enumerate()
            .flat_map(|(at, (name, section))| [separator(at), bold(*name), roman(format!("({section})"))])
            .collect::<Vec<_>>(),
    );
}

fn settings_page() -> (String, Vec<u8>) {
    let mut page = Roff::new();
    page.control("TH", ["volctl.toml", "5", "", "volctl", MANUAL]);
    page.control("SH", ["NAME"]).text([roman("volctl.toml - configuration of volctld")]);
    page.control("SH", ["SYNOPSIS"]).text([italic("/etc/volctl/config.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in [
        "The file is TOML. volctld reads it when it starts, and at SIGHUP, when only the log's filter is taken over. A volctld \
         that an ordinary user starts reads $XDG_CONFIG_HOME/volctl/config.toml; --config names another file. Only what is \
         marked as needed must be set, and without a file all of that may come from the environment.",
        "A duration is a string such as \"30s\", \"5m\", \"1h30m\" or \"400d\", or an integer of seconds. An unknown key or \
         section is an error that names the nearest known one. \"volctl config check\" says everything that is wrong in a \
         file, and \"volctl config import\" makes one from another tool's.",
        "The secret key is looked for in CLOUDSTACK_SECRET in the environment, in secret_key, in secret_key_file, and in the \
         systemd credential called secret; the first that is there counts. It is an error to set both secret_key and \
         secret_key_file.",
    ] {
        page.control("PP", []).text([roman(paragraph)]);
    }
    for (section, settings) in SETTINGS {
        page.control("SH", [format!("[{section}]").as_str()]);
        for setting in *settings {
            page.control("TP", []).text([bold(setting.key), roman(term(setting))]).text([roman(setting.about)]);
        }
    }
    let environment = [
        ("CLOUDSTACK_ENDPOINT", "Overrides endpoint."),
        ("CLOUDSTACK_KEY", "Overrides api_key."),
        ("CLOUDSTACK_SECRET", "Overrides secret_key and secret_key_file."),
        ("VOLCTLD_LOG", "Overrides log."),
    ];
    let owned = |(term, meaning): (&str, &str)| (term.to_owned(), meaning.to_owned());
    add_items(&mut page, "Environment", environment.into_iter().map(owned).collect());
    page.control("SH", ["EXAMPLES"]).control("EX", []);
    for line in [
        "[cloudstack]",
        "endpoint = \"https://cloud.example/client/api\"",
        "api_key = \"...\"",
        "secret_key_file = \"/etc/volctl/secret\"",
    ] {
        page.text([roman(line)]);
    }
    page.control("EE", []);
    add_see_also(&mut page, "volctl.toml");
    ("volctl.toml.5".to_owned(), page.to_roff().into_bytes())
}

fn term(setting: &Setting) -> String {
    let kind = setting.kind.name();
    match setting.value {
        SettingValue::Default(toml) => format!(" ({kind}, default {toml})"),
        SettingValue::Example(toml) => format!(" ({kind}, such as {toml})"),
    }
}
