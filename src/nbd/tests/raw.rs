//! A client that sends whatever bytes a test wants sent, and waits 20 s at most for an answer.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use crate::nbd::protocol::{
    self, Extent, Headers, InfoRequest, OptionHead, OptionReplyHead, command, command_flag, info, opt, rep,
};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

trait Socket: Read + Write + Send {
    fn patience(&self, limit: Option<Duration>);
}

impl Socket for UnixStream {
    fn patience(&self, limit: Option<Duration>) {
        self.set_read_timeout(limit).unwrap();
    }
}

impl Socket for TcpStream {
    fn patience(&self, limit: Option<Duration>) {
        self.set_read_timeout(limit).unwrap();
    }
}

pub struct Raw {
    socket: Box<dyn Socket>,
    close_write: Box<dyn Fn() + Send>,
    headers: Headers,
    /// The offsets of what was asked, by cookie.
    asked: BTreeMap<u64, u64>,
}

/// A reply of any kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub cookie: u64,
    pub error: u32,
    /// What was read, in order, holes as zeroes.
    pub data: Vec<u8>,
    /// What a structured error says.
    pub text: String,
    /// Chunks of data and of holes.
    pub parts: usize,
    pub holes: usize,
    pub extents: Vec<Extent>,
}

impl Raw {
    pub fn unix(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(PATIENCE).unwrap();
        socket.set_write_timeout(PATIENCE).unwrap();
        let clone = socket.try_clone().unwrap();
        Self {
            socket: Box::new(socket),
            close_write: Box::new(move || clone.shutdown(Shutdown::Write).unwrap()),
            headers: Headers::Simple,
            asked: BTreeMap::new(),
        }
    }

    /// Over TCP, from an address of this machine.
    pub fn tcp_from(from: IpAddr, address: &str) -> Self {
        let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0))).unwrap();
        connect(socket.as_raw_fd(), &SockaddrStorage::from(address.parse::<SocketAddr>().unwrap())).unwrap();
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(PATIENCE).unwrap();
        socket.set_write_timeout(PATIENCE).unwrap();
        let clone = socket.try_clone().unwrap();
        let close_write = Box::new(move || clone.shutdown(Shutdown::Write).unwrap());
        Self { socket: Box::new(socket), close_write, headers: Headers::Simple, asked: BTreeMap::new() }
    }

    pub fn greeted(mut self) -> Self {
        assert_eq!(self.receive(18), protocol::greeting());
        self.send(&[0, 0, 0, 3]);
        self
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Sends as much as the server takes; whether that was all.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    pub fn close_write(&self) {
        (self.close_write)();
    }

    /// Receives as much, or nothing where the connection ends before.
    pub fn try_receive(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Whether nothing comes for a while.
    pub fn hears_nothing(&mut self) -> bool {
        self.socket.patience(Some(Duration::from_millis(200)));
        let heard = self.socket.read(&mut [0]);
        self.socket.patience(PATIENCE);
        heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    pub fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads to the end of the connection, which must come in time.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.socket.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the server keeps the connection: {error}"),
        }
        bytes
    }

    /// Sends an option and gives its replies, up to the last.
    pub fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.send(&OptionHead::encode(option, data));
        let mut replies = Vec::new();
        loop {
            let head = OptionReplyHead::parse(&self.receive(OptionReplyHead::SIZE)).unwrap();
            assert_eq!(head.option, option);
            replies.push((head.reply, self.receive(head.length as usize)));
            if !matches!(head.reply, rep::INFO | rep::SERVER | rep::META_CONTEXT) {
                return replies;
            }
        }
    }

    /// The kind of the last reply to an option.
    pub fn outcome(&mut self, option: u32, data: &[u8]) -> u32 {
        self.option(option, data).last().unwrap().0
    }

    /// Enters an export; size and transmission flags come back.
    pub fn go(&mut self, name: &str) -> (u64, u16) {
        self.go_asking(name, &[])
    }

    /// The same, and promises to keep to the block sizes.
    pub fn go_with_block_sizes(&mut self, name: &str) -> (u64, u16) {
        self.go_asking(name, &[info::BLOCK_SIZE])
    }

    fn go_asking(&mut self, name: &str, items: &[u16]) -> (u64, u16) {
        let replies = self.option(opt::GO, &InfoRequest::encode(name, items));
        assert_eq!(replies.last().unwrap().0, rep::ACK, "{replies:?}");
        replies.iter().find_map(|(_, data)| protocol::parse_info_export(data)).unwrap()
    }

    pub fn structured(self) -> Self {
        self.with(Headers::Structured)
    }

    /// Agrees on such headers.
    pub fn with(mut self, headers: Headers) -> Self {
        let option = match headers {
            Headers::Simple => return self,
            Headers::Structured => opt::STRUCTURED_REPLY,
            Headers::Extended => opt::EXTENDED_HEADERS,
        };
        assert_eq!(self.outcome(option, &[]), rep::ACK);
        self.headers = headers;
        self
    }

    /// Chooses `base:allocation`.
    pub fn with_allocation(mut self, name: &str) -> Self {
        let replies = self.option(opt::SET_META_CONTEXT, &meta(name, &["base:allocation"]));
        assert_eq!(replies, [(rep::META_CONTEXT, b"\0\0\0\x01base:allocation".to_vec()), (rep::ACK, vec![])]);
        self
    }

    pub fn request(&mut self, flags: u16, command: u16, offset: u64, length: u32) {
        self.send(&request(flags, command, 7, offset, length));
    }

    /// Sends a request with the headers that were agreed on, and its payload.
    pub fn ask(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, length: u64, payload: &[u8]) {
        let request = self.encoded(flags, command, cookie, offset, length, payload);
        self.send(&request);
    }

    /// The bytes of a request that will be sent, and its payload.
    pub fn encoded(
        &mut self,
        flags: u16,
        command: u16,
        cookie: u64,
        offset: u64,
        length: u64,
        payload: &[u8],
    ) -> Vec<u8> {
        let with_payload = if payload.is_empty() { 0 } else { command_flag::PAYLOAD_LEN };
        let mut bytes = match self.headers {
            Headers::Simple | Headers::Structured => request(flags, command, cookie, offset, length as u32),
            Headers::Extended => extended_request(flags | with_payload, command, cookie, offset, length),
        };
        bytes.extend(payload);
        self.asked.insert(cookie, offset);
        bytes
    }

    /// Sends a request and gives its reply.
    pub fn answer(&mut self, flags: u16, command: u16, offset: u64, length: u64, payload: &[u8]) -> Reply {
        self.ask(flags, command, 7, offset, length, payload);
        let read = if command == command::READ { length as usize } else { 0 };
        self.replies(1, |_| read).remove(&7).unwrap()
    }

    /// So many replies, in whatever order they and their parts come. Of a simple one, `data` knows by its cookie how
    /// long its data are.
    pub fn replies(&mut self, count: usize, data: impl Fn(u64) -> usize) -> BTreeMap<u64, Reply> {
        let (mut open, mut done) = (BTreeMap::<u64, Reply>::new(), BTreeMap::new());
        while done.len() < count {
            let magic = number(&self.receive(4));
            if magic == 0x6744_6698 {
                assert_ne!(self.headers, Headers::Extended);
                let head = self.receive(12);
                let (error, cookie) = (number(&head[..4]) as u32, number(&head[4..]));
                let length = if error == 0 { data(cookie) } else { 0 };
                assert!(self.headers == Headers::Simple || length == 0, "a simple reply with data");
                let data = self.receive(length);
                done.insert(cookie, Reply { cookie, error, data, ..Reply::default() });
                continue;
            }
            let extended = self.headers == Headers::Extended;
            assert_eq!(magic, if extended { 0x6e8a_278c } else { 0x668e_33ef });
            let head = self.receive(if extended { 28 } else { 16 });
            let cookie = number(&head[4..12]);
            if extended {
                assert_eq!(self.asked.get(&cookie), Some(&number(&head[12..20])), "not the request's offset");
            }
            let payload = self.receive(number(&head[if extended { 20 } else { 12 }..]) as usize);
            let mut reply = open.remove(&cookie).unwrap_or(Reply { cookie, ..Reply::default() });
            reply.take(number(&head[2..4]), &payload);
            let is_last = number(&head[..2]) == 1;
            if is_last { &mut done } else { &mut open }.insert(cookie, reply);
        }
        assert!(open.is_empty(), "parts of replies without an end: {open:?}");
        done
    }

    pub fn simple_reply(&mut self, data: usize) -> Reply {
        let head = self.receive(16);
        assert_eq!(number(&head[..4]), 0x6744_6698, "not a simple reply: {head:02x?}");
        let error = number(&head[4..8]) as u32;
        let data = self.receive(if error == 0 { data } else { 0 });
        Reply { cookie: number(&head[8..]), error, data, ..Reply::default() }
    }

    /// The structured reply to a READ.
    pub fn structured_reply(&mut self) -> Reply {
        self.replies(1, |_| 0).pop_first().unwrap().1
    }

    /// Sends a request that is answered without data; the error value comes back.
    pub fn error_of(&mut self, flags: u16, command: u16, offset: u64, length: u32, payload: &[u8]) -> u32 {
        self.request(flags, command, offset, length);
        self.send(payload);
        self.simple_reply(0).error
    }
}

