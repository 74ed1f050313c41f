//! The envelopes of the API's answers, as JSON and as XML (facts sheet, 2 and 3.1).

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// An HTTP answer.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The header `X-Description` of errors.
    pub description: Option<String>,
    /// The body.
    pub body: String,
}

/// What `response=` asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `response=json`.
    Json,
    /// Anything else.
    Xml,
}

impl Reply {
    /// A page as proxies and portals send it.
    pub fn html(status: u16, title: &str) -> Self {
        let body =
            format!("<html>\r\n<head><title>{title}</title></head>\r\n<body><h1>{title}</h1></body>\r\n</html>\r\n");
        Self { status, content_type: "text/html", description: None, body }
    }

    /// A 200 with this text.
    pub fn text(body: &str) -> Self {
        Self { status: 200, content_type: "application/json; charset=UTF-8", description: None, body: body.to_owned() }
    }

    /// A success under the command's key.
    pub fn success(format: Format, command: &str, content: Value) -> Self {
        Self::enveloped(format, 200, None, &response_key(command), content)
    }

    /// An error under its key; `command` as it was sent, if it was.
    pub fn error(format: Format, command: Option<&str>, known: bool, error: &ApiError) -> Self {
        let key = match command {
            None => "null".to_owned(),
            Some(_) if !known || error.code == 432 => "errorresponse".to_owned(),
            Some(command) => response_key(command),
        };
        let mut content = Map::new();
        content.insert("uuidList".to_owned(), json!([]));
        content.insert("errorcode".to_owned(), json!(error.code));
        if let Some(number) = error.class_number() {
            content.insert("cserrorcode".to_owned(), json!(number));
        }
        content.insert("errortext".to_owned(), json!(error.text));
        Self::enveloped(format, error.code, Some(error.text.clone()), &key, Value::Object(content))
    }

    fn enveloped(format: Format, status: u16, description: Option<String>, key: &str, content: Value) -> Self {
        let (content_type, body) = match format {
            Format::Json => ("application/json; charset=UTF-8", json!({ key: content }).to_string()),
            Format::Xml => ("text/xml; charset=UTF-8", xml_document(key, &content)),
        };
        Self { status, content_type, description, body }
    }
}

fn response_key(command: &str) -> String {
    format!("{}response", command.to_lowercase())
}

fn xml_document(key: &str, content: &Value) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned();
    xml_element(&mut text, key, content);
    text
}

fn xml_element(text: &mut String, name: &str, value: &Value) {
    if let Value::Array(items) = value {
        items.iter().for_each(|item| xml_element(text, name, item));
        return;
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "<{name}>");
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| xml_element(text, name, value)),
        Value::String(string) => text.push_str(&xml_escaped(string)),
        other => {
            let _ = write!(text, "{other}");
        }
    }
    let _ = write!(text, "</{name}>");
}

fn xml_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
