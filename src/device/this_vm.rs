//! What this machine says of which CloudStack VM it is. Evidence only: CloudStack has to know the id.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use crate::model::VmId;

/// cloud-init's file holds the metadata and no user data; what is larger than this is something else.
const INSTANCE_DATA_BYTES: u64 = 1 << 20;

const UNSET_ZEROS: &str = "00000000-0000-0000-0000-000000000000";
const UNSET_ONES: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/// What was found out, or in words why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The SMBIOS system UUID, which CloudStack on KVM sets to the VM's id (facts sheet, 6.1). Never in the sandbox.
    pub smbios: Result<VmId, String>,
    /// cloud-init's instance id; it may be stale in a cloned image, so it only fills a gap.
    pub cloud_init: Result<VmId, String>,
}

/// Reads `product_uuid`, or where that is no id `product_serial` (the same, facts sheet, 7), below `dmi`.
pub(super) fn smbios(dmi: &Path) -> Result<VmId, String> {
    let by_uuid = smbios_id(&dmi.join("product_uuid"));
    by_uuid.or_else(|why| smbios_id(&dmi.join("product_serial")).map_err(|_| why))
}

fn smbios_id(path: &Path) -> Result<VmId, String> {
    let text = read(path, 256)?;
    let id: VmId = text.trim().parse().map_err(|_| format!("{} holds no UUID", path.display()))?;
    // SMBIOS 3, 7.2.1: all zeros is "not present", all ones "not set".
    if [UNSET_ZEROS, UNSET_ONES].contains(&id.to_string().as_str()) {
        return Err(format!("{} is not set", path.display()));
    }
    Ok(id)
}

/// Reads cloud-init's `instance-data.json`.
pub(super) fn cloud_init(path: &Path) -> Result<VmId, String> {
    let text = read(path, INSTANCE_DATA_BYTES)?;
    let data: Value = serde_json::from_str(&text).map_err(|_| format!("{} is not JSON", path.display()))?;
    let mut ids = ["/v1/instance_id", "/ds/meta_data/vm-id", "/ds/meta_data/instance-id"]
        .iter()
        .filter_map(|pointer| data.pointer(pointer)?.as_str()?.trim().parse::<VmId>().ok());
    let id = ids.next().ok_or_else(|| format!("{} names no instance id that is a UUID", path.display()))?;
    match ids.find(|other| *other != id) {
        Some(other) => Err(format!("{} names two instances, {id} and {other}", path.display())),
        None => Ok(id),
    }
}

fn read(path: &Path, most: u64) -> Result<String, String> {
    let mut text = String::new();
    let result = File::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    match result {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(format!("{} can be read by root only", path.display()))
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop there")]
    use super::*;
    use std::fs;

    const ID: &str = "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6";
    const OTHER: &str = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";

    #[test]
    fn smbios_names_a_vm_or_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert!(smbios(dir.path()).unwrap_err().contains("product_uuid: No such file"));
        write("product_serial", &format!("{ID}\n"));
        assert_eq!(smbios(dir.path()).unwrap().to_string(), ID, "the serial fills the gap");
        write("product_uuid", &format!("{}\n", OTHER.to_uppercase()));
        assert_eq!(smbios(dir.path()).unwrap().to_string(), OTHER);
        write("product_serial", "Not Specified\n");
        for unset in [UNSET_ZEROS, UNSET_ONES, "Not Settable", ""] {
            write("product_uuid", unset);
            assert!(smbios(dir.path()).is_err(), "{unset}");
        }
    }

    #[test]
    fn cloud_init_names_one_vm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("instance-data.json");
        let look = |text: &str| {
            fs::write(&path, text).unwrap();
            cloud_init(&path)
        };
        let both = |v1: &str, ds: &str| {
            format!(r#"{{"v1":{{"instance_id":"{v1}"}},"ds":{{"meta_data":{{"instance-id":"{ds}"}}}}}}"#)
        };
        assert_eq!(look(&both(ID, ID)).unwrap().to_string(), ID);
        assert_eq!(look(&both("i-0abc", ID)).unwrap().to_string(), ID);
        assert!(look(&both(ID, OTHER)).unwrap_err().contains("two instances"));
        assert!(look(&both("i-0abc", "")).unwrap_err().contains("no instance id"));
        assert!(look(r#"{"v1":7}"#).is_err());
        assert!(look("{").unwrap_err().contains("not JSON"));
        assert!(cloud_init(&dir.path().join("missing")).is_err());
    }
}
