//! What is wanted of an export: by whoever asks for one, and of one that comes back as it was.

use serde::{Deserialize, Serialize};

use super::exports::default_name;
use crate::api::{Access, TlsMode};
use crate::model::VolumeId;

/// An export that is wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Share {
    /// Its name.
    pub name: Option<String>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether several clients may write at a time.
    pub shared: bool,
    /// Whether it is served without TLS; none for what is, or what is usual.
    pub tls: Option<TlsMode>,
    /// Who may open it; none for who may, or everybody.
    pub clients: Option<Vec<String>>,
}

impl Share {
    /// An export as it is, or was.
    pub fn like(name: String, read_only: bool, shared: bool, access: Access) -> Self {
        Self { name: Some(name), read_only, shared, tls: Some(access.tls), clients: Some(access.clients) }
    }

    /// Who may open the export, where nothing else is asked for as before.
    pub fn access(&self, before: Access) -> Access {
        Access { tls: self.tls.unwrap_or(before.tls), clients: self.clients.clone().unwrap_or(before.clients) }
    }

    /// The export name of a volume.
    pub fn name_for(&self, volume: VolumeId) -> String {
        self.name.clone().unwrap_or_else(|| default_name(volume))
    }
}
