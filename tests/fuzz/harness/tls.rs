//! Bytes where the NBD server expects TLS, and as the clients that an export's list names.

use std::fs;

use tempfile::TempDir;
use volctl::api::{Access, TlsIssue};
use volctl::config;

use super::nbd;

/// Client flags, and the option STARTTLS.
const STARTTLS: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x05\0\0\0\0";
/// Bytes of its acknowledgement.
const ACKNOWLEDGED: usize = 20;

/// A server that speaks TLS.
pub struct Door {
    door: nbd::Door,
    _certificates: TempDir,
}

impl Door {
    /// Starts the server.
    pub fn open() -> Self {
        let certificates = tempfile::tempdir().expect("a temporary directory");
        let wanted = TlsIssue { authority: None, server: Some(vec!["localhost".to_owned()]), clients: Vec::new() };
        let issued = nbd::Door::open().server.issue(&wanted).expect("certificates");
        let own = issued.server.expect("the server's").credentials;
        for (name, text) in
            [("ca-cert.pem", &issued.certificate), ("server-cert.pem", &own.certificate), ("server-key.pem", &own.key)]
        {
            let path = certificates.path().join(name);
            fs::write(&path, text).expect("a file");
            private(&path);
        }
        let settings = config::Nbd { tls_certificates: Some(certificates.path().to_owned()), ..config::Nbd::default() };
        Self { door: nbd::Door::configured(settings), _certificates: certificates }
    }

    /// Sends bytes after STARTTLS, and names them, line by line, as an export's clients.
    pub fn try_bytes(&self, bytes: &[u8]) {
        self.door.try_after(STARTTLS, ACKNOWLEDGED, bytes);
        for line in String::from_utf8_lossy(bytes).lines().take(1000) {
            // Refused or taken, in words.
            let _ = self.door.server.check_access(&Access { clients: vec![line.to_owned()], ..Access::default() });
        }
    }
}

fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
}
