//! `queryAsyncJobResult` and `listAsyncJobs` (facts sheet, 2.1 and 2.2).

use std::sync::Arc;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::paging::{self, KEYWORD, PAGE, PAGE_SIZE};
use super::{Command, Outcome};
use crate::error::ApiError;
use crate::params::Entity::Job as JobId;
use crate::params::Kind::{Boolean, Id, Text};
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;

/// `queryAsyncJobResult`
pub const QUERY: Command = Command {
    name: "queryAsyncJobResult",
    class: "job.QueryAsyncJobResultCmd",
    is_async: false,
    params: &[Spec::new("jobid", Id(JobId)).required()],
    run: query,
};

/// `listAsyncJobs`: unfinished ones only.
pub const LIST: Command = Command {
    name: "listAsyncJobs",
    class: "job.ListAsyncJobsCmd",
    is_async: false,
    params: &[
        Spec::new("startdate", Text),
        Spec::new("listall", Boolean),
        Spec::new("isrecursive", Boolean),
        KEYWORD,
        PAGE,
        PAGE_SIZE,
    ],
    run: list,
};

fn query(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let job = world.job(params.required("jobid")).ok_or_else(|| ApiError::invalid("Unable to find the job"))?;
    Ok(Outcome::Done(view::job(job, class(job.command), world)))
}

fn list(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let since = params.text("startdate").map(parse_date).transpose()?;
    let jobs: Vec<_> = world
        .jobs
        .iter()
        .filter(|job| {
            job.is_pending()
                && since.is_none_or(|since| job.created >= since)
                && paging::has_keyword(params, &[&view::class_name(class(job.command), world)])
        })
        .collect();
    let show = |job: &&crate::jobs::Job| view::job(job, class(job.command), world);
    paging::list(params, world, "asyncjobs", &jobs, show).map(Outcome::Done)
}

fn class(command: &str) -> &'static str {
    super::find(command).map_or("", |command| command.class)
}

/// `yyyy-MM-dd` or `yyyy-MM-dd HH:mm:ss`.
fn parse_date(text: &str) -> Result<jiff::Timestamp, ApiError> {
    let local = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(DateTime::from));
    local
        .and_then(|local| TimeZone::UTC.to_timestamp(local))
        .map_err(|_| ApiError::invalid(format!("Unable to parse date {text} for command listAsyncJobs")))
}
