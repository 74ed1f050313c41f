//! The signature of a request (facts sheet, 1.3): pure, so that the sheet's test vectors are its tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha1::Sha1;

/// The parameters as `name=value&...` with encoded values: the body of a request, and what is signed of it.
///
/// Names stay as they are, as the server signs them so; ours hold nothing that a form would have to encode.
pub(super) fn form(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

/// The value of the `signature` parameter for all the others.
pub(super) fn sign(parameters: &[(&str, &str)], secret: &SecretString) -> String {
    let mut sorted = parameters.to_vec();
    sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    let text = form(&sorted).to_lowercase();
    let mut mac =
        Hmac::<Sha1>::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Percent-encoding as the server does it: unlike RFC 3986, `*` stays and `~` does not.
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(parameters: &[(&str, &str)]) -> String {
        sign(parameters, &SecretString::from("s3cr3t/Key+Test=="))
    }

    #[test]
    fn vector_1_of_the_facts_sheet() {
        let parameters = [
            ("command", "createVolume"),
            ("response", "json"),
            ("apiKey", "AKtest_-Key.1"),
            ("signatureVersion", "3"),
            ("expires", "2031-10-10T12:00:00+0000"),
            ("name", "Disk A+B *~ (ü€)/=&%41"),
            ("size", "7"),
            ("diskOfferingId", "9A3B2C1D-0000-4000-8000-0000000000AA"),
            ("zoneId", "1b2c3d4e-0000-4000-8000-0000000000bb"),
        ];
        assert_eq!(signed(&parameters), "qmUfwxvTsQGzX0zHWEpH8pNGHmI=");
    }

    #[test]
    fn vector_2_of_the_facts_sheet() {
        let parameters = [
            ("command", "createTags"),
            ("response", "json"),
            ("apikey", "AKtest_-Key.1"),
            ("signatureversion", "3"),
            ("expires", "2031-10-10T12:00:00Z"),
            ("resourceIds", "5f0c8a52-0000-4000-8000-00000000000a,5f0c8a52-0000-4000-8000-00000000000b"),
            ("resourceType", "Volume"),
            ("tags[0].key", "volctl:owner"),
            ("tags[0].value", "Jörg's host~1 ; 😀"),
            ("tags[1].key", "empty_is_bad"),
            ("tags[1].value", "x*y"),
            ("Zulu", "ignored by the server but signed"),
            ("_", "1"),
        ];
        assert_eq!(signed(&parameters), "mg2Q93WbVAGLZH3ErfeXIzllVRU=");
    }

    #[test]
    fn the_order_in_which_parameters_are_given_does_not_matter() {
        assert_eq!(signed(&[("a", "1"), ("b", "2")]), signed(&[("b", "2"), ("a", "1")]));
        assert_ne!(signed(&[("a", "1"), ("b", "2")]), signed(&[("a", "2"), ("b", "1")]));
    }

    #[test]
    fn an_empty_value_is_sent() {
        assert_eq!(form(&[("name", ""), ("x", "a b")]), "name=&x=a%20b");
    }
}
