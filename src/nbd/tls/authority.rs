//! A small certificate authority: makes the certificates of one server and of its clients.
//!
//! It keeps nothing: its key is with whoever asked for it, and comes back with the next request.

use std::net::IpAddr;

use jiff::civil::Date;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::certificate::Certificate;
use crate::api::{Credentials, IssuedToClient, IssuedToServer, TlsIssue, TlsIssued};
use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// How long an authority's certificate counts.
const AUTHORITY_YEARS: i32 = 10;
/// How long the others count.
const YEARS: i32 = 2;
/// The longest common name (RFC 5280, `ub-common-name`), in characters.
const LONGEST_COMMON_NAME: usize = 64;
/// The longest host name, in characters.
const LONGEST_HOST: usize = 253;
/// Where the server is for clients on its own machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Certificates that one request makes.
const MOST_CLIENTS: usize = 100;

/// Makes what was asked for, signed by the authority that was given or by a new one. A server that is given no name has
/// `hosts`, the first of which has this port.
///
/// # Errors
/// `usage` where a name can stand in no certificate, or the authority's certificate and key are not one's.
pub fn issue(wanted: &TlsIssue, hosts: &[String], port: Option<u16>) -> Result<TlsIssued> {
    if wanted.clients.len() > MOST_CLIENTS {
        return Err(usage(format!("{MOST_CLIENTS} client certificates can be made at once")));
    }
    let now = Timestamp::now();
    let (authority, made) = match &wanted.authority {
        Some(given) => (Authority::read(given, now)?, None),
        None => Authority::make(now).map(|(authority, made)| (authority, Some(made)))?,
    };
    let server = wanted.server.as_deref().map(|names| authority.server(if names.is_empty() { hosts } else { names }));
    let server = server.transpose()?;
    let client = |name: &String| Ok(IssuedToClient { name: name.clone(), credentials: authority.client(name)? });
    let clients = wanted.clients.iter().map(client).collect::<Result<_>>()?;
    let names = server.as_ref().map_or(hosts, |server: &IssuedToServer| &server.names);
    let host = names.first().cloned().unwrap_or_default();
    Ok(TlsIssued { certificate: authority.certificate, host, port, authority: made, server, clients })
}

struct Authority {
    /// PEM.
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    today: Date,
    /// The last day of its certificate.
    ends: Date,
}

