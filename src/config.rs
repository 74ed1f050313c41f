//! The configuration: file and environment, checked once, into values that need no more checking.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::{Host, Url};

use self::document::{Given, Section};
pub use self::duration::{DurationError, parse_duration};
pub use self::environment::{Environment, Paths, without_empty_variables};
pub use self::network::{Network, NetworkError, is_like_an_address};
use self::secret::ReadFile;
pub use self::secret::{SecretKey, read_private};
pub use self::settings::{SETTINGS, Setting, SettingKind, SettingValue};
use crate::error::{Error, Kind, Result};
use crate::model::{VmId, printable};

mod document;
mod duration;
mod environment;
mod network;
mod secret;
mod settings;
#[cfg(test)]
mod tests;

/// The socket of the daemon that serves the whole machine.
pub const SYSTEM_SOCKET: &str = "/run/volctl/volctld.sock";
/// Where udev puts the links to disks; any other directory is a sandbox's.
pub const BY_ID_DIR: &str = "/dev/disk/by-id";
/// What is worth a line of the log on any day.
pub const DEFAULT_LOG: &str = "volctl=info";

const CLOUDSTACK_ENDPOINT: &str = "CLOUDSTACK_ENDPOINT";
const CLOUDSTACK_KEY: &str = "CLOUDSTACK_KEY";
const CLOUDSTACK_SECRET: &str = "CLOUDSTACK_SECRET";
/// The longest path of a Unix socket, in bytes: `sun_path` less its final zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

const DAY: Duration = Duration::from_secs(86_400);
/// A peer is probed after half of it, which is at most 32767 s (tcp(7), `TCP_KEEPIDLE`).
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(18 * 3600);

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[cloudstack]`
    pub cloudstack: CloudStack,
    /// `[device]`
    pub device: Device,
    /// `[nbd]`
    pub nbd: Nbd,
    /// `[daemon]`
    pub daemon: Daemon,
}

/// `[cloudstack]`
#[derive(Clone, Debug)]
pub struct CloudStack {
    /// Where the API answers, `https://cloud.example/client/api`.
    pub endpoint: String,
    /// The user's API key.
    pub api_key: String,
    /// The user's secret key.
    pub secret_key: SecretKey,
    /// Default zone, id or name.
    pub zone: Option<String>,
    /// Default disk offering, id or name.
    pub disk_offering: Option<String>,
    /// Project whose volumes these are, id or name.
    pub project: Option<String>,
    /// This VM, where nothing proves it.
    pub vm_id: Option<VmId>,
    /// A CA to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Duration,
}

/// `[device]`
#[derive(Clone, Debug)]
pub struct Device {
    /// Where by-id links are.
    pub by_id_dir: PathBuf,
    /// How long an attach waits for its device before the caller is told.
    pub timeout: Duration,
    /// Data disks that a VM can hold.
    pub max_disks: u32,
}

/// `[nbd]`
#[derive(Clone, Debug, Default)]
pub struct Nbd {
    /// TCP addresses to listen on; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// The Unix socket.
    pub unix_socket: PathBuf,
    /// Host (and port) that URIs name instead of the bound address.
    pub advertise: Option<String>,
    /// Networks that may connect over TCP; empty: those of loopback listeners only.
    pub allow: Vec<Network>,
    /// Those networks may come without TLS also where that is not loopback.
    pub plain_public: bool,
    /// The directory of the server's certificate and of the authority of its clients'.
    pub tls_certificates: Option<PathBuf>,
    /// Whether new exports take no connections without TLS where nothing else is asked for.
    pub tls_required: bool,
    /// Data go past the page cache.
    pub direct: bool,
    /// How much clients may have.
    pub limits: NbdLimits,
}

/// How much clients of the NBD server may have.
#[derive(Clone, Copy, Debug)]
pub struct NbdLimits {
    /// Connections in all.
    pub connections: u32,
    /// Connections of one client, to all exports together.
    pub connections_per_client: u32,
    /// Requests that are taken and not answered yet.
    pub in_flight: InFlight,
    /// Those of one client.
    pub in_flight_per_client: InFlight,
    /// How long a connection has to choose its export.
    pub handshake: Duration,
    /// How long a TCP peer may acknowledge nothing, or take nothing of what it is sent.
    pub keepalive: Duration,
    /// How long others bear a connection that moves nothing while they wait for what it has in flight.
    pub stall: Duration,
}

/// Requests that are taken and not answered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// How many they are.
    pub requests: u64,
    /// How many bytes they hold in memory.
    pub bytes: u64,
}

impl Default for NbdLimits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_client: 128,
            in_flight: InFlight { requests: 4096, bytes: 512 << 20 },
            in_flight_per_client: InFlight { requests: 1024, bytes: 128 << 20 },
            handshake: Duration::from_secs(10),
            keepalive: Duration::from_secs(300),
            stall: Duration::from_secs(10),
        }
    }
}

