//! The handshake of one connection: fixed newstyle, until the client has chosen an export or gone.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::client::Peer;
use super::exports::{Exports, Refusal, Session};
use super::protocol::{
    self, InfoRequest, MAXIMUM_STRING, OptionHead, handshake_flag, info, option, option_reply as reply,
};
use super::served::Offer;
use super::stream::{Filled, Stream, Until};

/// Options that a client may send: enough to list and ask about every export of a server many times.
const MAXIMUM_OPTIONS: usize = 1024;
/// The longest data of an option that are read, in bytes; the longest that we understand are a name and a few numbers.
const MAXIMUM_DATA: u32 = 64 << 10;

/// What was agreed on.
pub(super) struct Agreed {
    /// The client's place in the export of its choice.
    pub session: Session,
    /// READ is answered by structured replies.
    pub structured: bool,
}

/// Haggles until the client enters an export; nothing where it does not, whatever the reason.
pub(super) fn handshake(
    stream: &mut Stream,
    exports: &Arc<Exports>,
    peer: Peer,
    until: Until<'_>,
) -> io::Result<Option<Agreed>> {
    let mut handshake = Handshake { stream, exports, peer, until, no_zeroes: false, structured: false };
    if !handshake.greet()? {
        return Ok(None);
    }
    for _ in 0..MAXIMUM_OPTIONS {
        match handshake.one_option()? {
            Next::Option => {}
            Next::Enter(session) => return Ok(Some(Agreed { session, structured: handshake.structured })),
            Next::End => return Ok(None),
        }
    }
    tracing::debug!("NBD client {peer} sent {MAXIMUM_OPTIONS} options and chose no export");
    Ok(None)
}

enum Next {
    Option,
    Enter(Session),
    End,
}

struct Handshake<'a> {
    stream: &'a mut Stream,
    exports: &'a Arc<Exports>,
    peer: Peer,
    until: Until<'a>,
    no_zeroes: bool,
    structured: bool,
}

