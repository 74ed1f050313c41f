//! The life of a volume, and the refusals on its way.

use serde_json::{Value, json};

use crate::support::simulator::{APPLIANCE, CUSTOM, FIXED, OLD, Simulator, WORKER, ZONE};
use crate::support::wait_for;

fn attach(simulator: &Simulator, volume: &str, vm: &str) -> Value {
    simulator.job("attachVolume", &[("id", volume), ("virtualmachineid", vm)])
}

fn detach(simulator: &Simulator, volume: &str) -> Value {
    simulator.job("detachVolume", &[("id", volume)])
}

fn code(job: &Value) -> i64 {
    job["jobresultcode"].as_i64().unwrap()
}

#[test]
fn the_story() {
    let simulator = Simulator::start(&[]);
    let parameters = [("name", "data"), ("zoneid", ZONE), ("diskofferingid", CUSTOM), ("size", "7")];
    let created = simulator.call("createVolume", &parameters).content();
    let id = created["id"].as_str().unwrap();
    let listed = simulator.listed(id);
    assert_eq!((listed["state"].clone(), listed["jobid"].clone()), (json!("Allocated"), created["jobid"].clone()));
    let job = simulator.ended(created["jobid"].as_str().unwrap());
    assert_eq!((job["jobstatus"].clone(), job["jobinstanceid"].clone()), (json!(1), json!(id)));
    let volume = &job["jobresult"]["volume"];
    assert_eq!((volume["state"].clone(), volume["size"].clone()), (json!("Allocated"), json!(7u64 << 30)));
    assert_eq!(volume["jobstatus"], 0, "taken while the job still counts as running");
    assert!(simulator.listed(id).get("jobid").is_none());

    let job = attach(&simulator, id, APPLIANCE);
    assert_eq!(job["jobstatus"], 1, "{job}");
    let listed = simulator.listed(id);
    assert_eq!((listed["state"].clone(), listed["deviceid"].clone()), (json!("Ready"), json!(1)));
    assert_eq!((listed["virtualmachineid"].clone(), listed["vmstate"].clone()), (json!(APPLIANCE), json!("Running")));
    assert!(simulator.is_plugged(id));
    assert_eq!(simulator.call("deleteVolume", &[("id", id)]).status, 431, "attached");

    assert_eq!(detach(&simulator, id)["jobstatus"], 1);
    let listed = simulator.listed(id);
    assert_eq!(listed["state"], "Ready");
    assert!(["virtualmachineid", "deviceid", "attached"].iter().all(|field| listed.get(*field).is_none()));
    assert!(!simulator.is_plugged(id));
    assert_eq!(code(&detach(&simulator, id)), 431, "a repeat fails");
    assert_eq!(simulator.call("deleteVolume", &[("id", id)]).status, 200);
}

#[test]
fn states_on_the_way() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    simulator.settings(json!({"latency": {"attachVolume": {"min_ms": 400, "max_ms": 400}}}));
    let submitted = simulator.call("attachVolume", &[("id", &id), ("virtualmachineid", WORKER)]).content();
    for state in ["Creating", "Attaching", "Ready"] {
        wait_for(state, || (simulator.listed(&id)["state"] == state).then_some(()));
    }
    simulator.ended(submitted["jobid"].as_str().unwrap());
    assert_eq!(simulator.call("listAsyncJobs", &[]).json(), json!({"listasyncjobsresponse": {}}));
}

#[test]
fn creation_is_refused_as_by_the_server() {
    let simulator = Simulator::start(&[]);
    let status = |parameters: &[(&str, &str)]| simulator.call("createVolume", parameters).status;
    for (parameters, expected) in [
        (vec![("zoneid", ZONE)], 431),
        (vec![("diskofferingid", CUSTOM), ("size", "1")], 431),
        (vec![("diskofferingid", CUSTOM), ("zoneid", ZONE)], 431),
        (vec![("diskofferingid", CUSTOM), ("zoneid", ZONE), ("size", "0")], 431),
        (vec![("diskofferingid", CUSTOM), ("zoneid", ZONE), ("size", "1025")], 431),
        (vec![("diskofferingid", FIXED), ("zoneid", ZONE), ("size", "5")], 431),
        (vec![("diskofferingid", FIXED), ("zoneid", ZONE), ("virtualmachineid", WORKER)], 431),
        (vec![("diskofferingid", FIXED), ("zoneid", ZONE), ("customid", "12345678-0000-4000-8000-000000000000")], 531),
        (vec![("diskofferingid", FIXED), ("zoneid", ZONE)], 200),
    ] {
        assert_eq!(status(&parameters), expected, "{parameters:?}");
    }
    let good = [("diskofferingid", FIXED), ("zoneid", ZONE)];
    simulator.admin("POST", "zone", json!({"id": ZONE, "allocationstate": "Disabled"}));
    assert_eq!(status(&good), 531);
    simulator.admin("POST", "zone", json!({"id": ZONE, "allocationstate": "Enabled"}));
    simulator.settings(json!({"max_volumes": 4}));
    assert_eq!(status(&good), 535);
    simulator.settings(json!({"max_volumes": null, "max_primary_storage_gib": 30}));
    assert_eq!(status(&good), 535);
}

