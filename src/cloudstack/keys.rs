//! The API key and its secret, which is read again when CloudStack no longer takes it.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use secrecy::{ExposeSecret as _, SecretString};

use crate::config;
use crate::error::{Error, Kind, Result};

pub(super) struct Keys {
    pub(super) api_key: String,
    secret: RwLock<SecretString>,
    file: Option<PathBuf>,
}

impl Keys {
    pub(super) fn new(config: &config::CloudStack) -> Result<Self> {
        let (secret, file) = match &config.secret_key {
            config::SecretKey::Given(secret) => (secret.clone(), None),
            config::SecretKey::File(path) => (read(path)?, Some(path.clone())),
        };
        Ok(Self { api_key: config.api_key.clone(), secret: RwLock::new(secret), file })
    }

    /// The secret as it was last read.
    pub(super) fn secret(&self) -> SecretString {
        self.secret.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another secret than the refused one, where the file has one by now.
    pub(super) fn newer_than(&self, refused: &SecretString) -> Option<SecretString> {
        let fresh = match read(self.file.as_ref()?) {
            Ok(secret) => secret,
            Err(error) => {
                tracing::warn!("the refused key cannot be read again: {error}");
                return None;
            }
        };
        if fresh.expose_secret() == refused.expose_secret() {
            return None;
        }
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        Some(fresh)
    }
}

fn read(path: &Path) -> Result<SecretString> {
    let unusable = |why: String| Error::new(Kind::Config, format!("secret_key_file {} {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(unusable("is empty".to_owned())),
        secret => Ok(SecretString::from(secret)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_secret_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (content, why) in [(None, "cannot be read"), (Some(" \n"), "is empty")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = read(&path).unwrap_err();
            assert_eq!(error.kind, Kind::Config);
            assert!(error.message.contains(why) && error.message.contains("secret_key_file /"), "{error}");
        }
        std::fs::write(&path, "s3cr3t\n").unwrap();
        assert_eq!(read(&path).unwrap().expose_secret(), "s3cr3t");
    }
}
