//! What monitoring wants to know, as families of samples. Waits for nothing: neither CloudStack nor a part that hangs.
//!
//! Counters are those of the store, so that they never go back: what is not kept yet is told the next time.

mod exports;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::health::{self, age_seconds};
use super::looks::{Journal, Looks, Seen};
use crate::api::{Family, MetricType, Metrics, Number, Sample, Status};
use crate::cloudstack::Contact;
use crate::operation::tally::counter;
use crate::operation::{World, journal_points};
use crate::store::{Counter, STEP_BOUNDS_MS, StepTime};

/// Gathers all of them.
pub(super) async fn gather(looks: &Looks) -> Metrics {
    let seen = looks.take().await;
    let mut metrics = daemon(looks, &seen);
    if let Some(journal) = &seen.journal {
        metrics.extend(operations(journal));
    }
    metrics.extend(cloudstack(looks, &seen));
    metrics.extend(exports::exports(looks.world(), &seen));
    metrics.extend(sync(looks.world(), &seen));
    metrics.extend(store(&seen));
    Metrics { metrics: metrics.into_iter().filter(|family| !family.samples.is_empty()).collect() }
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Family {
    fn new(name: &str, metric_type: MetricType, help: &str) -> Self {
        let stem = name.trim_end_matches("_total");
        let unit = ["seconds", "bytes"].into_iter().find(|unit| stem.ends_with(&format!("_{unit}")));
        let (name, unit, help) = (name.to_owned(), unit.map(str::to_owned), help.to_owned());
        Self { name, metric_type, unit, help, samples: Vec::new() }
    }

    fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, MetricType::Gauge, help)
    }

    fn counter(name: &str, help: &str) -> Self {
        Self::new(name, MetricType::Counter, help)
    }

    fn with(mut self, labels: Labels<'_>, value: u64) -> Self {
        self.push("", labels, Number::Whole(value));
        self
    }

    fn push(&mut self, suffix: &str, labels: Labels<'_>, value: Number) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.push(Sample { name: format!("{}{suffix}", self.name), labels, value });
    }
}

fn daemon(looks: &Looks, seen: &Seen) -> Vec<Family> {
    let mut parts =
        Family::gauge("volctl_part_ok", "Whether a part of volctld is as it should be, as volctl health says.");
    for check in health::parts(looks, seen) {
        parts = parts.with(&[("part", &check.name)], check.ok.into());
    }
    let known = looks.world().this_vm_known().is_some();
    let contact = looks.world().cloud.contact();
    parts = parts.with(&[("part", "this_vm")], known.into());
    parts = parts
        .with(&[("part", "cloudstack")], (contact.trouble.is_none() && contact.key_refused_since.is_none()).into());
    let since = looks.since.as_second().unsigned_abs();
    vec![
        Family::gauge("volctl_build_info", "Which volctld this is; always 1.")
            .with(&[("version", env!("CARGO_PKG_VERSION"))], 1),
        Family::gauge("volctl_start_timestamp_seconds", "When volctld began, in seconds since 1970.").with(&[], since),
        parts,
    ]
}

fn operations(journal: &Journal) -> Vec<Family> {
    vec![ended(&journal.counters), unfinished(journal), oldest(journal), step_durations(&journal.step_times)]
}

const OUTCOMES: [Status; 4] = [Status::Succeeded, Status::Failed, Status::Cancelled, Status::Abandoned];
const UNFINISHED: [Status; 4] = [Status::Queued, Status::Running, Status::Unwinding, Status::Stuck];

fn ended(counters: &[Counter]) -> Family {
    let mut family = Family::counter("volctl_operations_total", "Operations that ended, by kind and outcome.");
    let known: BTreeMap<&str, u64> = of(counters, counter::OPERATIONS).collect();
    let kinds: BTreeSet<String> = journal_points().into_iter().map(|(kind, _)| word(kind)).collect();
    // What has not happened yet is 0 and not missing: an increase from nothing would not be seen.
    let possible = kinds.iter().flat_map(|kind| OUTCOMES.map(|outcome| format!("{kind} {}", word(outcome))));
    let labels: BTreeSet<String> = known.keys().map(|label| (*label).to_owned()).chain(possible).collect();
    for label in &labels {
        let (kind, outcome) = split(label);
        family = family.with(&[("kind", kind), ("outcome", outcome)], known.get(label.as_str()).copied().unwrap_or(0));
    }
    family
}

fn unfinished(journal: &Journal) -> Family {
    let family = Family::gauge(
        "volctl_operations_unfinished",
        "Operations that have not ended, by status; a stuck one waits for a human.",
    );
    let count = |status| journal.unfinished.iter().filter(|row| row.status == status).count() as u64;
    UNFINISHED.iter().fold(family, |family, status| family.with(&[("status", &word(*status))], count(*status)))
}

fn oldest(journal: &Journal) -> Family {
    let help = "How long ago the oldest operation was accepted that has not ended, by status; 0 where there is none.";
    let family = Family::gauge("volctl_operations_oldest_age_seconds", help);
    let age = |status| {
        let rows = journal.unfinished.iter().filter(|row| row.status == status);
        rows.map(|row| row.created_at).min().map_or(0, age_seconds)
    };
    UNFINISHED.iter().fold(family, |family, status| family.with(&[("status", &word(*status))], age(*status)))
}

