//! Lists, paging and discovery.

use serde_json::json;

use crate::support::simulator::{APPLIANCE, CUSTOM, FIXED, Simulator, WORKER, ZONE};

#[test]
fn the_default_cloud_is_listed() {
    let simulator = Simulator::start(&[]);
    let vms = simulator.call("listVirtualMachines", &[]).content();
    assert_eq!(vms["count"], 3);
    let states: Vec<_> = vms["virtualmachine"].as_array().unwrap().iter().map(|vm| vm["state"].clone()).collect();
    assert_eq!(states, ["Stopped", "Running", "Running"]);
    let root = simulator.call("listVolumes", &[("virtualmachineid", APPLIANCE)]).content();
    assert_eq!((root["volume"][0]["deviceid"].clone(), root["volume"][0]["type"].clone()), (json!(0), json!("ROOT")));
    assert!(root["volume"][0].get("storagetype").is_none(), "root admins only");
    let zones = simulator.call("listZones", &[("name", "zone1"), ("available", "true")]).content();
    assert_eq!(zones["zone"][0]["id"], ZONE);
    let offerings = simulator.call("listDiskOfferings", &[("zoneid", ZONE)]).content();
    assert_eq!(offerings["diskoffering"][0]["id"], CUSTOM);
    assert_eq!(
        (offerings["diskoffering"][0]["iscustomized"].clone(), offerings["diskoffering"][1]["disksize"].clone()),
        (json!(true), json!(5))
    );
    assert_eq!(offerings["diskoffering"][1]["id"], FIXED);
    assert_eq!(simulator.call("listProjects", &[]).json(), json!({"listprojectsresponse": {}}));
}

#[test]
fn a_seed_makes_another_cloud() {
    let directory = tempfile::tempdir().unwrap();
    let seed = directory.path().join("seed.json");
    let vm = "b0000000-0000-4000-8000-000000000001";
    let parts = json!({
        "virtual_machines": [{"id": vm, "name": "mine"}],
        "volumes": [{"name": "data", "size": 4096, "virtualmachineid": vm, "deviceid": 1}],
        "settings": {"role": "admin", "clock_offset_seconds": 86_400},
    });
    std::fs::write(&seed, parts.to_string()).unwrap();
    let simulator = Simulator::start(&["--seed", seed.to_str().unwrap(), "--this-vm", vm]);
    let answer = simulator.call("listVolumes", &[("virtualmachineid", vm)]);
    let volume = answer.content()["volume"][0].clone();
    assert_eq!((volume["size"].clone(), volume["storagetype"].clone()), (json!(4096), json!("shared")));
    assert!(simulator.is_plugged(volume["id"].as_str().unwrap()));
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let date = tomorrow.strftime("%d %b %Y").to_string();
    let after = (tomorrow + jiff::SignedDuration::from_secs(60)).strftime("%d %b %Y").to_string();
    let header = answer.header("Date").unwrap();
    assert!(header.contains(&date) || header.contains(&after), "{header}");
    assert_eq!(simulator.call("listZones", &[]).content()["count"], 1, "what the seed leaves out is as ever");
}

