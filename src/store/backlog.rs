//! Events that wait to be written, as many as are worth it: they ride with the next transaction, so that a history costs
//! no commit of its own, and what happens too often is counted instead.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::events::NewEvent;
use crate::api::EventKind;
use crate::model::VolumeId;

/// How many may wait while nothing can be written.
const MOST_WAITING: usize = 4096;

/// How many of one sort are written in the first window; then only their number, window by window.
const MOST_OF_A_SORT: u32 = 100;
const FIRST_WINDOW: Duration = Duration::from_secs(60);
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);

/// What is counted together: of one volume, what comes and what goes.
type Sort = (&'static str, Option<VolumeId>);

/// What waits, and how often what happened.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: Vec<NewEvent>,
    /// Lost because too many waited.
    lost: u64,
    windows: HashMap<Sort, Window>,
}

/// How often one sort of thing happened lately.
struct Window {
    since: Instant,
    since_time: Timestamp,
    length: Duration,
    written: u32,
    left_out: u64,
}

impl Window {
    fn new(now: Instant, at: Timestamp, length: Duration, written: u32) -> Self {
        Self { since: now, since_time: at, length, written, left_out: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= self.length
    }
}

impl Backlog {
    /// Takes an event in, or counts it.
    pub fn add(&mut self, event: NewEvent, now: Instant) {
        self.close_windows(now);
        let sort = (sort_of(event.kind), event.volume_id);
        let window = self.windows.entry(sort).or_insert_with(|| Window::new(now, event.at, FIRST_WINDOW, 0));
        if window.written >= MOST_OF_A_SORT {
            window.left_out += 1;
            return;
        }
        window.written += 1;
        self.push(event);
    }

    /// Says of each window that is over how many it left out; where there were any, the next one is longer and only
    /// counts.
    pub fn close_windows(&mut self, now: Instant) {
        let over: Vec<Sort> =
            self.windows.iter().filter(|(_, window)| window.is_over(now)).map(|(sort, _)| *sort).collect();
        for sort in over {
            let Some(window) = self.windows.remove(&sort) else { continue };
            if let Some(event) = summary(sort, &window) {
                let length = (window.length * 2).min(LONGEST_WINDOW);
                self.windows.insert(sort, Window::new(now, event.at, length, MOST_OF_A_SORT));
                self.push(event);
            }
        }
    }

    /// When the next window is over that left something out.
    pub fn next_summary(&self) -> Option<Instant> {
        let open = self.windows.values().filter(|window| window.left_out > 0);
        open.map(|window| window.since + window.length).min()
    }

    /// Says of each window how many it left out: nothing is counted any more.
    pub fn close(&mut self) {
        for (sort, window) in std::mem::take(&mut self.windows) {
            if let Some(event) = summary(sort, &window) {
                self.push(event);
            }
        }
    }

    /// Gives what waits, to be written.
    pub fn take(&mut self) -> Vec<NewEvent> {
        if self.lost > 0 && self.waiting.len() < MOST_WAITING {
            let text = format!("{} events were left out while the store could not be written", self.lost);
            self.lost = 0;
            self.waiting.push(NewEvent::new(EventKind::LeftOut, text));
        }
        std::mem::take(&mut self.waiting)
    }

    /// Takes back what could not be written.
    pub fn put_back(&mut self, mut events: Vec<NewEvent>) {
        events.append(&mut self.waiting);
        self.lost += events.len().saturating_sub(MOST_WAITING) as u64;
        events.truncate(MOST_WAITING);
        self.waiting = events;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.lost == 0
    }

    fn push(&mut self, event: NewEvent) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push(event);
        } else {
            self.lost += 1;
        }
    }
}

fn summary((what, volume_id): Sort, window: &Window) -> Option<NewEvent> {
    let count = Some(window.left_out).filter(|count| *count > 0)?;
    let since = window.since_time.strftime("%H:%M:%S");
    let text = format!("{count} more events of {what} since {since} UTC were left out");
    Some(NewEvent { volume_id, ..NewEvent::new(EventKind::LeftOut, text) })
}

fn sort_of(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Transition | EventKind::Note | EventKind::LeftOut => "operations",
        EventKind::Held | EventKind::Released => "holds",
        EventKind::Call => "calls",
        EventKind::DeviceArrived | EventKind::DeviceLeft => "devices",
        EventKind::ExportServed | EventKind::ExportFailed | EventKind::ExportEnded => "exports",
        EventKind::ClientConnected | EventKind::ClientRefused | EventKind::ClientDisconnected => "clients",
        EventKind::ChangedOutside => "changes outside",
        EventKind::CloudstackAway | EventKind::CloudstackBack | EventKind::KeyRefused | EventKind::KeyAccepted => {
            "CloudStack's absence"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> NewEvent {
        NewEvent::new(EventKind::ClientConnected, "x".to_owned())
    }

    #[test]
    fn what_happens_too_often_is_counted_in_ever_longer_windows() {
        let mut backlog = Backlog::default();
        let start = Instant::now();
        for _ in 0..1100 {
            backlog.add(client(), start);
        }
        assert_eq!(backlog.take().len(), 100);
        assert_eq!(backlog.next_summary(), Some(start + FIRST_WINDOW));
        let mut written = 0;
        for second in 1..=86_400 {
            backlog.add(client(), start + Duration::from_secs(second));
            let events = backlog.take();
            written += events.len();
            assert!(events.iter().all(|event| event.kind == EventKind::LeftOut));
        }
        assert!(written < 40, "{written} in a day");
    }

    #[test]
    fn after_a_quiet_window_each_is_written_again() {
        let mut backlog = Backlog::default();
        let start = Instant::now();
        for _ in 0..101 {
            backlog.add(client(), start);
        }
        backlog.take();
        backlog.close_windows(start + Duration::from_secs(60));
        assert!(backlog.take()[0].text.starts_with("1 more events of clients since "));
        backlog.close_windows(start + Duration::from_secs(240));
        assert!(backlog.is_empty() && backlog.windows.is_empty());
        backlog.add(client(), start + Duration::from_secs(240));
        assert_eq!(backlog.take()[0].kind, EventKind::ClientConnected);
    }

    #[test]
    fn what_cannot_be_written_is_bounded_and_said() {
        let mut backlog = Backlog::default();
        let now = Instant::now();
        for _ in 0..5000 {
            backlog.add(NewEvent { volume_id: Some(VolumeId::random()), ..client() }, now);
        }
        let events = backlog.take();
        assert_eq!(events.len(), MOST_WAITING);
        backlog.put_back(events);
        assert_eq!(backlog.take().len(), MOST_WAITING);
        assert!(backlog.take()[0].text.starts_with("904 events were left out while"));
    }
}
