//! A client's connection with a buffer each way.
//!
//! What is to be sent is sent together, and always before more is received: nothing is held back while we wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, setsockopt, shutdown, sockopt};
use nix::sys::time::TimeVal;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use super::bell::Bell;
use super::channel::Channel;
use super::eager::Eager;
use super::latch::Latch;
use super::patience::{Pace, Patience};

/// The most that is read or written in one call, and the longest range that [`Stream::fill`] can ask for, in bytes.
pub(super) const PIECE: usize = 1 << 20;
/// Both buffers begin so small, in bytes: there may be many clients that say little.
const SMALL: usize = 8 << 10;
/// The input's grows up to so many bytes while what arrives fills it.
const ROOMY: usize = 64 << 10;
/// A payload is held in one piece up to so many bytes; a longer one comes and goes piece by piece.
pub(super) const HELD: usize = 2 << 20;
/// Replies are sent before they would be more than so many bytes: what is held, and what goes before each of its parts.
pub(super) const OUTPUT_LIMIT: usize = HELD + 128 * HEAD;
/// Room for all that goes before data in a reply.
pub(super) const HEAD: usize = 64;
/// After so long without a byte the buffers are given back.
const IDLE: Duration = Duration::from_secs(1);
/// A client whose connection we end has so long to read what we said before.
const LINGER: Duration = Duration::from_millis(500);
/// While a client does not take what it is sent, we look so often whether the connection is to be handed over.
pub(super) const LOOK_UP: Duration = Duration::from_millis(50);

/// A client whose turn it is goes on within this time, or is waited for like others.
const TURN: Duration = Duration::from_millis(10);

/// What a wait for bytes ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// As many bytes as were asked for are there.
    Ready,
    /// The client sends no more.
    Ended,
    /// A latch was raised, and nothing more had arrived.
    Woken,
    /// The bell was rung, and nothing more had arrived.
    Rung,
    /// The time is over.
    TimedOut,
}

/// Who is to send next; it saves to look for bytes in vain, and to sleep where they come soon.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// Either of us.
    #[default]
    Unknown,
    /// The client as it seems: it has waited for our last answer.
    ClientsOnce,
    /// The client: it has waited for each of many answers.
    Clients,
}

/// What ends a wait for bytes beside bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Until<'a> {
    /// A latch.
    pub latch: Option<&'a Latch>,
    /// A moment.
    pub deadline: Option<Instant>,
    /// A descriptor that is readable when something is to be done, as where the bell is rung.
    pub ring: Option<BorrowedFd<'a>>,
}

impl Until<'_> {
    /// Whether the moment is past.
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// What of a connection is not with the kernel.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rest {
    /// Received, and yet to be dealt with.
    pub unread: Vec<u8>,
    /// Yet to be sent.
    pub unsent: Vec<u8>,
    /// Of the requests in `unread` that are rests: the cookie, and the first byte that the client asked for.
    pub begun: Vec<(u64, u64)>,
}

/// A client's connection with its buffers.
pub(super) struct Stream {
    channel: Channel,
    /// Raised when the connection is to be handed over: nothing is waited for any more.
    halt: Arc<Latch>,
    /// What else is waited for beside bytes.
    bell: Option<Arc<Bell>>,
    /// What cannot be sent at once is tried for as long as others bear it.
    patience: Option<Patience>,
    turn: Turn,
    eager: Eager,
    input: Vec<u8>,
    /// What has arrived and was not consumed, as a range of `input`.
    start: usize,
    end: usize,
    output: Vec<u8>,
    /// How much of `output` waits to be sent.
    filled: usize,
    begun: Vec<(u64, u64)>,
}

impl Stream {
    /// Takes a connected socket, in blocking mode. Whoever else has it may shut it down, which ends every wait here.
    /// What waits to be sent when `halt` is raised, and is not more than buffers hold, is kept.
    pub fn new(socket: Arc<OwnedFd>, halt: Arc<Latch>) -> Self {
        Self::resumed(socket, halt, Rest::default())
    }

    /// Takes a connection over from another process.
    pub fn resumed(socket: Arc<OwnedFd>, halt: Arc<Latch>, rest: Rest) -> Self {
        let (end, filled) = (rest.unread.len(), rest.unsent.len());
        let (channel, input, output, begun) = (Channel::new(socket), rest.unread, rest.unsent, rest.begun);
        Self {
            channel,
            halt,
            bell: None,
            patience: None,
            turn: Turn::Unknown,
            eager: Eager::default(),
            input,
            start: 0,
            end,
            output,
            filled,
            begun,
        }
    }

    /// What another process needs to go on with the connection.
    pub fn into_rest(mut self) -> Rest {
        self.output.truncate(self.filled);
        Rest { unread: self.arrived().to_vec(), unsent: self.output, begun: self.begun }
    }

