//! Words to volumes and VMs. A word that fits more than one thing is an error that lists them, never a precedence.

use jiff::Timestamp;

use super::world::World;
use crate::cloudstack::CallError;
use crate::error::{Error, Kind, Result};
use crate::model::{VmId, VmRecord, VolumeId, VolumeRecord, printable};

/// Shorter prefixes of an id are taken for names only.
const SHORTEST_PREFIX: usize = 6;

/// A shorter name inside of another one says nothing.
const TELLING: usize = 3;

/// How many suggestions an error makes.
const SUGGESTIONS: usize = 3;

/// Which volumes a word may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A volume that is there; by id, name or id prefix.
    Any,
    /// A volume that is there; by id or name only, as a destructive verb wants it.
    Exact,
    /// A volume, deleted ones too; by id or name only.
    Deleted,
    /// A volume that is there, or where none is, a deleted one; by id or name only.
    PerhapsDeleted,
}

/// Asks CloudStack now which volume a word means.
pub(super) async fn volume(world: &World, word: &str, meaning: Meaning) -> Result<VolumeRecord> {
    check_word("volume", word)?;
    let doing = format!("looking up volume {}", printable(word));
    let failed = |error: CallError| error.into_error(&format!("{doing}; nothing was sent"));
    if let Ok(id) = word.parse::<VolumeId>()
        && let Some(found) = world.look_up(id).await.map_err(failed)?
    {
        return pick(word, &[found], meaning);
    }
    pick(word, &all_volumes(world).await.map_err(failed)?, meaning)
}

/// All volumes, asked for now and kept.
pub(super) async fn all_volumes(world: &World) -> Result<Vec<VolumeRecord>, CallError> {
    let as_of = Timestamp::now();
    let records = world.cloud.volumes().await?;
    let _alone = world.keep();
    let kept = world.note_list(&records, as_of).and_then(|()| world.store.replace_volumes(&records, as_of));
    if let Err(error) = kept {
        tracing::warn!(%error, "what CloudStack said could not be kept");
    }
    Ok(records)
}

/// Which of the candidates a word means.
pub(super) fn pick(word: &str, candidates: &[VolumeRecord], meaning: Meaning) -> Result<VolumeRecord> {
    let lower = word.to_ascii_lowercase();
    // A whole id is an identity, whatever others are named; only what may be meant for more than one thing is ambiguous.
    if let Some(identified) = candidates.iter().find(|record| record.id.to_string() == lower)
        && candidates.len() > 1
    {
        return pick(word, std::slice::from_ref(identified), meaning);
    }
    let is_prefix = meaning == Meaning::Any && may_be_prefix(&lower);
    let fits = |record: &&VolumeRecord| {
        let id = record.id.to_string();
        record.name == word || id == lower || (is_prefix && id.starts_with(&lower))
    };
    let mut matches: Vec<&VolumeRecord> = candidates.iter().filter(fits).collect();
    matches.sort_by_key(|record| record.id);
    matches.dedup_by_key(|record| record.id);
    let (there, deleted): (Vec<&VolumeRecord>, Vec<&VolumeRecord>) =
        matches.into_iter().partition(|record| !is_deleted(record));
    let wanted = match meaning {
        Meaning::Any | Meaning::Exact => there,
        Meaning::Deleted => [deleted, there].concat(),
        Meaning::PerhapsDeleted if there.is_empty() => deleted,
        Meaning::PerhapsDeleted => there,
    };
    match wanted.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(missing(word, candidates)),
        many => Err(ambiguous(word, many.iter().map(|record| record.label()))),
    }
}

/// A volume that CloudStack has deleted, for ever or not.
pub(super) fn is_deleted(record: &VolumeRecord) -> bool {
    matches!(record.state.as_str(), "Destroy" | "Destroying" | "Expunging" | "Expunged")
}

fn may_be_prefix(word: &str) -> bool {
    word.len() >= SHORTEST_PREFIX && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn check_word(what: &str, word: &str) -> Result<()> {
    if word.is_empty() || word.len() > 255 {
        return Err(Error::new(Kind::Usage, format!("a {what} is named by 1 to 255 characters, not {}", word.len())));
    }
    Ok(())
}

/// The volumes that a word fits, by their labels.
pub(super) fn ambiguous(word: &str, labels: impl ExactSizeIterator<Item = String>) -> Error {
    let fits = labels.len();
    let list: Vec<String> = labels.take(10).collect();
    let more = fits.saturating_sub(10);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Error::new(Kind::Ambiguous, format!("{} fits {} volumes: {}{more}", printable(word), fits, list.join(", ")))
        .hint("name the volume by its full id")
}

fn missing(word: &str, candidates: &[VolumeRecord]) -> Error {
    if let Some(deleted) = candidates.iter().find(|record| record.name == word || record.id.to_string() == word) {
        let what = format!("volume {} is deleted (state {})", deleted.label(), printable(&deleted.state));
        let error = Error::new(Kind::Conflict, what);
        let hint = format!("`volctl recover {}` brings it back", deleted.id);
        return if deleted.state == "Destroy" { error.hint(hint) } else { error };
    }
    let lower = word.to_ascii_lowercase();
    if let Some(begun) =
        candidates.iter().find(|record| may_be_prefix(&lower) && record.id.to_string().starts_with(&lower))
    {
        let what = format!("{} is only the beginning of an id, and this verb takes the whole one", printable(word));
        return Error::new(Kind::NotFound, what).hint(format!("it fits volume {}", begun.label()));
    }
    let names = candidates.iter().filter(|record| !is_deleted(record)).map(|record| record.name.as_str());
    not_found("volume", word, names, "`volctl ls` lists the volumes that this key can see")
}

/// `not_found`, with the names that are near.
pub(super) fn not_found<'a>(what: &str, word: &str, names: impl Iterator<Item = &'a str>, otherwise: &str) -> Error {
    let mut near: Vec<(f64, &str)> =
        names.map(|name| (nearness(word, name), name)).filter(|(score, _)| *score > 0.75).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup_by_key(|(_, name)| *name);
    let error = Error::new(Kind::NotFound, format!("there is no {what} {}", printable(word)));
    if near.is_empty() {
        return error.hint(otherwise);
    }
    let near: Vec<String> = near.into_iter().take(SUGGESTIONS).map(|(_, name)| printable(name)).collect();
    error.hint(format!("near it: {}", near.join(", ")))
}

