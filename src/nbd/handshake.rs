//! The handshake of one connection: fixed newstyle, until the client has chosen an export or gone.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use serde::{Deserialize, Serialize};

use super::client::Caller;
use super::entry::Refusal;
use super::exports::{Exports, Session};
use super::protocol::{
    self, ALL_OF_BASE, ALLOCATION, Headers, InfoRequest, MAXIMUM_STRING, MetaRequest, OptionHead, handshake_flag, info,
    opt, rep,
};
use super::served::Offer;
use super::stream::{Filled, Stream, Until};
use super::tls::Tls;
use super::tls::certificate::Certificate;

/// Options that a client may send: enough to list and ask about every export of a server many times.
const MAXIMUM_OPTIONS: usize = 1024;
/// The longest data of an option that are read, in bytes; the longest that we understand are a name and a few numbers.
const MAXIMUM_DATA: u32 = 64 << 10;

/// The id of the one metadata context, where a client has chosen it.
pub(super) const ALLOCATION_ID: u32 = 1;

/// What was agreed on.
pub(super) struct Agreed {
    /// The client's place in the export of its choice.
    pub session: Session,
    /// How the two will talk.
    pub terms: Terms,
}

/// How client and server talk after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    /// The headers of requests and replies.
    pub headers: Headers,
    /// The client has chosen the metadata context `base:allocation`.
    pub allocation: bool,
    /// The client was told the block sizes at its request, and has to keep to the minimum.
    pub block_sizes: bool,
}

/// What a client finds.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    pub exports: &'a Arc<Exports>,
    /// Where TLS is configured.
    pub tls: Option<&'a Tls>,
    /// Nothing but TLS is spoken: the document's FORCEDTLS. Else each export has its own rule: SELECTIVETLS.
    pub must_encrypt: bool,
    /// When it has to have chosen.
    pub until: Until<'a>,
}

/// Haggles until the client enters an export; nothing where it does not, whatever the reason.
pub(super) fn handshake(stream: &mut Stream, caller: Caller, visit: Visit<'_>) -> io::Result<Option<Agreed>> {
    let mut handshake = Handshake {
        stream,
        caller,
        visit,
        is_fixed: false,
        no_zeroes: false,
        headers: Headers::Simple,
        allocation_of: None,
    };
    if !handshake.greet()? {
        return Ok(None);
    }
    for _ in 0..MAXIMUM_OPTIONS {
        match handshake.one_option()? {
            Next::Option => {}
            Next::Enter(agreed) => return Ok(Some(agreed)),
            Next::End => return Ok(None),
        }
    }
    tracing::debug!("NBD client {} sent {MAXIMUM_OPTIONS} options and chose no export", handshake.caller);
    Ok(None)
}

enum Next {
    Option,
    Enter(Agreed),
    End,
}

struct Handshake<'a> {
    stream: &'a mut Stream,
    caller: Caller,
    visit: Visit<'a>,
    /// It speaks fixed newstyle.
    is_fixed: bool,
    no_zeroes: bool,
    headers: Headers,
    /// The export for which the client has chosen `base:allocation`.
    allocation_of: Option<String>,
}

