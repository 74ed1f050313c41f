//! A small NBD client: asks a server, through its Unix socket, how large an export is.
//!
//! It asks with INFO, which is answered as GO would be, so that it never counts as a client of the export.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::protocol::{self, InfoRequest, MAXIMUM_STRING, OptionHead, OptionReplyHead, handshake_flag, opt, rep};

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Information replies that are read before the last one.
const MAXIMUM_REPLIES: usize = 16;

/// The size of an export in bytes, as a client of the socket is told it.
pub(super) async fn size_of(socket: &Path, name: &str) -> io::Result<u64> {
    tokio::time::timeout(TIMEOUT, ask(socket, name)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(socket: &Path, name: &str) -> io::Result<u64> {
    let mut server = UnixStream::connect(socket).await?;
    let mut greeting = protocol::greeting();
    server.read_exact(&mut greeting).await?;
    if greeting != protocol::greeting() {
        return Err(unexpected("it is not this server that answers"));
    }
    let flags = u32::from(handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES);
    server.write_all(&flags.to_be_bytes()).await?;
    server.write_all(&OptionHead::encode(opt::INFO, &InfoRequest::encode(name, &[]))).await?;

    let mut size = None;
    for _ in 0..MAXIMUM_REPLIES {
        let (kind, data) = option_reply(&mut server).await?;
        match kind {
            rep::INFO => size = size.or(protocol::parse_info_export(&data).map(|(size, _)| size)),
            rep::ACK => {
                server.write_all(&OptionHead::encode(opt::ABORT, &[])).await?;
                return size.ok_or_else(|| unexpected("the answer has no size"));
            }
            _ => return Err(unexpected(&String::from_utf8_lossy(&data))),
        }
    }
    Err(unexpected("the answer has no end"))
}

async fn option_reply(server: &mut UnixStream) -> io::Result<(u32, Vec<u8>)> {
    let mut head = [0; OptionReplyHead::SIZE];
    server.read_exact(&mut head).await?;
    let head = OptionReplyHead::parse(&head)
        .filter(|head| head.option == opt::INFO && head.length as usize <= MAXIMUM_STRING)
        .ok_or_else(|| unexpected("the answer is not NBD"))?;
    let mut data = vec![0; head.length as usize];
    server.read_exact(&mut data).await?;
    Ok((head.reply, data))
}

fn unexpected(found: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, found.to_owned())
}
