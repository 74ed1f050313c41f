//! The back door under `/admin/`, for tests: the truth, and changes that no API call made. JSON in and out.
//!
//! | request | effect |
//! | --- | --- |
//! | `GET /admin/state` | everything: objects, jobs, what the guests really have, calls by command, requests |
//! | `POST /admin/volume`, `snapshot`, `vm`, `zone`, `offering`, `project` | a new row, or changes (RFC 7396) to the one with this `id`; in the database only, but for a volume `plugged` puts its disk in or takes it out |
//! | `POST /admin/settings` | changes to the settings (RFC 7396) |
//! | `POST /admin/faults`, `DELETE /admin/faults` | adds a list of faults, forgets all |
//! | `POST /admin/guest {volume, hold}` | the guest holds the disk: `true`, `false`, or for seconds |
//! | `POST /admin/release-jobs` | jobs that a fault kept from ending go on |
//! | `POST /admin/restart-management` | running jobs fail without a result |
//! | `POST /admin/purge-jobs` | ended jobs are forgotten |
//! | `POST /admin/clock {advance_seconds}` | the cloud's clock moves |

use std::sync::Arc;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::events;
use crate::faults::Fault;
use crate::guest::{self, Hold};
use crate::jobs;
use crate::simulator::Simulator;
use crate::world::World;
use crate::world::objects::{DiskOffering, Project, Snapshot, VirtualMachine, Volume, Zone};

/// Answers a request: HTTP status and JSON.
pub async fn handle(simulator: &Arc<Simulator>, method: &Method, path: &str, body: &[u8]) -> (u16, String) {
    let body = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) };
    let answer = match body {
        Ok(body) => act(simulator, method, path, body).await,
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(answer) => (200, answer.to_string()),
        Err(error) => (400, json!({"error": error}).to_string()),
    }
}

async fn act(simulator: &Arc<Simulator>, method: &Method, path: &str, body: Value) -> Result<Value, String> {
    let change = |change: fn(&mut World)| {
        simulator.change(change);
        Ok(json!({}))
    };
    match (method.as_str(), path) {
        ("GET", "/admin/state") => serde_json::to_value(&*simulator.world()).map_err(|error| error.to_string()),
        ("POST", "/admin/volume") => edit_volume(simulator, body).await,
        ("POST", "/admin/vm") => simulator.change(|world| upsert(&mut world.virtual_machines, body)),
        ("POST", "/admin/snapshot") => simulator.change(|world| upsert(&mut world.snapshots, body)),
        ("POST", "/admin/zone") => simulator.change(|world| upsert(&mut world.zones, body)),
        ("POST", "/admin/offering") => simulator.change(|world| upsert(&mut world.disk_offerings, body)),
        ("POST", "/admin/project") => simulator.change(|world| upsert(&mut world.projects, body)),
        ("POST", "/admin/settings") => simulator.change(|world| {
            world.settings = merged(&world.settings, body)?;
            Ok(json!({}))
        }),
        ("POST", "/admin/faults") => {
            let faults: Vec<Fault> = serde_json::from_value(body).map_err(|error| error.to_string())?;
            simulator.change(|world| world.faults.add(faults));
            Ok(json!({}))
        }
        ("DELETE", "/admin/faults") => change(|world| world.faults.clear()),
        ("POST", "/admin/guest") => hold(simulator, &body),
        ("POST", "/admin/release-jobs") => change(|world| world.jobs.iter_mut().for_each(|job| job.held = false)),
        ("POST", "/admin/restart-management") => change(jobs::restart_management),
        ("POST", "/admin/purge-jobs") => change(jobs::purge),
        ("POST", "/admin/clock") => {
            let seconds = body["advance_seconds"].as_i64().ok_or("advance_seconds must be a whole number")?;
            simulator.change(|world| {
                let offset = &mut world.settings.clock_offset_seconds;
                *offset = offset.saturating_add(seconds);
                jobs::expire(world);
            });
            Ok(json!({}))
        }
        _ => Err(format!("no such thing: {method} {path}")),
    }
}

async fn edit_volume(simulator: &Arc<Simulator>, mut body: Value) -> Result<Value, String> {
    let plugged = body.as_object_mut().and_then(|fields| fields.remove("plugged"));
    let volume = simulator.change(|world| {
        let r#type = match body.get("virtualmachineid") {
            Some(Value::Null) => "VOLUME.DETACH",
            Some(_) => "VOLUME.ATTACH",
            None if body["id"].as_str().is_some_and(|id| world.volume(id).is_some()) => "VOLUME.UPDATE",
            None => "VOLUME.CREATE",
        };
        let volume = upsert(&mut world.volumes, body)?;
        events::enter_admins(world, volume["id"].as_str().unwrap_or_default(), r#type);
        Ok::<Value, String>(volume)
    })?;
    let id = volume["id"].as_str().unwrap_or_default();
    match plugged.as_ref().map(Value::as_bool) {
        None => {}
        Some(Some(true)) => guest::plug(simulator, id).await?,
        Some(Some(false)) => guest::pull(simulator, id).await?,
        Some(None) => return Err("plugged must be true or false".to_owned()),
    }
    Ok(volume)
}

fn hold(simulator: &Simulator, body: &Value) -> Result<Value, String> {
    let volume = body["volume"].as_str().ok_or("volume must be an id")?;
    let hold = match &body["hold"] {
        Value::Bool(true) => Some(Hold::Forever),
        Value::Bool(false) => None,
        other => Some(other.as_f64().and_then(Hold::seconds).ok_or("hold must be true, false, or seconds")?),
    };
    simulator.change(|world| world.guests.hold(volume, hold));
    Ok(json!({}))
}

/// A row that is named by an id.
trait Row: Serialize + DeserializeOwned {
    fn id(&self) -> &str;
}

macro_rules! rows {
    ($($row:ty),*) => {
        $(impl Row for $row {
            fn id(&self) -> &str {
                &self.id
            }
        })*
    };
}

rows!(Volume, Snapshot, VirtualMachine, Zone, DiskOffering, Project);

/// Changes the row with the patch's id, or makes it a new row; answers the row.
fn upsert<T: Row>(rows: &mut Vec<T>, patch: Value) -> Result<Value, String> {
    let index = rows.iter().position(|row| patch["id"] == row.id());
    let row: T = match index {
        Some(index) => merged(&rows[index], patch)?,
        None => serde_json::from_value(patch).map_err(|error| error.to_string())?,
    };
    let shown = serde_json::to_value(&row).map_err(|error| error.to_string())?;
    match index {
        Some(index) => rows[index] = row,
        None => rows.push(row),
    }
    Ok(shown)
}

/// The object with the patch's fields; a null takes a field away, which is its default again.
fn merged<T: Serialize + DeserializeOwned>(object: &T, patch: Value) -> Result<T, String> {
    let mut fields = serde_json::to_value(object).map_err(|error| error.to_string())?;
    let Value::Object(patch) = patch else {
        return Err("a JSON object is needed".to_owned());
    };
    for (name, value) in patch {
        match (&mut fields[&name], value) {
            (Value::Object(inner), Value::Object(patch)) => inner.extend(patch),
            (field, value) => *field = value,
        }
    }
    if let Value::Object(fields) = &mut fields {
        fields.retain(|_, value| !value.is_null());
    }
    serde_json::from_value(fields).map_err(|error| error.to_string())
}
