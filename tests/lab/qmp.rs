//! QEMU's control channel (QMP): commands, their answers, and the events that come between them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// No command here takes QEMU longer; an unplug waits for the emulated guest's kernel.
const LIMIT: Duration = Duration::from_secs(240);

/// A connection to one QEMU.
pub struct Qmp {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    /// Takes QEMU's greeting and leaves the negotiation mode.
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        qmp.message();
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    /// Runs a command and returns what it answers.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let line = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream.get_mut(), "{line}").unwrap_or_else(|error| panic!("QEMU has gone: {error}"));
        loop {
            let mut message = self.message();
            if message.get("event").is_some() {
                self.events.push(message);
            } else if let Some(error) = message.get("error") {
                panic!("QEMU refused {line}: {error}");
            } else {
                return message["return"].take();
            }
        }
    }

    /// Waits until the guest has let a device go.
    pub fn wait_deleted(&mut self, device: &str) {
        self.wait_event(|event| event["event"] == "DEVICE_DELETED" && event["data"]["device"] == device);
    }

    /// Waits until the guest has reset its machine.
    pub fn wait_reset(&mut self) {
        self.wait_event(|event| event["event"] == "RESET");
    }

    fn wait_event(&mut self, is_it: impl Fn(&Value) -> bool) {
        while !self.events.iter().any(&is_it) {
            let message = self.message();
            self.events.push(message);
        }
        self.events.retain(|event| !is_it(event));
    }

    fn message(&mut self) -> Value {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => panic!("QEMU has gone (its own words, if any, stand above)"),
            Ok(_) => serde_json::from_str(&line).unwrap_or_else(|error| panic!("QEMU said {line:?}: {error}")),
            Err(error) => panic!("QEMU said nothing for {LIMIT:?}: {error}"),
        }
    }
}
