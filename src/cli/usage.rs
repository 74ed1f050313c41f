//! What cannot be parsed: clap's help, version and errors, the errors in the shape of all others.

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;

use super::answer::Refusal;
use super::render::{Format, Output};
use crate::error::{Error, Kind};

/// Prints what clap has to say, and says the exit code.
pub fn answer(error: &clap::Error, line: &[OsString]) -> u8 {
    let output = Output::new(if wants_json(line) { Format::Json } else { Format::Text });
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output.help(&error.render()),
        _ => output.refuse(&Box::<Refusal>::from(usage_error(error, line))),
    }
}

/// Whether `--json` stands anywhere on the line: where it could not be parsed, this must do.
fn wants_json(line: &[OsString]) -> bool {
    line.iter().take_while(|word| *word != OsStr::new("--")).any(|word| word == OsStr::new("--json"))
}

/// `volctl snapshot create --help`: that of the command that was meant, as far as it is known.
fn help_command(line: &[OsString]) -> String {
    let mut command = &super::definition();
    let mut path = "volctl".to_owned();
    for word in line.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(subcommand) = command.find_subcommand(word) {
            command = subcommand;
            path = format!("{path} {}", command.get_name());
        }
    }
    format!("see {path} --help")
}

/// Clap's text is an error line, perhaps with a list, then tips, the usage and a pointer to the help.
fn usage_error(error: &clap::Error, line: &[OsString]) -> Error {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Error::new(Kind::Usage, "a command is missing").hint(help_command(line));
    }
    let text = error.render().to_string();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> = lines().take_while(|line| !line.starts_with("tip:") && !line.starts_with("Usage:")).collect();
    let message = said.join(" ");
    let message = message.trim_start_matches("error: ").trim_end_matches("For more information, try '--help'.").trim();
    let tips = lines().filter_map(|line| line.strip_prefix("tip:")).map(str::trim);
    // Clap says of each mistyped option how it would be a value.
    let tips: Vec<&str> = tips.filter(|tip| !tip.starts_with("to pass '-")).collect();
    let usage = lines().find_map(|line| line.strip_prefix("Usage:")).map(|usage| format!("usage:{usage}"));
    let hint = if tips.is_empty() { usage } else { Some(tips.join("; ")) };
    let hint = hint.unwrap_or_else(|| help_command(line));
    Error::new(Kind::Usage, message).hint(hint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn error(line: &str) -> Error {
        let line: Vec<OsString> =
            std::iter::once("volctl").chain(line.split_whitespace()).map(OsString::from).collect();
        usage_error(&Cli::try_parse_from(&line).unwrap_err(), &line)
    }

    #[test]
    fn errors_are_one_sentence_and_a_hint() {
        for (line, message, hint) in [
            ("", "a command is missing", "see volctl --help"),
            ("snapshot", "a command is missing", "see volctl snapshot --help"),
            ("ls --state", "a value is required for '--state <STATE>' but none was supplied", "see volctl ls --help"),
            ("attach x --size", "unexpected argument '--size' found", "usage: volctl attach"),
            ("recovr", "unrecognized subcommand 'recovr'", "a similar subcommand exists: 'recover'"),
            ("detach x --forse", "unexpected argument '--forse' found", "a similar argument exists: '--force'"),
            (
                "attach",
                "the following required arguments were not provided: <VOLUME>...",
                "usage: volctl attach <VOLUME>...",
            ),
        ] {
            let error = error(line);
            assert_eq!(error.message, message, "{line}");
            assert!(error.hint.as_deref().unwrap().starts_with(hint), "{line}: {:?}", error.hint);
        }
        assert!(error("create x --size 10GB").message.contains("powers of 1024"));
    }

    #[test]
    fn json_is_seen_up_to_the_double_dash() {
        let line = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&line("volctl ls --what --json")));
        assert!(!wants_json(&line("volctl show -- --json")));
    }
}
