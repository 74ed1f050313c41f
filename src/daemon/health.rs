//! Whether all is well: each part looked at, with its age. Answers within two seconds, whatever hangs.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::{Check, ExportState, Health, Status};
use crate::model::printable;
use crate::operation::{Engine, World};

/// How long CloudStack may take to answer a look at its health.
const PATIENCE: Duration = Duration::from_millis(900);

/// Looks at every part.
pub(super) async fn check(engine: &Engine) -> Health {
    let world = engine.world();
    let checks = vec![
        cloudstack(world).await,
        this_vm(world).await,
        devices(world),
        store(world),
        exports(world),
        operations(engine),
    ];
    Health { healthy: checks.iter().all(|check| check.ok), checks }
}

fn now(name: &str, looked: Result<String, String>) -> Check {
    let ok = looked.is_ok();
    let message = match looked {
        Ok(message) | Err(message) => message,
    };
    Check { name: name.to_owned(), ok, message, age_seconds: 0 }
}

async fn cloudstack(world: &World) -> Check {
    let asked = tokio::time::timeout(PATIENCE, world.cloud.ping()).await;
    let looked = match asked {
        Ok(Ok(Some(version))) => Ok(format!("version {} answers, and accepts the key", printable(&version))),
        Ok(Ok(None)) => Ok("answers, and accepts the key".to_owned()),
        Ok(Err(error)) => Err(error.into_error("asking CloudStack").message),
        Err(_) => Err(format!("has not answered within {}ms", PATIENCE.as_millis())),
    };
    let mut check = now("cloudstack", looked);
    if !check.ok
        && let Some(at) = world.cloud.contact().last_answer
    {
        check.age_seconds = Timestamp::now().duration_since(at).as_secs().unsigned_abs();
    }
    check
}

async fn this_vm(world: &World) -> Check {
    let looked = match tokio::time::timeout(PATIENCE, world.prove_this_vm()).await {
        Ok(proven) => proven
            .map(|vm| format!("{vm}, {}", world.this_vm_known_by().unwrap_or_default()))
            .map_err(|error| error.message),
        Err(_) => Err(format!("not proven: CloudStack has not answered within {}ms", PATIENCE.as_millis())),
    };
    now("this_vm", looked)
}

fn devices(world: &World) -> Check {
    let max = world.config.device.max_disks;
    let looked =
        world.devices.all().map(|devices| format!("disks with a volume's serial: {}; a VM holds {max}", devices.len()));
    now("devices", looked.map_err(|error| error.message))
}

fn store(world: &World) -> Check {
    let looked = world.refuse_without_room().and_then(|()| world.store.created_at());
    let answers = |since: Option<Timestamp>| {
        let since =
            since.map(|at| format!("; history and export wishes since {}", at.strftime("%Y-%m-%d %H:%M:%S UTC")));
        format!("{} answers{}", world.store.path().display(), since.unwrap_or_default())
    };
    now("store", looked.map(answers).map_err(|error| error.message))
}

fn exports(world: &World) -> Check {
    let looked = world.exports().map_err(|error| error.message).and_then(|exports| {
        let failed: Vec<&str> = exports
            .iter()
            .filter(|export| export.state == ExportState::Failed)
            .map(|export| export.name.as_str())
            .collect();
        if failed.is_empty() {
            Ok(format!("{} exported", exports.len()))
        } else {
            Err(format!("failed: {}", failed.join(", ")))
        }
    });
    now("exports", looked)
}

fn operations(engine: &Engine) -> Check {
    let store = &engine.world().store;
    let counted = store.unfinished().and_then(|rows| Ok((store.count_unfinished()?, rows)));
    let looked = counted.map_err(|error| error.message).and_then(|(unfinished, rows)| {
        let stuck = rows.iter().filter(|row| row.status == Status::Stuck).count();
        match unfinished.saturating_sub(rows.len()) {
            0 if stuck == 0 => Ok(format!("{unfinished} under way")),
            0 => Err(format!("{stuck} stuck: `volctl ops` names them")),
            unreadable => Err(format!("{unreadable} rows of the journal cannot be read: the log says why")),
        }
    });
    now("operations", looked)
}
