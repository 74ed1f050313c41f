//! Which commands the key's role allows, and what each that is used here is for.

use std::collections::HashSet;

use serde::Deserialize;

use super::CloudStack;
use super::error::CallError;
use super::request::Request;
use super::wire::Scalar;

/// Every command that is sent, and what does not work without it.
pub const COMMANDS: [(&str, &str); 25] = [
    ("attachVolume", "no volume can be attached"),
    ("createSnapshot", "no snapshot of a volume can be taken"),
    ("createTags", "no volume can be given tags"),
    ("createVolume", "no volume can be created"),
    ("deleteSnapshot", "no snapshot can be deleted"),
    ("deleteVolume", "no volume that was never attached can be deleted"),
    ("destroyVirtualMachine", "reclaim cannot destroy the VM that it took a volume from"),
    ("destroyVolume", "no volume that was ever attached can be deleted"),
    ("detachVolume", "no volume can be detached or moved"),
    ("listAsyncJobs", "jobs that are waited for at the same time are asked for one by one, which takes more calls"),
    ("listApis", "the rights of the role cannot be checked"),
    ("listCapabilities", "whether CloudStack answers and takes the key cannot be told"),
    ("listDiskOfferings", "no volume can be created"),
    ("listEvents", "why does not tell who changed a volume outside of volctl"),
    ("listProjects", "the configured project cannot be found, and nothing works"),
    ("listSnapshots", "no snapshot can be listed, taken, reverted to or deleted"),
    ("listVMSnapshot", "VM snapshots that forbid an attach are noticed only when CloudStack refuses it"),
    ("listVirtualMachines", "this VM cannot be proven, so nothing can be changed"),
    ("listVolumes", "no volume can be listed or changed"),
    ("listZones", "no volume can be created by the name of its zone"),
    ("queryAsyncJobResult", "no change can be followed to its end"),
    ("recoverVolume", "no deleted volume can be brought back"),
    ("resizeVolume", "no volume can be resized"),
    ("revertSnapshot", "no volume can be given back what a snapshot has"),
    ("stopVirtualMachine", "reclaim cannot stop the VM that it takes a volume from"),
];

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    api: Vec<Api>,
}

/// Its parameters and the fields of its answer, which make up most of the list, are skipped.
#[derive(Deserialize)]
struct Api {
    name: Option<Scalar>,
}

impl CloudStack {
    /// The commands that the key's role allows (facts sheet, 4.10): `listApis` tells no others.
    ///
    /// # Errors
    /// As each call.
    pub async fn allowed_commands(&self) -> Result<HashSet<String>, CallError> {
        let listing: Listing = self.call(&Request::new("listApis")).await?;
        Ok(listing.api.into_iter().filter_map(|api| api.name?.text()).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_commands_are_those_that_are_sent() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cloudstack");
        let mut sent = BTreeSet::new();
        for file in std::fs::read_dir(sources).unwrap() {
            let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for (at, call) in source.match_indices("::new(\"") {
                let word = source[at + call.len()..].split('"').next().unwrap();
                if word.contains(char::is_uppercase) && word.chars().all(|letter| letter.is_ascii_alphabetic()) {
                    sent.insert(word.to_owned());
                }
            }
        }
        let known: BTreeSet<String> = COMMANDS.iter().map(|(command, _)| (*command).to_owned()).collect();
        assert_eq!(known, sent, "each command that is sent, and no other, has its row");
    }
}
