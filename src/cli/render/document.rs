//! The JSON documents: what came over the socket under `schema`, and errors in their one shape.

use serde_json::{Map, Value, json};

use super::read;
use crate::api::SCHEMA;
use crate::cli::answer::{Answer, Refusal};

/// The document of one answer.
pub fn answer_document(answer: &Answer) -> Value {
    match answer {
        Ok(document) => match read(document) {
            Ok(members) => with_schema(members),
            Err(error) => error_document(&Box::<Refusal>::from(error)),
        },
        Err(refusal) => error_document(refusal),
    }
}

/// The document of several: `{schema, results}`, in the order of the command line.
pub fn results_document(answers: &[Answer]) -> Value {
    json!({ "schema": SCHEMA, "results": answers.iter().map(answer_document).collect::<Vec<_>>() })
}

/// The document of an error: `{schema, error: {kind, message, hint, retryable, cloudstack}, operation}`.
pub fn error_document(refusal: &Refusal) -> Value {
    json!({ "schema": SCHEMA, "error": refusal.error, "operation": refusal.operation })
}

/// A document that came over the socket, under its schema.
pub fn with_schema(members: Map<String, Value>) -> Value {
    let mut all = Map::from_iter([("schema".to_owned(), json!(SCHEMA))]);
    all.extend(members.into_iter().filter(|(key, _)| key != "schema"));
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    #[test]
    fn schema_comes_first_and_nothing_is_lost() {
        let document = answer_document(&Ok(json!({ "volumes": [], "later": 1, "schema": 7 }).into()));
        assert_eq!(document.to_string(), r#"{"schema":1,"volumes":[],"later":1}"#);
    }

    #[test]
    fn errors_have_all_their_keys() {
        let refusal = Box::<Refusal>::from(Error::new(Kind::NotFound, "no volume \"x\""));
        assert_eq!(
            error_document(&refusal).to_string(),
            r#"{"schema":1,"error":{"kind":"not_found","message":"no volume \"x\"","hint":null,"retryable":false,"cloudstack":null},"operation":null}"#
        );
    }
}