#[test]
fn volumes_are_filtered() {
    let simulator = Simulator::start(&[]);
    let ids = [simulator.volume("data"), simulator.volume("data1"), simulator.volume("data")];
    let names = |parameters: &[(&str, &str)]| -> Vec<String> {
        let content = simulator.call("listVolumes", parameters).content();
        let volumes = content["volume"].as_array().cloned().unwrap_or_default();
        volumes.iter().map(|volume| volume["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[("type", "data")]), ["data", "data1", "data"], "newest first");
    assert_eq!(names(&[("name", "data")]), ["data", "data"], "exact");
    assert_eq!(names(&[("keyword", "ATA1")]), ["data1"]);
    assert_eq!(names(&[("ids", &format!("{},{}", ids[0], ids[1]))]), ["data1", "data"]);
    assert_eq!(names(&[("virtualmachineid", WORKER)]), ["ROOT-worker"]);
    assert_eq!(names(&[("state", "Allocated"), ("diskofferingid", CUSTOM)]).len(), 3);
    assert_eq!(names(&[("state", "alloc")]).len(), 0);
    assert_eq!(simulator.call("listVolumes", &[("id", &ids[0]), ("ids", &ids[1])]).status, 431);
    let one_unknown = format!("{},12345678-0000-4000-8000-000000000000", ids[0]);
    assert_eq!(simulator.call("listVolumes", &[("ids", &one_unknown)]).status, 431);
    simulator.job(
        "createTags",
        &[("resourceids", &ids[1]), ("resourcetype", "volume"), ("tags[0].key", "purpose"), ("tags[0].value", "test")],
    );
    assert_eq!(names(&[("tags[0].key", "purpose"), ("tags[0].value", "test")]), ["data1"]);
    assert_eq!(names(&[("tags[0].key", "purpose"), ("tags[0].value", "other")]).len(), 0);
}

#[test]
fn deleted_is_empty_and_never_existing_is_an_error() {
    let simulator = Simulator::start(&[]);
    let id = simulator.volume("data");
    assert_eq!(
        simulator.call("deleteVolume", &[("id", &id)]).json(),
        json!({"deletevolumeresponse": {"success": true}})
    );
    assert_eq!(simulator.call("listVolumes", &[("id", &id)]).json(), json!({"listvolumesresponse": {}}));
    assert_eq!(simulator.call("attachVolume", &[("id", &id), ("virtualmachineid", WORKER)]).status, 431, "at submit");
    assert_eq!(simulator.call("deleteVolume", &[("id", &id)]).status, 431);
}

#[test]
fn projects_and_other_accounts_are_apart() {
    let simulator = Simulator::start(&[]);
    let project = "40000000-0000-4000-8000-000000000001";
    simulator.admin("POST", "project", json!({"id": project, "name": "p"}));
    let ours = simulator.admin("POST", "volume", json!({"name": "ours", "size": 1, "projectid": project}));
    let theirs = simulator.admin("POST", "volume", json!({"name": "theirs", "size": 1, "account": "other"}));
    let (ours, theirs) = (ours["id"].as_str().unwrap(), theirs["id"].as_str().unwrap());
    let count = |parameters: &[(&str, &str)]| simulator.call("listVolumes", parameters).content()["count"].clone();
    assert_eq!(count(&[("id", ours)]), json!(null), "even by id");
    assert_eq!(count(&[("id", ours), ("projectid", project)]), 1);
    assert_eq!(count(&[("projectid", "-1")]), 1);
    assert_eq!(count(&[("id", theirs)]), json!(null));
    assert_eq!(simulator.call("deleteVolume", &[("id", theirs)]).status, 531);
    simulator.settings(json!({"role": "admin"}));
    assert_eq!(count(&[("id", theirs)]), 1);
    assert_eq!(count(&[("listall", "true")]), 5);
}

#[test]
fn pages_follow_the_rules() {
    let simulator = Simulator::start(&[]);
    for name in ["a", "b"] {
        simulator.volume(name);
    }
    let page = |parameters: &[(&str, &str)]| {
        let answer = simulator.call("listVolumes", parameters);
        let content = answer.content();
        (answer.status, content["count"].clone(), content["volume"].as_array().map(Vec::len))
    };
    assert_eq!(page(&[("page", "1"), ("pagesize", "2")]), (200, json!(5), Some(2)));
    assert_eq!(page(&[("page", "3"), ("pagesize", "2")]), (200, json!(5), Some(1)));
    assert_eq!(page(&[("page", "4"), ("pagesize", "2")]), (200, json!(5), None));
    assert_eq!(page(&[("retrieveonlyresourcecount", "true")]), (200, json!(5), None));
    for refused in [
        vec![("page", "1")],
        vec![("pagesize", "2")],
        vec![("page", "1"), ("pagesize", "-1")],
        vec![("page", "1"), ("pagesize", "501")],
        vec![("page", "0"), ("pagesize", "2")],
    ] {
        assert_eq!(page(&refused).0, 431, "{refused:?}");
    }
    simulator.settings(json!({"default_page_size": 3}));
    assert_eq!(page(&[]), (200, json!(5), Some(3)), "silently cut");
    assert_eq!(page(&[("pagesize", "-1")]), (200, json!(5), Some(5)));
    assert_eq!(page(&[("page", "1"), ("pagesize", "4")]).0, 431);
}

#[test]
fn what_is_available_can_be_asked() {
    let simulator = Simulator::start(&[]);
    let api = simulator.call("listApis", &[("name", "attachVolume")]).content();
    assert_eq!(
        (api["api"][0]["isasync"].clone(), api["api"][0]["params"][0]["required"].clone()),
        (json!(true), json!(true))
    );
    simulator.settings(json!({"denied_commands": ["attachVolume"]}));
    assert_eq!(simulator.call("listApis", &[("name", "attachVolume")]).status, 530);
    let capability = simulator.call("listCapabilities", &[]).content()["capability"].clone();
    assert_eq!(capability["cloudstackversion"], "4.22.0.0");
    assert!(capability.get("apilimitmax").is_none());
    simulator.settings(json!({"throttle": {"max": 25, "interval_ms": 1000}}));
    assert_eq!(simulator.call("listCapabilities", &[]).content()["capability"]["apilimitmax"], 25);
}
