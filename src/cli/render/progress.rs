//! The progress line: one line on a terminal's stderr with the step under way and its age.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::words;
use crate::api::Operation;
use crate::model::printable;

/// The line; on anything but a terminal it draws nothing.
pub struct Progress(ProgressBar);

impl Progress {
    /// A line that is not drawn before the first [`show`](Self::show).
    pub(super) fn new(visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Whether there is anybody to draw for.
    pub fn visible(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Draws the line anew.
    pub fn show(&self, line: &str) {
        self.0.set_message(line.to_owned());
        self.0.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What a wait is at: `attach data1: waiting for device (12s)`, and before it how many of several have ended.
pub fn line(
    label: &str,
    operation: Option<&Operation>,
    lost: bool,
    (ended, of): (usize, usize),
    now: Timestamp,
) -> String {
    let count = if of > 1 { format!("{ended} of {of} ended; ") } else { String::new() };
    let step = match operation {
        _ if lost => "connecting to the daemon again".to_owned(),
        Some(operation) => format!("{} ({})", printable(&operation.step), words::ago(now, operation.updated_at)),
        None => "waiting for the daemon".to_owned(),
    };
    format!("{count}{}: {step}", printable(label))
}
