//! IP networks, as an allow-list names them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::model::printable;

/// An IP network, `192.0.2.0/24` or `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its address; the bits beyond the prefix are 0.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

impl Network {
    /// Whether an address is in it. IPv4 is told from IPv6 by what it is, also where it came through an IPv6 socket.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    /// What is written as IPv6 and stands for IPv4 (RFC 4291, 2.5.5.2) is IPv4: clients come with such addresses.
    fn canonical(self) -> Self {
        match (self.address.to_canonical(), self.prefix.checked_sub(96)) {
            (address, Some(prefix)) if address.is_ipv4() && self.address.is_ipv6() => Self { address, prefix },
            _ => self,
        }
    }
}

/// Whether a text can only be meant as an address or a network, be it one or not.
pub fn is_like_an_address(text: &str) -> bool {
    let is_made_of = |also: &str| text.chars().all(|c| c.is_ascii_digit() || also.contains(c));
    let is_like_ipv4 = text.contains('.') && is_made_of(".:");
    let is_like_ipv6 = text.contains(':') && is_made_of("abcdefABCDEF.:");
    is_like_ipv4 || is_like_ipv6 || text.contains("::") || text.contains('/') || text.starts_with('[')
}

/// The address with all bits beyond the prefix set to 0.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A network that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Not an address, or not a prefix of it.
    #[error("\"{0}\" is not a network such as 192.0.2.0/24")]
    Malformed(String),
    /// Bits beyond the prefix: one machine or the network, that is not clear.
    #[error("\"{0}\" names an address in the network {1}: write one or the other")]
    HostBits(String, Network),
}

impl FromStr for Network {
    type Err = NetworkError;

    /// `address/prefix`; an address alone is the network of just that address. An IPv6 address may stand in brackets, and one
    /// that stands for IPv4 (`::ffff:192.0.2.7`) is IPv4.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let malformed = || NetworkError::Malformed(printable(text));
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(bare) => bare.parse().map(IpAddr::V6),
            None => address.parse(),
        };
        let address = address.map_err(|_| malformed())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(|_| malformed())?;
        if prefix > longest {
            return Err(malformed());
        }
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address {
            Ok(network.canonical())
        } else {
            Err(NetworkError::HostBits(printable(text), network))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        assert!(contains("192.0.2.0/24", "192.0.2.255"));
        assert!(!contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.7"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(!contains("::/0", "192.0.2.1"));
        assert!(contains("[::1]", "::1"));
        assert!(contains("::ffff:192.0.2.7", "192.0.2.7"));
        assert!(!contains("::ffff:192.0.2.7", "192.0.2.6"));
        assert!(contains("::ffff:192.0.2.0/120", "192.0.2.9"));
        assert!(contains("::ffff:0:0/96", "203.0.113.9"));
        assert!(!contains("::ffff:0:0/96", "2001:db8::1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2.0/-1",
            "192.0.2/24",
            "2001:db8::/129",
            "a.example",
            "::1/256",
            "[::1",
            "[::1]:10809",
            "[192.0.2.1]",
            "127.1",
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert_eq!(error, format!("\"{text}\" is not a network such as 192.0.2.0/24"));
        }
        let error = "192.0.2.7/24".parse::<Network>().unwrap_err().to_string();
        assert_eq!(error, "\"192.0.2.7/24\" names an address in the network 192.0.2.0/24: write one or the other");
    }
}