impl Handshake<'_> {
    /// Exchanges magics and flags; false where the client is none of ours.
    fn greet(&mut self) -> io::Result<bool> {
        self.stream.put(&protocol::greeting());
        let Some(flags) = self.bytes(4)? else { return Ok(false) };
        let known = [handshake_flag::FIXED_NEWSTYLE, handshake_flag::NO_ZEROES].map(u32::from);
        let flags = flags.iter().fold(0, |flags, byte| flags << 8 | u32::from(*byte));
        self.no_zeroes = flags & known[1] != 0;
        Ok(flags & !(known[0] | known[1]) == 0)
    }

    fn one_option(&mut self) -> io::Result<Next> {
        let Some(head) = self.bytes(OptionHead::SIZE)? else { return Ok(Next::End) };
        let Some(OptionHead { option, length }) = OptionHead::parse(&head) else { return Ok(Next::End) };
        if length > MAXIMUM_DATA {
            if option != option::EXPORT_NAME {
                self.refuse(option, reply::ERR_TOO_BIG, "the option is too long");
            }
            return Ok(Next::End);
        }
        let Some(data) = self.bytes(length as usize)? else { return Ok(Next::End) };
        match option {
            option::EXPORT_NAME => return Ok(self.export_name(&data)),
            option::GO => return Ok(self.go(&data)),
            option::ABORT => {
                self.reply(option, reply::ACK, &[]);
                return Ok(Next::End);
            }
            option::INFO => self.info(&data),
            option::LIST | option::STRUCTURED_REPLY if !data.is_empty() => {
                self.refuse(option, reply::ERR_INVALID, "the option takes no data");
            }
            option::LIST => self.list(),
            option::STRUCTURED_REPLY => {
                self.structured = true;
                self.reply(option, reply::ACK, &[]);
            }
            _ => self.refuse(option, reply::ERR_UNSUP, "the option is not known"),
        }
        Ok(Next::Option)
    }

    /// The one option that cannot be answered with an error.
    fn export_name(&mut self, data: &[u8]) -> Next {
        let entered = std::str::from_utf8(data).ok().map(|name| self.enter(name));
        let Some(Ok(session)) = entered else { return Next::End };
        let Offer { size, flags } = session.offer();
        self.stream.put(&protocol::export_name_reply(size, flags, !self.no_zeroes));
        Next::Enter(session)
    }

    fn go(&mut self, data: &[u8]) -> Next {
        let Some(request) = self.info_request(option::GO, data) else { return Next::Option };
        match self.enter(request.name) {
            Ok(session) => {
                self.describe(option::GO, &request, session.offer());
                Next::Enter(session)
            }
            Err(refusal) => {
                self.turn_away(option::GO, refusal);
                Next::Option
            }
        }
    }

    fn info(&mut self, data: &[u8]) {
        let Some(request) = self.info_request(option::INFO, data) else { return };
        match self.exports.offer(request.name) {
            Ok(offer) => self.describe(option::INFO, &request, offer),
            Err(refusal) => self.turn_away(option::INFO, refusal),
        }
    }

    fn list(&mut self) {
        for name in self.exports.open_names() {
            self.reply(option::LIST, reply::SERVER, &protocol::server_entry(&name));
        }
        self.reply(option::LIST, reply::ACK, &[]);
    }

    fn info_request<'d>(&mut self, option: u32, data: &'d [u8]) -> Option<InfoRequest<'d>> {
        let request = InfoRequest::parse(data).filter(|request| request.name.len() <= MAXIMUM_STRING);
        if request.is_none() {
            self.refuse(option, reply::ERR_INVALID, "the option's data are not a name and a list of numbers");
        }
        request
    }

    /// Says all that was asked for, and more of it than INFO_EXPORT only where it was.
    fn describe(&mut self, option: u32, request: &InfoRequest<'_>, offer: Offer) {
        self.reply(option, reply::INFO, &protocol::info_export(offer.size, offer.flags));
        if request.asks_for(info::NAME) {
            self.reply(option, reply::INFO, &protocol::info_name(request.name));
        }
        if request.asks_for(info::BLOCK_SIZE) {
            self.reply(option, reply::INFO, &protocol::info_block_size());
        }
        self.reply(option, reply::ACK, &[]);
    }

    fn enter(&self, name: &str) -> Result<Session, Refusal> {
        self.exports.enter(name, self.peer, Arc::clone(self.stream.socket()))
    }

    fn turn_away(&mut self, option: u32, refusal: Refusal) {
        let taken;
        let (kind, text) = match refusal {
            Refusal::Unknown => (reply::ERR_UNKNOWN, "no export has this name"),
            Refusal::Leaving => (reply::ERR_SHUTDOWN, "the export takes no new clients"),
            Refusal::Full => (reply::ERR_POLICY, "the export has as many clients as it may have"),
            Refusal::Gone => (reply::ERR_SHUTDOWN, "the export's device is gone"),
            Refusal::Taken(first) => {
                taken = format!("the export is written by the client at {first}, and takes one at a time");
                (reply::ERR_POLICY, taken.as_str())
            }
        };
        self.refuse(option, kind, text);
    }

    fn refuse(&mut self, option: u32, kind: u32, text: &str) {
        self.reply(option, kind, text.as_bytes());
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        self.stream.put(&protocol::option_reply(option, kind, data));
    }

    /// The next bytes; nothing where they do not come in time.
    fn bytes(&mut self, count: usize) -> io::Result<Option<Vec<u8>>> {
        if self.stream.fill(count, self.until)? != Filled::Ready || self.overdue() {
            return Ok(None);
        }
        let bytes = self.stream.arrived()[..count].to_vec();
        self.stream.consume(count);
        Ok(Some(bytes))
    }

    /// A client whose bytes never run dry is never waited for, so the time is looked at as well.
    fn overdue(&self) -> bool {
        self.until.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}
