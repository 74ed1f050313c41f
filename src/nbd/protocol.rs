//! The NBD protocol as bytes: constants, what a client sends, what a server answers. Pure.
//!
//! Source: `doc/proto.md` of the NBD project, whose names the constants keep. All integers are big-endian.

/// What a server sends first: `NBDMAGIC`.
pub const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of newstyle, and the magic of each option: `IHAVEOPT`.
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// Magic of each option reply.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

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
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// Options.
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
}

/// Types of option replies; bit 31 marks an error, whose data is a text for people.
pub mod option_reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub const ERR_POLICY: u32 = (1 << 31) + 2;
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub const ERR_SHUTDOWN: u32 = (1 << 31) + 7;
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
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
    pub const WRITE_ZEROES: u16 = 6;
}

/// Command flags.
pub mod command_flag {
    pub const FUA: u16 = 1 << 0;
    pub const NO_HOLE: u16 = 1 << 1;
}

const REPLY_FLAG_DONE: u16 = 1 << 0;
const REPLY_TYPE_NONE: u16 = 0;
const REPLY_TYPE_OFFSET_DATA: u16 = 1;
const REPLY_TYPE_ERROR: u16 = (1 << 15) + 1;

/// Smallest length and alignment of a request, in bytes: any.
pub const MINIMUM_BLOCK: u32 = 1;
/// Length and alignment from which requests are efficient, in bytes.
pub const PREFERRED_BLOCK: u32 = 4096;
/// The longest READ or WRITE, in bytes; the least that the document lets a server have by default.
pub const MAXIMUM_PAYLOAD: u32 = 32 << 20;

/// The longest string of the protocol, in bytes.
pub const MAXIMUM_STRING: usize = 4096;

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
    pub length: u32,
}

impl Request {
    /// Bytes of a request on the wire.
    pub const SIZE: usize = 28;

    /// Reads a request; nothing where the magic is another.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        (rest.u32()? == REQUEST_MAGIC).then_some(())?;
        Some(Self {
            flags: rest.u16()?,
            command: rest.u16()?,
            cookie: rest.u64()?,
            offset: rest.u64()?,
            length: rest.u32()?,
        })
    }

    /// Whether a command flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// The head of an option, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHead {
    /// The option; may be one that is not known.
    pub option: u32,
    /// Bytes of data that follow, as the client claims.
    pub length: u32,
}

impl OptionHead {
    /// Bytes of an option's head on the wire.
    pub const SIZE: usize = 16;

    /// Reads the head of an option; nothing where the magic is another.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        (rest.u64()? == IHAVEOPT).then_some(())?;
        Some(Self { option: rest.u32()?, length: rest.u32()? })
    }

    /// Writes an option with its data.
    pub fn encode(option: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = IHAVEOPT.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend(length_of(data).to_be_bytes());
        bytes.extend(data);
        bytes
    }
}

/// The data of INFO and GO.
#[derive(Debug, PartialEq, Eq)]
pub struct InfoRequest<'a> {
    /// The export's name.
    pub name: &'a str,
    items: &'a [u8],
}

impl<'a> InfoRequest<'a> {
    /// Reads the data of INFO or GO; nothing where its lengths do not agree or the name is not UTF-8.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(data);
        let length = rest.u32()?;
        let name = std::str::from_utf8(rest.take(length as usize)?).ok()?;
        let count = rest.u16()?;
        let items = rest.0;
        (items.len() == usize::from(count) * 2).then_some(Self { name, items })
    }

    /// Whether an information type was asked for.
    pub fn asks_for(&self, item: u16) -> bool {
        self.items.chunks_exact(2).any(|pair| pair == item.to_be_bytes())
    }

    /// Writes the data of INFO or GO that asks for nothing in particular.
    pub fn encode(name: &str) -> Vec<u8> {
        let mut data = length_of(name.as_bytes()).to_be_bytes().to_vec();
        data.extend(name.as_bytes());
        data.extend(0u16.to_be_bytes());
        data
    }
}

/// The head of an option reply, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHead {
    /// The option that it answers.
    pub option: u32,
    /// What kind of answer.
    pub reply: u32,
    /// Bytes of data that follow.
    pub length: u32,
}

impl OptionReplyHead {
    /// Bytes of an option reply's head on the wire.
    pub const SIZE: usize = 20;

