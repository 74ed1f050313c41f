//! Request signatures and their expiry, as the server checks them (facts sheet, 1.3).

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use sha1::Sha1;

/// How far ahead `expires` may lie where timestamps are enforced.
const FARTHEST_EXPIRY: SignedDuration = SignedDuration::from_mins(15);

/// Whether the signature is the one that the secret makes of the parameters.
pub fn is_valid(secret: &str, sent: &BTreeMap<String, String>, signature: &str) -> bool {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    mac.update(canonical(sent).as_bytes());
    STANDARD.encode(mac.finalize().into_bytes()) == signature
}

/// The text that is signed: sorted by the name as sent, values encoded, all in lower case.
fn canonical(sent: &BTreeMap<String, String>) -> String {
    let mut signed: Vec<_> = sent.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("signature")).collect();
    signed.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    let pairs: Vec<_> = signed.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&").to_lowercase()
}

fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => text.push(byte.into()),
            // Writing to a String cannot fail.
            other => drop(write!(text, "%{other:02X}")),
        }
    }
    text
}

/// Whether a request with this `expires` is still good; `enforced` also bounds how far ahead it may lie.
pub fn is_fresh(expires: &str, now: Timestamp, enforced: bool) -> bool {
    parse_expires(expires)
        .is_some_and(|expires| expires > now && (!enforced || expires.duration_since(now) <= FARTHEST_EXPIRY))
}

/// The formats that 4.22 takes: ISO 8601 with `Z` or `+hh:mm`; to the second or the microsecond with `+hhmm`; and
/// `Z+hhmm`.
fn parse_expires(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T').filter(|(date, _)| date.len() == "2031-10-10".len())?;
    let (clock, zone) = time.split_at(time.find(['Z', '+', '-'])?);
    let to_the_second = clock.len() == "12:00:00".len();
    let to_the_microsecond = clock.len() == "12:00:00.123456".len();
    let offset = match zone.strip_prefix('Z') {
        Some("") => Offset::UTC,
        Some(offset) if to_the_second => parse_offset(offset, "+hhmm")?,
        Some(_) => return None,
        None if to_the_second || to_the_microsecond => {
            parse_offset(zone, "+hhmm").or_else(|| parse_offset(zone, "+hh:mm"))?
        }
        None => parse_offset(zone, "+hh:mm")?,
    };
    let local: DateTime = format!("{date}T{clock}").parse().ok()?;
    offset.to_timestamp(local).ok()
}

/// Reads an offset of this form, `+hhmm` or `+hh:mm`; the sign may be a minus.
fn parse_offset(text: &str, form: &str) -> Option<Offset> {
    let fits = |(byte, place): (u8, u8)| match place {
        b'+' => matches!(byte, b'+' | b'-'),
        b':' => byte == b':',
        _ => byte.is_ascii_digit(),
    };
    if text.len() != form.len() || !text.bytes().zip(form.bytes()).all(fits) {
        return None;
    }
    let hours: i32 = text[1..3].parse().ok()?;
    let minutes: i32 = text[text.len() - 2..].parse().ok()?;
    let seconds = hours * 3600 + minutes * 60;
    Offset::from_seconds(if text.starts_with('-') { -seconds } else { seconds }).ok()
}
