//! Whether all is well: each part looked at, with its age. Answers within two seconds, whatever hangs.

use jiff::Timestamp;
use tokio::join;

use super::looks::{Journal, Looks, Seen};
use super::probe::PATIENCE;
use super::version::version;
use crate::api::{Check, ExportState, Health, Status};
use crate::error::{Kind, Result};
use crate::model::{clock_time, format_age, format_size, printable};
use crate::operation::World;
use crate::store::Wish;

/// Looks at every part.
pub(super) async fn check(looks: &Looks) -> Health {
    let world = looks.world();
    let (cloudstack, this_vm, seen) = join!(cloudstack(world), this_vm(looks), looks.take());
    let mut checks = vec![cloudstack, this_vm];
    checks.extend(parts(looks, &seen));
    Health { healthy: checks.iter().all(|check| check.ok), checks }
}

/// The parts that can be told without asking CloudStack.
pub(super) fn parts(looks: &Looks, seen: &Seen) -> Vec<Check> {
    let world = looks.world();
    let journal = seen.journal.as_deref();
    vec![
        devices(world, seen),
        disks(world, journal),
        store(world, seen),
        exports(world, journal),
        tls(world),
        operations(journal),
        sync(world),
        daemon(looks),
    ]
}

/// What was looked at now.
fn now(name: &str, looked: Result<String, String>) -> Check {
    let ok = looked.is_ok();
    let message = match looked {
        Ok(message) | Err(message) => message,
    };
    Check { name: name.to_owned(), ok, message, age_seconds: 0 }
}

/// What is as it was at a moment.
fn then(name: &str, looked: Result<String, String>, at: Option<Timestamp>) -> Check {
    Check { age_seconds: at.map_or(0, age_seconds), ..now(name, looked) }
}

/// Whole seconds since a moment; 0 for one that is ahead.
pub(super) fn age_seconds(at: Timestamp) -> u64 {
    Timestamp::now().duration_since(at).as_secs().try_into().unwrap_or_default()
}

async fn cloudstack(world: &World) -> Check {
    let asked = tokio::time::timeout(PATIENCE, world.cloud.ping()).await;
    let looked = match asked {
        Ok(Ok(Some(version))) => Ok(format!("version {} answers, and accepts the key", printable(&version))),
        Ok(Ok(None)) => Ok("answers, and accepts the key".to_owned()),
        Ok(Err(error)) => Err(error.into_error("asking CloudStack").message),
        Err(_) => Err(format!("has not answered within {}ms", PATIENCE.as_millis())),
    };
    let contact = world.cloud.contact();
    let looked = looked.map_err(|message| match (contact.key_refused_since, contact.last_answer) {
        (Some(since), _) => format!("{message}; key refused since {} UTC", clock_time(since)),
        (None, Some(at)) => format!("{message}; the last answer came at {} UTC", clock_time(at)),
        (None, None) => message,
    });
    let at = contact.last_answer.filter(|_| looked.is_err());
    then("cloudstack", looked, at)
}

async fn this_vm(looks: &Looks) -> Check {
    let world = looks.world();
    let known = match world.this_vm_known() {
        Some(vm) => Some(Ok(vm)),
        None => {
            let world = world.clone();
            looks.this_vm.ask(async move { world.prove_this_vm().await }).await
        }
    };
    let looked = match known {
        Some(Ok(vm)) => Ok(format!("{vm}, {}", world.this_vm_known_by().unwrap_or_default())),
        Some(Err(error)) => Err(error.message),
        None => Err(format!("not proven within {}ms: every change is refused until it is", PATIENCE.as_millis())),
    };
    now("this_vm", looked)
}

fn devices(world: &World, seen: &Seen) -> Check {
    let source = world.devices.told_by();
    let looked = match &seen.devices {
        Ok(count) => Ok(format!("disks with a volume's serial: {count}; {source}")),
        Err(error) => Err(format!("{}; {source}", error.message)),
    };
    now("devices", looked)
}

fn disks(world: &World, journal: Option<&Journal>) -> Check {
    let max = world.config.device.max_disks;
    let looked = match journal.and_then(|journal| journal.disks) {
        Some(used) => format!("{used} of {max} disks of this VM are used"),
        None => format!("of {max}: how many are used is not known yet"),
    };
    then("disks", Ok(looked), journal.and_then(|journal| journal.listed_at))
}

