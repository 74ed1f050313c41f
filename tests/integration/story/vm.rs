//! `volctl vm`: the VMs, and the volumes of one.

use serde_json::{Value, json};

use crate::support::appliance::Appliance;
use crate::support::simulator::APPLIANCE;
use crate::support::wording::names;

fn values<'a>(list: &'a Value, key: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().map(|item| &item[key]).collect()
}

#[test]
fn vms_are_listed_and_this_one_is_marked() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    let vms = appliance.ok(&["vm", "ls"])["vms"].clone();
    assert_eq!(values(&vms, "name"), ["appliance", "old", "worker"]);
    assert_eq!(values(&vms, "this_vm"), [&json!(true), &json!(false), &json!(false)]);
    assert_eq!(values(&vms, "volumes"), [2, 1, 1]);
    assert_eq!(appliance.run(&["vm", "ls", "-q"]).success().stdout.lines().next(), Some(APPLIANCE));
    names(&appliance.run(&["vm", "ls"]).success().stdout, &["NAME", "THIS VM", "appliance", "Running", "yes"]);
}

#[test]
fn the_volumes_of_a_vm_are_in_device_order() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "a", "b", "c", "--size", "1G"]);
    for name in ["c", "a", "b"] {
        appliance.ok(&["attach", name]);
    }
    appliance.ok(&["export", "a"]);
    let vm = appliance.ok(&["vm", "show", "appliance"]);
    assert_eq!(values(&vm["volumes"], "name"), ["ROOT-appliance", "c", "a", "b"]);
    assert_eq!((&vm["this_vm"], &vm["state"]), (&json!(true), &json!("Running")));
    assert_eq!(vm["volumes"][2]["export"]["state"], "active");
    let this = appliance.ok(&["vm", "show"]);
    assert_eq!((&this["id"], values(&this["volumes"], "id")), (&vm["id"], values(&vm["volumes"], "id")));
    names(&appliance.run(&["vm", "show"]).success().stdout, &["this vm", "yes", "NO  NAME", "ROOT-appliance"]);
}

#[test]
fn a_vm_that_volctl_never_touched_is_shown_too() {
    let appliance = Appliance::start();
    let vm = appliance.ok(&["vm", "show", "old"]);
    assert_eq!((&vm["state"], &vm["this_vm"]), (&json!("Stopped"), &json!(false)));
    assert_eq!(values(&vm["volumes"], "name"), ["ROOT-old"]);
    let error = appliance.json(&["vm", "show", "wroker"]).failure(3, "not_found");
    names(error["hint"].as_str().unwrap(), &["worker"]);
}
