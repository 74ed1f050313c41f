//! Signatures, expiry, the order of checks, and the rules for parameters.

use serde_json::json;

use crate::support::simulator::{API_KEY, CUSTOM, SECRET_KEY, Simulator, ZONE, form, signed};
use crate::support::wait_for;

const VECTOR_KEY: &str = "AKtest_-Key.1";
const VECTOR_SECRET: &str = "s3cr3t/Key+Test==";

const VECTOR_1: [(&str, &str); 9] = [
    ("command", "createVolume"),
    ("response", "json"),
    ("apiKey", VECTOR_KEY),
    ("signatureVersion", "3"),
    ("expires", "2031-10-10T12:00:00+0000"),
    ("name", "Disk A+B *~ (ü€)/=&%41"),
    ("size", "7"),
    ("diskOfferingId", "9A3B2C1D-0000-4000-8000-0000000000AA"),
    ("zoneId", "1b2c3d4e-0000-4000-8000-0000000000bb"),
];

const VECTOR_2: [(&str, &str); 13] = [
    ("command", "createTags"),
    ("response", "json"),
    ("apikey", VECTOR_KEY),
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

fn with<'a>(parameters: &[(&'a str, &'a str)], name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    parameters.iter().filter(|(other, _)| *other != name).copied().chain([(name, value)]).collect()
}

#[test]
fn both_test_vectors_are_verified() {
    let simulator = Simulator::start(&["--api-key", VECTOR_KEY, "--secret-key", VECTOR_SECRET]);
    for (vector, signature, status) in [
        // Past the signature: the offering is not known here.
        (VECTOR_1.as_slice(), "qmUfwxvTsQGzX0zHWEpH8pNGHmI=", 431),
        // Past the signature: a job, which will not find the volumes.
        (VECTOR_2.as_slice(), "mg2Q93WbVAGLZH3ErfeXIzllVRU=", 200),
    ] {
        let good = simulator.post(&form(&with(vector, "signature", signature))).unwrap();
        assert_eq!(good.status, status, "{}", good.body);
        let other_case = simulator.post(&form(&with(vector, "signature", &signature.to_lowercase()))).unwrap();
        assert_eq!(other_case.status, 401);
        let changed = with(&with(vector, "signature", signature), "response", "JSON ");
        assert_eq!(simulator.post(&form(&changed)).unwrap().status, 401);
        let unknown_parameter = with(&with(vector, "signature", signature), "more", "");
        assert_eq!(simulator.post(&form(&unknown_parameter)).unwrap().status, 401);
    }
    // After its `expires` a good signature is none.
    simulator.admin("POST", "clock", json!({"advance_seconds": 10 * 366 * 86_400}));
    let late = simulator.post(&form(&with(&VECTOR_1, "signature", "qmUfwxvTsQGzX0zHWEpH8pNGHmI="))).unwrap();
    assert_eq!(late.status, 401);
}

