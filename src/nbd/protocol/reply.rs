//! Replies of the transmission phase, in the three kinds of headers that a client may have agreed on.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::{Errno, Fault, MAXIMUM_STRING, Request, command, length_of};

const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

const REPLY_FLAG_DONE: u16 = 1 << 0;

const REPLY_TYPE_NONE: u16 = 0;
const REPLY_TYPE_OFFSET_DATA: u16 = 1;
const REPLY_TYPE_OFFSET_HOLE: u16 = 2;
const REPLY_TYPE_BLOCK_STATUS: u16 = 5;
const REPLY_TYPE_BLOCK_STATUS_EXT: u16 = 6;
const REPLY_TYPE_ERROR: u16 = (1 << 15) + 1;

const STATE_HOLE: u32 = 1 << 0;
const STATE_ZERO: u32 = 1 << 1;

/// A part of an export that is alike throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub length: u64,
    /// It is not allocated, and reads as zeroes.
    pub hole: bool,
}

/// The headers of requests and replies, as client and server have agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Headers {
    /// Compact requests, simple replies.
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended requests and replies.
    Extended,
}

impl Headers {
    /// Bytes of a request on the wire, without its payload.
    pub const fn request_size(self) -> usize {
        match self {
            Headers::Simple | Headers::Structured => 28,
            Headers::Extended => 32,
        }
    }

    /// What ends a successful reply that has no data, or whose data are all sent.
    pub fn success(self, request: &Request) -> Message {
        match self {
            Headers::Structured if request.command == command::READ => self.chunk(request, true, REPLY_TYPE_NONE, 0),
            Headers::Simple | Headers::Structured => self.simple(request, None),
            Headers::Extended => self.chunk(request, true, REPLY_TYPE_NONE, 0),
        }
    }

    /// What ends a reply as failed; all but simple replies say why.
    pub fn failure(self, request: &Request, fault: Fault) -> Vec<u8> {
        if self == Headers::Simple {
            return self.simple(request, Some(fault.errno)).to_vec();
        }
        let text = fault.text.as_bytes();
        let text = &text[..text.len().min(MAXIMUM_STRING)];
        let mut bytes = self.chunk(request, true, REPLY_TYPE_ERROR, 6 + length_of(text)).to_vec();
        bytes.extend((fault.errno as u32).to_be_bytes());
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(text);
        bytes
    }

    /// What goes before `length` bytes read at `offset`. A simple reply has all the bytes that were asked for.
    pub fn data(self, request: &Request, offset: u64, length: u32, last: bool) -> Message {
        match self {
            Headers::Simple => self.simple(request, None),
            Headers::Structured | Headers::Extended => {
                self.chunk(request, last, REPLY_TYPE_OFFSET_DATA, length + 8).with(&offset.to_be_bytes())
            }
        }
    }

    /// Says that `length` bytes at `offset` read as zeroes; there is no such simple reply.
    pub fn hole(self, request: &Request, offset: u64, length: u32, last: bool) -> Message {
        let chunk = self.chunk(request, last, REPLY_TYPE_OFFSET_HOLE, 12);
        chunk.with(&offset.to_be_bytes()).with(&length.to_be_bytes())
    }

    /// The whole reply to BLOCK_STATUS: of one context, what follows on the request's offset.
    pub fn block_status(self, request: &Request, context: u32, extents: &[Extent]) -> Vec<u8> {
        let state = |extent: &Extent| if extent.hole { STATE_HOLE | STATE_ZERO } else { 0 };
        let count = extents.len() as u32;
        if self == Headers::Extended {
            let mut bytes = self.chunk(request, true, REPLY_TYPE_BLOCK_STATUS_EXT, 8 + 16 * count).to_vec();
            bytes.extend(context.to_be_bytes());
            bytes.extend(count.to_be_bytes());
            for extent in extents {
                bytes.extend(extent.length.to_be_bytes());
                bytes.extend(u64::from(state(extent)).to_be_bytes());
            }
            return bytes;
        }
        let mut bytes = self.chunk(request, true, REPLY_TYPE_BLOCK_STATUS, 4 + 8 * count).to_vec();
        bytes.extend(context.to_be_bytes());
        for extent in extents {
            // A compact request asks for less than 4 GiB.
            bytes.extend((extent.length as u32).to_be_bytes());
            bytes.extend(state(extent).to_be_bytes());
        }
        bytes
    }

