//! The words that every room knows: identifiers, sizes, and the facts about volumes, VMs and devices.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random identifier.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Accepts the hyphenated form only, as CloudStack writes it; upper case is taken as lower case.
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                let id = Uuid::try_parse(text)?;
                if text.len() == uuid::fmt::Hyphenated::LENGTH {
                    Ok(Self(id))
                } else {
                    Uuid::try_parse("").map(Self)
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

uuid_newtype!(
    /// A CloudStack volume.
    VolumeId
);
uuid_newtype!(
    /// A CloudStack virtual machine.
    VmId
);
uuid_newtype!(
    /// A CloudStack asynchronous job; chosen by us and on disk before the call (`customjobid`).
    JobId
);
uuid_newtype!(
    /// A snapshot of a CloudStack volume.
    SnapshotId
);
uuid_newtype!(
    /// An operation of ours.
    OperationId
);

impl VolumeId {
    /// The serial that CloudStack on KVM gives the volume's disk: the UUID without hyphens, first 20 characters
    /// (facts sheet, 6.1).
    pub fn serial(&self) -> Serial {
        let mut digits = self.0.simple().to_string();
        digits.truncate(Serial::LENGTH);
        Serial(digits)
    }
}

/// The serial of a volume's disk: 20 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Serial(String);

impl Serial {
    /// A QEMU virtio-blk serial holds 20 bytes, which is where the rule comes from.
    pub const LENGTH: usize = 20;

    /// The serial as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not a volume's serial.
#[derive(Debug, thiserror::Error)]
#[error("not a volume's serial (20 hexadecimal digits)")]
pub struct NotASerial;

impl FromStr for Serial {
    type Err = NotASerial;

    fn from_str(text: &str) -> Result<Self, NotASerial> {
        if text.len() == Self::LENGTH && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(NotASerial)
        }
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The Linux block device of a volume that is attached to this VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Device {
    /// The stable path: the by-id link.
    pub path: PathBuf,
    /// What the link leads to now, `/dev/vdb` say; good for looking at, never for keeping.
    pub node: PathBuf,
    /// The serial that proves the identity.
    pub serial: Serial,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// Whether a volume carries a VM's system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum VolumeType {
    /// The root disk of a VM.
    Root,
    /// Any other disk.
    DataDisk,
}

/// Whose something is: a project's, or an account's. What CloudStack did not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// The account's name.
    pub account: Option<String>,
    /// The domain's id.
    pub domain_id: Option<String>,
    /// The project's id.
    pub project_id: Option<String>,
}

impl Owner {
    /// Whether this is certainly somebody else than the other.
    pub fn differs(&self, other: &Self) -> bool {
        let differ = |one: &Option<String>, other: &Option<String>| one.is_some() && other.is_some() && one != other;
        let one_is_a_project = self.project_id.is_some() != other.project_id.is_some();
        let both_are_told = self.is_told() && other.is_told();
        (one_is_a_project && both_are_told)
            || differ(&self.project_id, &other.project_id)
            || differ(&self.account, &other.account)
            || differ(&self.domain_id, &other.domain_id)
    }

    fn is_told(&self) -> bool {
        self.project_id.is_some() || self.account.is_some()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.project_id, &self.account) {
            (Some(project), _) => write!(f, "project {}", printable(project)),
            (None, Some(account)) => write!(f, "account {}", printable(account)),
            (None, None) => f.write_str("an unknown owner"),
        }
    }
}

/// What CloudStack says of a volume, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its id.
    pub id: VolumeId,
    /// Its name: not unique, may be empty, may hold anything.
    pub name: String,
    /// Root or data disk.
    pub volume_type: VolumeType,
    /// `Allocated`, `Ready`, `Destroy`, ... (facts sheet, 2.3).
    pub state: String,
    /// Virtual size in bytes.
    pub size_bytes: u64,
    /// Its zone.
    pub zone_id: String,
    /// The zone's name.
    pub zone_name: Option<String>,
    /// Its disk offering; none for a root volume that was made from a compute offering.
    pub offering_id: Option<String>,
    /// The VM that it is attached to.
    pub vm_id: Option<VmId>,
    /// That VM's name, for people.
    pub vm_name: Option<String>,
    /// That VM's state (`Running`, `Stopped`, ...).
    pub vm_state: Option<String>,
    /// CloudStack's number of the attachment; says nothing about the Linux name.
    pub device_id: Option<u32>,
    /// A job that is under way on the volume, whoever started it.
    pub job_id: Option<JobId>,
    /// Whose it is.
    #[serde(default)]
    pub owner: Owner,
    /// Its tags, in the order of their keys.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The hypervisor that its storage is for; only a root admin is told.
    #[serde(default)]
    pub hypervisor: Option<String>,
}

