//! TLS: the server's certificate and key, and the authority that its clients' certificates must be signed by.
//!
//! They are read again when one of their files has changed, at the next handshake. What cannot be read changes nothing;
//! it is told by the log and by `health`. Where they are still to come, TLS is refused until then.

pub mod authority;
pub mod certificate;
pub mod kernel;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::config::read_private;
use crate::error::{Error, Kind, Result};
use crate::model::printable;
use certificate::Certificate;

/// The files of a server's directory, as nbdkit and QEMU read them.
const AUTHORITY: &str = "ca-cert.pem";
const CERTIFICATE: &str = "server-cert.pem";
const KEY: &str = "server-key.pem";

/// So long before a certificate expires it is said.
const WARNING: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The certificates in a directory, as they are now.
pub(super) struct Tls {
    directory: PathBuf,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    stamps: Stamps,
    /// None where there were none yet.
    used: Option<(Arc<ServerConfig>, Expiries)>,
    /// Why what is there now is not what is used.
    failure: Option<Error>,
}

/// When certificates expire: of several, the first that does.
#[derive(Clone, Copy, Debug)]
struct Expiries {
    authority: Timestamp,
    server: Timestamp,
}

/// What changes when a file does: device, inode, size, time of change. None where there is no file.
type Stamps = [Option<(u64, u64, u64, i64, i64)>; 3];

impl Tls {
    /// Reads the certificates. Where a file is missing they are still to come: `volctl tls init` asks this daemon to make
    /// them.
    ///
    /// # Errors
    /// `config` with what is wrong with them.
    pub fn load(directory: &Path) -> Result<Self> {
        let stamps = stamps(directory);
        let (used, failure) = match read(directory) {
            Ok(used) => (Some(used), None),
            Err(error) if stamps.contains(&None) => {
                tracing::warn!(%error, "nobody gets in over TLS until the certificates are there");
                (None, Some(error))
            }
            Err(error) => return Err(error),
        };
        let loaded = Mutex::new(Loaded { stamps, used, failure });
        Ok(Self { directory: directory.to_owned(), loaded })
    }

    /// What a handshake needs; none before there are certificates.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.current().used.as_ref().map(|(config, _)| Arc::clone(config))
    }

    /// How it is with the certificates: until when they count, or what is to be done.
    pub fn health(&self) -> std::result::Result<String, String> {
        let loaded = self.current();
        let directory = printable(&self.directory.display().to_string());
        let expiries = match (&loaded.used, &loaded.failure) {
            (Some((_, expiries)), None) => expiries,
            (Some(_), Some(error)) => return Err(format!("{}; what was read before is used", error.message)),
            (None, error) => {
                let why = error.as_ref().map_or("there are no certificates", |error| &error.message);
                let until = "nobody gets in over TLS until `volctl tls init` has made certificates there";
                return Err(format!("{why}; {until}"));
            }
        };
        let now = Timestamp::now();
        let said = [("the server's certificate", expiries.server), ("the authority's", expiries.authority)].map(
            |(whose, at)| {
                let date = at.strftime("%Y-%m-%d");
                match at.duration_since(now) {
                    left if left <= SignedDuration::ZERO => (false, format!("{whose} expired on {date}")),
                    left if left < WARNING => (false, format!("{whose} expires on {date}")),
                    _ => (true, format!("{whose} counts until {date}")),
                }
            },
        );
        let is_well = said.iter().all(|(ok, _)| *ok);
        let text = format!("{} ({directory})", said.map(|(_, text)| text).join(", "));
        if is_well { Ok(text) } else { Err(format!("{text}: replace the files, which are read again by themselves")) }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Loaded> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.directory);
        if stamps != loaded.stamps {
            loaded.stamps = stamps;
            match read(&self.directory) {
                Ok(used) => {
                    *loaded = Loaded { stamps, used: Some(used), failure: None };
                    tracing::info!(directory = %self.directory.display(), "the TLS certificates were read");
                }
                Err(error) => {
                    tracing::warn!(%error, "the TLS certificates have changed and cannot be read; those before count");
                    loaded.failure = Some(error);
                }
            }
        }
        loaded
    }
}

fn stamps(directory: &Path) -> Stamps {
    [AUTHORITY, CERTIFICATE, KEY].map(|name| {
        let found = fs::metadata(directory.join(name)).ok()?;
        Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
    })
}

fn read(directory: &Path) -> Result<(Arc<ServerConfig>, Expiries)> {
    let authorities = certificates(&directory.join(AUTHORITY))?;
    let chain = certificates(&directory.join(CERTIFICATE))?;
    let key_path = directory.join(KEY);
    let key = read_private(&key_path, "the server's private key")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&key_path, error))?;
    let expiries = Expiries {
        authority: first_to_expire(&authorities, &directory.join(AUTHORITY))?,
        server: first_to_expire(&chain, &directory.join(CERTIFICATE))?,
    };

    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| unusable(&directory.join(AUTHORITY), error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| unusable(&directory.join(AUTHORITY), error))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Kind::Internal, error))?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&directory.join(CERTIFICATE), error))?;
    // A session that is resumed would not be asked for its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // For the kernel, where a connection outlives this process.
    config.enable_secret_extraction = true;
    Ok((Arc::new(config), expiries))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, error))?.collect();
    match read {
        Ok(none) if none.is_empty() => Err(unusable(path, "it has no certificate")),
        read => read.map_err(|error| unusable(path, error)),
    }
}

fn first_to_expire(certificates: &[CertificateDer<'_>], path: &Path) -> Result<Timestamp> {
    let expiries = certificates.iter().map(|der| Certificate::parse(der).map(|read| read.expires));
    let first = expiries.collect::<Option<Vec<_>>>().and_then(|expiries| expiries.into_iter().min());
    first.ok_or_else(|| unusable(path, "a certificate in it cannot be read"))
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Error {
    let message = format!("TLS cannot use {}: {}", printable(&path.display().to_string()), printable(&why.to_string()));
    Error::new(Kind::Config, message).hint("`volctl tls init` makes a directory for [nbd] tls_certificates")
}
