//! Faults on the wire, and the log of what was called.

use std::io;

use serde_json::json;

use crate::support::simulator::{CUSTOM, Simulator, ZONE};
use crate::support::wait_for;

const CREATE: [(&str, &str); 4] = [("zoneid", ZONE), ("diskofferingid", CUSTOM), ("size", "1"), ("name", "data")];

fn created(simulator: &Simulator) -> usize {
    let listed = simulator.call("listVolumes", &[("name", "data")]).content();
    listed["count"].as_u64().map_or(0, |count| usize::try_from(count).unwrap())
}

#[test]
fn before_is_not_carried_out_and_after_is() {
    let simulator = Simulator::start(&[]);
    let mut expected = 0;
    for (fault, carried_out, status) in [
        (json!({"mode": "cut-before"}), false, None),
        (json!({"mode": "cut-after"}), true, None),
        (json!({"mode": "502-html-before"}), false, Some(502)),
        (json!({"mode": "502-html-after"}), true, Some(502)),
        (json!({"mode": "empty-200-after"}), true, Some(200)),
        (json!({"mode": "html-200"}), false, Some(200)),
        (json!({"mode": "truncate"}), true, None),
        (json!({"mode": "slow", "interval_ms": 1}), true, Some(200)),
        (json!({"mode": "non-json"}), true, Some(200)),
        (json!({"mode": "error", "code": 533, "text": "no capacity"}), false, Some(533)),
        (json!({"mode": "503"}), false, Some(503)),
        (json!({"mode": "429"}), false, Some(429)),
    ] {
        let mut fault = fault;
        fault["command"] = json!("createVolume");
        simulator.fault(fault.clone());
        let answer = simulator.try_call("createVolume", &CREATE);
        assert_eq!(answer.as_ref().map(|answer| answer.status).ok(), status, "{fault}");
        expected += usize::from(carried_out);
        assert_eq!(created(&simulator), expected, "{fault}");
    }
    assert_eq!(simulator.call("createVolume", &CREATE).status, 200, "each met one call");
}

#[test]
fn a_late_request_is_carried_out_after_the_client_has_given_up() {
    let simulator = Simulator::start(&[]);
    simulator.fault(json!({"command": "createVolume", "mode": "late", "delay_ms": 200}));
    let answer = simulator.try_call("createVolume", &CREATE);
    assert_eq!(answer.err().map(|error| error.kind()), Some(io::ErrorKind::UnexpectedEof));
    wait_for("the request to be carried out", || (created(&simulator) == 1).then_some(()));

    // What arrives after its `expires` is refused by then.
    simulator.fault(json!({"command": "createVolume", "mode": "late", "delay_ms": 1100}));
    let expires = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1)).strftime("%Y-%m-%dT%H:%M:%S+0000");
    let expires = expires.to_string();
    let parameters = [CREATE.as_slice(), &[("signatureversion", "3"), ("expires", &expires)]].concat();
    assert!(simulator.try_call("createVolume", &parameters).is_err());
    assert_eq!(created(&simulator), 1);
}

#[test]
fn an_endless_body_does_not_end() {
    use std::io::{Read, Write};
    let simulator = Simulator::start(&[]);
    simulator.fault(json!({"command": "listZones", "mode": "endless"}));
    let address = simulator.endpoint().trim_start_matches("http://").trim_end_matches("/client/api");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /client/api?command=listZones&response=json HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut read = 0;
    let mut buffer = [0; 65536];
    while read < 16 << 20 {
        let bytes = stream.read(&mut buffer).unwrap();
        assert_ne!(bytes, 0, "it ended after {read} bytes");
        read += bytes;
    }
}

#[test]
fn faults_are_counted_by_call() {
    let simulator = Simulator::start(&[]);
    simulator.fault(json!({"command": "*", "nth": 2, "times": 2, "mode": "503"}));
    let statuses: Vec<_> = (0..4).map(|_| simulator.call("listZones", &[]).status).collect();
    assert_eq!(statuses, [200, 503, 503, 200]);
    simulator.fault(json!({"command": "listZones", "times": 1_000_000, "mode": "cut-before"}));
    assert!(simulator.try_call("listZones", &[]).is_err());
    simulator.admin("DELETE", "faults", json!({}));
    assert_eq!(simulator.call("listZones", &[]).status, 200);
    let state = simulator.state();
    assert_eq!(state["journal"]["calls"]["listZones"], 6);
    assert_eq!(state["journal"]["requests"][4]["fault"], "cut-before");
    assert!(state["journal"]["requests"][0]["parameters"].get("signature").is_none());
}
