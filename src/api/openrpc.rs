//! The contract as an OpenRPC document, which `rpc.discover` answers and from which clients can be generated.
//!
//! It is checked in, so that the daemon need not carry what generates it; the tests generate it from the same types, and
//! from the table of methods in [`methods`], and hold it to them. It has few spaces, since the daemon would carry them.

use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// The document.
pub fn document() -> Result<Value> {
    serde_json::from_str(include_str!("openrpc.json"))
        .map_err(|error| Error::new(Kind::Internal, format!("the OpenRPC document cannot be read: {error}")))
}

#[cfg(test)]
mod methods;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/openrpc.json");

    /// What is longer than this is laid out over several lines.
    const LONGEST_LINE: usize = 2000;

    fn laid_out(value: &Value) -> String {
        let line = value.to_string();
        let (open, parts, close) = match value {
            _ if line.len() <= LONGEST_LINE => return line,
            Value::Array(items) => ('[', items.iter().map(laid_out).collect::<Vec<_>>(), ']'),
            Value::Object(members) => {
                let member = |(name, value)| format!("{}:{}", Value::from(String::clone(name)), laid_out(value));
                ('{', members.iter().map(member).collect(), '}')
            }
            _ => return line,
        };
        format!("{open}\n{}\n{close}", parts.join(",\n"))
    }

    #[test]
    fn the_document_is_what_the_types_say() {
        let generated = format!("{}\n", laid_out(&methods::document()));
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(FILE, &generated).unwrap();
        }
        let found = std::fs::read_to_string(FILE).unwrap();
        assert!(
            found == generated,
            "src/api/openrpc.json has drifted: UPDATE_GENERATED=1 cargo test --lib openrpc (and add new methods to \
             src/api/openrpc/methods.rs)"
        );
    }

    /// The names in a source text that follow a mark.
    fn names<'a>(source: &'a str, mark: &str, end: &str) -> BTreeSet<&'a str> {
        source.split(mark).skip(1).filter_map(|rest| rest.split_once(end)).map(|(name, _)| name).collect()
    }

    #[test]
    fn it_has_every_method_that_is_answered_and_no_other() {
        let contract = include_str!("mod.rs");
        let named = |constant: &str| contract.split_once(&format!("pub const {constant}: &str = \"")).unwrap().1;
        let dispatch = include_str!("../daemon/dispatch.rs");
        let arms = names(dispatch, "method::", " => ");
        let arms = arms.into_iter().filter(|arm| arm.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
        let answered: BTreeSet<&str> = arms.map(|arm| named(arm).split_once('"').unwrap().0).collect();
        let document = methods::document();
        let methods = document["methods"].as_array().unwrap();
        let documented: BTreeSet<&str> = methods.iter().map(|method| method["name"].as_str().unwrap()).collect();
        assert_eq!(documented, answered);
        assert!(answered.len() > 20, "the source is not read as it is written: {answered:?}");
    }
}