fn store(world: &World, seen: &Seen) -> Check {
    let room = seen
        .disk
        .map(|disk| format!("{} on a disk with {} free", format_size(disk.store_bytes), format_size(disk.free_bytes)));
    let room = room.unwrap_or_else(|| "its disk does not say how much is free".to_owned());
    let since = seen.journal.as_ref().and_then(|journal| journal.created_at);
    let since = since.map(|at| format!("; history and export wishes since {}", at.strftime("%Y-%m-%d %H:%M:%S UTC")));
    let looked = match &seen.writable {
        Ok(()) => Ok(format!("{} answers, {room}{}", world.store.path().display(), since.unwrap_or_default())),
        Err(error) => Err(error.message.clone()),
    };
    let at = seen.journal.as_ref().map(|journal| journal.read_at).filter(|_| looked.is_err());
    then("store", looked, at)
}

fn exports(world: &World, journal: Option<&Journal>) -> Check {
    let served = world.nbd.list();
    let wishes = journal.map_or(&[][..], |journal| &journal.wishes);
    let unfinished = journal.map_or(&[][..], |journal| &journal.unfinished);
    let is_served = |id| served.iter().any(|export| export.volume_id == id);
    // What an operation is at work on is on its way to an export, or away from it.
    let is_moving = |id| unfinished.iter().any(|row| row.volume_id == Some(id));
    let is_lost = |wish: &&Wish| !is_served(wish.volume_id) && (wish.failed || !is_moving(wish.volume_id));
    let lost = wishes.iter().filter(is_lost).map(|wish| &wish.name);
    let failing = served.iter().filter(|export| export.state == ExportState::Failed).map(|export| &export.name);
    let failed: Vec<String> = failing.chain(lost).map(|name| printable(name)).collect();
    let wished = wishes.len().max(served.len());
    let clients: usize = served.iter().map(|export| export.clients.len()).sum();
    let listening = world.nbd.listeners().join(" and ");
    let serving = served.iter().filter(|export| export.state != ExportState::Failed).count();
    let facts = format!("{serving} of {wished} served, clients: {clients}; listening on {listening}");
    let socket = &world.config.nbd.unix_socket;
    let looked = match failed.as_slice() {
        [] if !socket.exists() => Err(format!(
            "{} is gone, and nobody can connect there until volctld is restarted; {facts}",
            socket.display()
        )),
        [] => Ok(facts),
        failed => Err(format!("not served: {}: `volctl exports check` says why; {facts}", failed.join(", "))),
    };
    then("exports", looked, journal.map(|journal| journal.read_at))
}

fn tls(world: &World) -> Check {
    let none = || Ok("not configured: NBD is served to this machine, or without encryption".to_owned());
    now("tls", world.nbd.tls_health().unwrap_or_else(none))
}

fn operations(journal: Option<&Journal>) -> Check {
    let Some(journal) = journal else {
        return now("operations", Err("the state store has not answered yet".to_owned()));
    };
    let stuck = journal.unfinished.iter().filter(|row| row.status == Status::Stuck).count();
    let unfinished = journal.unfinished.len() + journal.unreadable;
    let oldest = journal.unfinished.iter().map(|row| row.created_at).min();
    let oldest = oldest.map(|at| format!(", the oldest for {}", format_age(at.duration_until(Timestamp::now()))));
    let oldest = oldest.unwrap_or_default();
    let looked = match (journal.unreadable, stuck) {
        (0, 0) => Ok(format!("{unfinished} under way{oldest}")),
        (0, _) => Err(format!("{stuck} stuck of {unfinished}{oldest}: `volctl ops` names them")),
        (unreadable, _) => Err(format!("{unreadable} rows of the journal cannot be read: the log says why")),
    };
    then("operations", looked, Some(journal.read_at))
}

/// That CloudStack is away is told by its own part.
fn sync(world: &World) -> Check {
    let log = world.synced();
    let last = log.last.map(|last| match last.standing {
        0 => format!("{} differences found and put right", last.differences),
        standing => format!("{} differences found, {standing} stand: `volctl sync` names them", last.differences),
    });
    let last = last.unwrap_or_else(|| "not compared with CloudStack since volctld began".to_owned());
    let away = |kind| matches!(kind, Kind::CloudstackUnreachable | Kind::CloudstackAuth);
    let looked = match &log.failure {
        Some(error) if !away(error.kind) => Err(format!("{}; before: {last}", error.message)),
        Some(_) => Ok(format!("{last}; CloudStack did not answer the next time")),
        None => Ok(last),
    };
    then("sync", looked, log.last.map(|last| last.at))
}

fn daemon(looks: &Looks) -> Check {
    let up = format_age(looks.since.duration_until(Timestamp::now()));
    let running = version(&looks.world().nbd);
    let pending = match running.restart_pending(&running.version) {
        Some(pending) => format!("; {pending}"),
        None if running.replaced => "; another one is installed: `systemctl restart volctld`".to_owned(),
        None => String::new(),
    };
    now("daemon", Ok(format!("volctld {}, up for {up}{pending}", running.version)))
}
