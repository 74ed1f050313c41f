//! Progress: on a terminal's stderr a line for each thing that is waited for, with the step under way and its age.

use std::cell::RefCell;

use console::measure_text_width;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::table::elided_names;
use super::words;
use crate::api::Operation;
use crate::model::printable;

/// What stands before a name and behind it.
const SPINNER_AND_COLON: usize = 4;

/// With the verb; a step loses its end before a name is shorter.
const SHORTEST_NAME: usize = 24;

/// The lines; on anything but a terminal nothing is drawn.
pub struct Progress {
    lines: MultiProgress,
    bars: RefCell<Vec<ProgressBar>>,
}

impl Progress {
    /// Nothing is drawn before the first [`show`](Self::show).
    pub(super) fn new(visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { lines: MultiProgress::with_draw_target(target), bars: RefCell::default() }
    }

    /// Whether there is anybody to draw for.
    pub fn visible(&self) -> bool {
        !self.lines.is_hidden()
    }

    /// How many lines and columns the terminal has.
    pub fn size(&self) -> (usize, usize) {
        let (lines, columns) = console::Term::stderr().size();
        (usize::from(lines), usize::from(columns))
    }

    /// Draws these lines in place of the last ones.
    pub fn show(&self, lines: &[String]) {
        let mut bars = self.bars.borrow_mut();
        while bars.len() > lines.len()
            && let Some(bar) = bars.pop()
        {
            self.lines.remove(&bar);
        }
        while bars.len() < lines.len() {
            let bar = self.lines.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bars.push(bar);
        }
        for (bar, line) in bars.iter().zip(lines) {
            bar.set_message(line.clone());
            bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bars.borrow().iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// One thing that is waited for.
pub struct Waiting<'a> {
    /// What was asked for.
    pub label: &'a str,
    /// Its operation, where one is known.
    pub operation: Option<&'a Operation>,
}

/// What the waits are at, a line each: `attach data1: waiting for device (12s)`; where that is too long, names lose their
/// middle. Of several the last line counts, and stands for those that find no room.
pub fn lines(
    waiting: &[Waiting<'_>],
    of: usize,
    lost: bool,
    (height, width): (usize, usize),
    now: Timestamp,
) -> Vec<String> {
    let steps: Vec<String> = waiting.iter().map(|waiting| step(waiting, lost, now)).collect();
    let names: Vec<String> = waiting.iter().map(name).collect();
    let longest = steps.iter().map(|step| measure_text_width(step)).max().unwrap_or(0);
    let names = elided_names(&names, width.saturating_sub(longest + SPINNER_AND_COLON).max(SHORTEST_NAME));
    let mut lines: Vec<String> = names.iter().zip(&steps).map(|(name, step)| format!("{name}: {step}")).collect();
    if of == 1 {
        return lines;
    }
    // The cursor stands below the last one.
    let room = height.saturating_sub(2).max(1);
    let more = lines.len().saturating_sub(room);
    lines.truncate(room);
    let ended = of - waiting.len();
    lines.push(match more {
        0 => format!("{ended} of {of} ended"),
        more => format!("and {more} more; {ended} of {of} ended"),
    });
    lines
}

fn step(waiting: &Waiting<'_>, lost: bool, now: Timestamp) -> String {
    match waiting.operation {
        _ if lost => "connecting to the daemon again".to_owned(),
        Some(operation) => format!("{} ({})", printable(&operation.step), so_far(operation, now)),
        None => "waiting for the daemon".to_owned(),
    }
}

fn name(waiting: &Waiting<'_>) -> String {
    let name = waiting.operation.and_then(|operation| Some((operation.kind, operation.volume_name.as_deref()?)));
    match name {
        Some((kind, name)) => format!("{} {}", words::word(kind).replace('_', " "), printable(name)),
        None => printable(waiting.label),
    }
}

/// How long the step takes already, next to what is usual where that is worth a word.
fn so_far(operation: &Operation, now: Timestamp) -> String {
    let taken = words::ago(now, operation.updated_at);
    match &operation.usual {
        Some(usual) if usual.to_ms >= 1000 => {
            let (from, to) = (usual.from_ms / 1000, usual.to_ms.div_ceil(1000));
            format!("usually {} here, now {taken}", words::span_between(from, to))
        }
        _ => taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_fold_where_the_terminal_is_low() {
        let now = Timestamp::UNIX_EPOCH;
        let labels: Vec<String> = (1..=9).map(|number| format!("attach data{number}")).collect();
        let waiting: Vec<Waiting> = labels.iter().map(|label| Waiting { label, operation: None }).collect();
        let high = lines(&waiting, 10, false, (24, 80), now);
        assert_eq!((high.len(), high[9].as_str()), (10, "1 of 10 ended"));
        let low = lines(&waiting, 10, false, (6, 80), now);
        assert_eq!((low.len(), low[3].as_str()), (5, "attach data4: waiting for the daemon"));
        assert_eq!(low[4], "and 5 more; 1 of 10 ended");
        assert_eq!(lines(&waiting[..1], 1, true, (6, 80), now), ["attach data1: connecting to the daemon again"]);
    }

    #[test]
    fn a_long_name_does_not_hide_the_step() {
        let labels = ["attach production-database-primary-01-data", "attach production-database-primary-02-data"];
        let waiting = labels.map(|label| Waiting { label, operation: None });
        let lines = lines(&waiting, 2, false, (24, 60), Timestamp::UNIX_EPOCH);
        assert_eq!(lines[0], "attach production…-primary-01-data: waiting for the daemon");
        assert_ne!(lines[0], lines[1]);
    }

    #[test]
    fn what_is_usual_stands_beside_what_it_takes_now() {
        let mut operation: Operation = serde_json::from_value(serde_json::json!({
            "id": "0b5e7c1a-90ab-4cde-8f01-23456789abcd", "kind": "attach", "status": "running", "step": "waiting",
            "created_at": "1970-01-01T00:00:00Z", "updated_at": "1970-01-01T00:00:00Z"
        }))
        .unwrap();
        let now = Timestamp::from_second(31).unwrap();
        assert_eq!(so_far(&operation, now), "31s");
        let mut after = |from_ms, to_ms| {
            operation.usual = Some(crate::api::Usual { from_ms, median_ms: to_ms, to_ms });
            so_far(&operation, now)
        };
        assert_eq!(after(6100, 8300), "usually 6-9s here, now 31s");
        assert_eq!(after(40_000, 90_000), "usually 40s-1m30s here, now 31s");
        assert_eq!(after(20, 400), "31s", "what is always quick needs no word");
    }
}