    /// Reads the head of an option reply; nothing where the magic is another.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        (rest.u64()? == OPTION_REPLY_MAGIC).then_some(())?;
        Some(Self { option: rest.u32()?, reply: rest.u32()?, length: rest.u32()? })
    }
}

/// Writes an option reply with its data.
pub fn option_reply(option: u32, reply: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(reply.to_be_bytes());
    bytes.extend(length_of(data).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// What a server sends first.
pub fn greeting() -> [u8; 18] {
    let flags = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    joined([&NBDMAGIC.to_be_bytes(), &IHAVEOPT.to_be_bytes(), &flags.to_be_bytes()])
}

/// The data of a `REP_SERVER`: one export of the list.
pub fn server_entry(name: &str) -> Vec<u8> {
    [&length_of(name.as_bytes()).to_be_bytes(), name.as_bytes()].concat()
}

/// The data of `INFO_EXPORT`: size in bytes and transmission flags.
pub fn info_export(size: u64, flags: u16) -> [u8; 12] {
    joined([&info::EXPORT.to_be_bytes(), &size.to_be_bytes(), &flags.to_be_bytes()])
}

/// Reads the data of `INFO_EXPORT`, as a client: size in bytes and transmission flags.
pub fn parse_info_export(data: &[u8]) -> Option<(u64, u16)> {
    let mut rest = Reader(data);
    (rest.u16()? == info::EXPORT).then_some(())?;
    Some((rest.u64()?, rest.u16()?))
}

/// The data of `INFO_NAME`.
pub fn info_name(name: &str) -> Vec<u8> {
    [&info::NAME.to_be_bytes(), name.as_bytes()].concat()
}

/// The data of `INFO_BLOCK_SIZE`.
pub fn info_block_size() -> [u8; 14] {
    joined([
        &info::BLOCK_SIZE.to_be_bytes(),
        &MINIMUM_BLOCK.to_be_bytes(),
        &PREFERRED_BLOCK.to_be_bytes(),
        &MAXIMUM_PAYLOAD.to_be_bytes(),
    ])
}

/// The answer to `OPT_EXPORT_NAME`: size in bytes, transmission flags, and 124 zeroes for a client that wants them.
pub fn export_name_reply(size: u64, flags: u16, zeroes: bool) -> Vec<u8> {
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.resize(bytes.len() + if zeroes { 124 } else { 0 }, 0);
    bytes
}

/// A simple reply, before its data if any; no error is success.
pub fn simple_reply(cookie: u64, errno: Option<Errno>) -> [u8; 16] {
    let error = errno.map_or(0, |errno| errno as u32);
    joined([&SIMPLE_REPLY_MAGIC.to_be_bytes(), &error.to_be_bytes(), &cookie.to_be_bytes()])
}

/// The head of a chunk of `length` bytes read at `offset`, before these bytes.
pub fn data_chunk(cookie: u64, offset: u64, length: u32, last: bool) -> [u8; 28] {
    let flags = if last { REPLY_FLAG_DONE } else { 0 };
    joined([&chunk_head(cookie, flags, REPLY_TYPE_OFFSET_DATA, length + 8), &offset.to_be_bytes()])
}

/// The chunk that ends a reply without data.
pub fn none_chunk(cookie: u64) -> [u8; 20] {
    chunk_head(cookie, REPLY_FLAG_DONE, REPLY_TYPE_NONE, 0)
}

/// The chunk that ends a reply as failed.
pub fn error_chunk(cookie: u64, fault: Fault) -> Vec<u8> {
    let text = fault.text.as_bytes();
    let text = &text[..text.len().min(MAXIMUM_STRING)];
    let mut bytes = chunk_head(cookie, REPLY_FLAG_DONE, REPLY_TYPE_ERROR, 6 + length_of(text)).to_vec();
    bytes.extend((fault.errno as u32).to_be_bytes());
    bytes.extend((text.len() as u16).to_be_bytes());
    bytes.extend(text);
    bytes
}

fn chunk_head(cookie: u64, flags: u16, kind: u16, length: u32) -> [u8; 20] {
    joined([
        &STRUCTURED_REPLY_MAGIC.to_be_bytes(),
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
        &length.to_be_bytes(),
    ])
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

/// Our own data are a few KiB at most, so their length always fits.
fn length_of(data: &[u8]) -> u32 {
    data.len() as u32
}

/// Takes big-endian integers from the front of a slice; nothing once it is too short.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn request(magic: u32) -> Vec<u8> {
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend([0, 1, 0, 6]);
        bytes.extend(0x0102_0304_0506_0708_u64.to_be_bytes());
        bytes.extend(4096_u64.to_be_bytes());
        bytes.extend(512_u32.to_be_bytes());
        bytes
    }

    #[test]
    fn a_request_is_read_field_by_field() {
        let parsed = Request::parse(&request(REQUEST_MAGIC)).unwrap();
        let expected = Request {
            flags: command_flag::FUA,
            command: command::WRITE_ZEROES,
            cookie: 0x0102_0304_0506_0708,
            offset: 4096,
            length: 512,
        };
        assert_eq!(parsed, expected);
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        assert_eq!(Request::parse(&request(REQUEST_MAGIC + 1)), None);
        assert_eq!(Request::parse(&request(REQUEST_MAGIC)[..27]), None);
        assert_eq!(OptionHead::parse(&[0; 16]), None);
        assert_eq!(OptionReplyHead::parse(&[0xff; 20]), None);
    }

    #[test]
    fn an_option_is_read_back() {
        let bytes = OptionHead::encode(option::GO, b"abc");
        let head = OptionHead::parse(&bytes[..OptionHead::SIZE]).unwrap();
        assert_eq!(head, OptionHead { option: option::GO, length: 3 });
        let bytes = option_reply(option::GO, option_reply::ERR_UNKNOWN, b"no");
        let head = OptionReplyHead::parse(&bytes[..OptionReplyHead::SIZE]).unwrap();
        assert_eq!(head, OptionReplyHead { option: option::GO, reply: option_reply::ERR_UNKNOWN, length: 2 });
    }

    #[test]
    fn the_lengths_inside_an_info_request_must_agree() {
        let mut data = InfoRequest::encode("disk");
        assert_eq!(InfoRequest::parse(&data).unwrap().name, "disk");
        assert!(!InfoRequest::parse(&data).unwrap().asks_for(info::EXPORT));

        *data.last_mut().unwrap() = 2;
        data.extend([0, 1, 0, 3]);
        let parsed = InfoRequest::parse(&data).unwrap();
        assert!(parsed.asks_for(info::NAME) && parsed.asks_for(info::BLOCK_SIZE) && !parsed.asks_for(info::EXPORT));

        for end in 0..data.len() {
            assert_eq!(InfoRequest::parse(&data[..end]), None, "cut at {end}");
        }
        data.push(0);
        assert_eq!(InfoRequest::parse(&data), None, "one byte too many");
        assert_eq!(InfoRequest::parse(&[0xff; 64]), None, "a name of 4 GiB");
        assert_eq!(InfoRequest::parse(&[0, 0, 0, 1, 0xff, 0, 0]), None, "not UTF-8");
    }

    #[test]
    fn replies_are_laid_out_as_the_document_says() {
        assert_eq!(&greeting()[..16], b"NBDMAGICIHAVEOPT");
        assert_eq!(simple_reply(7, Some(Errno::NoSpc)), *b"\x67\x44\x66\x98\0\0\0\x1c\0\0\0\0\0\0\0\x07");
        assert_eq!(none_chunk(7), *b"\x66\x8e\x33\xef\0\x01\0\0\0\0\0\0\0\0\0\x07\0\0\0\0");
        let chunk = data_chunk(7, 9, 512, false);
        assert_eq!(chunk[..8], *b"\x66\x8e\x33\xef\0\0\0\x01");
        assert_eq!(chunk[16..], *b"\0\0\x02\x08\0\0\0\0\0\0\0\x09");
        let error = error_chunk(7, Fault { errno: Errno::Io, text: "bad" });
        assert_eq!(error[4..8], *b"\0\x01\x80\x01");
        assert_eq!(error[16..], *b"\0\0\0\x09\0\0\0\x05\0\x03bad");
        assert_eq!(export_name_reply(1, 2, true).len(), 134);
        assert_eq!(export_name_reply(1, 2, false), *b"\0\0\0\0\0\0\0\x01\0\x02");
        assert_eq!(parse_info_export(&info_export(1 << 40, 3)), Some((1 << 40, 3)));
    }
}
