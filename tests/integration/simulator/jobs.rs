//! Asynchronous jobs: ids of the caller's, order, restarts, expiry.

use serde_json::{Value, json};

use crate::support::simulator::{APPLIANCE, CUSTOM, OLD, Simulator, WORKER, ZONE};
use crate::support::wait_for;

const JOB: &str = "8c000000-0000-4000-8000-000000000001";
const CREATE: [(&str, &str); 4] = [("zoneid", ZONE), ("diskofferingid", CUSTOM), ("size", "1"), ("customjobid", JOB)];

fn held_attach(simulator: &Simulator, volume: &str, vm: &str) -> String {
    simulator.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
    let submitted = simulator.call("attachVolume", &[("id", volume), ("virtualmachineid", vm)]).content();
    submitted["jobid"].as_str().unwrap().to_owned()
}

#[test]
fn the_caller_chooses_the_id() {
    let simulator = Simulator::start(&[]);
    simulator.fault(json!({"command": "createVolume", "mode": "job-never-ends"}));
    assert_eq!(simulator.call("createVolume", &CREATE).content()["jobid"], JOB);
    assert_eq!(simulator.call("createVolume", &CREATE).status, 431, "while it is pending");
    simulator.admin("POST", "release-jobs", json!({}));
    assert_eq!(simulator.ended(JOB)["jobstatus"], 1);
    assert_eq!(simulator.call("createVolume", &CREATE).status, 530, "once it has ended");
    let orphans = simulator.call("listVolumes", &[("type", "DATADISK")]).content();
    assert_eq!(orphans["count"], 3, "each try has left a volume");
    for malformed in ["17", "8C000000-0000-4000-8000-00000000000A", ""] {
        let id = orphans["volume"][0]["id"].as_str().unwrap();
        let attach = [("id", id), ("virtualmachineid", WORKER), ("customjobid", malformed)];
        assert_eq!(simulator.call("attachVolume", &attach).status, 431, "{malformed}");
    }
}

#[test]
fn a_vm_works_off_its_jobs_in_order() {
    let simulator = Simulator::start(&[]);
    let volumes: Vec<_> = (0..3).map(|number| simulator.volume(&number.to_string())).collect();
    let elsewhere = simulator.volume("elsewhere");
    let first = held_attach(&simulator, &volumes[0], APPLIANCE);
    let submit = |volume: &str, vm| {
        let submitted = simulator.call("attachVolume", &[("id", volume), ("virtualmachineid", vm)]).content();
        submitted["jobid"].as_str().unwrap().to_owned()
    };
    let queued = [submit(&volumes[1], APPLIANCE), submit(&volumes[2], APPLIANCE)];
    simulator.ended(&submit(&elsewhere, WORKER));
    let pending = simulator.call("listAsyncJobs", &[("keyword", "attachvolume")]).content();
    let pending: Vec<_> = pending["asyncjobs"].as_array().unwrap().iter().map(|job| job["jobid"].clone()).collect();
    assert_eq!(pending, [json!(first), json!(queued[0]), json!(queued[1])], "oldest first");
    assert_eq!(simulator.listed(&volumes[1])["state"], "Allocated", "queued");
    assert_eq!(simulator.listed(&volumes[1])["jobid"], json!(queued[0]));
    simulator.admin("POST", "release-jobs", json!({}));
    simulator.ended(&queued[1]);
    let places: Vec<_> = volumes.iter().map(|volume| simulator.listed(volume)["deviceid"].clone()).collect();
    assert_eq!(places, [1, 2, 4]);
}

#[test]
fn the_loser_of_a_race_fails_in_the_queue() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    let first = held_attach(&simulator, &id, APPLIANCE);
    let second = simulator.call("attachVolume", &[("id", &id), ("virtualmachineid", APPLIANCE)]).content();
    simulator.admin("POST", "release-jobs", json!({}));
    assert_eq!(simulator.ended(&first)["jobstatus"], 1);
    assert_eq!(simulator.ended(second["jobid"].as_str().unwrap())["jobresultcode"], 530);
    assert_eq!(simulator.listed(&id)["state"], "Ready");
}

#[test]
fn a_restart_of_the_management_server_ends_jobs_without_a_result() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    simulator.settings(json!({"latency": {"attachVolume": {"min_ms": 60_000, "max_ms": 60_000}}}));
    let submitted = simulator.call("attachVolume", &[("id", &id), ("virtualmachineid", WORKER)]).content();
    let job = submitted["jobid"].as_str().unwrap();
    wait_for("the volume to be created", || (simulator.listed(&id)["state"] == "Creating").then_some(()));
    simulator.admin("POST", "restart-management", json!({}));
    let ended = simulator.ended(job);
    assert_eq!((ended["jobstatus"].clone(), ended["jobresultcode"].clone()), (json!(2), json!(530)));
    assert!(ended.get("jobresult").is_none() && ended.get("jobresulttype").is_none());
    assert_eq!(simulator.listed(&id)["state"], "Allocated", "rolled back");
    simulator.settings(json!({"latency": {"attachVolume": {"min_ms": 0, "max_ms": 0}}}));
    let again = simulator.job("attachVolume", &[("id", &id), ("virtualmachineid", WORKER)]);
    assert_eq!(again["jobstatus"], 1, "the queue goes on: {again}");
}

#[test]
fn ended_jobs_expire() {
    let simulator = Simulator::start(&[]);
    simulator.job("createVolume", &CREATE);
    simulator.admin("POST", "clock", json!({"advance_seconds": 1439 * 60}));
    assert_eq!(simulator.call("queryAsyncJobResult", &[("jobid", JOB)]).status, 200);
    simulator.admin("POST", "clock", json!({"advance_seconds": 120}));
    assert_eq!(simulator.call("queryAsyncJobResult", &[("jobid", JOB)]).status, 431);
    assert_eq!(simulator.job("createVolume", &CREATE)["jobstatus"], 1, "the id is free again");
    simulator.admin("POST", "purge-jobs", json!({}));
    assert_eq!(simulator.call("queryAsyncJobResult", &[("jobid", JOB)]).status, 431);
}

#[test]
fn maintenance_takes_no_jobs() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    simulator.settings(json!({"maintenance": true}));
    let refused = simulator.call("attachVolume", &[("id", &id), ("virtualmachineid", OLD)]);
    assert_eq!((refused.status, refused.json()["attachvolumeresponse"]["errorcode"].clone()), (503, json!(503)));
    assert_eq!(simulator.call("listVolumes", &[]).status, 200);
    assert_eq!(simulator.call("deleteVolume", &[("id", &id)]).status, 200, "synchronous");
}

#[test]
fn jobs_fail_as_told() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    let attach = || simulator.job("attachVolume", &[("id", &id), ("virtualmachineid", WORKER)]);
    simulator.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "text": "no space"}));
    assert_eq!(attach()["jobresult"], json!({"errorcode": 530, "errortext": "no space"}));
    assert!(!simulator.is_plugged(&id));
    simulator.fault(json!({"command": "attachVolume", "mode": "job-fail", "code": 530, "after_effect": true}));
    assert_eq!(attach()["jobresult"], json!({"errorcode": 530}), "an exception without a message");
    assert!(simulator.is_plugged(&id));
    assert_eq!(simulator.listed(&id)["virtualmachineid"], Value::from(WORKER));
}