    /// Whether the connection is to be handed over.
    pub fn is_halted(&self) -> bool {
        self.halt.is_raised()
    }

    /// What is raised when the connection is to be handed over.
    pub fn halt(&self) -> &Arc<Latch> {
        &self.halt
    }

    /// Hears a bell from now on wherever bytes are waited for, or none.
    pub fn hear(&mut self, bell: Option<Arc<Bell>>) {
        self.bell = bell;
    }

    /// Whether TLS is spoken here.
    pub fn is_encrypted(&self) -> bool {
        self.channel.is_encrypted()
    }

    /// Leaves the encryption to the kernel. What waits to be sent waits on.
    ///
    /// # Errors
    /// Where nobody can go on with the connection: not a byte must follow.
    pub fn leave_to_kernel(&mut self) -> io::Result<()> {
        let received = self.channel.leave_to_kernel(Instant::now() + LINGER)?;
        self.input = [self.arrived(), &received].concat();
        (self.start, self.end) = (0, self.input.len());
        Ok(())
    }

    /// From now on the client may take its time to take what it is sent.
    pub fn be_patient(&mut self, patience: Patience) -> io::Result<()> {
        let interval = |limit: Duration| TimeVal::new(0, limit.subsec_micros().into());
        setsockopt(self.socket(), sockopt::SendTimeout, &interval(LOOK_UP))?;
        setsockopt(self.socket(), sockopt::ReceiveTimeout, &interval(TURN))?;
        self.patience = Some(patience);
        Ok(())
    }

    /// Goes on waiting for a client that has moved so many bytes.
    ///
    /// # Errors
    /// Where there is no patience with it, or none any more.
    pub fn bear(&self, pace: &mut Pace, moved: usize) -> io::Result<()> {
        let patience = self.patience.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        patience.bear(pace, moved)
    }