/// The bytes of a request.
pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

fn extended_request(flags: u16, command: u16, cookie: u64, offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = 0x21e4_1c71_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend([cookie, offset, length].map(u64::to_be_bytes).concat());
    bytes
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = protocol::server_entry(name);
    data.extend((queries.len() as u32).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| protocol::server_entry(query)));
    data
}

impl Reply {
    /// Takes a chunk in; those of data must come in order.
    fn take(&mut self, kind: u64, payload: &[u8]) {
        match kind {
            0 => assert!(payload.is_empty()),
            1 => {
                assert!(payload.len() > 8);
                self.parts += 1;
                self.data.extend(&payload[8..]);
            }
            2 => {
                assert_eq!(payload.len(), 12);
                (self.parts, self.holes) = (self.parts + 1, self.holes + 1);
                self.data.resize(self.data.len() + number(&payload[8..]) as usize, 0);
            }
            5 => {
                assert_eq!(number(&payload[..4]), 1, "the context's id");
                let extents = payload[4..].chunks(8).map(|extent| (number(&extent[..4]), number(&extent[4..])));
                self.extents.extend(extents.map(|(length, state)| Extent { length, hole: is_hole(state) }));
            }
            6 => {
                assert_eq!(number(&payload[..4]), 1, "the context's id");
                assert_eq!(number(&payload[4..8]) as usize, (payload.len() - 8) / 16);
                let extents = payload[8..].chunks(16).map(|extent| (number(&extent[..8]), number(&extent[8..])));
                self.extents.extend(extents.map(|(length, state)| Extent { length, hole: is_hole(state) }));
            }
            0x8001 => {
                self.error = number(&payload[..4]) as u32;
                assert_eq!(number(&payload[4..6]) as usize, payload.len() - 6);
                self.text = String::from_utf8(payload[6..].to_vec()).unwrap();
            }
            kind => panic!("chunk of type {kind}"),
        }
    }
}

/// A hole reads as zeroes, and what is no hole does not claim to.
fn is_hole(state: u64) -> bool {
    assert!(state == 0 || state == 3, "state {state}");
    state == 3
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
