//! What is wanted of an export: by whoever asks for one, and of one that comes back as it was.

use serde::{Deserialize, Serialize};

use super::exports::default_name;
use crate::api::{Access, TlsMode};
use crate::model::VolumeId;
use crate::store::Wish;

/// An export that is wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Share {
    /// Its name; none for the one it has, or the usual one.
    pub name: Option<String>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether several clients may write at a time; none for what is, or one alone.
    pub shared: Option<bool>,
    /// Whether it is served without TLS; none for what is, or what is usual.
    pub tls: Option<TlsMode>,
    /// Who may open it; none for who may, or everybody.
    pub clients: Option<Vec<String>>,
}

/// An export as it is to be.
pub(super) struct Settled {
    pub name: String,
    pub shared: bool,
    pub access: Access,
}

impl Share {
    /// An export as it is, or was.
    pub fn like(name: String, read_only: bool, shared: bool, access: Access) -> Self {
        let (tls, clients) = (Some(access.tls), Some(access.clients));
        Self { name: Some(name), read_only, shared: Some(shared), tls, clients }
    }

    /// What is not asked for is as it was `before` under the same name, or as it is where there was none.
    pub fn settle(&self, volume: VolumeId, before: Option<Wish>, usual: TlsMode) -> Settled {
        let kept = before.as_ref().map(|wish| wish.name.clone());
        let name = self.name.clone().or(kept).unwrap_or_else(|| default_name(volume));
        let before = before.filter(|wish| wish.name == name).map(|wish| (wish.shared, wish.access));
        let (shared, access) = before.unwrap_or((false, Access { tls: usual, clients: Vec::new() }));
        Settled {
            name,
            shared: self.shared.unwrap_or(shared) && !self.read_only,
            access: Access {
                tls: self.tls.unwrap_or(access.tls),
                clients: self.clients.clone().unwrap_or(access.clients),
            },
        }
    }
}