#[test]
fn attaching_is_refused_as_by_the_server() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    let edit = |fields: Value| simulator.admin("POST", "volume", fields);
    for state in ["Attaching", "Migrating", "Snapshotting", "Destroy"] {
        edit(json!({"id": id, "state": state}));
        assert_eq!(code(&attach(&simulator, &id, WORKER)), 431, "{state}");
    }
    edit(json!({"id": id, "state": "Ready", "zoneid": "elsewhere"}));
    assert_eq!(code(&attach(&simulator, &id, WORKER)), 431, "another zone");
    edit(json!({"id": id, "zoneid": ZONE, "account": "other"}));
    assert_eq!(code(&attach(&simulator, &id, WORKER)), 530, "another owner");
    edit(json!({"id": id, "account": "volctl"}));
    for (field, value, back) in
        [("state", json!("Migrating"), json!("Running")), ("vmsnapshots", json!(true), json!(false))]
    {
        simulator.admin("POST", "vm", json!({"id": WORKER, field: value}));
        assert_eq!(code(&attach(&simulator, &id, WORKER)), 431, "{field}");
        simulator.admin("POST", "vm", json!({"id": WORKER, field: back}));
    }
    let at = |place: &str| {
        code(&simulator.job("attachVolume", &[("id", &id), ("virtualmachineid", WORKER), ("deviceid", place)]))
    };
    assert_eq!((at("3"), at("34"), at("-1"), at("0")), (530, 530, 530, 431));
    assert_eq!(at("5"), 0);
    let again = attach(&simulator, &id, WORKER);
    assert_eq!((code(&again), again["jobresult"]["errorcode"].clone()), (431, json!(431)), "the same VM included");
    simulator.admin("POST", "vm", json!({"id": WORKER, "account": "other"}));
    assert_eq!(simulator.call("attachVolume", &[("id", &id), ("virtualmachineid", WORKER)]).status, 531, "at submit");
}

#[test]
fn the_places_of_a_vm_are_limited() {
    let simulator = Simulator::start(&[]);
    simulator.settings(json!({"latency": {"default": {"min_ms": 0, "max_ms": 0}}}));
    let mut places = Vec::new();
    for number in 0..32 {
        let job = attach(&simulator, &simulator.volume(&number.to_string()), APPLIANCE);
        places.push(job["jobresult"]["volume"]["deviceid"].as_i64().unwrap());
    }
    assert_eq!(places, [1, 2].into_iter().chain(4..=33).collect::<Vec<_>>());
    let job = attach(&simulator, &simulator.volume("one too many"), APPLIANCE);
    assert_eq!(code(&job), 431);
}

#[test]
fn a_stopped_vm_gets_volumes_in_the_database_only() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    assert_eq!(code(&attach(&simulator, &id, OLD)), 0);
    assert_eq!(simulator.listed(&id)["state"], "Ready", "its root disk has a pool");
    assert!(!simulator.is_plugged(&id));
    let root = simulator.call("listVolumes", &[("virtualmachineid", OLD), ("type", "ROOT")]).content();
    let root = root["volume"][0]["id"].as_str().unwrap();
    assert_eq!(code(&detach(&simulator, root)), 0);
    assert_eq!(simulator.listed(root)["type"], "DATADISK");
    let job = simulator.job("attachVolume", &[("id", root), ("virtualmachineid", OLD), ("deviceid", "0")]);
    assert_eq!((code(&job), job["jobresult"]["volume"]["type"].clone()), (0, json!("ROOT")));
    let running = simulator.call("listVolumes", &[("virtualmachineid", WORKER)]).content();
    assert_eq!(code(&detach(&simulator, running["volume"][0]["id"].as_str().unwrap())), 431, "a running VM's root");
}

#[test]
fn a_guest_that_holds_a_disk_fails_the_detach() {
    let simulator = Simulator::start(&[]);
    simulator.settings(json!({"wait_detach_device_ms": 100}));
    let id = simulator.volume("data");
    attach(&simulator, &id, APPLIANCE);
    simulator.admin("POST", "guest", json!({"volume": id, "hold": true}));
    let job = detach(&simulator, &id);
    assert_eq!(code(&job), 530);
    assert!(job["jobresult"]["errortext"].as_str().unwrap().contains("waiting for [100] milliseconds"));
    assert_eq!(simulator.listed(&id)["virtualmachineid"], APPLIANCE, "still attached");
    assert_eq!(code(&detach(&simulator, &id)), 530);
    simulator.admin("POST", "guest", json!({"volume": id, "hold": false}));
    wait_for("the guest to let go", || (!simulator.is_plugged(&id)).then_some(()));
    assert_eq!(simulator.listed(&id)["virtualmachineid"], APPLIANCE, "the database does not know");
    assert_eq!(code(&detach(&simulator, &id)), 0, "which a repeat corrects");
}

