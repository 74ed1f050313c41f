//! Faults on demand: which call is met by which mishap, and how the mishap looks on the wire.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api;
use crate::error::ApiError;
use crate::jobs::Fate;
use crate::reply::Reply;
use crate::request::ApiRequest;
use crate::simulator::Simulator;

/// Faults that wait for their call, in the order in which they were set.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

/// A fault and the calls that it meets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Fault {
    /// The command, or `*` for any.
    pub command: String,
    /// Which of its calls is the first to be met, counted from now on.
    #[serde(default = "one")]
    pub nth: u64,
    /// How many calls are met.
    #[serde(default = "one")]
    pub times: u64,
    /// What happens to them.
    #[serde(flatten)]
    pub mode: Mode,
}

/// What happens to a call. "Before" is without, "after" is with the request having been carried out.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum Mode {
    /// Not carried out, connection cut.
    CutBefore,
    /// Carried out, connection cut.
    CutAfter,
    /// Never answered; delivered to the server (expiry check and all) only after the delay.
    Late {
        /// The delay.
        delay_ms: u64,
    },
    /// A proxy's 502, not carried out.
    #[serde(rename = "502-html-before")]
    BadGatewayBefore,
    /// A proxy's 502, carried out.
    #[serde(rename = "502-html-after")]
    BadGatewayAfter,
    /// 200 without a body, carried out.
    #[serde(rename = "empty-200-after")]
    EmptyAfter,
    /// A portal's page, not carried out.
    #[serde(rename = "html-200")]
    Html,
    /// Carried out; half of the body, then the connection ends.
    Truncate,
    /// Carried out; a body that does not end.
    Endless,
    /// Carried out; one byte at a time.
    Slow {
        /// The time between two bytes.
        interval_ms: u64,
    },
    /// Carried out; a bare `null`, as of a failed serialisation.
    NonJson,
    /// Not carried out; this error.
    Error {
        /// `errorcode` and HTTP status.
        code: u16,
        /// `errortext`
        text: String,
    },
    /// Not carried out; the management server is in maintenance.
    #[serde(rename = "503")]
    Unavailable,
    /// Not carried out; too many calls.
    #[serde(rename = "429")]
    TooMany,
    /// Accepted; the job fails so.
    JobFail {
        /// `errorcode`
        code: u16,
        /// `errortext`; none for an exception without a message.
        text: Option<String>,
        /// Whether it had its effect before it failed.
        #[serde(default)]
        after_effect: bool,
    },
    /// Accepted; the job stays pending until `POST /admin/release-jobs`, and then takes its course.
    JobNeverEnds,
}

/// How an answer travels.
pub enum Delivery {
    /// As it should.
    Whole(Reply),
    /// Not at all: the connection is cut.
    Cut,
    /// Half of it, then the connection is cut.
    Truncated(Reply),
    /// It never ends.
    Endless,
    /// A byte at a time.
    Slow(Reply, Duration),
}

impl Faults {
    /// Adds faults.
    pub fn add(&mut self, faults: Vec<Fault>) {
        self.0.extend(faults);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that meets this call: the first one that is due. Every fault of the command counts the call.
    pub fn take(&mut self, command: &str) -> Option<Mode> {
        let mut met = None;
        for fault in self.0.iter_mut().filter(|fault| fault.command == command || fault.command == "*") {
            if fault.nth > 1 {
                fault.nth -= 1;
            } else if met.is_none() {
                fault.times = fault.times.saturating_sub(1);
                met = Some(fault.mode.clone());
            }
        }
        self.0.retain(|fault| fault.times > 0);
        met
    }
}

impl Mode {
    /// Its name, for the log.
    pub fn name(&self) -> Option<String> {
        serde_json::to_value(self).ok()?.get("mode")?.as_str().map(str::to_owned)
    }
}

/// Carries a call out, or not, and answers it as the fault has it.
pub async fn meet(mode: Mode, simulator: &Arc<Simulator>, request: &ApiRequest) -> Delivery {
    let carry_out = || api::process(simulator, request, Fate::Normal);
    match mode {
        Mode::CutBefore => Delivery::Cut,
        Mode::CutAfter => {
            carry_out().await;
            Delivery::Cut
        }
        Mode::Late { delay_ms } => {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            carry_out().await;
            Delivery::Cut
        }
        Mode::BadGatewayBefore => Delivery::Whole(bad_gateway()),
        Mode::BadGatewayAfter => {
            carry_out().await;
            Delivery::Whole(bad_gateway())
        }
        Mode::EmptyAfter => {
            carry_out().await;
            Delivery::Whole(Reply::text(""))
        }
        Mode::Html => Delivery::Whole(Reply::html(200, "Please log in")),
        Mode::Truncate => Delivery::Truncated(carry_out().await),
        Mode::Endless => {
            carry_out().await;
            Delivery::Endless
        }
        Mode::Slow { interval_ms } => Delivery::Slow(carry_out().await, Duration::from_millis(interval_ms)),
        Mode::NonJson => {
            carry_out().await;
            Delivery::Whole(Reply::text("null"))
        }
        Mode::Error { code, text } => Delivery::Whole(api::refusal(request, &ApiError::new(code, text))),
        Mode::Unavailable => Delivery::Whole(api::refusal(request, &api::in_maintenance())),
        Mode::TooMany => Delivery::Whole(api::refusal(request, &api::throttled(480))),
        Mode::JobFail { code, text, after_effect } => {
            let fate = Fate::Fails { code, text, after_effect };
            Delivery::Whole(api::process(simulator, request, fate).await)
        }
        Mode::JobNeverEnds => Delivery::Whole(api::process(simulator, request, Fate::Held).await),
    }
}

fn bad_gateway() -> Reply {
    Reply::html(502, "502 Bad Gateway")
}

const fn one() -> u64 {
    1
}