impl VolumeRecord {
    /// A volume that was never made on storage: CloudStack makes it at the first attach.
    pub fn never_created(&self) -> bool {
        self.state == "Allocated"
    }

    /// Name and id, as every message names a volume. Control characters are escaped.
    pub fn label(&self) -> String {
        format!("{} ({})", printable(&self.name), self.id)
    }
}

/// A key and its value on a volume or a snapshot; an object has one value of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Not empty.
    pub key: String,
    /// Not empty.
    pub value: String,
}

impl FromStr for Tag {
    type Err = String;

    /// Reads `KEY=VALUE`, neither of them empty.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("\"{}\" is not KEY=VALUE", printable(text))),
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", printable(&self.key), printable(&self.value))
    }
}

/// What CloudStack says of a volume snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Its id.
    pub id: SnapshotId,
    /// Its name: not unique, may hold anything.
    pub name: String,
    /// The volume that it is of, which need not be there any more.
    pub volume_id: Option<VolumeId>,
    /// That volume's name, where CloudStack tells.
    pub volume_name: Option<String>,
    /// `BackedUp`, `Creating`, ... (facts sheet, 2.3).
    pub state: String,
    /// The volume's size when it was taken, bytes; 0 where CloudStack does not know it.
    pub size_bytes: u64,
    /// When it was taken.
    pub created: Option<Timestamp>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

impl SnapshotRecord {
    /// Whether CloudStack is still making it; until it is `BackedUp` the volume is neither deleted nor resized (facts
    /// sheet, 4.8).
    pub fn is_unfinished(&self) -> bool {
        matches!(self.state.as_str(), "Allocated" | "Creating" | "CreatedOnPrimary" | "BackingUp")
    }

    /// Name and id, as every message names a snapshot.
    pub fn label(&self) -> String {
        format!("{} ({})", printable(&self.name), self.id)
    }
}

/// What CloudStack says of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// Its display name, where it has another.
    pub display_name: Option<String>,
    /// `Running`, `Stopped`, ...
    pub state: String,
    /// Its zone.
    pub zone_id: String,
    /// `KVM`, `VMware`, ...
    pub hypervisor: Option<String>,
    /// Whose it is.
    #[serde(default)]
    pub owner: Owner,
    /// Whether CloudStack refuses to destroy it.
    #[serde(default)]
    pub is_protected: bool,
}

impl VmRecord {
    /// Name and id, as every message names a VM.
    pub fn label(&self) -> String {
        format!("{} ({})", printable(&self.name), self.id)
    }
}

/// A zone of the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A disk offering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOffering {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether the size is given at creation (then it must be), or fixed by the offering (then it must not be).
    pub custom_size: bool,
    /// The fixed size in bytes; 0 for a custom one.
    pub size_bytes: u64,
    /// The zones in which it can be used; empty for all.
    pub zone_ids: Vec<String>,
    /// A volume of it keeps its size.
    pub strict_size: bool,
}

/// One GiB: CloudStack creates volumes in whole ones.
pub const GIB: u64 = 1 << 30;

/// CloudStack's whole GiB for a number of bytes, rounded up: never smaller than asked for.
pub fn whole_gib(bytes: u64) -> u64 {
    bytes.div_ceil(GIB)
}

