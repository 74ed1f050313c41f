//! The NBD protocol as bytes: constants, what a client sends, what a server answers. Pure.
//!
//! Source: `doc/proto.md` of the NBD project, whose names the constants keep, and for extended headers the same document
//! of its branch `extension-ext-header`. All integers are big-endian.

mod option;
mod reply;
mod request;

use serde::{Deserialize, Serialize};

pub use option::{
    InfoRequest, MetaRequest, OptionHead, OptionReplyHead, export_name_reply, greeting, info_block_size, info_export,
    info_name, meta_context, option_reply, parse_info_export, server_entry,
};
pub use reply::{Extent, Headers};
pub use request::Request;

/// Handshake flags; the client flags of the same bits answer them.
pub mod handshake_flag {
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Transmission flags.
pub mod transmission_flag {
    pub const HAS_FLAGS: u16 = 1 << 0;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Options.
pub mod opt {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Types of option replies; bit 31 marks an error, whose data is a text for people.
pub mod rep {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub const ERR_POLICY: u32 = (1 << 31) + 2;
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    pub const ERR_TLS_REQD: u32 = (1 << 31) + 5;
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub const ERR_SHUTDOWN: u32 = (1 << 31) + 7;
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
    pub const ERR_EXT_HEADER_REQD: u32 = (1 << 31) + 10;
}

/// Information types of INFO and GO.
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands.
pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// Command flags.
pub mod command_flag {
    pub const FUA: u16 = 1 << 0;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DF: u16 = 1 << 2;
    pub const REQ_ONE: u16 = 1 << 3;
    pub const FAST_ZERO: u16 = 1 << 4;
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// The one metadata context that there is.
pub const ALLOCATION: &str = "base:allocation";
/// Asks LIST_META_CONTEXT for all of its namespace.
pub const ALL_OF_BASE: &str = "base:";

/// The longest READ or WRITE, in bytes; the least that the document lets a server have by default.
pub const MAXIMUM_PAYLOAD: u32 = 32 << 20;

/// The longest string of the protocol, in bytes.
pub const MAXIMUM_STRING: usize = 4096;

/// The sizes that a client's requests should keep to, in bytes; powers of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSizes {
    /// The smallest length and alignment.
    pub minimum: u32,
    /// Length and alignment from which requests are efficient.
    pub preferred: u32,
}

/// The error values that may stand in a reply, named as in the document without `NBD_E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    Perm = 1,
    Io = 5,
    NoMem = 12,
    Inval = 22,
    NoSpc = 28,
    Overflow = 75,
    NotSup = 95,
    Shutdown = 108,
}

/// Why a request failed: the number that a client's program sees and the sentence that a person may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The error value.
    pub errno: Errno,
    /// The sentence; goes out with structured replies.
    pub text: &'static str,
}

/// Our own data are a few KiB at most, so their length always fits.
fn length_of(data: &[u8]) -> u32 {
    data.len() as u32
}

/// Joins fields to a message of a fixed size, which the fields' sizes must add up to.
fn joined<const SIZE: usize, const FIELDS: usize>(fields: [&[u8]; FIELDS]) -> [u8; SIZE] {
    let mut message = [0; SIZE];
    let mut at = 0;
    for field in fields {
        message[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    debug_assert_eq!(at, SIZE);
    message
}

/// Takes big-endian integers from the front of a slice; nothing once it is too short.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A string behind its length of 32 bits; nothing where it is not UTF-8.
    fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()?;
        std::str::from_utf8(self.take(length as usize)?).ok()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}
