//! VMs that are stopped, started and destroyed, as the facts sheet has it (4.10 and 5).

use serde_json::json;

use crate::support::simulator::{OLD, Simulator, WORKER};
use crate::support::wait_for;

fn state(simulator: &Simulator, vm: &str) -> String {
    let listed = simulator.call("listVirtualMachines", &[("id", vm)]).content();
    listed["virtualmachine"][0]["state"].as_str().unwrap().to_owned()
}

fn code(simulator: &Simulator, command: &str, parameters: &[(&str, &str)]) -> i64 {
    simulator.job(command, parameters)["jobresultcode"].as_i64().unwrap()
}

fn attached(simulator: &Simulator, vm: &str) -> String {
    let id = simulator.volume("data");
    assert_eq!(code(simulator, "attachVolume", &[("id", &id), ("virtualmachineid", vm)]), 0);
    id
}

#[test]
fn a_stopped_vm_has_no_disks_plugged_and_keeps_them_attached() {
    let simulator = Simulator::start(&[]);
    let id = attached(&simulator, WORKER);
    assert!(simulator.is_plugged(&id));
    let job = simulator.job("stopVirtualMachine", &[("id", WORKER)]);
    assert_eq!(job["jobresult"]["virtualmachine"]["state"], "Stopped", "{job}");
    assert_eq!((simulator.is_plugged(&id), simulator.listed(&id)["virtualmachineid"].clone()), (false, json!(WORKER)));
    assert_eq!(code(&simulator, "stopVirtualMachine", &[("id", WORKER)]), 0, "stopped already");
    assert_eq!(code(&simulator, "startVirtualMachine", &[("id", WORKER)]), 0);
    assert_eq!((state(&simulator, WORKER).as_str(), simulator.is_plugged(&id)), ("Running", true));
    let nobody = "a0000000-0000-4000-8000-00000000ffff";
    assert_eq!(simulator.call("stopVirtualMachine", &[("id", nobody)]).status, 431);
}

#[test]
fn a_guest_that_ignores_it_is_stopped_by_force_only() {
    let simulator = Simulator::start(&[]);
    simulator.admin("POST", "vm", json!({"id": WORKER, "ignores_shutdown": true}));
    assert_eq!(code(&simulator, "stopVirtualMachine", &[("id", WORKER)]), 530);
    assert_eq!(state(&simulator, WORKER), "Running");
    simulator.settings(json!({"allow_user_force_stop_vm": false}));
    assert_eq!(code(&simulator, "stopVirtualMachine", &[("id", WORKER), ("forced", "true")]), 530);
    simulator.settings(json!({"allow_user_force_stop_vm": true}));
    assert_eq!(code(&simulator, "stopVirtualMachine", &[("id", WORKER), ("forced", "true")]), 0);
    assert_eq!(state(&simulator, WORKER), "Stopped");
}

#[test]
fn a_destroyed_vm_keeps_its_root_disk_only() {
    let simulator = Simulator::start(&[]);
    let id = attached(&simulator, WORKER);
    assert_eq!(simulator.call("destroyVirtualMachine", &[("id", WORKER), ("expunge", "true")]).status, 531);
    assert_eq!(code(&simulator, "destroyVirtualMachine", &[("id", WORKER)]), 0);
    assert_eq!(state(&simulator, WORKER), "Destroyed");
    let volume = simulator.listed(&id);
    assert_eq!(
        (&volume["virtualmachineid"], &volume["state"]),
        (&json!(null), &json!("Ready")),
        "detached, not deleted"
    );
    let root = simulator.call("listVolumes", &[("virtualmachineid", WORKER)]).content();
    assert_eq!((&root["count"], &root["volume"][0]["type"]), (&json!(1), &json!("ROOT")));
    assert_eq!(code(&simulator, "destroyVirtualMachine", &[("id", WORKER)]), 0, "destroyed already");
}

#[test]
fn a_vm_without_a_root_disk_does_not_start() {
    let simulator = Simulator::start(&[]);
    let root = simulator.call("listVolumes", &[("virtualmachineid", OLD)]).content();
    assert_eq!(code(&simulator, "detachVolume", &[("id", root["volume"][0]["id"].as_str().unwrap())]), 0);
    assert_eq!(code(&simulator, "startVirtualMachine", &[("id", OLD)]), 530);
}

#[test]
fn what_is_asked_of_a_vm_is_done_in_turn() {
    let simulator = Simulator::start(&[]);
    let id = attached(&simulator, WORKER);
    simulator.settings(json!({"latency": {"stopVirtualMachine": {"min_ms": 300, "max_ms": 300}}}));
    simulator.call("stopVirtualMachine", &[("id", WORKER)]);
    wait_for("the VM to stop", || (state(&simulator, WORKER) == "Stopping").then_some(()));
    let listed = simulator.call("listVirtualMachines", &[("id", WORKER)]).content();
    assert!(listed["virtualmachine"][0]["jobid"].is_string(), "{listed}");
    assert_eq!(code(&simulator, "detachVolume", &[("id", &id)]), 431, "neither running nor stopped");
    wait_for("the VM to be stopped", || (state(&simulator, WORKER) == "Stopped").then_some(()));
    assert_eq!(code(&simulator, "detachVolume", &[("id", &id)]), 0);
}