    /// Whose turn it is from now on.
    pub fn expect(&mut self, turn: Turn) {
        self.turn = turn;
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<OwnedFd> {
        self.channel.socket()
    }

    /// Sends what waits, and encrypts all that comes after it, both ways, once TLS has shaken hands. What has arrived before
    /// must have been consumed.
    pub fn encrypt(&mut self, config: Arc<ServerConfig>, until: Until<'_>) -> io::Result<Filled> {
        debug_assert!(self.start == self.end);
        self.send()?;
        self.channel.encrypt(config)?;
        loop {
            match self.channel.shake_hands() {
                Ok(true) => return Ok(Filled::Ready),
                Ok(false) if until.is_over() => return Ok(Filled::TimedOut),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.wait(until)? {
                    Filled::Ready => {}
                    other => return Ok(other),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// The certificate that the client has proven to be its own.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.channel.certificate()
    }

    /// What has arrived.
    pub fn arrived(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// Drops bytes from the front of what has arrived.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
    }

    /// Puts bytes before what has arrived.
    pub fn put_back(&mut self, bytes: &[u8]) {
        self.input = [bytes, self.arrived()].concat();
        (self.start, self.end) = (0, self.input.len());
    }

    /// Notes of the rest of a request, which is put back, where the request began.
    pub fn note_begun(&mut self, cookie: u64, from: u64) {
        self.begun.push((cookie, from));
    }

    /// Where a request began, if it has arrived as a rest.
    pub fn take_begun(&mut self, cookie: u64) -> Option<u64> {
        let index = self.begun.iter().position(|(of, _)| *of == cookie)?;
        Some(self.begun.remove(index).1)
    }

    /// Waits until at least `wanted` bytes have arrived, at most [`PIECE`].
    pub fn fill(&mut self, wanted: usize, until: Until<'_>) -> io::Result<Filled> {
        debug_assert!(wanted <= PIECE);
        while self.end - self.start < wanted {
            self.make_room(wanted);
            match self.receive(until)? {
                Filled::Ready => {}
                other => return Ok(other),
            }
        }
        Ok(Filled::Ready)
    }

    /// Appends bytes to what is sent next.
    pub fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Appends bytes that `write` makes; where it fails nothing is appended.
    pub fn put_with<E>(&mut self, count: usize, write: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<(), E> {
        write(self.space(count))?;
        self.filled += count;
        Ok(())
    }

    /// Appends so many zeroes.
    pub fn put_zeroes(&mut self, count: usize) {
        self.space(count).fill(0);
        self.filled += count;
    }

    /// Sends what waits if `count` bytes more would be too many to hold.
    pub fn reserve(&mut self, count: usize) -> io::Result<()> {
        if self.filled + count > OUTPUT_LIMIT { self.send_all_but(OUTPUT_LIMIT - count, false) } else { Ok(()) }
    }

    /// The same; false where the connection is to be handed over to another process, and the client does not take enough.
    pub fn try_reserve(&mut self, count: usize) -> io::Result<bool> {
        if self.filled + count > OUTPUT_LIMIT {
            self.send_all_but(OUTPUT_LIMIT - count, true)?;
        }
        Ok(self.filled + count <= OUTPUT_LIMIT)
    }

    /// How much waits to be sent.
    pub fn waiting(&self) -> usize {
        self.filled
    }

    /// Takes back what was appended since so much waited.
    pub fn take_back(&mut self, waiting: usize) {
        self.filled = waiting;
    }

    /// Sends what waits.
    pub fn send(&mut self) -> io::Result<()> {
        self.send_all_but(OUTPUT_LIMIT, false)
    }

    /// Sends what waits. Once the connection is to be handed over, as much as `kept` bytes may wait on, or any number
    /// where it may give up.
    fn send_all_but(&mut self, kept: usize, may_give_up: bool) -> io::Result<()> {
        let (mut sent, mut pace) = (0, None);
        while sent < self.filled {
            let may_keep = self.is_halted() && (may_give_up || self.filled - sent <= kept);
            let wait = if may_keep { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
            match self.channel.send(&self.output[sent..self.filled], wait) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && may_keep => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.bear(pace.get_or_insert_with(|| Pace::new(sent)), sent)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.output.copy_within(sent..self.filled, 0);
        self.filled -= sent;
        self.flush()
    }

    /// Sends what is encrypted already.
    fn flush(&mut self) -> io::Result<()> {
        let mut pace = None;
        loop {
            match self.channel.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.bear(pace.get_or_insert_with(|| Pace::new(0)), 0)?;
                }
                flushed => return flushed,
            }
        }
    }

    /// Ends the connection so that the client can still read what it was sent: a socket that is closed over unread
    /// bytes resets the connection and takes our last words with it.
    pub fn end(mut self) -> io::Result<()> {
        self.send()?;
        self.channel.close()?;
        shutdown(self.socket().as_raw_fd(), Shutdown::Write)?;
        let deadline = Instant::now() + LINGER;
        let until = Until { deadline: Some(deadline), ..Until::default() };
        while Instant::now() < deadline && self.fill(1, until)? == Filled::Ready {
            self.start = self.end;
        }
        Ok(())
    }

    /// Receives as much as has arrived and has room; waits if that is nothing.
    fn receive(&mut self, until: Until<'_>) -> io::Result<Filled> {
        self.send()?;
        if let Some(received) = self.take_turn()? {
            return Ok(received);
        }
        loop {
            if let Some(received) = self.take(MsgFlags::MSG_DONTWAIT)? {
                return Ok(received);
            }
            match self.wait_idly(until)? {
                Filled::Ready => {}
                other => return Ok(other),
            }
        }
    }

    /// Receives what a client sends whose turn it is, if that does not take long; nothing else is waited for meanwhile.
    fn take_turn(&mut self) -> io::Result<Option<Filled>> {
        let turn = std::mem::take(&mut self.turn);
        if turn == Turn::Clients {
            let mut eager = std::mem::take(&mut self.eager);
            let found = eager.look(|| self.take(MsgFlags::MSG_DONTWAIT).transpose());
            self.eager = eager;
            if let Some(received) = found {
                return received.map(Some);
            }
        }
        // Of what is encrypted, some may be here already.
        if turn == Turn::Unknown || self.is_encrypted() { Ok(None) } else { self.take(MsgFlags::empty()) }
    }

    /// Receives what has arrived, as `recv` would with these flags; none where nothing has.
    fn take(&mut self, flags: MsgFlags) -> io::Result<Option<Filled>> {
        match self.channel.receive(&mut self.input[self.end..], flags) {
            Ok(0) => Ok(Some(Filled::Ended)),
            Ok(count) => {
                self.end += count;
                Ok(Some(Filled::Ready))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for bytes, without buffers if that lasts.
    fn wait_idly(&mut self, until: Until<'_>) -> io::Result<Filled> {
        let idle = Instant::now() + IDLE;
        if self.start < self.end || until.deadline.is_some_and(|deadline| deadline <= idle) {
            return self.wait(until);
        }
        match self.wait(Until { deadline: Some(idle), ..until })? {
            Filled::TimedOut => {
                (self.input, self.output) = (Vec::new(), Vec::new());
                self.channel.rest();
                let filled = self.wait(until);
                self.make_room(1);
                filled
            }
            other => Ok(other),
        }
    }

    fn wait(&self, until: Until<'_>) -> io::Result<Filled> {
        loop {
            let timeout = match until.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(Filled::TimedOut),
                Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            };
            if self.bell.as_ref().is_some_and(|bell| !bell.lie_down()) {
                return Ok(Filled::Rung);
            }
            let halt = self.halt.as_fd();
            let latch = until.latch.map_or(halt, |latch| latch.as_fd());
            let bell = self.bell.as_ref().map_or(halt, |bell| bell.as_fd());
            let sources = [self.socket().as_fd(), halt, latch, bell, until.ring.unwrap_or(bell)];
            let mut sources = sources.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let polled = poll(&mut sources, timeout);
            let [has_bytes, halted, latched, rung, _] = sources.map(|source| source.any() != Some(false));
            if let Some(bell) = &self.bell {
                bell.get_up(polled.is_ok_and(|count| count > 0) && rung);
            }
            match polled {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) if has_bytes => return Ok(Filled::Ready),
                Ok(_) if halted || latched => return Ok(Filled::Woken),
                Ok(_) => return Ok(Filled::Rung),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes room for `wanted` bytes from `start` on, and for one more byte at least.
    fn make_room(&mut self, wanted: usize) {
        let is_full = self.end == self.input.len();
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let size = if is_full { (2 * self.input.len()).min(ROOMY) } else { 0 }.max(wanted + SMALL);
        if self.input.len() < size {
            let mut larger = vec![0; size];
            larger[..self.end - self.start].copy_from_slice(self.arrived());
            (self.start, self.end, self.input) = (0, self.end - self.start, larger);
        } else if self.input.len() - self.start < wanted {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    fn space(&mut self, count: usize) -> &mut [u8] {
        let needed = self.filled + count;
        if self.output.len() < needed {
            let mut larger = vec![0; needed.next_power_of_two().min(OUTPUT_LIMIT).max(needed).max(SMALL)];
            larger[..self.filled].copy_from_slice(&self.output[..self.filled]);
            self.output = larger;
        }
        &mut self.output[self.filled..needed]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::new(Arc::new(ours.into()), Arc::new(Latch::new().unwrap())), theirs)
    }

    fn within(duration: Duration) -> Until<'static> {
        Until { deadline: Some(Instant::now() + duration), ..Until::default() }
    }

    #[test]
    fn bytes_arrive_in_order_however_they_are_cut() {
        let (mut stream, mut theirs) = pair();
        let sent: Vec<u8> = (0..3 * PIECE).map(|n| (n / 7) as u8).collect();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || theirs.write_all(&copy).unwrap());
        let mut received = Vec::<u8>::new();
        for wanted in [1, 28, PIECE, 4096, PIECE, 70_000, 1] {
            assert_eq!(stream.fill(wanted, Until::default()).unwrap(), Filled::Ready);
            received.extend(&stream.arrived()[..wanted]);
            stream.consume(wanted);
        }
        assert!(received == sent[..received.len()]);
        while stream.fill(1, Until::default()).unwrap() == Filled::Ready {
            received.extend(stream.arrived());
            stream.consume(stream.arrived().len());
        }
        assert!(received == sent);
        writer.join().unwrap();
    }

    #[test]
    fn what_waits_is_sent_before_a_wait() {
        let (mut stream, mut theirs) = pair();
        stream.put(b"one");
        let waiting = stream.waiting();
        stream.put(b"two");
        stream.take_back(waiting);
        assert!(stream.put_with(5, |_| Err(())).is_err());
        stream.put(b"three");
        assert_eq!(stream.fill(1, within(Duration::from_millis(1))).unwrap(), Filled::TimedOut);
        let mut said = [0; 8];
        theirs.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"onethree");
    }

    #[test]
    fn a_latch_wakes_all_and_bytes_come_first() {
        let latch = Arc::new(Latch::new().unwrap());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let latch = Arc::clone(&latch);
                let (mut stream, theirs) = pair();
                std::thread::spawn(move || {
                    let woken = stream.fill(1, Until { latch: Some(&latch), ..Until::default() }).unwrap();
                    drop(theirs);
                    woken
                })
            })
            .collect();
        assert!(!latch.is_raised());
        latch.raise();
        latch.raise();
        assert!(latch.is_raised());
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap() == Filled::Woken));

        let (mut stream, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        let until = Until { latch: Some(&latch), ..Until::default() };
        assert_eq!(stream.fill(1, until).unwrap(), Filled::Ready);
        assert_eq!(stream.fill(2, until).unwrap(), Filled::Woken);
    }

    #[test]
    fn an_idle_connection_has_no_buffers() {
        let (mut stream, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        stream.put(b"y");
        assert_eq!(stream.fill(1, Until::default()).unwrap(), Filled::Ready);
        stream.consume(1);
        assert!(stream.input.capacity() > 0 && stream.output.capacity() > 0);
        stream.make_room(1);
        assert_eq!(stream.wait_idly(within(IDLE + Duration::from_millis(50))).unwrap(), Filled::TimedOut);
        assert_eq!(stream.output.capacity(), 0);
        theirs.write_all(b"z").unwrap();
        assert_eq!(stream.fill(1, Until::default()).unwrap(), Filled::Ready);
        assert_eq!(stream.arrived(), b"z");
    }
}