    fn simple(self, request: &Request, errno: Option<Errno>) -> Message {
        let error = errno.map_or(0, |errno| errno as u32);
        Message::new(SIMPLE_REPLY_MAGIC).with(&error.to_be_bytes()).with(&request.cookie.to_be_bytes())
    }

    fn chunk(self, request: &Request, last: bool, kind: u16, length: u32) -> Message {
        let flags = if last { REPLY_FLAG_DONE } else { 0 };
        let extended = self == Headers::Extended;
        let magic = if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC };
        let head = Message::new(magic).with(&flags.to_be_bytes()).with(&kind.to_be_bytes());
        let head = head.with(&request.cookie.to_be_bytes());
        match extended {
            true => head.with(&request.asked_from.to_be_bytes()).with(&u64::from(length).to_be_bytes()),
            false => head.with(&length.to_be_bytes()),
        }
    }
}

/// A short message.
#[derive(Clone, Copy)]
pub struct Message {
    /// As long as the longest: a hole with extended headers.
    bytes: [u8; 44],
    length: usize,
}

impl Message {
    fn new(magic: u32) -> Self {
        Self { bytes: [0; 44], length: 0 }.with(&magic.to_be_bytes())
    }

    fn with(mut self, field: &[u8]) -> Self {
        self.bytes[self.length..self.length + field.len()].copy_from_slice(field);
        self.length += field.len();
        self
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request =
        Request { flags: 0, command: command::READ, cookie: 7, offset: 5, length: 512, asked_from: 5 };

    #[test]
    fn compact_replies_are_laid_out_as_the_document_says() {
        use Headers::{Simple, Structured};
        let fault = Fault { errno: Errno::NoSpc, text: "bad" };
        assert_eq!(Simple.failure(&REQUEST, fault), *b"\x67\x44\x66\x98\0\0\0\x1c\0\0\0\0\0\0\0\x07");
        assert_eq!(*Structured.success(&REQUEST), *b"\x66\x8e\x33\xef\0\x01\0\0\0\0\0\0\0\0\0\x07\0\0\0\0");
        let flush = Request { command: command::FLUSH, ..REQUEST };
        assert_eq!(*Structured.success(&flush), *b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x07");
        let chunk = Structured.data(&REQUEST, 9, 512, false);
        assert_eq!(chunk[..8], *b"\x66\x8e\x33\xef\0\0\0\x01");
        assert_eq!(chunk[16..], *b"\0\0\x02\x08\0\0\0\0\0\0\0\x09");
        let hole = Structured.hole(&REQUEST, 9, 512, true);
        assert_eq!(hole[4..8], *b"\0\x01\0\x02");
        assert_eq!(hole[16..], *b"\0\0\0\x0c\0\0\0\0\0\0\0\x09\0\0\x02\0");
        let error = Structured.failure(&REQUEST, fault);
        assert_eq!(error[4..8], *b"\0\x01\x80\x01");
        assert_eq!(error[16..], *b"\0\0\0\x09\0\0\0\x1c\0\x03bad");
        let extents = [Extent { length: 1, hole: false }, Extent { length: 2, hole: true }];
        let status = Structured.block_status(&REQUEST, 1, &extents);
        assert_eq!(status[4..8], *b"\0\x01\0\x05");
        assert_eq!(status[16..], *b"\0\0\0\x14\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x03");
    }

    #[test]
    fn extended_replies_are_laid_out_as_the_document_says() {
        use Headers::Extended;
        let head = |flags_and_kind: &[u8; 4], length: u8| {
            let mut head = b"\x6e\x8a\x27\x8c".to_vec();
            head.extend(flags_and_kind);
            head.extend(*b"\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
            head.push(length);
            head
        };
        assert_eq!(*Extended.success(&Request { command: command::TRIM, ..REQUEST }), head(b"\0\x01\0\0", 0));
        assert_eq!(Extended.data(&REQUEST, 9, 8, true)[..32], head(b"\0\x01\0\x01", 16));
        assert_eq!(Extended.hole(&REQUEST, 9, 512, false)[..32], head(b"\0\0\0\x02", 12));
        assert_eq!(Extended.hole(&REQUEST, 9, 512, false).len(), 44);
        assert_eq!(*Extended.success(&REQUEST.rest(4)), head(b"\0\x01\0\0", 0), "a rest is of the whole");
        let status = Extended.block_status(&REQUEST, 1, &[Extent { length: 1 << 40, hole: true }]);
        assert_eq!(status[..32], head(b"\0\x01\0\x06", 24));
        assert_eq!(status[32..], *b"\0\0\0\x01\0\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\x03");
    }
}