impl Handshake<'_> {
    /// Exchanges magics and flags; false where the client is none of ours.
    fn greet(&mut self) -> io::Result<bool> {
        self.stream.put(&protocol::greeting());
        let Some(flags) = self.bytes(4)? else { return Ok(false) };
        let known = [handshake_flag::FIXED_NEWSTYLE, handshake_flag::NO_ZEROES].map(u32::from);
        let flags = flags.iter().fold(0, |flags, byte| flags << 8 | u32::from(*byte));
        (self.is_fixed, self.no_zeroes) = (flags & known[0] != 0, flags & known[1] != 0);
        Ok(flags & !(known[0] | known[1]) == 0)
    }

    fn one_option(&mut self) -> io::Result<Next> {
        let Some(head) = self.bytes(OptionHead::SIZE)? else { return Ok(Next::End) };
        let Some(OptionHead { option, length }) = OptionHead::parse(&head) else { return Ok(Next::End) };
        if length > MAXIMUM_DATA {
            if option != opt::EXPORT_NAME {
                self.refuse(option, rep::ERR_TOO_BIG, "the option is too long");
            }
            return Ok(Next::End);
        }
        let Some(data) = self.bytes(length as usize)? else { return Ok(Next::End) };
        match option {
            opt::EXPORT_NAME if self.must_encrypt() => return Ok(Next::End),
            opt::STARTTLS => return self.start_tls(&data),
            _ if self.must_encrypt() && option != opt::ABORT => {
                let kind = if self.tls().is_some() { rep::ERR_TLS_REQD } else { rep::ERR_POLICY };
                self.refuse(option, kind, "this server speaks TLS only: begin with it");
            }
            opt::EXPORT_NAME => return Ok(self.export_name(&data)),
            opt::GO => return Ok(self.go(&data)),
            opt::ABORT => {
                self.reply(option, rep::ACK, &[]);
                return Ok(Next::End);
            }
            opt::INFO => self.info(&data),
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => self.meta_context(option, &data),
            opt::LIST | opt::STRUCTURED_REPLY | opt::EXTENDED_HEADERS if !data.is_empty() => {
                self.refuse(option, rep::ERR_INVALID, "the option takes no data");
            }
            opt::LIST => self.list(),
            opt::STRUCTURED_REPLY if self.headers == Headers::Extended => {
                self.refuse(option, rep::ERR_EXT_HEADER_REQD, "extended headers are agreed on already");
            }
            opt::STRUCTURED_REPLY => self.agree_on(option, Headers::Structured),
            opt::EXTENDED_HEADERS => self.agree_on(option, Headers::Extended),
            _ => self.refuse(option, rep::ERR_UNSUP, "the option is not known"),
        }
        Ok(Next::Option)
    }

    /// Whether nothing is to be said before the connection is encrypted.
    fn must_encrypt(&self) -> bool {
        self.visit.must_encrypt && self.caller.certificate.is_none()
    }

    /// TLS, where this client can have it: for one that does not speak fixed newstyle there is none.
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.visit.tls.filter(|_| self.is_fixed).and_then(Tls::config)
    }

    /// Encrypts the connection, and forgets all that was agreed on before: somebody else may have said it.
    fn start_tls(&mut self, data: &[u8]) -> io::Result<Next> {
        let Some(tls) = self.tls() else {
            self.refuse(
                opt::STARTTLS,
                rep::ERR_POLICY,
                "there are no certificates for TLS here, or not for such clients",
            );
            return Ok(Next::Option);
        };
        if !data.is_empty() || self.caller.certificate.is_some() {
            let text = if data.is_empty() { "TLS is spoken already" } else { "the option takes no data" };
            self.refuse(opt::STARTTLS, rep::ERR_INVALID, text);
            return Ok(Next::Option);
        }
        if !self.stream.arrived().is_empty() {
            // What was not encrypted must not be taken for what is.
            tracing::warn!(
                client = %self.caller.peer,
                "NBD client {} cut off: it sent bytes after STARTTLS without waiting",
                self.caller
            );
            return Ok(Next::End);
        }
        self.reply(opt::STARTTLS, rep::ACK, &[]);
        match self.stream.encrypt(tls, self.visit.until) {
            Ok(Filled::Ready) => {}
            Ok(_) => return Ok(Next::End),
            Err(error) => {
                tracing::warn!(
                    client = %self.caller.peer,
                    "NBD client {} refused: the TLS handshake failed: {error}",
                    self.caller
                );
                return Err(error);
            }
        }
        let certificate = self.stream.certificate().and_then(|der| Certificate::parse(der));
        let Some(certificate) = certificate else {
            tracing::warn!(
                client = %self.caller.peer,
                "NBD client {} refused: its certificate cannot be read",
                self.caller
            );
            return Ok(Next::End);
        };
        self.caller.certificate = Some(Arc::new(certificate));
        (self.headers, self.allocation_of) = (Headers::Simple, None);
        Ok(Next::Option)
    }

    fn agree_on(&mut self, option: u32, headers: Headers) {
        self.headers = headers;
        self.reply(option, rep::ACK, &[]);
    }

    /// The one option that cannot be answered with an error. It is not for clients with extended headers.
    fn export_name(&mut self, data: &[u8]) -> Next {
        let name = std::str::from_utf8(data).ok().filter(|_| self.headers != Headers::Extended);
        let Some((name, Ok(session))) = name.map(|name| (name, self.enter(name))) else { return Next::End };
        let Offer { size, flags, .. } = session.offer(self.headers);
        self.stream.put(&protocol::export_name_reply(size, flags, !self.no_zeroes));
        Next::Enter(self.agreed(session, name, false))
    }

    fn go(&mut self, data: &[u8]) -> Next {
        let Some(request) = self.info_request(opt::GO, data) else { return Next::Option };
        match self.enter(request.name) {
            Ok(session) => {
                let offer = session.offer(self.headers);
                self.describe(opt::GO, &request, offer);
                Next::Enter(self.agreed(session, request.name, request.asks_for(info::BLOCK_SIZE)))
            }
            Err(refusal) => {
                self.turn_away(opt::GO, refusal);
                Next::Option
            }
        }
    }

    fn agreed(&self, session: Session, name: &str, block_sizes: bool) -> Agreed {
        let allocation = self.allocation_of.as_deref() == Some(name);
        Agreed { session, terms: Terms { headers: self.headers, allocation, block_sizes } }
    }

    fn info(&mut self, data: &[u8]) {
        let Some(request) = self.info_request(opt::INFO, data) else { return };
        match self.visit.exports.offer(request.name, self.headers, &self.caller) {
            Ok(offer) => self.describe(opt::INFO, &request, offer),
            Err(refusal) => self.turn_away(opt::INFO, refusal),
        }
    }

    /// Lists the metadata contexts of an export, or makes the client's choice of them, which replaces an earlier one
    /// even where it fails.
    fn meta_context(&mut self, option: u32, data: &[u8]) {
        let is_choice = option == opt::SET_META_CONTEXT;
        if is_choice {
            self.allocation_of = None;
        }
        if self.headers == Headers::Simple {
            return self.refuse(option, rep::ERR_INVALID, "metadata contexts need structured replies");
        }
        let Some(request) = MetaRequest::parse(data).filter(|request| request.name.len() <= MAXIMUM_STRING) else {
            return self.refuse(option, rep::ERR_INVALID, "the option's data are not a name and a list of queries");
        };
        if let Err(refusal) = self.visit.exports.offer(request.name, self.headers, &self.caller) {
            return self.turn_away(option, refusal);
        }
        let named = request.queries.contains(&ALLOCATION);
        let listed = request.queries.is_empty() || request.queries.contains(&ALL_OF_BASE);
        if named || !is_choice && listed {
            // The id of a list means nothing, and is zero.
            let id = if is_choice { ALLOCATION_ID } else { 0 };
            self.reply(option, rep::META_CONTEXT, &protocol::meta_context(id, ALLOCATION));
        }
        if is_choice && named {
            self.allocation_of = Some(request.name.to_owned());
        }
        self.reply(option, rep::ACK, &[]);
    }

    fn list(&mut self) {
        for name in self.visit.exports.open_names(&self.caller) {
            self.reply(opt::LIST, rep::SERVER, &protocol::server_entry(&name));
        }
        self.reply(opt::LIST, rep::ACK, &[]);
    }

    fn info_request<'d>(&mut self, option: u32, data: &'d [u8]) -> Option<InfoRequest<'d>> {
        let request = InfoRequest::parse(data).filter(|request| request.name.len() <= MAXIMUM_STRING);
        if request.is_none() {
            self.refuse(option, rep::ERR_INVALID, "the option's data are not a name and a list of numbers");
        }
        request
    }

    /// Says all that was asked for, and more of it than INFO_EXPORT only where it was.
    fn describe(&mut self, option: u32, request: &InfoRequest<'_>, offer: Offer) {
        self.reply(option, rep::INFO, &protocol::info_export(offer.size, offer.flags));
        if request.asks_for(info::NAME) {
            self.reply(option, rep::INFO, &protocol::info_name(request.name));
        }
        if request.asks_for(info::BLOCK_SIZE) {
            self.reply(option, rep::INFO, &protocol::info_block_size(offer.block_sizes));
        }
        self.reply(option, rep::ACK, &[]);
    }

    fn enter(&self, name: &str) -> Result<Session, Refusal> {
        self.visit.exports.enter(name, &self.caller, Arc::clone(self.stream.socket()))
    }

    fn turn_away(&mut self, option: u32, refusal: Refusal) {
        // The document has the one error for no other options, and only where there is TLS to be had.
        let can_be_told = matches!(option, opt::INFO | opt::GO) && self.tls().is_some();
        let needs_tls = if can_be_told { rep::ERR_TLS_REQD } else { rep::ERR_POLICY };
        let taken;
        let (kind, text) = match refusal {
            Refusal::Unknown => (rep::ERR_UNKNOWN, "no export has this name"),
            Refusal::Leaving => (rep::ERR_SHUTDOWN, "the export takes no new clients"),
            Refusal::Full => (rep::ERR_POLICY, "the export has as many clients as it may have"),
            Refusal::Crowded(_) => (rep::ERR_POLICY, "you have as many connections as one client may have"),
            Refusal::NeedsTls => (needs_tls, "the export is for clients that use TLS"),
            Refusal::NotAllowed => (rep::ERR_POLICY, "the export is not for you"),
            Refusal::Gone => (rep::ERR_SHUTDOWN, "the export's device is gone"),
            Refusal::Taken(first) => {
                taken = format!("the export is written by the client {first}, and takes one at a time");
                (rep::ERR_POLICY, taken.as_str())
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
        if self.stream.fill(count, self.visit.until)? != Filled::Ready || self.overdue() {
            return Ok(None);
        }
        let bytes = self.stream.arrived()[..count].to_vec();
        self.stream.consume(count);
        Ok(Some(bytes))
    }

    /// A client whose bytes never run dry is never waited for, so the time is looked at as well.
    fn overdue(&self) -> bool {
        self.visit.until.is_over()
    }
}
