//! `volctl config check`: what is wrong in a configuration, and with `--online` what it meets.

use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ended, Stdio};

use clap::Args;
use serde_json::{Value, json};

use super::mistakes;
use crate::api::{Finding, Verdict};
use crate::cli::answer::Answer;
use crate::cli::render::{Cell, Column, Narrow, Output, Page, Screen, Table};
use crate::config::{Environment, Paths};
use crate::error::{Error, Kind, Result};
use crate::model::printable;

const COLUMNS: &[Column] = &[Column::new("CHECK"), Column::new("STATE"), Column::new("MESSAGE")];
const NARROWING: &[Narrow] = &[Narrow::Wrap("MESSAGE", 24)];

/// Say everything that is wrong in a configuration; exit code 1 where something is
///
/// It is read as the daemon would read it if the caller started it: with the caller's environment and rights. Without
/// --online neither the daemon nor CloudStack is asked.
#[derive(Args, Debug)]
pub struct Check {
    /// The configuration [default: that of the caller's daemon]
    file: Option<PathBuf>,
    /// Look at CloudStack and this machine too: endpoint, TLS, clock, key, each right of the role, project, this VM, free
    /// slots, VM snapshots, state directory, udev, listeners
    ///
    /// It ends within 30 seconds, changes nothing, and does not disturb a daemon that runs.
    #[arg(long)]
    online: bool,
    /// The state directory that --online looks at [default: that of the caller's daemon]
    #[arg(long, value_name = "PATH", requires = "online")]
    state_dir: Option<PathBuf>,
}

impl Check {
    pub fn run(self, socket: &Path, output: &Output) -> Answer<u8> {
        let environment = Environment::of_process();
        let mistakes = mistakes(self.file.as_deref(), &environment);
        let findings = match (self.online, mistakes.is_empty()) {
            (true, true) => self.look(socket)?,
            (true, false) => vec![not_looked()],
            (false, _) => Vec::new(),
        };
        let path = self.file.unwrap_or_else(|| Paths::of(&environment).config);
        let ok = mistakes.is_empty() && findings.iter().all(|finding| finding.state == Verdict::Ok);
        let mut document = json!({ "file": path.display().to_string(), "ok": ok, "mistakes": mistakes });
        if self.online {
            document["checks"] = json!(findings);
        }
        let screen = output.screen();
        let code = output.answer(Ok(document.into()), |document| page(document, &mistakes, &findings, &screen));
        Ok(if ok { code } else { 1 })
    }

    /// Has volctld look, which alone can talk to CloudStack, and with the caller's rights.
    fn look(&self, socket: &Path) -> Result<Vec<Finding>> {
        let program = volctld();
        let mut command = Command::new(&program);
        command.arg("--check").arg("--socket").arg(socket).stdin(Stdio::null());
        for (option, path) in [("--config", &self.file), ("--state-dir", &self.state_dir)] {
            command.args(path.iter().flat_map(|path| [option.as_ref(), path.as_os_str()]));
        }
        let ended = command.output().map_err(|error| {
            Error::new(Kind::NotFound, format_args!("{} cannot be run: {error}", shown(&program)))
                .hint("--online needs volctld beside volctl, or in PATH: install both of one version")
        })?;
        read(&ended).ok_or_else(|| {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said = printable(said.lines().next().unwrap_or("it said nothing"));
            Error::new(Kind::Internal, format_args!("{} did not check: {said}", shown(&program)))
                .hint("compare the versions: volctl --version, volctld --version")
        })
    }
}

/// The daemon's program: the one beside this, else that in PATH.
fn volctld() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("volctld"));
    beside.filter(|program| program.exists()).unwrap_or_else(|| "volctld".into())
}

fn read(ended: &Ended) -> Option<Vec<Finding>> {
    ended.status.success().then(|| serde_json::from_slice(&ended.stdout).ok()).flatten()
}

fn not_looked() -> Finding {
    Finding {
        name: "online".to_owned(),
        state: Verdict::Skipped,
        message: "not checked: the configuration has mistakes".to_owned(),
        hint: Some("correct them, then check again".to_owned()),
    }
}

fn page(document: &Value, mistakes: &[Error], findings: &[Finding], screen: &Screen) -> Page {
    let file = printable(document["file"].as_str().unwrap_or_default());
    let ok = document["ok"] == true;
    let mut text: String = mistakes.iter().map(lines).collect();
    if !findings.is_empty() {
        text += &Table::new("findings", COLUMNS, NARROWING, findings.iter().map(row)).draw(screen);
    }
    if ok {
        text += &format!("{file}: nothing is wrong\n");
    }
    Page { text, quiet: if ok { "ok\n" } else { "wrong\n" }.to_owned(), notes: Vec::new() }
}

fn lines(mistake: &Error) -> String {
    let hint = mistake.hint.as_deref().map(|hint| format!("  hint: {}\n", printable(hint)));
    format!("{}\n{}", printable(&mistake.message), hint.unwrap_or_default())
}

fn row(finding: &Finding) -> Vec<Cell> {
    let state = match finding.state {
        Verdict::Ok => "ok",
        Verdict::Bad => "bad",
        Verdict::Skipped => "skipped",
    };
    let hint = finding.hint.as_deref().map(|hint| format!("; {}", printable(hint))).unwrap_or_default();
    vec![
        Cell::text(printable(&finding.name)),
        Cell::state(state),
        Cell::text(format!("{}{hint}", printable(&finding.message))),
    ]
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
