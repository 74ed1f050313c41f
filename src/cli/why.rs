//! `volctl why`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;

use super::answer::Answer;
use super::moment;
use super::render::{self, Output, Page, Screen};
use super::session::{Request, Session};
use crate::api::{Cause, Source, VolumeWhy, Why as Told, method};
use crate::model::printable;

/// Tell what happened to a volume and why, newest last, and what it is waiting for
///
/// Who asked, CloudStack's jobs, the disk, the export and its clients, and what was changed outside of volctl. Also for
/// a volume that is no more, by its id or its last name.
#[derive(Args, Debug)]
pub struct Why {
    /// Volume: id, name, id prefix, or the id or last name of one that is no more
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// Only what happened since then: 2h (ago), 2026-01-02, 2026-01-02T03:04:05Z
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    since: Option<Timestamp>,
    /// Only what happened until then
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    until: Option<Timestamp>,
}

impl Why {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let Why { volume, since, until } = self;
        moment::in_order(since, until)?;
        let label = format!("explain volume {volume}");
        let request = Request::new(method::VOLUME_WHY, label, &VolumeWhy { volume, since, until })?;
        let screen = output.screen();
        Ok(output.answer(session.ask(request), |why| page(why, &screen)))
    }
}

/// Times under their day, then the present, apart, so that the eye finds it at once.
fn page(why: &Told, screen: &Screen) -> Page {
    let id = why.volume_id.map_or_else(String::new, |id| format!(" ({id})"));
    let mut text = format!("{}{id}\n", printable(&why.volume_name));
    let mut day = String::new();
    for cause in &why.timeline {
        let date = cause.at.strftime("%Y-%m-%d UTC").to_string();
        if date != day {
            text += &format!("\n{date}\n");
            day = date;
        }
        text += &line(cause, screen);
    }
    if why.timeline.is_empty() {
        text += "\nnothing is known to have happened\n";
    }
    let since = why.since.map_or_else(String::new, |at| {
        format!(" (since {} UTC, {})", at.strftime("%Y-%m-%d %H:%M:%S"), render::ago(screen.now, at))
    });
    text += "\n";
    text += &render::hanging("now   ", &format!("{}{since}", printable(&why.summary)), screen);
    if let Some(hint) = &why.hint {
        text += &render::hanging("next  ", &printable(hint), screen);
    }
    let quiet = why.volume_id.map_or_else(String::new, |id| format!("{id}\n"));
    Page { text, quiet, notes: why.notes.clone() }
}

fn line(cause: &Cause, screen: &Screen) -> String {
    let head = format!("{}  {:<10}  ", cause.at.strftime("%H:%M:%S"), render::word(cause.source));
    let line = render::hanging(&head, &printable(&cause.text), screen);
    match cause.source {
        Source::Outside => render::warned(&line, screen),
        _ => line,
    }
}
