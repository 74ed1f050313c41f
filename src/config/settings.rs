//! Every setting: volctl.toml(5), the template that is installed and the README's table are made from this.

use self::SettingKind::{Boolean, Count, Duration, Path, Size, Text, Texts};
use self::SettingValue::{Default, Example};

/// A setting of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in its section.
    pub key: &'static str,
    /// What it takes.
    pub kind: SettingKind,
    /// What counts without it.
    pub value: SettingValue,
    /// What it says, in a sentence or two.
    pub about: &'static str,
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// A string.
    Text,
    /// A string that is an absolute path.
    Path,
    /// `true` or `false`.
    Boolean,
    /// An integer from 1.
    Count,
    /// A duration: a string such as `"30s"`, or an integer of seconds.
    Duration,
    /// A size: a string such as `"64M"`, or an integer of bytes.
    Size,
    /// An array of strings.
    Texts,
}

impl SettingKind {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            SettingKind::Text => "string",
            SettingKind::Path => "absolute path",
            SettingKind::Boolean => "boolean",
            SettingKind::Count => "integer",
            SettingKind::Duration => "duration",
            SettingKind::Size => "size",
            SettingKind::Texts => "array of strings",
        }
    }
}

/// A value as it is written in TOML.
#[derive(Clone, Copy, Debug)]
pub enum SettingValue {
    /// What counts where the setting is left out.
    Default(&'static str),
    /// What it can look like; nothing counts where it is left out.
    Example(&'static str),
}

impl SettingValue {
    /// The value in TOML, a default or not.
    pub const fn toml(self) -> &'static str {
        match self {
            SettingValue::Default(toml) | SettingValue::Example(toml) => toml,
        }
    }
}

/// The settings of each section.
pub const SETTINGS: &[(&str, &[Setting])] =
    &[("cloudstack", CLOUDSTACK), ("device", DEVICE), ("nbd", NBD), ("daemon", DAEMON)];

const fn setting(key: &'static str, kind: SettingKind, value: SettingValue, about: &'static str) -> Setting {
    Setting { key, kind, value, about }
}

const CLOUDSTACK: &[Setting] = &[
    setting("endpoint", Text, Example("\"https://cloud.example/client/api\""), "Where the API answers. Needed."),
    setting("api_key", Text, Example("\"...\""), "The API key of the user whose volumes these are. Needed."),
    setting(
        "secret_key_file",
        Path,
        Example("\"/etc/volctl/secret\""),
        "The file with its secret key, one line, which nobody but volctld's user or root may read.",
    ),
    setting(
        "secret_key",
        Text,
        Example("\"...\""),
        "The secret key itself instead of its file; then nobody else may read the configuration.",
    ),
    setting(
        "zone",
        Text,
        Example("\"zone1\""),
        "The zone of new volumes where more than one could be meant, id or name.",
    ),
    setting(
        "disk_offering",
        Text,
        Example("\"custom\""),
        "The disk offering of new volumes where more than one could be meant, id or name.",
    ),
    setting("project", Text, Example("\"backup\""), "The project whose volumes these are, id or name."),
    setting(
        "vm_id",
        Text,
        Example("\"00000000-0000-4000-8000-000000000000\""),
        "The VM that volctld runs in, only where nothing proves it; against a proof every change is refused.",
    ),
    setting("ca_file", Path, Example("\"/etc/volctl/ca.pem\""), "A CA to trust beside the system's, PEM."),
    setting(
        "allow_plain_http",
        Boolean,
        Default("false"),
        "Allow an http endpoint on another machine, where anybody on the way can read and change what is sent.",
    ),
    setting("timeout", Duration, Default("\"30s\""), "How long one call may take."),
];

const DEVICE: &[Setting] = &[
    setting(
        "by_id_dir",
        Path,
        Default("\"/dev/disk/by-id\""),
        "The directory of the links to disks; any other than the default is a sandbox's.",
    ),
    setting(
        "timeout",
        Duration,
        Default("\"60s\""),
        "How long an attach waits for its device before the caller is told.",
    ),
    setting("max_disks", Count, Default("32"), "How many data disks a VM can hold, at most 256."),
];

const NBD: &[Setting] = &[
    setting(
        "listen",
        Texts,
        Default("[]"),
        "TCP addresses beside the Unix socket, such as \"127.0.0.1:10809\"; a loopback port is open to every local user.",
    ),
    setting("unix_socket", Path, Default("\"/run/volctl/nbd.sock\""), "The Unix socket, which is always served."),
    setting(
        "advertise",
        Text,
        Example("\"appliance.example:10809\""),
        "The host, or host:port, that URIs name instead of the address that is listened on.",
    ),
    setting(
        "plain_public",
        Boolean,
        Default("false"),
        "Allow to listen beyond loopback without TLS, where nothing is encrypted; it needs an allow list too.",
    ),
    setting(
        "allow",
        Texts,
        Default("[]"),
        "The networks that may connect over TCP, such as \"192.0.2.0/24\"; with none, this machine alone, and over TLS all.",
    ),
    setting(
        "tls_certificates",
        Path,
        Example("\"/etc/volctl/tls/server\""),
        "The directory of ca-cert.pem, server-cert.pem and server-key.pem, as `volctl tls init` makes it; read when \
         they come, and again when they change. A listener beyond loopback then takes nothing but TLS.",
    ),
    setting(
        "tls",
        Text,
        Default("\"allowed\""),
        "Whether new exports take only TLS: allowed or required, where volctl export has no --tls.",
    ),
    setting(
        "direct",
        Boolean,
        Default("false"),
        "Read and write past the page cache, so that nothing waits in this machine's memory; a device that cannot do that is \
         not served.",
    ),
    setting("max_connections", Count, Default("512"), "How many NBD connections there are at most."),
    setting(
        "max_connections_per_client",
        Count,
        Default("128"),
        "How many of them one client has: one certificate's subject, else one address.",
    ),
    setting(
        "max_requests_in_flight",
        Count,
        Default("4096"),
        "How many requests of NBD clients are taken and not answered yet; more wait in their sockets.",
    ),
    setting(
        "max_requests_in_flight_per_client",
        Count,
        Default("1024"),
        "How many of them are one client's; on the Unix socket each process is a client.",
    ),
    setting(
        "max_bytes_in_flight",
        Size,
        Default("\"512M\""),
        "How many bytes such requests hold in memory; of one request that is 2 MiB at most.",
    ),
    setting("max_bytes_in_flight_per_client", Size, Default("\"128M\""), "How many of them are one client's."),
    setting(
        "handshake_timeout",
        Duration,
        Default("\"10s\""),
        "How long a connection has to choose its export, TLS included.",
    ),
    setting(
        "keepalive_timeout",
        Duration,
        Default("\"5m\""),
        "How long a TCP peer may acknowledge nothing, or take nothing of what it is sent, before its connection is closed; at \
         most 18h.",
    ),
    setting(
        "stall_timeout",
        Duration,
        Default("\"10s\""),
        "How long a connection may send or take less than 64 KiB of a request that is in flight, while others wait as long \
         for room, before it is closed.",
    ),
];

const DAEMON: &[Setting] = &[
    setting(
        "idle_timeout",
        Duration,
        Default("\"5m\""),
        "How long without work before volctld leaves, at most 366d; its socket starts it again.",
    ),
    setting("history", Duration, Default("\"400d\""), "How long ended operations are kept."),
    setting(
        "log",
        Text,
        Default("\"volctl=info\""),
        "What is logged: a level, part=level such as \"volctl::nbd=debug\", or several; taken over at SIGHUP.",
    ),
];
