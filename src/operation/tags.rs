//! Tags of volumes and snapshots.

use crate::error::{Error, Kind, Result};
use crate::model::{Tag, printable};

/// The longest key and the longest value, in UTF-16 units as CloudStack counts them (facts sheet, 1.2).
const LONGEST: usize = 255;

/// More than anybody types; each makes the request longer.
const MOST: usize = 50;

/// Refuses tags that CloudStack would not take, and a key with two values.
pub(super) fn check(tags: &[Tag]) -> Result<()> {
    let usage = |what: String| Err(Error::new(Kind::Usage, what));
    if tags.len() > MOST {
        return usage(format!("{} tags are too many: at most {MOST}", tags.len()));
    }
    for (at, tag) in tags.iter().enumerate() {
        for (what, text) in [("key", &tag.key), ("value", &tag.value)] {
            let characters = text.encode_utf16().count();
            if text.trim().is_empty() || characters > LONGEST || text.chars().any(char::is_control) {
                let shown = printable(&text.chars().take(60).collect::<String>());
                return usage(format!(
                    "a tag's {what} has 1 to {LONGEST} characters and no control characters: \"{shown}\" does not do"
                ));
            }
        }
        if tags[..at].iter().any(|other| other.key == tag.key) {
            return usage(format!("the tag {} is given twice", printable(&tag.key)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag { key: key.into(), value: value.into() }
    }

    #[test]
    fn what_cloudstack_would_not_take_is_refused() {
        assert!(check(&[tag("a", "1"), tag("b", "1")]).is_ok());
        for tags in [[tag("a", "1"), tag("a", "2")], [tag("a", "1"), tag("", "2")], [tag("a", "1"), tag("b", "x\ny")]] {
            assert_eq!(check(&tags).unwrap_err().kind, Kind::Usage);
        }
        assert!(check(&[tag("a", &"x".repeat(256))]).is_err());
    }
}
