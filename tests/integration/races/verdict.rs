//! What must agree when all is quiet: CloudStack's truth, the store, what `volctl` shows, what is served, and what each
//! client was told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use volctl::rpc::client::{Client, Wait};

use super::client::Acknowledged;
use super::{VOLUMES, connect};
use crate::support::appliance::Appliance;
use crate::support::matrix::announce;
use crate::support::nbd;
use crate::support::simulator::APPLIANCE;

const ENDED: [&str; 3] = ["succeeded", "failed", "cancelled"];

/// Panics unless all agree.
pub fn all_agree(appliance: &Appliance, volumes: &[String], acknowledged: &[Acknowledged]) {
    let mut connection = connect(appliance);
    let operations = ask(&mut connection, "operation.list", json!({"limit": 10_000_000}))["operations"].clone();
    let operations = operations.as_array().unwrap();
    each_has_one_outcome(&mut connection, operations, acknowledged);

    let attached = attached_in_cloudstack(appliance, volumes);
    let exports = ask(&mut connection, "export.list", json!({}))["exports"].clone();
    let exported: BTreeSet<&str> = texts(exports.as_array().unwrap(), "volume_id");
    shown_as_they_are(&mut connection, &attached, &exported);
    exports_are_served(appliance, exports.as_array().unwrap(), &attached);
    store_agrees(appliance, &attached, &exported);
    let expected = last_word(operations);
    for volume in volumes {
        let is = attached.contains(volume);
        if let Some(should) = expected.get(volume.as_str()) {
            assert_eq!(is, *should, "{volume} is not as the last operation that did something left it");
        }
    }
    announce(&format!(
        "races: {} operations acknowledged, {} attached and {} exported at the end",
        operations.len(),
        attached.len(),
        exported.len()
    ));
}

fn ask(connection: &mut Client, method: &str, params: Value) -> Value {
    let answer = connection.call(method, &params, &Wait::default(), |_, _| {});
    answer.unwrap_or_else(|failure| panic!("{failure:?}")).read().unwrap()
}

fn texts<'a>(rows: &'a [Value], key: &str) -> BTreeSet<&'a str> {
    rows.iter().map(|row| row[key].as_str().unwrap()).collect()
}

fn each_has_one_outcome(connection: &mut Client, operations: &[Value], acknowledged: &[Acknowledged]) {
    let by_id: BTreeMap<&str, &Value> =
        operations.iter().map(|operation| (operation["id"].as_str().unwrap(), operation)).collect();
    assert_eq!(by_id.len(), operations.len());
    for operation in operations {
        assert!(ENDED.iter().any(|status| operation["status"] == *status), "{operation}");
        let history = ask(connection, "operation.get", json!({"id": operation["id"]}))["history"].clone();
        let ends = history.as_array().unwrap().iter().filter(|moment| ENDED.iter().any(|end| moment["status"] == *end));
        assert_eq!(ends.count(), 1, "one outcome: {operation} {history}");
    }
    for Acknowledged { id, status } in acknowledged {
        let operation = by_id.get(id.as_str()).unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
        if ENDED.contains(&status.as_str()) {
            assert_eq!(operation["status"], *status, "its client was told something else: {operation}");
        }
    }
}

/// The volumes that the books have on this VM, which must be those whose disks it has.
fn attached_in_cloudstack(appliance: &Appliance, volumes: &[String]) -> BTreeSet<String> {
    let state = appliance.cloud.state();
    let rows = state["volumes"].as_array().unwrap();
    let data = rows.iter().filter(|row| volumes.iter().any(|volume| row["id"] == **volume));
    let attached: BTreeSet<String> = data
        .filter(|row| row["virtualmachineid"] == APPLIANCE)
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    let plugged = state["guests"]["plugged"].as_object().unwrap();
    let plugged: BTreeSet<String> = plugged.keys().filter(|id| volumes.contains(id)).cloned().collect();
    assert_eq!(plugged, attached, "the guest has what the books say");
    let slots: BTreeSet<u64> = rows
        .iter()
        .filter(|row| row["virtualmachineid"] == APPLIANCE)
        .map(|row| row["deviceid"].as_u64().unwrap())
        .collect();
    assert_eq!(slots.len(), attached.len() + 1, "each attachment, and the root disk, has a number of its own");
    attached
}

