//! `volctl drain`

use std::time::{Duration, Instant};

use clap::Args;

use super::answer::Answer;
use super::duration;
use super::render::{self, Output, Page, read};
use super::session::{Request, Session};
use crate::api::{Drained, SystemDrain, Volume, method};
use crate::error::{Error, Kind};
use crate::model::printable;

/// How long one call waits: what is in the way is told anew so often.
const ROUND: u64 = 5;

/// Take no new changes and clients, let the present ones end, end the exports, and say what stays attached
///
/// Before the machine is switched off for good or the package is removed. Clients of exports are waited for, not
/// closed. It outlives a restart, until `volctl drain --end`. An export that it ended is not brought back then.
#[derive(Args, Debug)]
pub struct Drain {
    /// Detach this VM's data volumes as well
    #[arg(long)]
    detach: bool,
    /// Give up waiting after so long; nothing new is taken all the same
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Take changes and clients again
    #[arg(long, conflicts_with_all = ["detach", "timeout"])]
    end: bool,
    /// Only say what is in the way, and exit with 4 where anything is
    #[arg(long, conflicts_with_all = ["detach", "timeout", "end"])]
    dry_run: bool,
}

impl Drain {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        if self.end || self.dry_run {
            return self.once(session, output);
        }
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut told = Vec::new();
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = left.map_or(ROUND, |left| left.as_secs().min(ROUND));
            let params = SystemDrain { detach: self.detach, wait_seconds: Some(wait), ..SystemDrain::default() };
            let answer = session.ask(Request::new(method::SYSTEM_DRAIN, "drain", &params)?)?;
            let drained: Drained = read(&answer)?;
            if drained.waiting_for.is_empty() {
                return Ok(output.answer(Ok(answer), page));
            }
            if left.is_some_and(|left| left.is_zero()) {
                let error = Error::new(Kind::Timeout, format!("not drained yet: {}", sentences(&drained.waiting_for)))
                    .hint("nothing new is taken: `volctl drain` goes on waiting, `volctl drain --end` ends it");
                return Err(error.into());
            }
            if drained.waiting_for != told {
                output.remark(&format!("waiting for {}", sentences(&drained.waiting_for)));
                told = drained.waiting_for;
            }
        }
    }

    fn once(&self, session: &Session, output: &Output) -> Answer<u8> {
        let params = SystemDrain { end: self.end, dry_run: self.dry_run, ..SystemDrain::default() };
        let answer = session.ask(Request::new(method::SYSTEM_DRAIN, "drain", &params)?)?;
        let drained: Drained = read(&answer)?;
        if !drained.waiting_for.is_empty() {
            let error = Error::new(Kind::InUse, format!("in the way: {}", sentences(&drained.waiting_for)));
            return Err(error.hint("`volctl drain` waits for them, and takes nothing new").into());
        }
        Ok(output.answer(Ok(answer), page))
    }
}

fn sentences(waiting_for: &[String]) -> String {
    waiting_for.iter().map(|what| printable(what)).collect::<Vec<_>>().join("; ")
}

fn page(drained: &Drained) -> Page {
    let mut text: String =
        drained.unexported.iter().map(|name| format!("export {} ended\n", printable(name))).collect();
    text.extend(drained.detached.iter().map(|volume| format!("{} detached\n", render::label(volume))));
    text.extend(
        drained.attached.iter().map(|volume| format!("{} stays attached{}\n", render::label(volume), at(volume))),
    );
    text += match drained.since {
        Some(_) => "drained: nothing new is taken until `volctl drain --end`\n",
        None => "not drained: changes and clients are taken\n",
    };
    let quiet = drained.attached.iter().map(|volume| format!("{}\n", volume.id)).collect();
    Page { text, quiet, notes: Vec::new() }
}

fn at(volume: &Volume) -> String {
    volume.device.as_ref().map(|device| format!(": {}", render::path(&device.path))).unwrap_or_default()
}
