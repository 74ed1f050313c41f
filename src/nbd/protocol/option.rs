//! The handshake's messages: the greeting, options and their replies.

use super::{BlockSizes, MAXIMUM_PAYLOAD, Reader, handshake_flag, info, joined, length_of};

/// What a server sends first: `NBDMAGIC`.
const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of newstyle, and the magic of each option: `IHAVEOPT`.
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// Magic of each option reply.
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// What a server sends first.
pub fn greeting() -> [u8; 18] {
    let flags = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    joined([&NBDMAGIC.to_be_bytes(), &IHAVEOPT.to_be_bytes(), &flags.to_be_bytes()])
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
        let name = rest.string()?;
        let count = rest.u16()?;
        let items = rest.0;
        (items.len() == usize::from(count) * 2).then_some(Self { name, items })
    }

    /// Whether an information type was asked for.
    pub fn asks_for(&self, item: u16) -> bool {
        self.items.chunks_exact(2).any(|pair| pair == item.to_be_bytes())
    }

    /// Writes the data of INFO or GO.
    pub fn encode(name: &str, items: &[u16]) -> Vec<u8> {
        let mut data = server_entry(name);
        data.extend((items.len() as u16).to_be_bytes());
        data.extend(items.iter().flat_map(|item| item.to_be_bytes()));
        data
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Debug, PartialEq, Eq)]
pub struct MetaRequest<'a> {
    /// The export's name.
    pub name: &'a str,
    /// Contexts or, where they are listed, also wildcards; those of a namespace that is not known mean nothing.
    pub queries: Vec<&'a str>,
}

impl<'a> MetaRequest<'a> {
    /// Reads the data of either option; nothing where its lengths do not agree or a text is not UTF-8.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(data);
        let name = rest.string()?;
        let count = rest.u32()?;
        // Each takes 4 bytes at least, so `count` is not what decides how much is allocated.
        let queries = (0..count).map(|_| rest.string()).collect::<Option<Vec<_>>>()?;
        rest.0.is_empty().then_some(Self { name, queries })
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

/// The data of a `REP_SERVER`: one export of the list.
pub fn server_entry(name: &str) -> Vec<u8> {
    [&length_of(name.as_bytes()).to_be_bytes(), name.as_bytes()].concat()
}

/// The data of a `REP_META_CONTEXT`.
pub fn meta_context(id: u32, name: &str) -> Vec<u8> {
    [&id.to_be_bytes(), name.as_bytes()].concat()
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
pub fn info_block_size(sizes: BlockSizes) -> [u8; 14] {
    joined([
        &info::BLOCK_SIZE.to_be_bytes(),
        &sizes.minimum.to_be_bytes(),
        &sizes.preferred.to_be_bytes(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::{opt, rep};
    use super::*;

    #[test]
    fn an_option_is_read_back() {
        let bytes = OptionHead::encode(opt::GO, b"abc");
        let head = OptionHead::parse(&bytes[..OptionHead::SIZE]).unwrap();
        assert_eq!(head, OptionHead { option: opt::GO, length: 3 });
        let bytes = option_reply(opt::GO, rep::ERR_UNKNOWN, b"no");
        let head = OptionReplyHead::parse(&bytes[..OptionReplyHead::SIZE]).unwrap();
        assert_eq!(head, OptionReplyHead { option: opt::GO, reply: rep::ERR_UNKNOWN, length: 2 });
        assert_eq!(OptionHead::parse(&[0; 16]), None);
        assert_eq!(OptionReplyHead::parse(&[0xff; 20]), None);
    }

    #[test]
    fn the_lengths_inside_an_info_request_must_agree() {
        let mut data = InfoRequest::encode("disk", &[info::NAME, info::BLOCK_SIZE]);
        let parsed = InfoRequest::parse(&data).unwrap();
        assert_eq!(parsed.name, "disk");
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
    fn the_lengths_inside_a_query_of_contexts_must_agree() {
        let mut data = b"\0\0\0\x01d\0\0\0\x02\0\0\0\x05base:\0\0\0\x00".to_vec();
        assert_eq!(MetaRequest::parse(&data), Some(MetaRequest { name: "d", queries: vec!["base:", ""] }));
        for end in 0..data.len() {
            assert_eq!(MetaRequest::parse(&data[..end]), None, "cut at {end}");
        }
        data.push(0);
        assert_eq!(MetaRequest::parse(&data), None, "one byte too many");
        assert_eq!(MetaRequest::parse(b"\0\0\0\x01d\xff\xff\xff\xff\0\0\0\0"), None, "4 Gi queries");
        assert_eq!(MetaRequest::parse(b"\0\0\0\x01d\0\0\0\x01\0\0\0\x01\xff"), None, "not UTF-8");
    }

    #[test]
    fn replies_are_laid_out_as_the_document_says() {
        assert_eq!(&greeting()[..16], b"NBDMAGICIHAVEOPT");
        assert_eq!(export_name_reply(1, 2, true).len(), 134);
        assert_eq!(export_name_reply(1, 2, false), *b"\0\0\0\0\0\0\0\x01\0\x02");
        assert_eq!(parse_info_export(&info_export(1 << 40, 3)), Some((1 << 40, 3)));
        assert_eq!(meta_context(1, "base:x"), b"\0\0\0\x01base:x");
        let sizes = BlockSizes { minimum: 512, preferred: 4096 };
        assert_eq!(info_block_size(sizes), *b"\0\x03\0\0\x02\0\0\0\x10\0\x02\0\0\0");
    }
}