#[test]
fn a_wrong_signature_looks_like_the_servers() {
    let simulator = Simulator::start(&[]);
    let parameters = [("command", "listVolumes"), ("response", "json"), ("apikey", API_KEY)];
    let answer = simulator.post(&signed(&parameters, "wrong")).unwrap();
    assert_eq!(answer.status, 401);
    let text = "unable to verify user credentials and/or request signature";
    assert_eq!(answer.json(), json!({"listvolumesresponse": {"uuidList": [], "errorcode": 401, "errortext": text}}));
    assert_eq!(answer.header("X-Description"), Some(text));
    assert!(answer.header("Date").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(simulator.post(&signed(&parameters, SECRET_KEY)).unwrap().status, 200);
    simulator.settings(json!({"secret_key": "rotated"}));
    assert_eq!(simulator.post(&signed(&parameters, SECRET_KEY)).unwrap().status, 401);
    assert_eq!(simulator.post(&signed(&parameters, "rotated")).unwrap().status, 200);
}

#[test]
fn expires_is_read_as_the_server_reads_it() {
    let simulator = Simulator::start(&[]);
    let status = |expires: &str| {
        let parameters = [("signatureversion", "3"), ("expires", expires)];
        simulator.call("listZones", &parameters).status
    };
    for good in [
        "2031-10-10T12:00:00+0000",
        "2031-10-10T12:00:00+0530",
        "2031-10-10T12:00:00Z",
        "2031-10-10T12:00:00+05:30",
        "2031-10-10T12:00:00.123Z",
        "2031-10-10T12:00Z",
        "2031-10-10T12:00:00.123456+0000",
        "2031-10-10T12:00:00Z+0000",
        "2031-10-10T12:00:00-0130",
    ] {
        assert_eq!(status(good), 200, "{good}");
    }
    for bad in [
        "2031-10-10T12:00:00",
        "2031-10-10 12:00:00+0000",
        "1949402400",
        "2031-10-10T12:00:00.123+0000",
        "2021-10-10T12:00:00+0000",
        "",
        "ü",
        "2031-10-10T12:00:00+ü00",
        "2031-10-10T12:00:00+ 100",
        "2031-10-10T12:00:00+",
        "2031-10-10T12:00:00Z+00:00",
        "2031-13-10T12:00:00Z",
    ] {
        assert_eq!(status(bad), 401, "{bad}");
    }
    assert_eq!(simulator.call("listZones", &[("signatureversion", "3")]).status, 401);
    assert_eq!(simulator.call("listZones", &[("expires", "2021-10-10T12:00:00+0000")]).status, 200, "not version 3");
}

#[test]
fn enforcement_wants_post_and_an_early_expiry() {
    let simulator = Simulator::start(&[]);
    let create = [("command", "createVolume"), ("response", "json"), ("apikey", API_KEY)];
    assert_eq!(simulator.get(&signed(&create, SECRET_KEY)).unwrap().status, 431);
    simulator.settings(json!({"enforce_post_requests_and_timestamps": true}));
    let refused = simulator.get(&signed(&create, SECRET_KEY)).unwrap();
    assert_eq!((refused.status, refused.content()["errorcode"].clone()), (400, json!(400)));
    let list = [("command", "listZones"), ("response", "json"), ("apikey", API_KEY)];
    assert_eq!(simulator.get(&signed(&list, SECRET_KEY)).unwrap().status, 401, "neither version nor expiry");
    for (minutes, status) in [(14, 200), (16, 401), (-1, 401)] {
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
        let expires = expires.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string();
        let list = with(&with(&list, "signatureversion", "3"), "expires", &expires);
        assert_eq!(simulator.get(&signed(&list, SECRET_KEY)).unwrap().status, status, "{minutes}");
    }
}

#[test]
fn checks_come_in_the_servers_order() {
    let simulator = Simulator::start(&[]);
    let call = |command: &str, secret: &str| {
        let parameters = [("command", command), ("response", "json"), ("apikey", API_KEY)];
        simulator.post(&signed(&parameters, secret)).unwrap()
    };
    let unknown = call("listvolumes", SECRET_KEY);
    assert_eq!((unknown.status, unknown.json()["errorresponse"]["errorcode"].clone()), (401, json!(401)));
    let missing = simulator.post(&signed(&[("response", "json"), ("Command", "listZones")], SECRET_KEY)).unwrap();
    assert_eq!((missing.status, missing.json()["null"]["errorcode"].clone()), (401, json!(401)));
    simulator.settings(json!({"denied_commands": ["deleteVolume"]}));
    let denied = call("deleteVolume", "wrong");
    assert_eq!((denied.status, denied.json()["errorresponse"]["errorcode"].clone()), (432, json!(432)));
    simulator.settings(json!({"throttle": {"max": 1, "interval_ms": 60_000}}));
    assert_eq!(call("listZones", "wrong").status, 401, "and it counts");
    let throttled = call("listZones", "wrong");
    assert_eq!(throttled.status, 429);
    assert!(throttled.content()["errortext"].as_str().unwrap().contains("please retry after ["));
    simulator.settings(json!({"role": "admin"}));
    assert_eq!(call("listZones", SECRET_KEY).status, 200, "root admins are exempt");
}

#[test]
fn parameters_are_checked() {
    let simulator = Simulator::start(&[]);
    let long = "ü".repeat(256);
    let unknown = "12345678-0000-4000-8000-000000000000";
    for (command, parameters, status) in [
        ("listVolumes", vec![("name", "a\tb")], 431),
        ("listVolumes", vec![("unknown", "a\u{7f}b")], 431),
        ("listVolumes", vec![("name", "a\nb")], 200),
        ("listVolumes", vec![("name", long.as_str())], 431),
        ("listVolumes", vec![("name", &long[..510])], 200),
        ("listVolumes", vec![("unknown", long.as_str())], 200),
        ("listVolumes", vec![("id", unknown)], 431),
        ("listVolumes", vec![("id", "")], 431),
        ("listVolumes", vec![("projectid", unknown)], 431),
        ("listVolumes", vec![("tags[0].key", "a"), ("tags[0].value", "b")], 200),
        ("listVolumes", vec![("tags[x].key", "a")], 430),
        ("listVolumes", vec![("tags[0]", "a")], 430),
        ("queryAsyncJobResult", vec![], 431),
        ("queryAsyncJobResult", vec![("jobid", unknown)], 431),
        ("attachVolume", vec![("id", unknown)], 431),
        ("createVolume", vec![("ZONEID", ZONE), ("DiskOfferingId", CUSTOM), ("size", "1")], 200),
        ("createVolume", vec![("zoneid", ZONE), ("diskofferingid", CUSTOM), ("size", "1G")], 431),
        ("createVolume", vec![("zoneid", ZONE), ("diskofferingid", CUSTOM), ("size", "99999999999999999999")], 431),
    ] {
        let answer = simulator.call(command, &parameters);
        assert_eq!(answer.status, status, "{command} {parameters:?}: {}", answer.body);
    }
}

#[test]
fn query_and_form_are_read_as_by_the_servlet() {
    let simulator = Simulator::start(&[]);
    let parameters = [("command", "listZones"), ("response", "json"), ("apikey", API_KEY), ("name", "zone 1")];
    let good = signed(&parameters, SECRET_KEY);
    assert_eq!(simulator.get(&good.replace("%20", "+")).unwrap().status, 200);
    assert_eq!(simulator.get(&format!("name=other&{good}")).unwrap().status, 200, "the last in the query wins");
    assert_eq!(simulator.post(&format!("{good}&name=other")).unwrap().status, 200, "the first in the form wins");
    assert_eq!(simulator.get(&format!("{good}&name=other")).unwrap().status, 401);
    let xml = signed(&[("command", "listZones"), ("apikey", API_KEY)], SECRET_KEY);
    let xml = simulator.get(&xml).unwrap();
    assert!(xml.body.starts_with("<?xml") && xml.body.contains("<name>zone1</name>"), "{}", xml.body);
    assert_eq!(simulator.post(&"a=b&".repeat(300_000)).unwrap().status, 400, "over 1 MiB");
    let many: Vec<_> = (0..5001).map(|key| format!("k{key}=")).collect();
    assert_eq!(simulator.post(&many.join("&")).unwrap().status, 400, "over 5000 keys");
    assert_eq!(simulator.get(&"x".repeat(9000)).unwrap().status, 431, "over 8 KiB");
}

#[test]
fn it_ends_with_its_standard_input_and_at_sigterm() {
    let mut simulator = Simulator::start(&[]);
    simulator.end_input();
    assert!(wait_for("the end of the process", || simulator.ended_with()).success());
    let mut simulator = Simulator::start(&[]);
    let pid = nix::unistd::Pid::from_raw(simulator.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(wait_for("the end of the process", || simulator.ended_with()).success());
}
