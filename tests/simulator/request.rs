//! A call as it was sent: its parameters, decoded, with the names as the client wrote them (facts sheet, 1.1).

use std::collections::BTreeMap;

use crate::reply::Format;

/// How many parameters a form may hold.
const MAX_KEYS: usize = 5000;

/// A call of the API.
pub struct ApiRequest {
    /// `GET` or `POST`.
    pub is_post: bool,
    /// Decoded parameters by their name as sent.
    pub sent: BTreeMap<String, String>,
}

impl ApiRequest {
    /// Reads query and form. The query wins over the form; in the query the last of equal names wins, in the form the
    /// first. `None` if there are too many parameters.
    pub fn decode(is_post: bool, query: &str, form: &[u8]) -> Option<Self> {
        let mut sent = BTreeMap::new();
        for (index, (name, value)) in form_urlencoded::parse(form).enumerate() {
            if index == MAX_KEYS {
                return None;
            }
            sent.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        sent.extend(form_urlencoded::parse(query.as_bytes()).into_owned());
        Some(Self { is_post, sent })
    }

    /// The command; the parameter's name must be lower case.
    pub fn command(&self) -> Option<&str> {
        self.sent.get("command").map(String::as_str)
    }

    /// The format asked for; the parameter's name must be lower case.
    pub fn format(&self) -> Format {
        match self.sent.get("response") {
            Some(format) if format.eq_ignore_ascii_case("json") => Format::Json,
            _ => Format::Xml,
        }
    }

    /// The value of one of the names that match in any case: `apiKey`, `signature`, `signatureVersion`, `expires`.
    pub fn any_case(&self, name: &str) -> Option<&str> {
        self.sent.iter().find(|(sent, _)| sent.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}
