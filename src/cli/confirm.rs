//! The questions before what cannot be taken back, each with the facts that the answer depends on.

use super::answer::Answer;
use super::render::{self, Output, read};
use super::session::{Request, Session};
use crate::api::{
    ExportPruned, Pruned, SnapshotList, Snapshots, VmGet, VmShown, Volume, VolumeGet, VolumeShown, method,
};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, format_size, printable};

/// Asks before each volume is deleted, and gives the ids of what was asked about: a name could come to mean another.
///
/// # Errors
/// `usage` where there is no terminal, or a prefix of an id was given; `cancelled` where the answer is no.
pub fn delete(words: &[String], expunge: bool, session: &Session, output: &Output) -> Answer<Vec<String>> {
    output.can_ask("deleting a volume")?;
    let mut ids = Vec::new();
    for word in words {
        let volume = named(word, session)?;
        agreed(output, &delete_question(&volume, expunge))?;
        ids.push(volume.id.to_string());
    }
    Ok(ids)
}

/// Asks before volumes are detached from another VM that is running; says whether it was asked.
///
/// # Errors
/// `usage` where there is no terminal; `cancelled` where the answer is no.
pub fn detach_from(vm: &str, words: &[String], session: &Session, output: &Output) -> Answer<bool> {
    let request = Request::new(method::VM_GET, format!("look up VM {vm}"), &VmGet { vm: Some(vm.to_owned()) })?;
    let vm: VmShown = read(&session.ask(request)?)?;
    if vm.state != "Running" || vm.this_vm == Some(true) {
        return Ok(false);
    }
    let label = format!("{} ({})", printable(&vm.name), vm.id);
    output
        .can_ask(&format!("VM {label} is running, and its use of a volume cannot be checked from here: detaching"))?;
    for word in words {
        let volume = render::label(&named(word, session)?);
        agreed(
            output,
            &format!(
                "VM {label} is running, and whether it uses the volume cannot be checked from here.\nDetach {volume}?"
            ),
        )?;
    }
    Ok(true)
}

/// Asks before another VM that is running is stopped for its volume.
///
/// # Errors
/// `usage` where there is no terminal; `cancelled` where the answer is no.
pub fn stop(vm: &str, volume: &str, session: &Session, output: &Output) -> Answer<()> {
    let request = Request::new(method::VM_GET, format!("look up VM {vm}"), &VmGet { vm: Some(vm.to_owned()) })?;
    let vm: VmShown = match session.ask(request) {
        // One that was destroyed before may not be shown any more; the daemon knows.
        Err(refusal) if refusal.error.kind == Kind::NotFound => return Ok(()),
        answer => read(&answer?)?,
    };
    if vm.state != "Running" || vm.this_vm == Some(true) {
        return Ok(());
    }
    let label = format!("{} ({})", printable(&vm.name), vm.id);
    output.can_ask(&format!("VM {label} is running and would be stopped: reclaiming a volume from it"))?;
    let question = format!("VM {label} is running, and is stopped first.\nReclaim {} from it?", printable(volume));
    Ok(agreed(output, &question)?)
}

/// Asks before a VM gets another root disk.
///
/// # Errors
/// `usage` where there is no terminal; `cancelled` where the answer is no.
pub fn swap_root(vm: &str, words: &[String], output: &Output) -> Result<()> {
    output.can_ask("replacing the root disk of a VM")?;
    let words: Vec<String> = words.iter().map(|word| printable(word)).collect();
    agreed(
        output,
        &format!(
            "The root disk that VM {} has now will be detached and kept, and the VM starts from {} then.\nReplace it?",
            printable(vm),
            words.join(", ")
        ),
    )
}

/// What is to be done with a snapshot.
#[derive(Clone, Copy)]
pub enum OfSnapshot {
    /// Its volume is reverted to it.
    Revert,
    /// It is deleted.
    Delete,
}

