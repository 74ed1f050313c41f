//! The contract as others see it: the OpenRPC document, `volctl rpc`, and the README's Python script.

use std::io::Write;
use std::process::{Command, Stdio};

use boon::{Compiler, Draft, Schemas};
use serde_json::{Value, json};

use crate::support::appliance::{Appliance, Ended};
use crate::support::wording::{hint, message, names};

/// The OpenRPC meta-schema and the schema of JSON schemas that it refers to, both under the Apache License 2.0: the npm
/// packages `@open-rpc/meta-schema` 1.14.9 and `@json-schema-tools/meta-schema` 1.8.0.
const META_SCHEMAS: [(&str, &str); 2] = [
    ("https://meta.open-rpc.org/", include_str!("rpc/openrpc-meta-schema.json")),
    ("https://meta.json-schema.tools/", include_str!("rpc/json-schema-meta-schema.json")),
];

/// What is wrong with a document by the OpenRPC meta-schema.
fn violations(document: &Value) -> Option<String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.set_default_draft(Draft::V7);
    for (url, text) in META_SCHEMAS {
        let mut schema: Value = serde_json::from_str(text).unwrap();
        // It names itself; it is written in draft 7.
        schema.as_object_mut().unwrap().remove("$schema");
        compiler.add_resource(url, schema).unwrap();
    }
    let index = compiler.compile(META_SCHEMAS[0].0, &mut schemas).unwrap();
    schemas.validate(document, index).err().map(|error| error.to_string())
}

#[test]
fn the_document_is_openrpc_and_its_methods_are_answered() {
    let appliance = Appliance::start();
    let document = appliance.run(&["rpc", "rpc.discover"]).success().json();
    assert_eq!(violations(&document), None);
    let mut broken = document.clone();
    broken["methods"][0]["params"][0]["schema"] = json!(7);
    assert!(violations(&broken).is_some(), "the meta-schema refuses nothing");

    for method in document["methods"].as_array().unwrap() {
        let ended = appliance.run(&["rpc", method["name"].as_str().unwrap(), r#"{"no such parameter": 1}"#]);
        assert_eq!(ended.code, 2, "{method}: {ended:?}");
        names(&ended.stderr, &["no such parameter", "(-32602)"]);
    }
    assert_eq!(unresolved(&document, &document), Vec::<String>::new());
}

/// The references of a document that lead nowhere.
fn unresolved(part: &Value, document: &Value) -> Vec<String> {
    match part {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value.as_str().and_then(|to| to.strip_prefix('#')) {
                Some(to) if name == "$ref" && document.pointer(to).is_none() => vec![to.to_owned()],
                _ => unresolved(value, document),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| unresolved(item, document)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn any_method_can_be_called() {
    let appliance = Appliance::start();
    let id = appliance.cloud.volume("data1");
    let shown = appliance.run(&["rpc", "volume.get", r#"{"volume": "data1", "max_age_seconds": 0}"#]).success().json();
    assert_eq!((&shown["volume"]["id"], shown.get("schema")), (&json!(id), None));

    let attach = json!({"volume": "data1", "wait": true, "request_id": "r1"}).to_string();
    let attached = with_stdin(&appliance, &["rpc", "volume.attach", "-"], &attach).success().json();
    assert_eq!((&attached["changed"], &attached["operation"]["status"]), (&json!(true), &json!("succeeded")));
    assert_eq!(appliance.run(&["rpc", "volume.attach", &attach]).success().json()["operation"], attached["operation"]);
    let accepted = appliance.run(&["rpc", "volume.detach", r#"{"volume": "data1"}"#]).success().json();
    assert_eq!(accepted["changed"], json!(null));
    let id = accepted["operation"]["id"].as_str().unwrap();
    let wait = json!({"id": id, "timeout_seconds": 20}).to_string();
    assert_eq!(appliance.run(&["rpc", "operation.wait", &wait]).success().json()["changed"], true);
}

#[test]
fn what_cannot_be_called_is_a_clear_error() {
    let appliance = Appliance::start();
    for (line, said) in [
        (&["rpc", "volume.explode"][..], "there is no method volume.explode"),
        (&["rpc", "volume.get", "[1]"], "not a JSON object"),
        (&["rpc", "volume.get", "{\"volume\""], "not a JSON object"),
        (&["rpc", "volume.get", "{}"], "the parameter volume is missing"),
        (&["rpc", "volume.get", r#"{"volume": "a", "volumes": 1}"#], "there is no parameter volumes"),
    ] {
        names(message(&appliance.json(line).failure(2, "usage")), &[said]);
    }
    let error = appliance.json(&["rpc", "volume.get", r#"{"volume": "missing"}"#]).failure(3, "not_found");
    names(hint(&error), &["volctl ls"]);
    with_stdin(&appliance, &["--json", "rpc", "volume.get", "-"], "").failure(2, "usage");
}

#[test]
fn what_carries_no_request_id_is_not_sent_twice() {
    let mut appliance = Appliance::start();
    appliance.cloud.volume("data1");
    appliance.cloud.settings(json!({"latency": {"attachVolume": {"min_ms": 600_000, "max_ms": 600_000}}}));
    let waiting = appliance.begin(&["rpc", "volume.attach", r#"{"volume": "data1", "wait": true}"#]);
    let sent = || (appliance.cloud.calls("attachVolume") == 1).then_some(());
    crate::support::wait_for("the attach to be sent", sent);
    appliance.kill_daemon();
    let refused = waiting.end().failure(7, "daemon_unreachable");
    names(message(&refused), &["daemon"]);
    appliance.start_daemon();
    assert_eq!(appliance.ok(&["ops"])["operations"].as_array().unwrap().len(), 1);
}

#[test]
fn the_readmes_script_attaches() {
    let readme = include_str!("../../README.md");
    let script = readme.split_once("```python\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    assert!(script.lines().count() <= 40, "{} lines", script.lines().count());
    let appliance = Appliance::start();
    appliance.cloud.volume("data1");
    let run = |volume: &str| -> Ended {
        let mut python = Command::new("python3");
        python.env_clear().env("PATH", "/usr/bin:/bin").args(["-I", "-c", script, volume]);
        python.arg(appliance.socket()).output().unwrap().into()
    };
    let ended = run("data1").success();
    let device = appliance.show("data1")["device"]["path"].clone();
    assert_eq!(ended.stdout, format!("{}\n", device.as_str().unwrap()));
    names(&ended.stderr, &["attach"]);
    let refused = run("missing");
    assert_eq!(refused.code, 1);
    names(&refused.stderr, &["not_found: there is no volume missing"]);
}

fn with_stdin(appliance: &Appliance, words: &[&str], text: &str) -> Ended {
    let mut command = appliance.command(words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}
