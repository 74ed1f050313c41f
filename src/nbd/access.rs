//! Who may open an export: over which kind of connection, and who by certificate or address. Pure.

use std::str::FromStr;

use super::client::{Caller, Peer};
use super::tls::certificate::Subject;
use crate::api::{self, TlsMode};
use crate::config::{Network, NetworkError, is_like_an_address};
use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// How many clients a list may name, and how long each may be, in bytes.
const MOST_CLIENTS: usize = 256;
const LONGEST_CLIENT: usize = 1024;

/// Whether somebody may open an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    /// Not before the connection is encrypted.
    NeedsTls,
    /// Not whoever it is.
    Closed,
}

/// Who may open an export.
#[derive(Clone, Debug)]
pub(super) struct Access {
    shown: api::Access,
    /// Everybody where there is none.
    clients: Vec<Allowed>,
}

/// Somebody who may open an export.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// The whole subject of a certificate.
    Subject(String),
    /// The only common name in the subject of a certificate.
    CommonName(String),
    Network(Network),
}

impl Access {
    /// Reads it.
    ///
    /// # Errors
    /// `usage` where a client can be none.
    pub fn read(access: &api::Access) -> Result<Self> {
        if access.clients.len() > MOST_CLIENTS {
            return Err(Error::new(
                Kind::Usage,
                format!("an export can be for {MOST_CLIENTS} clients by name at most"),
            ));
        }
        let clients = access.clients.iter().map(|client| client.parse()).collect::<Result<_>>()?;
        Ok(Self { shown: access.clone(), clients })
    }

    /// As everybody sees it.
    pub fn shown(&self) -> &api::Access {
        &self.shown
    }

    /// Whether nobody gets in without a certificate.
    pub fn needs_tls(&self) -> bool {
        self.shown.tls == TlsMode::Required
            || !self.clients.is_empty() && !self.clients.iter().any(|client| matches!(client, Allowed::Network(_)))
    }

    /// Judges somebody. This process asks itself whether an export is served, and is always let in.
    pub fn judge(&self, caller: &Caller) -> Verdict {
        if caller.peer.is_this_process() {
            return Verdict::Open;
        }
        let is_encrypted = caller.certificate.is_some();
        let is_named = self.clients.is_empty() || self.clients.iter().any(|client| client.is(caller));
        let has_names = self.clients.iter().any(|client| !matches!(client, Allowed::Network(_)));
        match (is_encrypted, is_named) {
            (false, _) if self.shown.tls == TlsMode::Required => Verdict::NeedsTls,
            (_, true) => Verdict::Open,
            (false, false) if has_names => Verdict::NeedsTls,
            (_, false) => Verdict::Closed,
        }
    }
}

impl Allowed {
    fn is(&self, caller: &Caller) -> bool {
        let subject = caller.subject();
        match self {
            Allowed::Subject(name) => subject.is_some_and(|subject| subject.name == *name),
            Allowed::CommonName(name) => subject.is_some_and(|subject| subject.common_name.as_ref() == Some(name)),
            // The Unix socket is on this machine, and on no network: who may use it, its mode says.
            Allowed::Network(network) => match caller.peer {
                Peer::Tcp(address) => network.contains(address.ip()),
                Peer::Unix { .. } => true,
            },
        }
    }
}

impl FromStr for Allowed {
    type Err = Error;

