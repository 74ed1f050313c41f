//! A client that sends whatever bytes a test wants sent, and waits 20 s at most for an answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::nbd::protocol::{self, InfoRequest, OptionHead, OptionReplyHead, option, option_reply as reply};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

pub struct Raw {
    socket: Box<dyn Socket>,
    close_write: Box<dyn Fn() + Send>,
}

/// A reply of either kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub cookie: u64,
    pub error: u32,
    pub data: Vec<u8>,
    /// What a structured error says.
    pub text: String,
}

impl Raw {
    pub fn unix(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(PATIENCE).unwrap();
        socket.set_write_timeout(PATIENCE).unwrap();
        let clone = socket.try_clone().unwrap();
        Self { socket: Box::new(socket), close_write: Box::new(move || clone.shutdown(Shutdown::Write).unwrap()) }
    }

    pub fn tcp(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(PATIENCE).unwrap();
        socket.set_write_timeout(PATIENCE).unwrap();
        let clone = socket.try_clone().unwrap();
        Self { socket: Box::new(socket), close_write: Box::new(move || clone.shutdown(Shutdown::Write).unwrap()) }
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
            if !matches!(head.reply, reply::INFO | reply::SERVER) {
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
        let replies = self.option(option::GO, &InfoRequest::encode(name));
        assert_eq!(replies.last().unwrap().0, reply::ACK, "{replies:?}");
        replies.iter().find_map(|(_, data)| protocol::parse_info_export(data)).unwrap()
    }

    pub fn structured(mut self) -> Self {
        assert_eq!(self.outcome(option::STRUCTURED_REPLY, &[]), reply::ACK);
        self
    }

    pub fn request(&mut self, flags: u16, command: u16, offset: u64, length: u32) {
        self.send(&request(flags, command, 7, offset, length));
    }

    pub fn simple_reply(&mut self, data: usize) -> Reply {
        let head = self.receive(16);
        assert_eq!(number(&head[..4]), 0x6744_6698, "not a simple reply: {head:02x?}");
        let error = number(&head[4..8]) as u32;
        let data = self.receive(if error == 0 { data } else { 0 });
        Reply { cookie: number(&head[8..]), error, data, text: String::new() }
    }

    /// All chunks of one structured reply, whose data must come in order.
    pub fn structured_reply(&mut self) -> Reply {
        let mut reply = Reply { cookie: 0, error: 0, data: Vec::new(), text: String::new() };
        let mut next_offset = None;
        loop {
            let head = self.receive(20);
            assert_eq!(number(&head[..4]), 0x668e_33ef, "not a chunk: {head:02x?}");
            let payload = self.receive(number(&head[16..]) as usize);
            reply.cookie = number(&head[8..16]);
            match number(&head[6..8]) {
                0 => assert!(payload.is_empty()),
                1 => {
                    let offset = number(&payload[..8]);
                    assert_eq!(*next_offset.get_or_insert(offset), offset);
                    next_offset = Some(offset + payload.len() as u64 - 8);
                    reply.data.extend(&payload[8..]);
                }
                0x8001 => {
                    reply.error = number(&payload[..4]) as u32;
                    assert_eq!(number(&payload[4..6]) as usize, payload.len() - 6);
                    reply.text = String::from_utf8(payload[6..].to_vec()).unwrap();
                }
                kind => panic!("chunk of type {kind}"),
            }
            if number(&head[4..6]) == 1 {
                return reply;
            }
        }
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

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