/// `[daemon]`
#[derive(Clone, Debug)]
pub struct Daemon {
    /// How long without work before the daemon leaves.
    pub idle_timeout: Duration,
    /// How long ended operations are kept.
    pub history: Duration,
    /// What is logged: levels, by part where it says so.
    pub log: String,
}

impl Config {
    /// Reads a file, or without one the file at [`Paths::config`] if it is there, and the environment, which overrides
    /// it. Each error is of kind `config` and names what it is about.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self> {
        Self::check(path, environment).map_err(|mistakes| {
            mistakes
                .into_iter()
                .next()
                .unwrap_or_else(|| Error::new(Kind::Internal, "the configuration is not complete"))
        })
    }

    /// As [`load`](Self::load), but with every mistake.
    pub fn check(path: Option<&Path>, environment: &Environment) -> Result<Self, Vec<Error>> {
        let paths = Paths::of(environment);
        let file = match ReadFile::open(path.unwrap_or(&paths.config)) {
            Ok(file) => Some(file),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = printable(&path.unwrap_or(&paths.config).display().to_string());
                let what = format_args!("cannot read the configuration {path}: {error}");
                return Err(vec![Error::new(Kind::Config, what)]);
            }
        };
        let path = path.unwrap_or(&paths.config);
        Loader { path, file: file.as_ref(), environment, paths: &paths, mistakes: Vec::new() }.load()
    }
}

/// What the sections are read from, and what was found to be wrong with them.
struct Loader<'a> {
    path: &'a Path,
    file: Option<&'a ReadFile>,
    environment: &'a Environment,
    paths: &'a Paths,
    mistakes: Vec<Error>,
}

impl<'a> Loader<'a> {
    fn load(mut self) -> Result<Config, Vec<Error>> {
        let text = self.file.map_or("", |file| &file.text);
        let mut document = Section::parse(self.path, text).map_err(|error| vec![error])?;
        let [cloudstack, device, nbd, daemon] = ["cloudstack", "device", "nbd", "daemon"].map(|name| {
            let section = document.section(name);
            section.unwrap_or_else(|error| {
                self.mistakes.push(error);
                document.without(name)
            })
        });
        self.mistakes.extend(document.unknown());
        let (device, nbd, daemon) = (self.device(device), self.nbd(nbd), self.daemon(daemon));
        // Last, so that what is missing here does not hide what is wrong elsewhere.
        let cloudstack = self.cloudstack(cloudstack);
        match cloudstack {
            Some(cloudstack) if self.mistakes.is_empty() => Ok(Config { cloudstack, device, nbd, daemon }),
            _ => Err(self.mistakes),
        }
    }

    /// Notes what is wrong, and goes on.
    fn note<T: Default>(&mut self, read: Result<T>) -> T {
        read.unwrap_or_else(|error| {
            self.mistakes.push(error);
            T::default()
        })
    }

    fn cloudstack(&mut self, mut section: Section<'a>) -> Option<CloudStack> {
        let endpoint = section.text("endpoint");
        let api_key = section.text("api_key");
        let secret_key_file = self.note(section.path("secret_key_file"));
        let secret_key = self.note(section.text("secret_key"));
        let zone = self.note(section.text("zone"));
        let disk_offering = self.note(section.text("disk_offering"));
        let project = self.note(section.text("project"));
        let vm_id = self.note(section.text("vm_id"));
        let ca_file = self.note(section.path("ca_file"));
        let allow_plain_http = self.note(section.boolean("allow_plain_http")).unwrap_or(false);
        let timeout = self.note(section.duration("timeout", DAY));
        self.mistakes.extend(section.unknown());

        let endpoint = endpoint
            .and_then(|given| self.required(given, "endpoint", CLOUDSTACK_ENDPOINT))
            .and_then(|given| check_endpoint(&given, allow_plain_http));
        let endpoint = self.note(endpoint.map(Some));
        let api_key = api_key.and_then(|given| self.required(given, "api_key", CLOUDSTACK_KEY));
        let api_key = self.note(api_key.map(Some));
        let secret_key = self.secret_key(secret_key, secret_key_file);
        let secret_key = self.note(secret_key.map(Some));
        let vm_id = vm_id.map(|id| id.value.parse().map_err(|_| id.refuse("must be a VM's UUID"))).transpose();
        let vm_id = self.note(vm_id);
        let value = |given: Given<String>| given.value;
        Some(CloudStack {
            endpoint: endpoint?,
            api_key: api_key?.value.trim().to_owned(),
            secret_key: secret_key?,
            zone: zone.map(value),
            disk_offering: disk_offering.map(value),
            project: project.map(value),
            vm_id,
            ca_file: ca_file.map(|path| path.value),
            timeout: timeout.unwrap_or(Duration::from_secs(30)),
        })
    }

