//! The log: structured, to journald where stderr leads there, else as lines on stderr; its filter is changed by a reload.

use std::env;
use std::os::linux::fs::MetadataExt;

use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::DEFAULT_LOG;
use crate::error::{Error, Kind, Result};

/// Names the filter in the environment, which wins over the configuration.
const VARIABLE: &str = "VOLCTLD_LOG";

/// The log's filter.
#[derive(Clone)]
pub(super) struct Log(Handle<Targets, Registry>);

impl Log {
    /// Begins to log.
    pub fn start() -> Self {
        let (filter, handle) = reload::Layer::new(targets(&chosen(DEFAULT_LOG)).unwrap_or_default());
        let registry = tracing_subscriber::registry();
        match tracing_journald::layer().ok().filter(|_| leads_to_journald()) {
            // journald writes field names as they are: `journalctl OPERATION=...`
            Some(journal) => registry.with(journal.with_field_prefix(None).with_filter(filter)).init(),
            None => registry.with(lines().with_filter(filter)).init(),
        }
        Self(handle)
    }

    /// Takes over what the configuration says.
    pub fn filter(&self, configured: &str) -> Result<()> {
        let targets = targets(&chosen(configured))?;
        self.0.reload(targets).map_err(|error| Error::new(Kind::Internal, format!("the log's filter stays: {error}")))
    }
}

fn chosen(configured: &str) -> String {
    env::var(VARIABLE).unwrap_or_else(|_| configured.to_owned())
}

fn targets(filter: &str) -> Result<Targets> {
    filter.parse().map_err(|error| Error::new(Kind::Config, format!("the log's filter cannot be read: {error}")))
}

/// Whether stderr is the stream that journald gave this process (`JOURNAL_STREAM`, systemd.exec(5)).
fn leads_to_journald() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino()))
}

/// One line an event. Its `message_id` is for journald's readers only.
fn lines<S>() -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let fields = debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        "message_id" => Ok(()),
        name => write!(writer, "{name}={value:?}"),
    });
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    layer.fmt_fields(fields.delimited(" "))
}