/// A size that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SizeError {
    /// `GB` and the like: decimal or binary is not clear.
    #[error("the unit \"{0}\" is ambiguous: write K, M, G or T (powers of 1024)")]
    DecimalUnit(String),
    /// Anything else.
    #[error(
        "\"{0}\" is not a size: write an integer and K, M, G or T (powers of 1024), such as 10G; without a unit it is bytes"
    )]
    Malformed(String),
    /// Over 2^64 bytes.
    #[error("\"{0}\" is larger than 16 EiB")]
    TooLarge(String),
    /// Zero bytes.
    #[error("the size must be at least 1 byte")]
    Zero,
}

/// Reads a size as people type it: an integer with `K`, `M`, `G`, `T` or `KiB`, ...; without a unit, bytes.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Malformed(printable(text)));
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        "kb" | "mb" | "gb" | "tb" => return Err(SizeError::DecimalUnit(unit.to_owned())),
        _ => return Err(SizeError::Malformed(printable(text))),
    };
    let too_large = || SizeError::TooLarge(text.to_owned());
    let number: u64 = number.parse().map_err(|_| too_large())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(too_large)?;
    if bytes == 0 {
        return Err(SizeError::Zero);
    }
    Ok(bytes)
}

/// A size as people read it: `10G`, `1.5T`, `512`; powers of 1024, at most one decimal.
pub fn format_size(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        let one = 1u64 << shift;
        if bytes >= one {
            let tenths = (u128::from(bytes) * 10 + u128::from(one) / 2) / u128::from(one);
            return match tenths % 10 {
                0 => format!("{}{unit}", tenths / 10),
                tenth => format!("{}.{tenth}{unit}", tenths / 10),
            };
        }
    }
    bytes.to_string()
}

/// Whether a character shows nothing and changes how others are shown: control characters, and those that change the
/// direction of writing (`Bidi_Control` in Unicode).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text from outside as a person may see it: control characters escaped, so that no name can move a cursor.
pub fn printable(text: &str) -> String {
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| {
            let hidden = is_hidden(c);
            let escaped = hidden.then(|| c.escape_default());
            let plain = (!hidden).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// A length of time in its two largest units, as people read it: `12s`, `4m12s`, `2h05m`, `3d`; a negative one is `0s`.
pub fn format_age(age: SignedDuration) -> String {
    const UNITS: [(&str, i64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let seconds = age.as_secs().max(0);
    let first = UNITS.iter().position(|(_, size)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let (unit, size) = UNITS[first];
    let large = format!("{}{unit}", seconds / size);
    match UNITS.get(first + 1) {
        Some((small, smaller)) if seconds % size / smaller > 0 => {
            format!("{large}{:02}{small}", seconds % size / smaller)
        }
        _ => large,
    }
}

/// `14:07:05`, the way in which messages name a moment of the day (UTC).
pub fn clock_time(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_is_the_first_twenty_digits() {
        let id: VolumeId = "5F0C8A52-1b2c-4d3e-9f40-a1b2c3d4e5f6".parse().unwrap();
        assert_eq!(id.serial().as_str(), "5f0c8a521b2c4d3e9f40");
        assert_eq!(id.to_string(), "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6");
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        for text in ["", "17", "5f0c8a521b2c4d3e9f40a1b2c3d4e5f6", "{5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6}"] {
            assert!(text.parse::<VolumeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("1", 1), ("10G", 10 * GIB), ("3k", 3072), ("2MiB", 2 << 20), ("1t", 1 << 40)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "10GB", "1.5G", "-1G", "0", "99999999999T", "10 G", "10X", "1_000"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [(1, "1"), (1536, "1.5K"), (10 * GIB, "10G"), (GIB - 1, "1024M"), (u64::MAX, "16777216T")]
        {
            assert_eq!(format_size(bytes), text);
        }
    }

    #[test]
    fn sizes_round_up_to_whole_gib() {
        assert_eq!(whole_gib(1), 1);
        assert_eq!(whole_gib(GIB), 1);
        assert_eq!(whole_gib(GIB + 1), 2);
    }

    #[test]
    fn ages_read_well() {
        for (seconds, text) in
            [(-5, "0s"), (59, "59s"), (60, "1m"), (252, "4m12s"), (7500, "2h05m"), (273_600, "3d04h")]
        {
            assert_eq!(format_age(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(printable("ü\u{202e}x"), "ü\\u{202e}x");
    }
}
