//! The secret key, and the files in which it may stand.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// Longer than any configuration, shorter than what would harm.
const MAX_FILE: u64 = 1 << 20;

/// Where the secret key is.
#[derive(Clone, Debug)]
pub enum SecretKey {
    /// In the configuration file or the environment.
    Given(SecretString),
    /// In a file of its own, read again when CloudStack refuses the key.
    File(PathBuf),
}

impl SecretKey {
    /// The key as it is now, without the white space around it. An error where its file cannot be read or is empty.
    pub fn read(&self) -> Result<SecretString> {
        match self {
            SecretKey::Given(key) => Ok(key.clone()),
            SecretKey::File(path) => key_in(path, &ReadFile::open(path).map_err(|error| unreadable(path, &error))?),
        }
    }

    /// The key in a file which nobody else can read, as is checked.
    pub(super) fn in_private_file(path: PathBuf, uid: u32) -> Result<Self> {
        let file = ReadFile::open(&path).map_err(|error| unreadable(&path, &error))?;
        file.check_private(&path, "the secret key", uid)?;
        key_in(&path, &file)?;
        Ok(SecretKey::File(path))
    }

    /// A systemd credential. Its directory is what guards it: an access list for the unit's user shows as group bits.
    pub(super) fn in_credential(path: PathBuf) -> Result<Self> {
        let key = SecretKey::File(path);
        key.read()?;
        Ok(key)
    }
}

fn key_in(path: &Path, file: &ReadFile) -> Result<SecretString> {
    match file.text.trim() {
        "" => Err(Error::new(Kind::Config, format_args!("the secret key file {} is empty", shown(path)))),
        key => Ok(key.into()),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Config, format_args!("cannot read the secret key file {}: {error}", shown(path)))
}

/// A file's text, and what says who else can read it, of the same open file.
pub(super) struct ReadFile {
    pub(super) text: String,
    metadata: Metadata,
}

impl ReadFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Without it, opening a pipe waits for a writer.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        let mut text = String::new();
        if file.take(MAX_FILE + 1).read_to_string(&mut text)? as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        Ok(Self { text, metadata })
    }

    /// Refuses a file with a secret that anyone but its owner can read or change, or whose owner is somebody else.
    pub(super) fn check_private(&self, path: &Path, holds: &str, uid: u32) -> Result<()> {
        let path = shown(path);
        let owner = self.metadata.uid();
        if owner != uid && owner != 0 {
            let error = format_args!("{path} holds {holds} and belongs to uid {owner}, not to uid {uid} or root");
            return Err(Error::new(Kind::Config, error).hint(format_args!("chown {uid} {path}")));
        }
        let mode = self.metadata.mode() & 0o7777;
        let bits = [(0o040, "group read"), (0o020, "group write"), (0o004, "others read"), (0o002, "others write")];
        let wrong: Vec<&str> = bits.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, name)| *name).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let wrong = wrong.join(", ");
        let error = format_args!("{path} holds {holds} and its mode {mode:04o} lets others in: {wrong}");
        Err(Error::new(Kind::Config, error).hint(format_args!("chmod go= {path}")))
    }
}

/// The text of a file with a secret, named `holds` in refusals, which nobody else can read, as is checked.
///
/// # Errors
/// `config` where it cannot be read, or others can read it.
pub fn read_private(path: &Path, holds: &str) -> Result<String> {
    let file = ReadFile::open(path)
        .map_err(|error| Error::new(Kind::Config, format_args!("cannot read {holds} {}: {error}", shown(path))))?;
    file.check_private(path, holds, nix::unistd::Uid::effective().as_raw())?;
    Ok(file.text)
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
