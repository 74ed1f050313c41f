//! Waiting for CloudStack's jobs: one question for all who wait, and what the last times teach.

use serde_json::json;

use crate::support::appliance::Appliance;
use crate::support::simulator::WORKER;
use crate::support::wait_for;

/// How often a command was called.
fn calls(appliance: &Appliance, command: &str) -> u64 {
    appliance.cloud.state()["journal"]["calls"][command].as_u64().unwrap_or(0)
}

#[test]
fn many_jobs_take_one_list_at_a_time_and_one_last_question_each() {
    let appliance = Appliance::start();
    let names: Vec<String> = (0..12).map(|number| format!("data{number}")).collect();
    let create =
        |name: &str| appliance.begin(&["create", name, "--size", "1G", "--zone", "zone1", "--offering", "custom"]);
    appliance.cloud.settings(json!({"latency": {"default": {"min_ms": 3000, "max_ms": 3000}}}));
    let begun: Vec<_> = names.iter().map(|name| create(name)).collect();
    begun.into_iter().for_each(|creation| {
        creation.end().success();
    });
    let (lists, questions) = (calls(&appliance, "listAsyncJobs"), calls(&appliance, "queryAsyncJobResult"));
    assert!(lists > 0, "somebody waited beside others");
    assert!(questions <= 3 * 12, "{questions} questions by id for 12 jobs, and {lists} lists");
}

#[test]
fn attaches_at_once_share_their_looks_and_the_volumes_show_their_ends() {
    let appliance = Appliance::start();
    let names: Vec<String> = (0..12).map(|number| format!("data{number}")).collect();
    let ids: Vec<String> = names.iter().map(|name| appliance.cloud.volume(name)).collect();
    appliance.cloud.settings(json!({"latency": {"default": {"min_ms": 300, "max_ms": 300}}}));
    let before = calls(&appliance, "queryAsyncJobResult");
    let words = ["attach", "--vm", WORKER].into_iter().chain(ids.iter().map(String::as_str));
    appliance.ok(&words.collect::<Vec<_>>());
    let questions = calls(&appliance, "queryAsyncJobResult") - before;
    assert!(questions < 12, "{questions} questions by id for 12 jobs");
    // Of each at the volume and its VM when it is accepted and before it is sent, and at the volume after; most of the
    // first ones are shared.
    let looks = calls(&appliance, "listVolumes");
    assert!(looks <= 5 * 12, "{looks} looks at volumes for 12 attaches");
}

#[test]
fn what_a_step_took_the_last_times_is_told_while_it_is_under_way() {
    let appliance = Appliance::start();
    appliance.cloud.volume("data");
    let usual = || appliance.ok(&["ops"])["operations"][0]["usual"].clone();
    for _ in 0..5 {
        appliance.ok(&["attach", "data", "--vm", WORKER]);
        appliance.ok(&["detach", "data", "--from", WORKER, "--yes"]);
    }
    assert_eq!(usual(), json!(null), "nothing is under way");
    appliance.cloud.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let asked = appliance.begin(&["attach", "data", "--vm", WORKER]);
    let told = wait_for("the usual time to be told", || Some(usual()).filter(|usual| usual.is_object()));
    let at = |name: &str| told[name].as_u64().unwrap();
    assert!(at("from_ms") <= at("median_ms") && at("median_ms") <= at("to_ms"), "{told}");
    appliance.cloud.admin("POST", "restart-management", json!({}));
    asked.end();
}