/// Asks before a volume is reverted to a snapshot or a snapshot is deleted, and gives the id of what was asked about.
///
/// # Errors
/// `usage` where there is no terminal; `cancelled` where the answer is no.
pub fn snapshot(word: &str, what: OfSnapshot, session: &Session, output: &Output) -> Answer<String> {
    output.can_ask(match what {
        OfSnapshot::Revert => "reverting a volume",
        OfSnapshot::Delete => "deleting a snapshot",
    })?;
    let request = Request::new(method::SNAPSHOT_LIST, format!("look up {word}"), &SnapshotList::default())?;
    let Snapshots { snapshots } = read(&session.ask(request)?)?;
    let lower = word.to_ascii_lowercase();
    let mut named = snapshots.iter().filter(|snapshot| snapshot.name == word || snapshot.id.to_string() == lower);
    let (Some(snapshot), None) = (named.next(), named.next()) else {
        let message = format!("\"{}\" is not the name or the whole id of exactly one snapshot", printable(word));
        return Err(Error::new(Kind::NotFound, message).hint("they are listed by: volctl snapshot ls").into());
    };
    let volume = snapshot.volume_name.as_deref().map(printable).unwrap_or_default();
    let (name, size) = (printable(&snapshot.name), format_size(snapshot.size_bytes));
    let label = format!("Snapshot {name} ({}) of volume {volume}, {size}", snapshot.id);
    agreed(
        output,
        &match what {
            OfSnapshot::Revert => format!(
                "{label}: all that was written to the volume since is lost, and its size is the snapshot's again.\nRevert it?"
            ),
            OfSnapshot::Delete => format!("{label}: it will be gone for ever.\nDelete it?"),
        },
    )?;
    Ok(snapshot.id.to_string())
}

/// Asks before exports end.
///
/// # Errors
/// `usage` where there is no terminal; `cancelled` where the answer is no.
pub fn prune(found: &Pruned, output: &Output) -> Result<()> {
    output.can_ask("ending exports")?;
    let line = |export: &ExportPruned| format!("{}: {}\n", printable(&export.name), printable(&export.reason));
    let lines: String = found.exports.iter().map(line).collect();
    agreed(output, &format!("{lines}End {} of the exports?", found.exports.len()))
}

/// Asks before an operation is given up.
///
/// # Errors
/// `usage` where there is no terminal; `cancelled` where the answer is no.
pub fn abandon(id: &str, output: &Output) -> Result<()> {
    output.can_ask("abandoning an operation")?;
    let id = printable(id);
    agreed(
        output,
        &format!("Operation {id} ends with its outcome unknown, and nothing more is done by itself.\nAbandon it?"),
    )
}

fn delete_question(volume: &Volume, expunge: bool) -> String {
    let label = render::label(volume);
    if volume.state == "Allocated" {
        format!("{label}: it was never created on storage, and will be gone at once.\nDelete it?")
    } else if expunge {
        format!("{label}: it will be gone for ever, with all its data.\nDelete it for ever?")
    } else {
        format!("{label}: `volctl recover` can bring it back until CloudStack purges it.\nDelete it?")
    }
}

fn agreed(output: &Output, question: &str) -> Result<()> {
    if output.confirm(question)? {
        return Ok(());
    }
    Err(Error::new(Kind::Cancelled, "not confirmed: nothing was sent"))
}

/// The volume of exactly this name or id, looked up now; the daemon would take a prefix, and this verb must not.
fn named(word: &str, session: &Session) -> Answer<Volume> {
    let params = VolumeGet { volume: word.to_owned(), max_age_seconds: Some(0) };
    let request = Request::new(method::VOLUME_GET, format!("look up {word}"), &params)?;
    let VolumeShown { volume, .. } = read(&session.ask(request)?)?;
    if volume.name == word || word.parse::<VolumeId>().is_ok_and(|id| id == volume.id) {
        return Ok(volume);
    }
    let message = format!("\"{}\" is only the beginning of an id, and this verb takes the whole one", printable(word));
    Err(Error::new(Kind::Usage, message).hint(format_args!("it fits {}", render::label(&volume))).into())
}