impl Authority {
    fn make(now: Timestamp) -> Result<(Self, Credentials)> {
        let today = date(now);
        let ends = later(today, AUTHORITY_YEARS)?;
        // Two authorities must not have one name: whoever trusts both could not tell them apart.
        let name = format!("volctl CA {}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let params = authority_params(&name, today, ends);
        let key = KeyPair::generate().map_err(unmade)?;
        let certificate = params.self_signed(&key).map_err(unmade)?.pem();
        let made = Credentials { certificate: certificate.clone(), key: key.serialize_pem() };
        Ok((Self { certificate, issuer: Issuer::new(params, key), today, ends }, made))
    }

    fn read(given: &Credentials, now: Timestamp) -> Result<Self> {
        let unreadable = || usage("the authority's certificate cannot be read".to_owned());
        let der = CertificateDer::from_pem_slice(given.certificate.as_bytes()).map_err(|_| unreadable())?;
        let certificate = Certificate::parse(&der).ok_or_else(unreadable)?;
        let key = KeyPair::from_pem(&given.key)
            .map_err(|_| usage("the authority's private key cannot be read".to_owned()))?;
        if key.subject_public_key_info() != certificate.public_key {
            return Err(usage("the authority's certificate and private key do not belong together".to_owned()));
        }
        if certificate.expires <= now {
            return Err(usage(
                "the authority's certificate has expired: make a new one in another directory".to_owned(),
            ));
        }
        let subject = certificate.subject.filter(|subject| {
            let only = subject.common_name.as_ref().map(|name| format!("CN={name}"));
            only.as_ref() == Some(&subject.name)
        });
        let name = subject.and_then(|subject| subject.common_name);
        let name =
            name.ok_or_else(|| usage("the authority was not made by volctl: sign with its own tools".to_owned()))?;
        let (today, ends) = (date(now), date(certificate.expires));
        let issuer = Issuer::new(authority_params(&name, today, ends), key);
        Ok(Self { certificate: given.certificate.clone(), issuer, today, ends })
    }

    /// A server's, for each of the names by which clients reach it and for this machine; the first is its common name.
    fn server(&self, given: &[String]) -> Result<IssuedToServer> {
        let mut names: Vec<String> = Vec::new();
        for name in given.iter().map(String::as_str).chain(LOCAL) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let alternatives = names.iter().map(|name| alternative(name)).collect::<Result<Vec<_>>>()?;
        let common_name = names.first().filter(|name| name.len() <= LONGEST_COMMON_NAME);
        let mut params =
            self.params(common_name.map_or("volctl server", String::as_str), ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = alternatives;
        Ok(IssuedToServer { names, credentials: self.sign(&params)? })
    }

    fn client(&self, name: &str) -> Result<Credentials> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.is_empty() || name.len() > LONGEST_COMMON_NAME || name.starts_with('.') || !name.chars().all(is_plain) {
            let shown = printable(&name.chars().take(80).collect::<String>());
            let message =
                format!("\"{shown}\" cannot be a client's name: 1 to {LONGEST_COMMON_NAME} letters and digits");
            return Err(usage(format!("{message}, also -, _, @ and, but not first, a dot")));
        }
        self.sign(&self.params(name, ExtendedKeyUsagePurpose::ClientAuth)?)
    }

    fn params(&self, common_name: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams> {
        let mut params = named(common_name, self.today, later(self.today, YEARS)?.min(self.ends));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Credentials> {
        let key = KeyPair::generate().map_err(unmade)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unmade)?;
        Ok(Credentials { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn authority_params(name: &str, today: Date, ends: Date) -> CertificateParams {
    let mut params = named(name, today, ends);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Counts from the day before: clocks differ.
fn named(common_name: &str, today: Date, ends: Date) -> CertificateParams {
    let moment = |date: Date| date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = moment(today.yesterday().unwrap_or(today));
    params.not_after = moment(ends);
    params
}

fn alternative(name: &str) -> Result<SanType> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let is_host = !labels.is_empty() && name.len() <= LONGEST_HOST && labels.chars().all(is_plain);
    let host = name.try_into().ok().filter(|_| is_host);
    host.map(SanType::DnsName).ok_or_else(|| {
        usage(format!(
            "\"{}\" is neither a host name nor an address",
            printable(&name.chars().take(80).collect::<String>())
        ))
    })
}

fn date(moment: Timestamp) -> Date {
    moment.to_zoned(jiff::tz::TimeZone::UTC).date()
}

fn later(date: Date, years: i32) -> Result<Date> {
    date.checked_add(Span::new().years(years)).map_err(|error| Error::new(Kind::Internal, error))
}

fn usage(message: String) -> Error {
    Error::new(Kind::Usage, message)
}

fn unmade(error: rcgen::Error) -> Error {
    Error::new(Kind::Internal, format!("a certificate could not be made: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn wanted(server: &[&str], clients: &[&str]) -> TlsIssue {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        TlsIssue { authority: None, server: Some(owned(server)), clients: owned(clients) }
    }

    fn subject(pem: &str) -> String {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        Certificate::parse(&der).unwrap().subject.unwrap().name
    }

    #[test]
    fn an_authority_is_used_again() {
        let first = issue(&wanted(&["nbd.example", "192.0.2.1"], &["backup1"]), &[], None).unwrap();
        assert_eq!(subject(&first.server.unwrap().credentials.certificate), "CN=nbd.example");
        assert_eq!(subject(&first.clients[0].credentials.certificate), "CN=backup1");
        let authority = first.authority.unwrap();
        let again = issue(
            &TlsIssue { authority: Some(authority.clone()), server: None, clients: vec!["backup2".to_owned()] },
            &[],
            None,
        );
        let again = again.unwrap();
        assert_eq!((again.certificate, again.authority.is_none()), (authority.certificate.clone(), true));

        let other = issue(&wanted(&["x"], &[]), &[], None).unwrap().authority.unwrap();
        let mixed = Credentials { certificate: authority.certificate, key: other.key };
        assert!(issue(&TlsIssue { authority: Some(mixed), server: None, clients: vec![] }, &[], None).is_err());
    }

    #[test]
    fn a_host_is_named_once_and_the_first_is_for_the_clients() {
        let hosts = ["vm", "vm", "127.0.0.1"].map(str::to_owned);
        let issued = issue(&wanted(&[], &[]), &hosts, Some(7)).unwrap();
        assert_eq!((issued.host.as_str(), issued.port), ("vm", Some(7)));
        assert_eq!(issued.server.unwrap().names, ["vm", "127.0.0.1", "localhost", "::1"]);
    }

    #[test]
    fn what_can_stand_in_no_certificate_is_refused() {
        for host in ["a b", "ä.example", "*", "a/b", "192.0.2.0/24", "a,b"] {
            assert_eq!(issue(&wanted(&[host], &[]), &[], None).unwrap_err().kind, Kind::Usage, "{host}");
        }
        assert!(issue(&wanted(&["*.example", "2001:db8::1"], &[]), &[], None).is_ok());
        for client in ["", ".", "..", "a/b", "a b", &"a".repeat(65)] {
            assert_eq!(issue(&wanted(&["x"], &[client]), &[], None).unwrap_err().kind, Kind::Usage, "{client}");
        }
    }
}