    /// What the environment says, else the file; one of them must.
    fn required(&self, in_file: Option<Given<String>>, key: &str, variable: &'static str) -> Result<Given<String>> {
        let given = self.environment.text(variable)?.or(in_file);
        given.ok_or_else(|| self.missing(key, key, variable))
    }

    fn missing(&self, what: &str, key: &str, variable: &str) -> Error {
        let path = printable(&self.path.display().to_string());
        let found = match self.file {
            Some(_) => format!("{path} has no [cloudstack] {what}"),
            None => format!("{path} does not exist"),
        };
        Error::new(Kind::Config, format_args!("{found}, and {variable} is not set in the environment"))
            .hint(format_args!("set {key} under [cloudstack] in {path}, or {variable}"))
    }

    fn secret_key(&self, in_file: Option<Given<String>>, file: Option<Given<PathBuf>>) -> Result<SecretKey> {
        if let (Some(key), Some(_)) = (&in_file, &file) {
            return Err(key.refuse("and secret_key_file are both set: keep one of them"));
        }
        if let (Some(_), Some(configuration)) = (&in_file, self.file) {
            configuration.check_private(self.path, "the secret key", self.environment.uid)?;
        }
        if let Some(key) = self.environment.text(CLOUDSTACK_SECRET)?.or(in_file) {
            return Ok(SecretKey::Given(key.value.trim().into()));
        }
        if let Some(file) = file {
            return SecretKey::in_private_file(file.value, self.environment.uid);
        }
        match self.environment.path("CREDENTIALS_DIRECTORY").map(|directory| directory.join("secret")) {
            Some(credential) if credential.exists() => SecretKey::in_credential(credential),
            _ => Err(self.missing("secret_key_file", "secret_key_file", CLOUDSTACK_SECRET)),
        }
    }

    fn nbd(&mut self, mut section: Section<'a>) -> Nbd {
        let listen = self.note(section.texts("listen"));
        let unix_socket = self.note(section.path("unix_socket"));
        let advertise = self.note(section.text("advertise"));
        let plain_public = self.note(section.boolean("plain_public")).unwrap_or(false);
        let allow = self.note(section.texts("allow"));
        let tls_certificates = self.note(section.path("tls_certificates"));
        let tls = self.note(section.text("tls"));
        let direct = self.note(section.boolean("direct"));
        let limits = self.nbd_limits(&mut section);
        self.mistakes.extend(section.unknown());

        let plain_public = plain_public && !allow.is_empty();
        let is_public_allowed = plain_public || tls_certificates.is_some();
        let tls_required = tls.map(|tls| check_tls(&tls, tls_certificates.is_some())).transpose();
        let allow = allow.iter().filter_map(|network| self.note(network.read(|text| text.parse()).map(Some))).collect();
        Nbd {
            listen: self.listen(&listen, is_public_allowed),
            unix_socket: self
                .note(unix_socket.map(check_socket).transpose())
                .unwrap_or_else(|| self.paths.nbd_socket.clone()),
            advertise: self.note(advertise.map(check_advertise).transpose()),
            allow,
            plain_public,
            tls_certificates: tls_certificates.map(|path| path.value),
            tls_required: self.note(tls_required).unwrap_or(false),
            direct: direct.unwrap_or(false),
            limits,
        }
    }