#[test]
fn an_old_request_to_let_go_does_not_reach_a_new_disk() {
    let simulator = Simulator::start(&[]);
    simulator.settings(json!({"wait_detach_device_ms": 50}));
    let id = simulator.volume("data");
    attach(&simulator, &id, APPLIANCE);
    simulator.admin("POST", "guest", json!({"volume": id, "hold": true}));
    assert_eq!(code(&detach(&simulator, &id)), 530);
    simulator.admin("POST", "volume", json!({"id": id, "plugged": false}));
    assert_eq!(code(&detach(&simulator, &id)), 0);
    assert_eq!(code(&attach(&simulator, &id, APPLIANCE)), 0);
    simulator.admin("POST", "guest", json!({"volume": id, "hold": false}));
    // A job through the same guest gives a request that is still about the time to act.
    assert_eq!(code(&attach(&simulator, &simulator.volume("other"), APPLIANCE)), 0);
    assert!(simulator.is_plugged(&id));
}

#[test]
fn what_happens_behind_an_attach_fails_it() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    simulator.settings(json!({"latency": {"attachVolume": {"min_ms": 400, "max_ms": 400}}}));
    for edit in [json!({"virtualmachineid": WORKER}), json!({"state": "Destroy"}), json!({"removed": true})] {
        let submitted = simulator.call("attachVolume", &[("id", &id), ("virtualmachineid", OLD)]).content();
        wait_for("the attach", || (simulator.listed(&id)["state"] == "Attaching").then_some(()));
        let mut patch = edit.clone();
        patch["id"] = json!(id);
        simulator.admin("POST", "volume", patch);
        let job = simulator.ended(submitted["jobid"].as_str().unwrap());
        assert_eq!(code(&job), 530, "{edit}");
        if edit.get("state").is_some() {
            assert_eq!(simulator.listed(&id)["state"], "Destroy", "left as it was made");
        }
        simulator.admin("POST", "volume", json!({"id": id, "virtualmachineid": null, "state": "Ready"}));
    }
}

#[test]
fn a_guest_that_holds_a_disk_for_a_while_only_delays_the_detach() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    attach(&simulator, &id, APPLIANCE);
    simulator.admin("POST", "guest", json!({"volume": id, "hold": 0.2}));
    assert_eq!(code(&detach(&simulator, &id)), 0);
}

#[test]
fn the_other_form_of_detach_is_broken() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    attach(&simulator, &id, APPLIANCE);
    let by_place = [("virtualmachineid", APPLIANCE), ("deviceid", "1")];
    assert_eq!(code(&simulator.job("detachVolume", &by_place)), 530);
    let mixed = [("id", id.as_str()), ("deviceid", "1")];
    assert_eq!(code(&simulator.job("detachVolume", &mixed)), 431);
}

#[test]
fn destroyed_volumes_can_be_recovered() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    let destroy = |expunge: &str| code(&simulator.job("destroyVolume", &[("id", &id), ("expunge", expunge)]));
    assert_eq!(destroy("false"), 431, "never created on storage");
    attach(&simulator, &id, WORKER);
    assert_eq!(destroy("false"), 431, "attached");
    detach(&simulator, &id);
    assert_eq!(destroy("false"), 0);
    assert_eq!(simulator.listed(&id)["state"], "Destroy");
    let recovered = simulator.call("recoverVolume", &[("id", &id)]);
    assert_eq!(recovered.content()["volume"]["state"], "Ready");
    assert_eq!(simulator.call("recoverVolume", &[("id", &id)]).status, 431);
    simulator.settings(json!({"allow_user_expunge_recover_volume": false}));
    assert_eq!((destroy("true"), simulator.call("deleteVolume", &[("id", &id)]).status), (530, 531));
    simulator.settings(json!({"allow_user_expunge_recover_volume": true}));
    simulator.admin("POST", "volume", json!({"id": id, "deleteprotection": true}));
    assert_eq!(simulator.call("deleteVolume", &[("id", &id)]).status, 431);
    simulator.admin("POST", "volume", json!({"id": id, "deleteprotection": false}));
    assert_eq!(destroy("true"), 0);
    assert_eq!(simulator.listed(&id), Value::Null);
}

#[test]
fn a_disk_that_another_domain_has_cannot_be_plugged() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    attach(&simulator, &id, APPLIANCE);
    simulator.admin("POST", "volume", json!({"id": id, "virtualmachineid": null, "deviceid": null}));
    assert_eq!(code(&attach(&simulator, &id, WORKER)), 530);
    assert_eq!(simulator.listed(&id)["state"], "Ready");
    simulator.admin("POST", "volume", json!({"id": id, "virtualmachineid": APPLIANCE}));
    simulator.admin("POST", "volume", json!({"id": id, "plugged": false}));
    assert_eq!(code(&detach(&simulator, &id)), 0);
    assert_eq!(code(&attach(&simulator, &id, WORKER)), 0);
}
