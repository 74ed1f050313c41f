//! Whether the addresses and sockets that volctld listens on are free, or are its own already.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use nix::unistd::{AccessFlags, access};

use super::host::{comm, processes, shown};
use super::report::Report;
use crate::config;

/// A socket that is listened on, in `/proc/net/unix` (proc_net(5)): `__SO_ACCEPTCON`.
const LISTENS: u32 = 1 << 16;
/// `TCP_LISTEN` in `/proc/net/tcp`.
const TCP_LISTEN: &str = "0A";

/// Looks at the control socket and at those of NBD.
pub(super) fn look(nbd: &config::Nbd, control: &Path, daemon: Option<u32>) -> Report {
    let mut report = Report::of("listeners");
    unix(&mut report, "the control socket", control, daemon);
    unix(&mut report, "the NBD socket", &nbd.unix_socket, daemon);
    for address in &nbd.listen {
        tcp(&mut report, *address, daemon);
    }
    report
}

fn tcp(report: &mut Report, address: SocketAddr, daemon: Option<u32>) {
    let what = format!("the NBD address {address}");
    match bind_once(address) {
        Ok(()) => report.ok(format!("{what} is free")),
        Err(Errno::EADDRINUSE) => taken(report, &what, tcp_inode(address), daemon),
        Err(error) => {
            let hint = match error {
                Errno::EACCES => "choose a port from 1024 up in [nbd] listen, or check as the user of volctld",
                _ => "correct [nbd] listen: it must be an address of this machine",
            };
            report.bad(format!("{what} cannot be bound: {}", error.desc().to_lowercase()), hint);
        }
    }
}

/// Binds as the server would, and listens not: nobody can connect meanwhile.
fn bind_once(address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let file = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&file, sockopt::ReuseAddr, &true)?;
    bind(file.as_raw_fd(), &SockaddrStorage::from(address))
}

fn unix(report: &mut Report, what: &str, path: &Path, daemon: Option<u32>) {
    let what = format!("{what} {}", shown(path));
    if let Some(inode) = unix_inode(path) {
        return taken(report, &what, Some(inode), daemon);
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return report.bad(
                format!("{what} cannot be made: something else is there"),
                "move it away, or choose another path",
            );
        }
        _ => {}
    }
    let place = path.ancestors().skip(1).find(|place| place.exists()).unwrap_or(Path::new("/"));
    match access(place, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => report.ok(format!("{what} is free")),
        Err(_) => report.bad(
            format!("{what} cannot be made: you may not write to {}", shown(place)),
            "check as the user of volctld; if that is you, choose another path",
        ),
    }
}

/// Somebody listens there: the daemon itself, systemd for it, or another.
fn taken(report: &mut Report, what: &str, inode: Option<u64>, daemon: Option<u32>) {
    let holds = |pid: &u32| inode.is_some_and(|inode| holds_socket(*pid, inode));
    if let Some(pid) = daemon.filter(holds) {
        return report.ok(format!("{what} is held by the running volctld (pid {pid})"));
    }
    match processes().find(holds) {
        Some(1) => report.ok(format!("{what} is held by systemd, which starts volctld for whoever connects")),
        Some(pid) => {
            let name = comm(pid).unwrap_or_default();
            report.bad(
                format!("{what} is in use by {name} (pid {pid}), which is not the volctld of this state directory"),
                "stop that, or choose another one in the configuration",
            );
        }
        None => report.skip(
            format_args!("{what} is in use, and by whom cannot be seen"),
            "check as root, or as the user of volctld",
        ),
    }
}

fn holds_socket(pid: u32, inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.as_os_str() == name.as_str())
}

/// The socket that is listened on at a path.
fn unix_inode(path: &Path) -> Option<u64> {
    let table = fs::read("/proc/net/unix").ok()?;
    String::from_utf8_lossy(&table).lines().find_map(|line| listening_unix(line, path))
}

/// `Num RefCount Protocol Flags Type St Inode Path`
fn listening_unix(line: &str, path: &Path) -> Option<u64> {
    let mut words = line.split_whitespace();
    let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
    let inode = words.nth(2)?;
    let (_, found) = line.split_once(&format!(" {inode} "))?;
    (flags & LISTENS != 0 && Path::new(found) == path).then(|| inode.parse().ok()).flatten()
}

/// The socket that listens on an address, or else on its port, which may be on all addresses.
fn tcp_inode(address: SocketAddr) -> Option<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inode = |place: &str| {
        let mut lines = tables.iter().flat_map(|table| table.lines());
        lines.find_map(|line| listening_tcp(line, place))
    };
    let port = format!(":{:04X}", address.port());
    inode(&format!("{}{port}", written(address.ip()))).or_else(|| inode(&port))
}

/// An address as the kernel writes it there: in words of its own byte order.
fn written(address: IpAddr) -> String {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (words, _) = octets.as_chunks();
    words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect()
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`
fn listening_tcp(line: &str, place: &str) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [_, local, _, TCP_LISTEN, _, _, _, _, _, inode, ..] if local.ends_with(place) => inode.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let line = "00000000f823b3c3: 00000002 00000000 00010000 0001 01   131 /run/a b.sock";
        assert_eq!(listening_unix(line, Path::new("/run/a b.sock")), Some(131));
        assert_eq!(listening_unix(line, Path::new("/run/a")), None);
        let connected = line.replace("00010000", "00000000");
        assert_eq!(listening_unix(&connected, Path::new("/run/a b.sock")), None);
        assert_eq!(listening_unix("Num       RefCount Protocol Flags    Type St Inode Path", Path::new("/")), None);
    }

    #[test]
    fn what_listens_here_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let Ok(bound) = listener.local_addr() else { continue };
            assert_eq!(bind_once(bound), Err(Errno::EADDRINUSE));
            assert!(tcp_inode(bound).is_some_and(|inode| holds_socket(std::process::id(), inode)), "{bound}");
        }
    }
}
