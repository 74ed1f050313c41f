//! NBD URIs (`doc/uri.md` of the NBD project) for what the server listens on.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// All but the characters that RFC 3986 calls unreserved.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// A path stays readable: a slash means nothing else in a query.
const PATH: &AsciiSet = &NAME.remove(b'/');

/// Where clients find the server.
pub(super) struct Locations {
    /// Each with whether nobody gets in there without TLS.
    authorities: Vec<(String, bool)>,
    hosts: Vec<String>,
    /// Of the first host.
    port: Option<u16>,
    socket: PathBuf,
}

impl Locations {
    /// From the addresses that are bound, what the configuration says instead of them, and the name of this machine,
    /// which stands for an address that names none. `bound` says of each whether nobody gets in there without TLS.
    pub fn new(bound: &[(SocketAddr, bool)], advertise: Option<&str>, hostname: &str, socket: &Path) -> Self {
        let reaches_others = bound.iter().any(|(address, _)| !address.ip().is_loopback());
        let authority = |address: &SocketAddr| match advertise {
            // What is told of the others does not lead to a loopback listener; where it is the only one, it does.
            Some(_) if reaches_others && address.ip().is_loopback() => address.to_string(),
            Some(host) => with_port(host, address.port()),
            None if address.ip().is_unspecified() => format!("{hostname}:{}", address.port()),
            None => address.to_string(),
        };
        let mut authorities: Vec<(String, bool)> = Vec::new();
        for (address, is_tls) in bound {
            let authority = authority(address);
            if !authorities.iter().any(|(known, _)| *known == authority) {
                authorities.push((authority, *is_tls));
            }
        }
        let (local, others): (Vec<_>, Vec<_>) = bound.iter().partition(|(address, _)| address.ip().is_loopback());
        let mut places = others.iter().chain(&local).map(|(address, _)| authority(address)).peekable();
        let port = places.peek().and_then(|first| first.rsplit_once(':')?.1.parse().ok());
        let mut hosts: Vec<String> = places.map(|place| host(&place)).collect();
        if hosts.is_empty() {
            hosts.push(hostname.to_owned());
        }
        Self { authorities, hosts, port, socket: socket.to_owned() }
    }

    /// The hosts by which clients reach the server, first those that others reach; this machine's name where it is on no
    /// network.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The TCP port at the first of the hosts; none where the server is on no network.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The URIs of an export: over TCP first, the Unix socket last; those of TLS where nobody gets in without.
    pub fn uris(&self, name: &str, needs_tls: bool) -> Vec<String> {
        let name = percent_encode(name.as_bytes(), NAME).to_string();
        let socket = percent_encode(self.socket.as_os_str().as_bytes(), PATH);
        let scheme = |is_tls: bool| if is_tls || needs_tls { "nbds" } else { "nbd" };
        let over_tcp =
            self.authorities.iter().map(|(authority, is_tls)| format!("{}://{authority}/{name}", scheme(*is_tls)));
        over_tcp.chain([format!("{}+unix:///{name}?socket={socket}", scheme(false))]).collect()
    }
}

/// `host`, `host:port`, `192.0.2.1`, `[2001:db8::1]:10809` or a bare `2001:db8::1`, with the port where it has none.
fn with_port(host: &str, port: u16) -> String {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return SocketAddr::new(IpAddr::V6(address), port).to_string();
    }
    match host.rsplit_once(':') {
        Some((_, given)) if given.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:{port}"),
    }
}

/// The host of `host:port`, an IPv6 address without its brackets.
fn host(authority: &str) -> String {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn uris(bound: &[&str], advertise: Option<&str>, name: &str) -> Vec<String> {
        let bound: Vec<(SocketAddr, bool)> = bound.iter().map(|text| (text.parse().unwrap(), false)).collect();
        let mut uris = Locations::new(&bound, advertise, "appliance", Path::new("/run/nbd.sock")).uris(name, false);
        uris.pop();
        uris
    }

    #[test]
    fn a_listener_is_named_by_what_a_client_can_use() {
        assert_eq!(uris(&[], None, "d").len(), 0);
        assert_eq!(uris(&["127.0.0.1:7"], None, "d"), ["nbd://127.0.0.1:7/d"]);
        assert_eq!(uris(&["[::1]:7"], None, "d"), ["nbd://[::1]:7/d"]);
        assert_eq!(uris(&["0.0.0.0:7", "[::]:7"], None, "d"), ["nbd://appliance:7/d"]);
        assert_eq!(uris(&["0.0.0.0:7", "127.0.0.1:8"], Some("h"), "d"), ["nbd://h:7/d", "nbd://127.0.0.1:8/d"]);
        assert_eq!(uris(&["127.0.0.1:8"], Some("h"), "d"), ["nbd://h:8/d"]);
        assert_eq!(uris(&["0.0.0.0:7"], Some("h:9"), "d"), ["nbd://h:9/d"]);
        assert_eq!(uris(&["0.0.0.0:7"], Some("2001:db8::1"), "d"), ["nbd://[2001:db8::1]:7/d"]);
        assert_eq!(uris(&["0.0.0.0:7"], Some("[2001:db8::1]:9"), "d"), ["nbd://[2001:db8::1]:9/d"]);
    }

    #[test]
    fn the_first_host_is_one_that_others_reach() {
        for (bound, advertise, host, port) in [
            (&[][..], None, "appliance", None),
            (&["127.0.0.1:7"], None, "127.0.0.1", Some(7)),
            (&["[::1]:7"], None, "::1", Some(7)),
            (&["127.0.0.1:7", "[::1]:7", "0.0.0.0:8", "[::]:9"], None, "appliance", Some(8)),
            (&["127.0.0.1:7", "192.0.2.1:8"], Some("h"), "h", Some(8)),
            (&["192.0.2.1:8"], Some("h:9"), "h", Some(9)),
        ] {
            let bound: Vec<(SocketAddr, bool)> = bound.iter().map(|text| (text.parse().unwrap(), true)).collect();
            let locations = Locations::new(&bound, advertise, "appliance", Path::new("/run/nbd.sock"));
            assert_eq!((locations.hosts()[0].as_str(), locations.port()), (host, port), "{bound:?}");
        }
    }

    #[test]
    fn names_and_paths_are_encoded() {
        let locations = Locations::new(&[], None, "", Path::new("/run/a b&c/nbd.sock"));
        assert_eq!(
            locations.uris("ü /?#%", false),
            ["nbd+unix:///%C3%BC%20%2F%3F%23%25?socket=/run/a%20b%26c/nbd.sock"]
        );
    }
}
