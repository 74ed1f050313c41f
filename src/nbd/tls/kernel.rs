//! The kernel's TLS: it goes on with the keys of a connection in whatever process has the socket.
//!
//! Source: `Documentation/networking/tls.rst` of Linux.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use libc::{
    TLS_1_2_VERSION, TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128, TLS_CIPHER_AES_GCM_256, TLS_CIPHER_CHACHA20_POLY1305,
    tls_crypto_info, tls12_crypto_info_aes_gcm_128, tls12_crypto_info_aes_gcm_256, tls12_crypto_info_chacha20_poly1305,
};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion, ServerConnection};

/// What the kernel can have on top of TCP.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_ulp";
const NAME: &str = "tls";

/// Bytes of a record before its content: type, version, length.
const HEAD: usize = 5;

/// Whether the kernel has it, for TCP.
pub fn is_available() -> bool {
    fs::read_to_string(AVAILABLE).is_ok_and(|names| names.split_whitespace().any(|name| name == NAME))
}

/// Gives the kernel the keys of a connection, of which everything was sent and nothing received in part. Where that fails
/// nobody can go on with the connection.
pub fn give_keys(socket: &OwnedFd, connection: ServerConnection) -> io::Result<()> {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => TLS_1_2_VERSION,
        Some(ProtocolVersion::TLSv1_3) => TLS_1_3_VERSION,
        other => return Err(io::Error::other(format!("the kernel does not know {other:?}"))),
    };
    let ExtractedSecrets { tx, rx } = connection.dangerous_extract_secrets().map_err(io::Error::other)?;
    let [tx, rx] = [tx, rx].map(|(sequence, secrets)| crypto_info(version, sequence, &secrets));
    let no_cipher = || io::Error::other("the kernel does not know its cipher");
    let (tx, rx) = (tx.ok_or_else(no_cipher)?, rx.ok_or_else(no_cipher)?);
    setsockopt(socket, TcpUlp::default(), &NAME)?;
    setsockopt(socket, TcpTlsTx, &tx)?;
    setsockopt(socket, TcpTlsRx, &rx)?;
    Ok(())
}

/// Keys as the kernel takes them. Of the 12 bytes of an AES vector the first 4 are the salt.
fn crypto_info(version: u16, sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<TlsCryptoInfo> {
    let rec_seq = sequence.to_be_bytes();
    let info = |cipher_type| tls_crypto_info { version, cipher_type };
    Some(match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => TlsCryptoInfo::Aes128Gcm(tls12_crypto_info_aes_gcm_128 {
            info: info(TLS_CIPHER_AES_GCM_128),
            salt: iv.as_ref().get(..4)?.try_into().ok()?,
            iv: iv.as_ref().get(4..)?.try_into().ok()?,
            key: key.as_ref().try_into().ok()?,
            rec_seq,
        }),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => TlsCryptoInfo::Aes256Gcm(tls12_crypto_info_aes_gcm_256 {
            info: info(TLS_CIPHER_AES_GCM_256),
            salt: iv.as_ref().get(..4)?.try_into().ok()?,
            iv: iv.as_ref().get(4..)?.try_into().ok()?,
            key: key.as_ref().try_into().ok()?,
            rec_seq,
        }),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            TlsCryptoInfo::Chacha20Poly1305(tls12_crypto_info_chacha20_poly1305 {
                info: info(TLS_CIPHER_CHACHA20_POLY1305),
                salt: [],
                iv: iv.as_ref().try_into().ok()?,
                key: key.as_ref().try_into().ok()?,
                rec_seq,
            })
        }
        _ => return None,
    })
}

/// Where in its records a connection is. The kernel takes over between two of them.
#[derive(Debug, Default)]
pub struct Records {
    /// The head of the record that has begun, as far as it is there.
    head: Vec<u8>,
    /// Bytes of its content that are yet to come.
    left: usize,
}

impl Records {
    /// More bytes were received.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = self.missing().min(bytes.len());
            let (passed, rest) = bytes.split_at(count);
            bytes = rest;
            if self.left > 0 {
                self.left -= count;
                continue;
            }
            self.head.extend(passed);
            if let [_, _, _, high, low] = self.head[..] {
                self.left = u16::from_be_bytes([high, low]).into();
                self.head.clear();
            }
        }
    }

    /// Whether a record was received in part.
    pub fn is_inside(&self) -> bool {
        self.left > 0 || !self.head.is_empty()
    }

    /// Bytes that can be received without anything of the next record.
    pub fn missing(&self) -> usize {
        if self.left > 0 { self.left } else { HEAD - self.head.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_apart_wherever_they_are_cut() {
        let record = |length: u16| [&[23, 3, 3][..], &length.to_be_bytes(), &vec![7; length.into()]].concat();
        let (first, second) = (record(300), record(0));
        let both = [first.clone(), second].concat();
        let ends = [0, first.len(), both.len()];
        for step in [1, 2, 3, 7, 299, 1000] {
            let mut records = Records::default();
            let mut at = 0;
            for piece in both.chunks(step) {
                records.pass(piece);
                at += piece.len();
                assert_eq!(records.is_inside(), !ends.contains(&at), "after {at} bytes, {step} at a time");
                let next = ends.iter().find(|end| **end > at).copied().unwrap_or(both.len() + HEAD);
                assert!(at + records.missing() <= next, "after {at} bytes, {step} at a time");
            }
        }
    }
}
