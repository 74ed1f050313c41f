//! A request of the transmission phase.

use super::{Headers, Reader, command, command_flag};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;

/// A request of the transmission phase, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Command flags.
    pub flags: u16,
    /// The command; may be one that is not known.
    pub command: u16,
    /// The client's own, sent back as it is.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// The first byte that the client asked for, where this is the rest of a request: replies name that.
    pub asked_from: u64,
}

impl Request {
    /// Reads a request, of [`Headers::request_size`] bytes; nothing where the magic is another.
    pub fn parse(bytes: &[u8], headers: Headers) -> Option<Self> {
        let mut rest = Reader(bytes);
        let magic = if headers == Headers::Extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        (rest.u32()? == magic).then_some(())?;
        let (flags, command, cookie, offset) = (rest.u16()?, rest.u16()?, rest.u64()?, rest.u64()?);
        let length = if headers == Headers::Extended { rest.u64()? } else { rest.u32()?.into() };
        Some(Self { flags, command, cookie, offset, length, asked_from: offset })
    }

    /// As a client sends it.
    pub fn encode(&self, headers: Headers) -> Vec<u8> {
        let is_extended = headers == Headers::Extended;
        let magic = if is_extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.command.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(self.offset.to_be_bytes());
        // A compact request had its length in the last four of them.
        bytes.extend(&self.length.to_be_bytes()[if is_extended { 0 } else { 4 }..]);
        bytes
    }

    /// What is left of it once so many bytes from its start are dealt with.
    pub fn rest(&self, done: u64) -> Self {
        Self { offset: self.offset + done, length: self.length - done, ..*self }
    }

    /// Whether a command flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Bytes that follow the request: those of a WRITE, and with extended headers those of any that says so. QEMU 10
    /// writes with extended headers and does not say so.
    pub fn payload(&self, headers: Headers) -> u64 {
        let says_so = headers == Headers::Extended && self.has(command_flag::PAYLOAD_LEN);
        if says_so || self.command == command::WRITE { self.length } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn bytes(magic: u32, command: u8, length: &[u8]) -> Vec<u8> {
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend([0, 1, 0, command]);
        bytes.extend(0x0102_0304_0506_0708_u64.to_be_bytes());
        bytes.extend(4096_u64.to_be_bytes());
        bytes.extend(length);
        bytes
    }

    #[test]
    fn a_request_is_read_field_by_field() {
        let parsed = Request::parse(&bytes(REQUEST_MAGIC, 6, &512_u32.to_be_bytes()), Headers::Structured).unwrap();
        let expected = Request {
            flags: command_flag::FUA,
            command: command::WRITE_ZEROES,
            cookie: 0x0102_0304_0506_0708,
            offset: 4096,
            length: 512,
            asked_from: 4096,
        };
        assert_eq!(parsed, expected);
        assert_eq!(parsed.encode(Headers::Simple), bytes(REQUEST_MAGIC, 6, &512_u32.to_be_bytes()));
        let extended = bytes(EXTENDED_REQUEST_MAGIC, 6, &(1_u64 << 40).to_be_bytes());
        let parsed = Request::parse(&extended, Headers::Extended).unwrap();
        assert_eq!(parsed, Request { length: 1 << 40, ..expected });
        assert_eq!(parsed.encode(Headers::Extended), extended);
        assert_eq!(parsed.rest(512), Request { offset: 4608, length: (1 << 40) - 512, ..expected });
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        let request = bytes(REQUEST_MAGIC, 6, &512_u32.to_be_bytes());
        assert_eq!(Request::parse(&bytes(REQUEST_MAGIC + 1, 6, &[0; 4]), Headers::Simple), None);
        assert_eq!(Request::parse(&request[..27], Headers::Simple), None);
        assert_eq!(Request::parse(&request, Headers::Extended), None);
        assert_eq!(Request::parse(&bytes(EXTENDED_REQUEST_MAGIC, 6, &[0; 8]), Headers::Simple), None);
    }

    #[test]
    fn a_payload_follows_where_the_headers_say_so() {
        let request = |command, flags| Request { flags, command, cookie: 0, offset: 0, length: 7, asked_from: 0 };
        assert_eq!(request(command::WRITE, 0).payload(Headers::Simple), 7);
        assert_eq!(request(command::READ, command_flag::PAYLOAD_LEN).payload(Headers::Structured), 0);
        assert_eq!(request(command::WRITE, 0).payload(Headers::Extended), 7);
        assert_eq!(request(command::TRIM, command_flag::PAYLOAD_LEN).payload(Headers::Extended), 7);
    }
}
