//! What a certificate says: whose it is, and until when. That it is genuine is proven elsewhere. Pure.

use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use x509_cert::Certificate as Parsed;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::{Decode, Encode};
use x509_cert::name::RdnSequence;

/// A certificate's subject, as it is compared and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The whole distinguished name as RFC 4514 writes it: the last attribute first, `CN=backup1,O=Example`. Never empty.
    pub name: String,
    /// The value of its common name where it has exactly one.
    pub common_name: Option<String>,
}

impl Subject {
    fn of(sequence: &RdnSequence) -> Option<Self> {
        let name = sequence.to_string();
        let attributes = || sequence.0.iter().flat_map(|relative| relative.0.iter());
        let mut common_names = attributes().filter(|attribute| attribute.oid == COMMON_NAME);
        let only = common_names.next().filter(|_| common_names.next().is_none());
        let common_name = only.and_then(text).filter(|text| !text.is_empty());
        (!name.is_empty()).then_some(Self { name, common_name })
    }

    /// A distinguished name that somebody wrote, in the one way in which names are compared; nothing where it is none.
    pub fn canonical(text: &str) -> Option<String> {
        let sequence = RdnSequence::from_str(text).ok()?;
        // What is written can be encoded in a way that is not read again.
        let name = sequence.to_string();
        (!name.is_empty()).then_some(name)
    }
}

const COMMON_NAME: x509_cert::der::asn1::ObjectIdentifier =
    x509_cert::der::asn1::ObjectIdentifier::new_unwrap("2.5.4.3");

fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
    let value = &attribute.value;
    let utf8 = Utf8StringRef::try_from(value).ok().map(|text| text.as_str().to_owned());
    utf8.or_else(|| PrintableStringRef::try_from(value).ok().map(|text| text.as_str().to_owned()))
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose it is; none where its subject is empty.
    pub subject: Option<Subject>,
    /// It is of no use from then on.
    pub expires: Timestamp,
    /// The public key with its algorithm, DER.
    pub public_key: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate; nothing where that is not DER of X.509 (RFC 5280).
    pub fn parse(der: &[u8]) -> Option<Self> {
        let parsed = Parsed::from_der(der).ok()?.tbs_certificate;
        let seconds = parsed.validity.not_after.to_unix_duration().as_secs();
        Some(Self {
            subject: Subject::of(&parsed.subject),
            expires: Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?,
            public_key: parsed.subject_public_key_info.to_der().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(attributes: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn a_subject_is_written_as_rfc_4514_has_it() {
        let der =
            certificate(&[(DnType::OrganizationName, utf8("Example, Inc.")), (DnType::CommonName, utf8("backup1"))]);
        let parsed = Certificate::parse(&der).unwrap();
        let subject = parsed.subject.unwrap();
        assert_eq!(subject.name, r"CN=backup1,O=Example\, Inc.");
        assert_eq!(subject.common_name.as_deref(), Some("backup1"));
        assert_eq!(parsed.expires, "2031-02-03T00:00:00Z".parse().unwrap());
    }

    #[test]
    fn a_value_cannot_pass_for_several_attributes() {
        let subject =
            |value| Certificate::parse(&certificate(&[(DnType::CommonName, value)])).unwrap().subject.unwrap();
        let forged = subject(utf8("backup1,O=Example"));
        assert_eq!(forged.name, r"CN=backup1\,O=Example");
        assert_eq!(forged.common_name.as_deref(), Some("backup1,O=Example"));
        assert_eq!(subject(utf8("a\0b\nc")).name, r"CN=a\00b\0ac");
    }

    #[test]
    fn an_empty_subject_is_nobody() {
        assert_eq!(Certificate::parse(&certificate(&[])).unwrap().subject, None);
    }

    #[test]
    fn what_is_no_certificate_is_not_read() {
        let der = certificate(&[(DnType::CommonName, utf8("backup1"))]);
        for end in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..end]), None, "cut at {end}");
        }
        assert_eq!(Certificate::parse(&[der, vec![0]].concat()), None, "one byte too many");
    }

    #[test]
    fn names_are_compared_in_one_way_of_writing() {
        assert_eq!(Subject::canonical("cn=backup1,O=Example").as_deref(), Some("CN=backup1,O=Example"));
        assert_eq!(Subject::canonical(r"CN=Example\, Inc.").as_deref(), Some(r"CN=Example\, Inc."));
        for wrong in ["", "backup1", "XX=backup1", "CN=a,b"] {
            assert_eq!(Subject::canonical(wrong), None, "{wrong}");
        }
    }
}