fn step_durations(times: &[StepTime]) -> Family {
    let help = "How long the steps of operations took, by kind and step.";
    let mut family = Family::new("volctl_operation_step_duration_seconds", MetricType::Histogram, help);
    let mut steps: BTreeMap<(&str, &str), Vec<&StepTime>> = BTreeMap::new();
    for time in times {
        steps.entry((&time.kind, &time.step)).or_default().push(time);
    }
    for ((kind, step), times) in steps {
        let labels = [("kind", kind), ("step", step)];
        let count = |fits: &dyn Fn(u64) -> bool| -> u64 {
            times.iter().filter(|time| time.at_most_ms.is_some_and(fits)).map(|time| time.count).sum()
        };
        let all = times.iter().map(|time| time.count).sum();
        for bound in STEP_BOUNDS_MS {
            let le = (bound as f64 / 1000.0).to_string();
            family.push(
                "_bucket",
                &[labels[0], labels[1], ("le", &le)],
                Number::Whole(count(&|at_most| at_most <= bound)),
            );
        }
        family.push("_bucket", &[labels[0], labels[1], ("le", "+Inf")], Number::Whole(all));
        let total_ms: u64 = times.iter().map(|time| time.total_ms).sum();
        family.push("_sum", &labels, Number::Real(total_ms as f64 / 1000.0));
        family.push("_count", &labels, Number::Whole(all));
    }
    family
}

fn cloudstack(looks: &Looks, seen: &Seen) -> Vec<Family> {
    let contact = looks.world().cloud.contact();
    let mut families = vec![
        Family::gauge(
            "volctl_cloudstack_last_answer_age_seconds",
            "How long ago CloudStack last answered anything; since volctld began where it never did.",
        )
        .with(&[], age_seconds(last_answer(looks, seen, &contact))),
        Family::gauge("volctl_cloudstack_key_refused", "Whether CloudStack refuses the API key.")
            .with(&[], contact.key_refused_since.is_some().into()),
    ];
    let Some(journal) = &seen.journal else { return families };
    let mut calls =
        Family::counter("volctl_cloudstack_calls_total", "Calls to CloudStack, by command; each attempt is one.");
    for (command, made) in of(&journal.counters, counter::CALLS) {
        calls = calls.with(&[("command", command)], made);
    }
    let help = "Calls to CloudStack that failed, by command and by what became of them.";
    let mut errors = Family::counter("volctl_cloudstack_errors_total", help);
    for (label, failed) in of(&journal.counters, counter::ERRORS) {
        let (command, error) = split(label);
        errors = errors.with(&[("command", command), ("error", error)], failed);
    }
    families.extend([calls, errors]);
    families
}

/// An earlier daemon may have had the last answer.
fn last_answer(looks: &Looks, seen: &Seen, contact: &Contact) -> Timestamp {
    let listed = seen.journal.as_ref().and_then(|journal| journal.listed_at);
    contact.last_answer.max(listed).unwrap_or(looks.since)
}

fn sync(world: &World, seen: &Seen) -> Vec<Family> {
    let mut families = Vec::new();
    if let Some(last) = world.synced().last {
        let help = "How long ago store, CloudStack, kernel and exports were last compared.";
        families.push(Family::gauge("volctl_sync_age_seconds", help).with(&[], age_seconds(last.at)));
        let help = "Differences that the last comparison found and that stand until somebody acts.";
        families.push(Family::gauge("volctl_sync_standing_differences", help).with(&[], last.standing as u64));
    }
    if let Some(journal) = &seen.journal {
        let found = of(&journal.counters, counter::DIFFERENCES).next().map_or(0, |(_, found)| found);
        let help = "Differences that comparisons found; one that stands is found each time.";
        families.push(Family::counter("volctl_sync_differences_total", help).with(&[], found));
    }
    let used = seen.journal.as_ref().and_then(|journal| journal.disks);
    if let Some(used) = used {
        let help = "Data disks that CloudStack last had on this VM.";
        families.push(Family::gauge("volctl_vm_disks", help).with(&[], used));
    }
    let max = world.config.device.max_disks.into();
    families.push(Family::gauge("volctl_vm_disks_limit", "Data disks that this VM can have.").with(&[], max));
    families
}

fn store(seen: &Seen) -> Vec<Family> {
    let created = seen.journal.as_ref().and_then(|journal| journal.created_at);
    let created = created.map(|at| {
        let help = "When the store was made, and with it all counters, in seconds since 1970.";
        Family::gauge("volctl_store_created_timestamp_seconds", help).with(&[], at.as_second().unsigned_abs())
    });
    let disk = seen.disk.map(|disk| {
        let size = Family::gauge("volctl_store_size_bytes", "Size of the state store on its disk.");
        let free = Family::gauge("volctl_store_free_bytes", "Bytes that are free on the disk of the state store.");
        [size.with(&[], disk.store_bytes), free.with(&[], disk.free_bytes)]
    });
    created.into_iter().chain(disk.into_iter().flatten()).collect()
}

/// The counters of a name, by label.
fn of<'a>(counters: &'a [Counter], name: &'static str) -> impl Iterator<Item = (&'a str, u64)> {
    counters.iter().filter(move |counter| counter.name == name).map(|counter| (counter.label.as_str(), counter.value))
}

fn split(label: &str) -> (&str, &str) {
    label.split_once(' ').unwrap_or((label, ""))
}

/// The word with which the socket writes a unit variant.
fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
