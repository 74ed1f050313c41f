//! A client's socket, plain or with TLS on it. Nothing is waited for here.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send, sendmsg};
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};

use super::tls::kernel::{self, Records};

/// What is read off the socket, or encrypted, at once, in bytes.
const PIECE: usize = 64 << 10;

/// A socket, and what encrypts what goes over it.
pub(super) struct Channel {
    socket: Arc<OwnedFd>,
    tls: Option<Box<Encryption>>,
}

struct Encryption {
    connection: ServerConnection,
    /// What came off the socket and is yet to be decrypted, as a range of the buffer.
    wire: Vec<u8>,
    start: usize,
    end: usize,
    /// Where the connection is in what is decrypted already.
    records: Records,
}

impl Channel {
    /// A connected socket.
    pub fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, tls: None }
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Whether what goes over the socket is encrypted here.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Encrypts what comes from now on; the handshake is yet to be made.
    pub fn encrypt(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let records = Records::default();
        self.tls = Some(Box::new(Encryption { connection, wire: Vec::new(), start: 0, end: 0, records }));
        Ok(())
    }

    /// Goes on with the TLS handshake as far as that goes without waiting; true once it is made.
    ///
    /// # Errors
    /// `WouldBlock` where more must arrive; any other where it has failed.
    pub fn shake_hands(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        tls.flush(&self.socket, MsgFlags::empty())?;
        if tls.connection.is_handshaking() && tls.take_in(&self.socket)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        tls.flush(&self.socket, MsgFlags::empty())?;
        Ok(!tls.connection.is_handshaking())
    }

    /// The certificate that the client has proven to be its own.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.as_ref()?.connection.peer_certificates()?.first()
    }

    /// Receives what has arrived, 0 bytes at the end; as `recv` of a plain socket would with these flags.
    ///
    /// # Errors
    /// `WouldBlock` where nothing has; any other where the connection is broken.
    pub fn receive(&mut self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return take(&self.socket, buffer, flags) };
        loop {
            match tls.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
            if tls.take_in(&self.socket)? == 0 {
                return Ok(0);
            }
            // What TLS has to answer by itself.
            tls.flush(&self.socket, MsgFlags::empty())?;
        }
    }

    /// Sends bytes, some at least; as `send` of the socket would with these flags. Of encrypted ones some may be left, for
    /// [`flush`](Self::flush).
    pub fn send(&mut self, bytes: &[u8], flags: MsgFlags) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return Ok(send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | flags)?);
        };
        tls.flush(&self.socket, flags)?;
        let taken = tls.connection.writer().write(&bytes[..bytes.len().min(PIECE / 2)])?;
        match tls.flush(&self.socket, flags) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Sends what is encrypted already.
    pub fn flush(&mut self) -> io::Result<()> {
        self.tls.as_mut().map_or(Ok(()), |tls| tls.flush(&self.socket, MsgFlags::empty()))
    }

    /// Tells the client that nothing follows.
    pub fn close(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.connection.send_close_notify();
        tls.flush(&self.socket, MsgFlags::empty())
    }

    /// Leaves the encryption to the kernel, and gives what was received until then. A record that has arrived in part must
    /// be whole by then, and everything that was encrypted be sent.
    ///
    /// # Errors
    /// Where nobody can go on with the connection.
    pub fn leave_to_kernel(&mut self, until: Instant) -> io::Result<Vec<u8>> {
        let Some(mut tls) = self.tls.take() else { return Ok(Vec::new()) };
        let received = tls.finish_record(&self.socket, until)?;
        while let Err(error) = tls.flush(&self.socket, MsgFlags::MSG_DONTWAIT) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            wait(&self.socket, PollFlags::POLLOUT, until)?;
        }
        kernel::give_keys(&self.socket, tls.connection)?;
        Ok(received)
    }

    /// Gives back what an idle connection does not need.
    pub fn rest(&mut self) {
        if let Some(tls) = &mut self.tls
            && tls.start == tls.end
        {
            tls.wire = Vec::new();
        }
    }
}

impl Encryption {
    /// Takes in what has arrived, and says how much that is.
    fn take_in(&mut self, socket: &OwnedFd) -> io::Result<usize> {
        if self.start == self.end {
            self.wire.resize(PIECE, 0);
            (self.start, self.end) = (0, take(socket, &mut self.wire, MsgFlags::MSG_DONTWAIT)?);
        }
        let count = self.connection.read_tls(&mut &self.wire[self.start..self.end])?;
        self.records.pass(&self.wire[self.start..self.start + count]);
        self.start += count;
        if let Err(error) = self.connection.process_new_packets() {
            // The alert that tells the client why; whether it takes that, is its own affair.
            let _ = self.flush(socket, MsgFlags::MSG_DONTWAIT);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(count)
    }

    /// Receives the rest of a record, and nothing after it; gives all that is decrypted then.
    fn finish_record(&mut self, socket: &OwnedFd, until: Instant) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        loop {
            match self.connection.reader().read_to_end(&mut received) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(error),
            }
            if self.start == self.end {
                if !self.records.is_inside() {
                    return Ok(received);
                }
                wait(socket, PollFlags::POLLIN, until)?;
                self.wire.resize(self.records.missing(), 0);
                (self.start, self.end) = (0, take(socket, &mut self.wire, MsgFlags::MSG_DONTWAIT)?);
            }
            if self.take_in(socket)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn flush(&mut self, socket: &OwnedFd, flags: MsgFlags) -> io::Result<()> {
        let mut outgoing = Outgoing { socket, flags: MsgFlags::MSG_NOSIGNAL | flags };
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut outgoing) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => drop(written?),
            }
        }
        Ok(())
    }
}

/// The socket as rustls writes to it.
struct Outgoing<'a> {
    socket: &'a OwnedFd,
    flags: MsgFlags,
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.socket.as_raw_fd(), bytes, self.flags)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg::<()>(self.socket.as_raw_fd(), pieces, &[], self.flags, None)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a socket.
///
/// # Errors
/// `TimedOut` where it is not ready by then.
fn wait(socket: &OwnedFd, events: PollFlags, until: Instant) -> io::Result<()> {
    let left = PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(socket.as_fd(), events)], left) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What has arrived at a socket; `WouldBlock` where nothing has.
fn take(socket: &OwnedFd, buffer: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), buffer, flags) {
            Err(Errno::EINTR) => {}
            received => return Ok(received?),
        }
    }
}