    /// A subject has a `=`; what looks like an address or network must be one; the rest is a common name.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: String| {
            let shown = printable(&text.chars().take(80).collect::<String>());
            Error::new(Kind::Usage, format!("\"{shown}\" names no client: {why}"))
                .hint("CN=backup1,O=Example as `volctl exports` shows it, backup1 for a common name, or 192.0.2.0/24")
        };
        if text.len() > LONGEST_CLIENT {
            return Err(refuse(format!("it is longer than {LONGEST_CLIENT} bytes")));
        }
        if text.contains('=') {
            let name =
                Subject::canonical(text).ok_or_else(|| refuse("not a distinguished name (RFC 4514)".to_owned()))?;
            return Ok(Allowed::Subject(name));
        }
        if is_like_an_address(text) {
            return text.parse().map(Allowed::Network).map_err(|error: NetworkError| refuse(error.to_string()));
        }
        if text.trim().is_empty() || text.trim() != text || text.chars().any(char::is_control) {
            return Err(refuse("it is empty, or has white space around it or control characters".to_owned()));
        }
        Ok(Allowed::CommonName(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::nbd::tls::certificate::Certificate;

    fn caller(address: &str, subject: Option<(&str, Option<&str>)>) -> Caller {
        let subject = subject.map(|(name, common_name)| Subject {
            name: name.to_owned(),
            common_name: common_name.map(ToOwned::to_owned),
        });
        let certificate = Certificate { subject, expires: Timestamp::now(), public_key: Vec::new() };
        let peer = match address {
            "" => Peer::Unix { pid: Some(1), uid: 0 },
            address => Peer::Tcp(format!("{address}:7").parse().unwrap()),
        };
        let is_plain = certificate.subject.is_none();
        Caller { peer, certificate: (!is_plain).then(|| Arc::new(certificate)) }
    }

    fn access(tls: TlsMode, clients: &[&str]) -> Access {
        let clients = clients.iter().map(|client| (*client).to_owned()).collect();
        Access::read(&api::Access { tls, clients }).unwrap()
    }

    const BACKUP: Option<(&str, Option<&str>)> = Some(("CN=backup1,O=Example", Some("backup1")));

    #[test]
    fn whoever_is_named_gets_in_and_nobody_else() {
        use TlsMode::{Allowed, Required};
        use Verdict::{Closed, NeedsTls, Open};
        for (tls, clients, address, subject, verdict) in [
            (Allowed, &[][..], "192.0.2.1", None, Open),
            (Allowed, &[], "", None, Open),
            (Required, &[], "192.0.2.1", None, NeedsTls),
            (Required, &[], "", None, NeedsTls),
            (Required, &[], "192.0.2.1", BACKUP, Open),
            (Allowed, &["192.0.2.0/24"], "192.0.2.1", None, Open),
            (Allowed, &["192.0.2.0/24"], "192.0.3.1", None, Closed),
            (Allowed, &["192.0.2.0/24"], "", None, Open),
            (Allowed, &["::ffff:192.0.2.1"], "192.0.2.1", None, Open),
            (Allowed, &["::ffff:192.0.2.0/120"], "192.0.3.1", None, Closed),
            (Required, &["192.0.2.0/24"], "192.0.2.1", None, NeedsTls),
            (Required, &["192.0.2.0/24"], "192.0.3.1", BACKUP, Closed),
            (Allowed, &["backup1"], "192.0.2.1", None, NeedsTls),
            (Allowed, &["backup1"], "", None, NeedsTls),
            (Allowed, &["backup1"], "192.0.2.1", BACKUP, Open),
            (Allowed, &["backup2", "192.0.2.1"], "192.0.2.1", None, Open),
            (Allowed, &["backup2"], "192.0.2.1", BACKUP, Closed),
            (Allowed, &["CN=backup1,O=Example"], "192.0.2.1", BACKUP, Open),
            (Allowed, &["cn=backup1,o=Example"], "192.0.2.1", BACKUP, Open),
            (Allowed, &["CN=backup1"], "192.0.2.1", BACKUP, Closed),
            (Allowed, &["backup1"], "192.0.2.1", Some(("CN=backup1+CN=x", None)), Closed),
        ] {
            let judged = access(tls, clients).judge(&caller(address, subject));
            assert_eq!(judged, verdict, "{tls:?} {clients:?} for {subject:?} at {address}");
        }
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for wrong in ["", " ", " a", "a\nb", "192.0.2.7/24", "a/b", "192.0.2.0/33", "XX=y", "CN=a,b", &"a".repeat(1025)]
        {
            assert_eq!(wrong.parse::<Allowed>().unwrap_err().kind, Kind::Usage, "{wrong}");
        }
        for slip in ["127.1", "127.0.0.1:5", "10.0.0.300", "[::1]:5", "fe80::1%eth0", "2001:db8::g", "fe80:1"] {
            assert_eq!(slip.parse::<Allowed>().unwrap_err().kind, Kind::Usage, "{slip}");
        }
        for name in ["backup1", "cafe.example", "7", "urn:backup"] {
            assert_eq!(name.parse::<Allowed>().unwrap(), Allowed::CommonName(name.to_owned()));
        }
        assert_eq!("[::1]".parse::<Allowed>().unwrap(), Allowed::Network("::1/128".parse().unwrap()));
        assert_eq!("2001:db8::7".parse::<Allowed>().unwrap(), Allowed::Network("2001:db8::7/128".parse().unwrap()));
    }
}
