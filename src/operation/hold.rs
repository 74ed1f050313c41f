//! Hold and release: a held volume is taken away by nobody, whoever asks.
//!
//! Neither is an operation: CloudStack has no part in it, and one transaction of the store is all there is to do. So a
//! volume can be held while an operation has it; what has begun by then goes on.

use jiff::Timestamp;

use super::request::Subject;
use super::resolve;
use super::world::World;
use crate::api::{Changed, EventKind, Hold, VolumeHold, VolumeRelease};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, format_age, printable};
use crate::store::{HeldVolume, NewEvent};

/// The longest note, in characters.
const LONGEST_NOTE: usize = 500;

/// Who holds a volume.
pub struct Holder {
    /// Who logged in, behind a `sudo` say.
    pub uid: u32,
    /// That user's name, for people.
    pub name: String,
}

impl World {
    /// Holds a volume. Its holder may hold it again with another note; a volume that somebody else holds is a conflict.
    pub async fn hold(&self, params: &VolumeHold, by: Holder) -> Result<Changed> {
        check_note(&params.note)?;
        let (volume, mut notes) = self.local_volume(&params.volume).await?;
        self.refuse_own_root(&volume)?;
        let hold = Hold { holder: by.name, uid: by.uid, note: params.note.clone(), since: Timestamp::now() };
        let said = format!("\"{}\"", printable(&hold.note));
        let by = hold.holder.clone();
        let new = HeldVolume { volume_id: volume.id, volume_name: volume.name.clone(), hold };
        if params.dry_run {
            let changes = self.store.hold_on(volume.id)?.map_or(Ok(true), |old| new.replaces(&old))?;
            let plan = changes.then(|| format!("hold it for {}: {said}", printable(&by)));
            return self.would_be(plan, volume.id, notes);
        }
        let changed = self.store.hold(&new)?;
        if changed {
            self.note_hold(EventKind::Held, &new, format!("{by} holds it: {said}"));
        }
        if let Some(row) = self.store.operation_on(volume.id)?.filter(|row| row.kind.is_refused_by_hold()) {
            notes.push(format!(
                "operation {} on it has begun, and the hold does not stop it: it is {}",
                row.id, row.step_words
            ));
        }
        self.held_or_released(changed, volume.id, notes)
    }

    /// Ends the hold on a volume, whoever's it was; says whose.
    pub async fn release(&self, params: &VolumeRelease, by: Holder) -> Result<Changed> {
        let (id, mut notes) = self.perhaps_held(&params.volume).await?;
        if params.dry_run {
            let plan = self.store.hold_on(id)?.map(|held| format!("end the hold: {}", was_held(&held)));
            return self.would_be(plan, id, notes);
        }
        let held = self.store.release(id)?;
        if let Some(held) = &held {
            self.note_hold(EventKind::Released, held, format!("{} released it: {}", by.name, was_held(held)));
            notes.push(was_held(held));
        }
        self.held_or_released(held.is_some(), id, notes)
    }

    /// Refuses what would take a held volume away: called by each `ask` of such a story as soon as it knows the volume, so
    /// that this is the first thing that is said. Where the operation begins, the store looks once more.
    pub(super) fn refuse_if_held(&self, volume: VolumeId) -> Result<()> {
        match self.store.hold_on(volume)? {
            Some(held) => Err(held.refusal()),
            None => Ok(()),
        }
    }

    /// The volume that a word means; one that CloudStack no longer shows by the name it had when it was held.
    async fn perhaps_held(&self, word: &str) -> Result<(VolumeId, Vec<String>)> {
        let error = match self.local_volume(word).await {
            Ok((volume, notes)) => return Ok((volume.id, notes)),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Conflict) => error,
            Err(error) => return Err(error),
        };
        let lower = word.to_ascii_lowercase();
        let held = self.store.holds()?;
        let named: Vec<&HeldVolume> =
            held.iter().filter(|held| held.volume_name == word || held.volume_id.to_string() == lower).collect();
        match named.as_slice() {
            [one] => Ok((one.volume_id, Vec::new())),
            [] => Err(error),
            many => {
                let labels = many.iter().map(|held| Subject { id: held.volume_id, name: held.volume_name.clone() });
                Err(resolve::ambiguous(word, labels.map(|subject| subject.label())))
            }
        }
    }

    fn note_hold(&self, kind: EventKind, held: &HeldVolume, text: String) {
        let (volume_id, volume_name) = (Some(held.volume_id), Some(held.volume_name.clone()));
        self.store.record(NewEvent { volume_id, volume_name, ..NewEvent::new(kind, text) });
    }

    fn would_be(&self, plan: Option<String>, volume: VolumeId, notes: Vec<String>) -> Result<Changed> {
        Ok(Changed { plan: Some(Vec::from_iter(plan)), notes, ..self.untouched(Some(volume))? })
    }

    fn held_or_released(&self, changed: bool, volume: VolumeId, notes: Vec<String>) -> Result<Changed> {
        Ok(Changed { changed: Some(changed), notes, ..self.untouched(Some(volume))? })
    }
}

fn was_held(held: &HeldVolume) -> String {
    let Hold { holder, since, note, .. } = &held.hold;
    let age = format_age(since.duration_until(Timestamp::now()));
    format!("it was held by {} for {age}: \"{}\"", printable(holder), printable(note))
}

fn check_note(note: &str) -> Result<()> {
    let characters = note.chars().count();
    if note.trim().is_empty() || characters > LONGEST_NOTE {
        let what = format!("a hold's note has 1 to {LONGEST_NOTE} characters, not {characters}: say why it is held");
        return Err(Error::new(Kind::Usage, what));
    }
    Ok(())
}
