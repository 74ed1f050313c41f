//! `volctl metrics`

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;

use super::answer::Answer;
use super::render::{self, Output, Page};
use super::session::{Request, Session};
use crate::api::{self, method};
use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// Print the daemon's metrics as OpenMetrics text, for Prometheus
///
/// Counters are kept in the state store: they outlive restarts and never go back, but begin again with a new store, which
/// Prometheus takes for the reset that it is. Asking keeps the daemon from nothing: it leaves when it is idle all the same.
#[derive(Args, Debug)]
pub struct Metrics {
    /// Write them to this file, at once and whole, for node_exporter's textfile collector; its name ends in .prom
    #[arg(long, value_name = "PATH", value_parser = parse_textfile)]
    textfile: Option<PathBuf>,
}

fn parse_textfile(path: &str) -> std::result::Result<PathBuf, String> {
    let is_read = Path::new(path).extension().is_some_and(|extension| extension == "prom");
    is_read
        .then(|| PathBuf::from(path))
        .ok_or_else(|| "node_exporter reads only files whose names end in .prom".to_owned())
}

impl Metrics {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let request = Request::new(method::SYSTEM_METRICS, "read the metrics", &serde_json::json!({}))?;
        let document = session.ask(request)?;
        if let Some(path) = &self.textfile {
            let metrics: api::Metrics = render::read(&document)?;
            write(path, &render::exposition::text(&metrics))?;
        }
        let to_stdout = self.textfile.is_none();
        let page = |metrics: &api::Metrics| {
            let text = if to_stdout { render::exposition::text(metrics) } else { String::new() };
            Page { quiet: text.clone(), text, notes: Vec::new() }
        };
        Ok(output.answer(Ok(document), page))
    }
}

/// Puts a file in place whole: whoever reads the directory sees the former one or this one.
fn write(path: &Path, text: &str) -> Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = write_draft(&draft, text).and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| {
        // What was left of it is nobody's; where it never was there is nothing to remove.
        let _ = fs::remove_file(&draft);
        Error::new(Kind::Internal, format!("{} cannot be written: {error}", printable(&path.to_string_lossy())))
            .hint("give a path in a directory that this user may write to")
    })
}

fn write_draft(draft: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(draft)?;
    // node_exporter is another user, whatever the umask here.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())
}