fn nearness(word: &str, name: &str) -> f64 {
    let (word, name) = (word.to_lowercase(), name.to_lowercase());
    let shorter = word.chars().count().min(name.chars().count());
    if shorter >= TELLING && (name.contains(&word) || word.contains(&name)) {
        return 1.0;
    }
    strsim::jaro_winkler(&word, &name)
}

/// Asks CloudStack now which VM a word means: id or unique name.
pub(super) async fn vm(world: &World, word: &str) -> Result<VmRecord> {
    check_word("VM", word)?;
    let failed = |error: CallError| error.into_error(&format!("looking up VM {}; nothing was sent", printable(word)));
    let mut found = world.cloud.vms_named(word).await.map_err(failed)?;
    if let Ok(id) = word.parse::<VmId>() {
        found.extend(world.cloud.vm(id).await.map_err(failed)?);
    }
    found.sort_by_key(|vm| vm.id);
    found.dedup_by_key(|vm| vm.id);
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let all = world.cloud.vms().await.map_err(failed)?;
            Err(not_found(
                "VM",
                word,
                all.iter().map(|vm| vm.name.as_str()),
                "`volctl vm ls` lists the VMs that this key can see",
            ))
        }
        many => {
            let list: Vec<String> = many.iter().take(10).map(VmRecord::label).collect();
            Err(Error::new(
                Kind::Ambiguous,
                format!("{} fits {} VMs: {}", printable(word), many.len(), list.join(", ")),
            )
            .hint("name the VM by its full id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Owner, VolumeType};

    fn volume(id: &str, name: &str, state: &str) -> VolumeRecord {
        VolumeRecord {
            id: id.parse().unwrap(),
            name: name.into(),
            volume_type: VolumeType::DataDisk,
            state: state.into(),
            size_bytes: 1 << 30,
            zone_id: "z".into(),
            zone_name: None,
            offering_id: None,
            vm_id: None,
            vm_name: None,
            vm_state: None,
            device_id: None,
            job_id: None,
            owner: Owner::default(),
            hypervisor: None,
            tags: Vec::new(),
        }
    }

    const A: &str = "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6";
    const B: &str = "5f0c8a53-1b2c-4d3e-9f40-a1b2c3d4e5f6";

    #[test]
    fn ids_names_and_prefixes_are_found() {
        let all = [volume(A, "data1", "Ready"), volume(B, "data2", "Ready")];
        for word in [A, "data1", "5f0c8a52", "5F0C8A52-1B"] {
            assert_eq!(pick(word, &all, Meaning::Any).unwrap().id.to_string(), A, "{word}");
        }
    }

    #[test]
    fn what_fits_twice_is_ambiguous() {
        let all = [volume(A, "same", "Ready"), volume(B, "same", "Ready")];
        for word in ["same", "5f0c8a"] {
            let error = pick(word, &all, Meaning::Any).unwrap_err();
            assert_eq!(error.kind, Kind::Ambiguous, "{word}");
            assert!(error.message.contains(A) && error.message.contains(B), "{error}");
        }
    }

    #[test]
    fn a_name_that_is_another_ones_prefix_is_ambiguous() {
        let all = [volume(A, "data1", "Ready"), volume(B, "5f0c8a52", "Ready")];
        assert_eq!(pick("5f0c8a52", &all, Meaning::Any).unwrap_err().kind, Kind::Ambiguous);
        assert_eq!(
            pick("5f0c8a52", &all, Meaning::Exact).unwrap().id.to_string(),
            B,
            "no prefixes for a destructive verb"
        );
    }

    #[test]
    fn short_words_are_no_prefixes() {
        let all = [volume(A, "data1", "Ready")];
        assert_eq!(pick("5f0c8", &all, Meaning::Any).unwrap_err().kind, Kind::NotFound);
        assert_eq!(pick("5f0c8a52", &all, Meaning::Exact).unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn near_names_are_told() {
        let all = [volume(A, "data1", "Ready"), volume(B, "archive", "Ready")];
        let hint = pick("dtaa1", &all, Meaning::Any).unwrap_err().hint.unwrap();
        assert!(hint.contains("data1") && !hint.contains("archive"), "{hint}");
    }

    #[test]
    fn a_deleted_namesake_is_out_of_the_way() {
        let all = [volume(A, "data1", "Destroy"), volume(B, "data1", "Ready")];
        assert_eq!(pick("data1", &all, Meaning::Any).unwrap().id.to_string(), B);
        assert_eq!(pick("data1", &all, Meaning::PerhapsDeleted).unwrap().id.to_string(), B);
        assert_eq!(pick("data1", &all[..1], Meaning::PerhapsDeleted).unwrap().id.to_string(), A);
        assert_eq!(pick("data1", &all, Meaning::Deleted).unwrap_err().kind, Kind::Ambiguous);
        let error = pick("data1", &all[..1], Meaning::Any).unwrap_err();
        assert!(error.hint.unwrap().contains("volctl recover"));
    }
}