fn shown_as_they_are(connection: &mut Client, attached: &BTreeSet<String>, exported: &BTreeSet<&str>) {
    let listed = ask(connection, "volume.list", json!({"max_age_seconds": 0}));
    let volumes: Vec<&Value> =
        listed["volumes"].as_array().unwrap().iter().filter(|volume| volume["type"] == "DATADISK").collect();
    assert_eq!(volumes.len(), VOLUMES);
    for volume in volumes {
        let id = volume["id"].as_str().unwrap();
        assert_eq!(volume["vm_id"] == APPLIANCE, attached.contains(id), "{volume}");
        assert_eq!(!volume["device"].is_null(), attached.contains(id), "{volume}");
        assert_eq!(!volume["export"].is_null(), exported.contains(id), "{volume}");
        if let Some(serial) = volume["device"]["serial"].as_str() {
            assert_eq!(serial, &id.replace('-', "")[..20]);
        }
    }
    assert_eq!(ask(connection, "system.sync", json!({}))["differences"], json!([]));
}

fn exports_are_served(appliance: &Appliance, exports: &[Value], attached: &BTreeSet<String>) {
    for export in exports {
        let volume = export["volume_id"].as_str().unwrap();
        assert_eq!(export["state"], "active", "{export}");
        assert!(attached.contains(volume), "{export}");
        let mut client =
            nbd::Client::enter(&appliance.path("nbd.sock"), export["name"].as_str().unwrap()).expect("it is served");
        client.write(0, volume.as_bytes()).unwrap();
        let link = appliance.path("by-id").join(format!("virtio-{}", &volume.replace('-', "")[..20]));
        let mut bytes = vec![0; volume.len()];
        File::open(link).unwrap().read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, volume.as_bytes(), "it is served from its own disk");
    }
}

fn store_agrees(appliance: &Appliance, attached: &BTreeSet<String>, exported: &BTreeSet<&str>) {
    let path = appliance.path("state").join("volctl.db");
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let column = |query: &str| -> Vec<String> {
        let mut statement = store.prepare(query).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let records: Vec<Value> =
        column("SELECT record FROM volumes").iter().map(|record| serde_json::from_str(record).unwrap()).collect();
    let here = records.iter().filter(|record| record["vm_id"] == APPLIANCE && record["volume_type"] == "DATADISK");
    let here: BTreeSet<String> = here.map(|record| record["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(&here, attached);
    let wishes = column("SELECT volume_id FROM exports WHERE failed = 0");
    assert_eq!(wishes.iter().map(String::as_str).collect::<BTreeSet<_>>(), *exported);
    assert_eq!(column("SELECT id FROM operations WHERE finished_at IS NULL"), Vec::<String>::new());
}

/// Whether each volume is attached, by the last operation on it that did something: `failed` proves that it did not.
fn last_word(operations: &[Value]) -> BTreeMap<&str, bool> {
    let mut ended: Vec<&Value> = operations.iter().collect();
    ended.sort_by_key(|operation| operation["finished_at"].as_str().unwrap());
    let mut attached = BTreeMap::new();
    for operation in ended {
        let stands = operation["error"]["message"].as_str().is_some_and(|message| message.contains("is attached, but"));
        let attaches = match operation["kind"].as_str() {
            Some("attach") => true,
            Some("detach") => false,
            _ => continue,
        };
        if operation["status"] == "succeeded" || stands {
            attached.insert(operation["volume_id"].as_str().unwrap(), attaches);
        }
    }
    attached
}
