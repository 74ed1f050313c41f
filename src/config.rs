//! The configuration: file and environment, checked once, into values that need no more checking.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::model::VmId;

/// The socket of the daemon that serves the whole machine.
pub const SYSTEM_SOCKET: &str = "/run/volctl/volctld.sock";

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

/// Where the secret key is.
#[derive(Clone, Debug)]
pub enum SecretKey {
    /// In the configuration file or the environment.
    Given(SecretString),
    /// In a file of its own, read again when CloudStack refuses the key.
    File(PathBuf),
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
#[derive(Clone, Debug)]
pub struct Nbd {
    /// TCP addresses to listen on; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// The Unix socket.
    pub unix_socket: PathBuf,
    /// Host (and port) that URIs name instead of the bound address.
    pub advertise: Option<String>,
    /// Networks that may connect over TCP; empty: those of loopback listeners only.
    pub allow: Vec<Network>,
}

/// An IP network, `192.0.2.0/24` or `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its address.
    pub address: std::net::IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

/// `[daemon]`
#[derive(Clone, Debug)]
pub struct Daemon {
    /// How long without work before the daemon leaves.
    pub idle_timeout: Duration,
    /// How long ended operations are kept.
    pub history: Duration,
}
