//! TLS between the NBD server and its clients: who may open an export, and certificates.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether an export is served without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// A client may use TLS; beyond loopback it has to, unless the configuration lets it come without.
    #[default]
    Allowed,
    /// A client has to use TLS, also on the Unix socket.
    Required,
}

/// Who may open an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Access {
    /// Whether it takes connections without TLS.
    pub tls: TlsMode,
    /// The clients that may: subjects of certificates as RFC 4514 writes them (`CN=backup1,O=Example`), their common names
    /// alone (`backup1`), addresses and networks. Everybody where there is none.
    pub clients: Vec<String>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A private key stands in no message and no log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// `tls.issue`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TlsIssue {
    /// The authority that signs, as an earlier answer had it; a new one where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<Credentials>,
    /// The host names and addresses by which clients reach the server; where there is none, those of this machine that it
    /// listens on. Without the list, no certificate is made for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Vec<String>>,
    /// The clients, by the common name that each gets.
    pub clients: Vec<String>,
}

/// The result of `tls.issue`; nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TlsIssued {
    /// The authority's certificate, PEM.
    pub certificate: String,
    /// Where clients reach the server: the first name of its certificate, or of those that it listens on.
    pub host: String,
    /// The TCP port that it listens on; none where it listens on none.
    pub port: Option<u16>,
    /// The authority, where it is new.
    pub authority: Option<Credentials>,
    /// The server's, where it was asked for.
    pub server: Option<IssuedToServer>,
    /// Those of the clients, in the order in which they were asked for.
    pub clients: Vec<IssuedToClient>,
}

/// What was made for the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct IssuedToServer {
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// The certificate and its key.
    pub credentials: Credentials,
}

/// What was made for a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct IssuedToClient {
    /// Its common name.
    pub name: String,
    /// The certificate and its key.
    pub credentials: Credentials,
}