    /// Each address once, but for port 0, which is another one each time.
    fn listen(&mut self, given: &[Given<String>], public_allowed: bool) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for given in given {
            let address = check_listen(given, public_allowed).and_then(|address| match addresses.contains(&address) {
                true if address.port() != 0 => Err(given.refuse(format_args!("has {address} twice"))),
                _ => Ok(address),
            });
            addresses.extend(self.note(address.map(Some)));
        }
        addresses
    }

    fn nbd_limits(&mut self, section: &mut Section<'a>) -> NbdLimits {
        const SIZES: RangeInclusive<u64> = 4 << 20..=1 << 40;
        let limits = NbdLimits::default();
        let mut connections = |key, default| self.note(section.count(key, 10_000)).unwrap_or(default);
        let (connections, connections_per_client) = (
            connections("max_connections", limits.connections),
            connections("max_connections_per_client", limits.connections_per_client),
        );
        let mut in_flight = |requests, bytes, default: InFlight| InFlight {
            requests: self.note(section.count(requests, 1_000_000)).map_or(default.requests, u64::from),
            bytes: self.note(section.size(bytes, SIZES)).unwrap_or(default.bytes),
        };
        NbdLimits {
            connections,
            connections_per_client,
            in_flight: in_flight("max_requests_in_flight", "max_bytes_in_flight", limits.in_flight),
            in_flight_per_client: in_flight(
                "max_requests_in_flight_per_client",
                "max_bytes_in_flight_per_client",
                limits.in_flight_per_client,
            ),
            handshake: self.note(section.duration("handshake_timeout", DAY)).unwrap_or(limits.handshake),
            keepalive: self.note(section.duration("keepalive_timeout", LONGEST_KEEPALIVE)).unwrap_or(limits.keepalive),
            stall: self.note(section.duration("stall_timeout", DAY)).unwrap_or(limits.stall),
        }
    }

    fn device(&mut self, mut section: Section<'a>) -> Device {
        let by_id_dir = self.note(section.path("by_id_dir"));
        let timeout = self.note(section.duration("timeout", DAY));
        let max_disks = self.note(section.count("max_disks", 256));
        self.mistakes.extend(section.unknown());
        Device {
            by_id_dir: by_id_dir.map_or_else(|| BY_ID_DIR.into(), |path| path.value),
            timeout: timeout.unwrap_or(Duration::from_secs(60)),
            max_disks: max_disks.unwrap_or(32),
        }
    }

    fn daemon(&mut self, mut section: Section<'a>) -> Daemon {
        let idle_timeout = self.note(section.duration("idle_timeout", 366 * DAY));
        let history = self.note(section.duration("history", 36_600 * DAY));
        let log = self.note(section.text("log"));
        self.mistakes.extend(section.unknown());
        Daemon {
            idle_timeout: idle_timeout.unwrap_or(Duration::from_secs(300)),
            history: history.unwrap_or(400 * DAY),
            log: self.note(log.map(check_log).transpose()).unwrap_or_else(|| DEFAULT_LOG.to_owned()),
        }
    }
}

/// A level, or `target=level`, or several of them with commas between.
fn check_log(given: Given<String>) -> Result<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = |part: &str| part.rsplit_once('=').map_or(part, |(_, level)| level).trim().to_lowercase();
    if given.value.split(',').all(|part| LEVELS.contains(&level(part).as_str())) {
        return Ok(given.value);
    }
    Err(given
        .refuse(format_args!("must be a level ({}), or part=level such as \"volctl::nbd=debug\"", LEVELS.join(", "))))
}

/// A URL that requests can be signed for and sent to. It is not quoted: a password may stand in it.
fn check_endpoint(given: &Given<String>, allow_plain_http: bool) -> Result<String> {
    let url = Url::parse(&given.value).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
    let url = url.ok_or_else(|| given.refuse("must be a URL such as https://cloud.example/client/api"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(given.refuse("must not hold a user or a password: the keys are settings of their own"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(given.refuse("must end with its path, without ? or #"));
    }
    if url.scheme() == "http" && !allow_plain_http && !is_loopback(&url) {
        return Err(given
            .refuse("is plain http to another machine, where anybody on the way can read and change what is sent")
            .hint("use https, or set allow_plain_http = true under [cloudstack]"));
    }
    Ok(url.into())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn check_listen(given: &Given<String>, public_allowed: bool) -> Result<SocketAddr> {
    let address: SocketAddr =
        given.value.parse().map_err(|_| given.refuse("must be addresses with ports, such as \"127.0.0.1:10809\""))?;
    if public_allowed || address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(given
        .refuse(format_args!(
            "{address}: a listen address beyond loopback needs tls_certificates, or plain_public = true and allow = [networks]"
        ))
        .hint("`volctl tls init` makes certificates; without, allow only networks that you trust, such as \"192.0.2.0/24\""))
}

fn check_tls(given: &Given<String>, has_certificates: bool) -> Result<bool> {
    match given.value.as_str() {
        "allowed" => Ok(false),
        "required" if has_certificates => Ok(true),
        "required" => Err(given.refuse("is \"required\", and tls_certificates is not set")),
        _ => Err(given.refuse("must be \"allowed\" or \"required\"")),
    }
}

fn check_socket(given: Given<PathBuf>) -> Result<PathBuf> {
    let length = given.value.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(given.refuse(format_args!("is {length} bytes long; a socket's path has at most {MAX_SOCKET_PATH}")));
    }
    Ok(given.value)
}

/// `host` or `host:port`, an IPv6 address in brackets: what may stand in a URI after `nbd://`.
fn check_advertise(given: Given<String>) -> Result<String> {
    let url = Url::parse(&format!("nbd://{}", given.value)).ok();
    let plain = url.is_some_and(|url| {
        url.username().is_empty()
            && url.password().is_none()
            && url.path().is_empty()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.host_str().is_some_and(|host| !host.is_empty())
    });
    if !plain {
        return Err(given.refuse("must be a host or host:port, such as \"appliance.example:10809\""));
    }
    Ok(given.value)
}
