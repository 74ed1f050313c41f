//! volctl in the guest: the daemon, started by hand, and the command, asked for JSON.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde_json::Value;
use volctl::api::Changed;
use volctl::error::{Error, Kind};
use volctl::model::{Device, OperationId};

use crate::guest::{CLOUDSTACK_ADDRESS, Guest, NBD_ADDRESS};
use crate::support::simulator::{API_KEY, SECRET_KEY};

/// The command and the daemon in one guest.
pub struct Volctl<'a> {
    guest: &'a Guest,
    /// What the command line begins with.
    command: &'static str,
}

impl<'a> Volctl<'a> {
    /// Writes the configuration and starts the daemon. Its NBD clients are outside, behind `nbd`.
    pub fn start(guest: &'a Guest, nbd: SocketAddr) -> Self {
        let configuration = format!(
            r#"
[cloudstack]
endpoint = "http://{CLOUDSTACK_ADDRESS}/client/api"
api_key = "{API_KEY}"
secret_key = "{SECRET_KEY}"
allow_plain_http = true

[nbd]
listen = ["{NBD_ADDRESS}"]
plain_public = true
allow = ["10.0.2.0/24"]
advertise = "{nbd}"

[daemon]
idle_timeout = "1h"
"#
        );
        guest.ok("install -d -m 755 /etc/volctl && install -m 600 /dev/null /etc/volctl/config.toml");
        guest.ok(&format!("cat >/etc/volctl/config.toml <<'END'{configuration}END"));
        // Programs that were built against a newer C library than the guest's say so here.
        guest.ok("volctl --version");
        let volctl = Self { guest, command: "volctl" };
        volctl.start_daemon();
        volctl
    }

    /// As the operator of an installed package: a member of both groups, and of no other. The daemon is systemd's.
    pub fn of_operator(guest: &'a Guest) -> Self {
        Self { guest, command: "runuser -u alex -- volctl" }
    }

    /// Starts the daemon as an operator would by hand; the journal takes what it says.
    pub fn start_daemon(&self) {
        self.guest.ok("systemd-run --quiet --collect --unit=volctld volctld");
        self.guest.ok(
            "until volctl version >/dev/null 2>&1; do systemctl --quiet is-active volctld || exit; sleep 0.1; done",
        );
    }

    /// Ends the daemon with SIGTERM.
    pub fn stop_daemon(&self) {
        self.guest.ok("systemctl stop volctld");
    }

    /// Asks for something that must succeed.
    pub fn ask<T: DeserializeOwned>(&self, arguments: &str) -> T {
        parsed(arguments, &self.guest.ok(&format!("{} --json {arguments}", self.command)))
    }

    /// Makes a change that must succeed.
    pub fn change(&self, arguments: &str) -> Changed {
        self.ask(arguments)
    }

    /// Attaches (or creates attached) and returns the change with the device.
    pub fn attached(&self, arguments: &str) -> (Changed, Device) {
        let change = self.change(arguments);
        let device = change.volume.as_ref().and_then(|volume| volume.device.clone());
        (change, device.unwrap_or_else(|| panic!("volctl {arguments}: no device in the answer")))
    }

    /// Makes two changes at the same moment, from two processes; both must succeed.
    pub fn at_once(&self, arguments: [&str; 2]) -> [Changed; 2] {
        let [first, second] = arguments;
        self.guest.ok(&format!("volctl --json {first} >/tmp/first & volctl --json {second} >/tmp/second && wait $!"));
        [(first, "/tmp/first"), (second, "/tmp/second")]
            .map(|(arguments, file)| parsed(arguments, &self.guest.ok(&format!("cat {file}"))))
    }

    /// Waits until an operation has ended, which must have succeeded.
    pub fn wait_for(&self, operation: OperationId) {
        self.ask::<Value>(&format!("ops wait {operation}"));
    }

    /// Asks for something that must be refused as in use, and returns the message and the hint.
    pub fn in_use(&self, arguments: &str) -> String {
        let error = self.refused(arguments);
        assert_eq!(error.kind, Kind::InUse, "volctl {arguments}: {error}");
        format!("{}\n{}", error.message, error.hint.unwrap_or_default())
    }

    /// Asks for something that must be refused.
    pub fn refused(&self, arguments: &str) -> Error {
        let output = self.guest.run(&format!("{} --json {arguments}", self.command));
        let document: Value = parsed(arguments, &output.stdout);
        let error: Error = serde_json::from_value(document["error"].clone())
            .unwrap_or_else(|error| panic!("volctl {arguments}: {error}: {document}"));
        assert_eq!(output.code, i32::from(error.kind.exit_code()), "volctl {arguments}: {error}");
        error
    }
}

fn parsed<T: DeserializeOwned>(arguments: &str, document: &str) -> T {
    serde_json::from_str(document).unwrap_or_else(|error| panic!("volctl {arguments}: {error}: {document}"))
}
