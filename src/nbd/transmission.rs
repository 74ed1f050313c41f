//! The transmission phase of one connection: requests in, the device, replies out.

use std::io;
use std::ops::ControlFlow;

use super::check::{UNKNOWN_COMMAND, check};
use super::exports::Session;
use super::handshake::{ALLOCATION_ID, Terms};
use super::protocol::{Errno, Extent, Fault, Headers, MAXIMUM_PAYLOAD, Request, command, command_flag};
use super::stream::{Filled, HEAD, OUTPUT_LIMIT, PIECE, Stream, Until};

/// READs of fewer bytes are not looked through for holes: that would cost more than it saves.
const SPARSE_FROM: u64 = 64 << 10;
/// The reply to a READ tells so many parts of it apart.
const MAXIMUM_PARTS: usize = 64;
/// The reply to a BLOCK_STATUS has so many extents at most; a client asks for the rest.
const MAXIMUM_EXTENTS: usize = 4096;
/// What is read of a READ at once is so much at most, so that it can be taken back together with what goes before it.
const HELD: u64 = (OUTPUT_LIMIT - HEAD) as u64;

const CLOSING: Fault = Fault { errno: Errno::Shutdown, text: "the export is being closed" };
const GONE: Fault = Fault { errno: Errno::Io, text: "the device is gone" };
const NOT_FAST: Fault = Fault { errno: Errno::NotSup, text: "the device zeroes no faster than it writes" };

/// Whether the connection goes on.
type Flow = io::Result<ControlFlow<()>>;
const GO_ON: Flow = Ok(ControlFlow::Continue(()));
const END: Flow = Ok(ControlFlow::Break(()));

/// Serves requests until the client leaves, breaks the protocol, or the export closes.
pub(super) fn serve(stream: &mut Stream, session: &Session, terms: Terms) -> io::Result<()> {
    let mut transmission = Transmission { stream, session, terms };
    while transmission.one_request()?.is_continue() {}
    Ok(())
}

struct Transmission<'a> {
    stream: &'a mut Stream,
    session: &'a Session,
    terms: Terms,
}

impl Transmission<'_> {
    fn one_request(&mut self) -> Flow {
        let headers = self.terms.headers;
        let (size, stop) = (headers.request_size(), &self.session.served().stop);
        if self.stream.fill(size, Until { latch: Some(stop), deadline: None })? != Filled::Ready {
            return END;
        }
        let Some(request) = Request::parse(&self.stream.arrived()[..size], headers) else {
            tracing::debug!("an NBD client sent what is no request");
            return END;
        };
        if self.session.is_kicked() {
            return END;
        }
        self.stream.consume(size);
        self.session.note_request();
        let mut allowed = self.allowed(&request);
        let payload = request.payload(headers);
        if payload > longest_dropped(headers) {
            return self.answer(&request, allowed).map(|_| ControlFlow::Break(()));
        }
        if payload > 0 {
            let Some(taken) = self.take_payload(&request, payload, allowed)? else { return END };
            allowed = taken;
        }
        match request.command {
            command::DISC => END,
            command::READ if allowed.is_ok() && request.length > 0 => self.read(&request),
            command::BLOCK_STATUS if allowed.is_ok() => self.block_status(&request),
            _ => {
                let outcome = allowed.and_then(|()| self.execute(&request));
                self.answer(&request, outcome)
            }
        }
    }

    fn allowed(&self, request: &Request) -> Result<(), Fault> {
        let served = self.session.served();
        match () {
            () if served.stop.is_raised() => Err(CLOSING),
            () if served.is_gone() => Err(GONE),
            () => check(request, self.terms, served.read_only, &self.session.offer(self.terms.headers)),
        }
    }

    fn read(&mut self, request: &Request) -> Flow {
        match self.terms.headers {
            Headers::Simple => self.read_whole(request),
            Headers::Structured | Headers::Extended => self.read_parts(request),
        }
    }

    /// Answers by a simple reply, which says that it is a success before its data.
    fn read_whole(&mut self, request: &Request) -> Flow {
        let served = self.session.served();
        let held = request.length <= HELD;
        self.stream.reserve(if held { request.length as usize } else { PIECE } + HEAD)?;
        let start = self.stream.waiting();
        for (offset, length) in pieces(request.offset, request.length) {
            let first = offset == request.offset;
            if !held {
                self.stream.reserve(length)?;
            }
            if first {
                self.stream.put(&Headers::Simple.data(request, offset, length as u32, true));
            }
            if let Err(error) = self.stream.put_with(length, |buffer| served.backend.read(buffer, offset)) {
                let fault = served.fault(&error);
                if !held && !first {
                    // What has been sent in part, as a success, can only be broken off.
                    return END;
                }
                self.stream.take_back(start);
                return self.answer(request, Err(fault));
            }
        }
        self.count_read(request);
        GO_ON
    }

    /// Answers by a chunk for each part of the range that is alike.
    fn read_parts(&mut self, request: &Request) -> Flow {
        let end = request.offset + request.length;
        let mut offset = request.offset;
        for known in 0.. {
            let part = self.part(request, offset, end, known);
            let length = part.length as u32;
            let last = offset + part.length == end;
            if part.hole {
                self.stream.reserve(HEAD)?;
                self.stream.put(&self.terms.headers.hole(request, offset, length, last));
            } else if let Err(fault) = self.read_part(request, offset, part.length, last)? {
                return self.answer(request, Err(fault));
            }
            if last {
                break;
            }
            offset += part.length;
        }
        self.count_read(request);
        GO_ON
    }

    fn count_read(&self, request: &Request) {
        let traffic = &self.session.served().traffic;
        traffic.count_request(false);
        traffic.count_read(request.length);
    }

    /// The part of a READ that begins at `offset`, of which so many are known; the last one known has all the rest.
    fn part(&self, request: &Request, offset: u64, end: u64, known: usize) -> Extent {
        let rest = Extent { length: end - offset, hole: false };
        if request.length < SPARSE_FROM || known == MAXIMUM_PARTS {
            return rest;
        }
        let part = self.session.served().backend.extent(offset, end);
        if request.has(command_flag::DF) && part.length < rest.length { rest } else { part }
    }

    /// Puts a chunk of data. One that is held back until it is whole can end the reply; of a longer one the rest is
    /// padded where it fails.
    fn read_part(&mut self, request: &Request, offset: u64, length: u64, last: bool) -> io::Result<Result<(), Fault>> {
        let (served, headers) = (self.session.served(), self.terms.headers);
        let held = length <= HELD;
        self.stream.reserve(if held { length as usize } else { PIECE } + HEAD)?;
        let start = self.stream.waiting();
        self.stream.put(&headers.data(request, offset, length as u32, held && last));
        let mut outcome = Ok(());
        for (offset, length) in pieces(offset, length) {
            if !held {
                self.stream.reserve(length)?;
            }
            if outcome.is_ok() {
                let read = self.stream.put_with(length, |buffer| served.backend.read(buffer, offset));
                outcome = read.map_err(|error| served.fault(&error));
            }
            match outcome {
                Ok(()) => {}
                Err(_) if held => {
                    self.stream.take_back(start);
                    return Ok(outcome);
                }
                Err(_) => self.stream.put_zeroes(length),
            }
        }
        if !held && last && outcome.is_ok() {
            self.stream.reserve(HEAD)?;
            self.stream.put(&headers.success(request));
        }
        Ok(outcome)
    }

    fn block_status(&mut self, request: &Request) -> Flow {
        let backend = &self.session.served().backend;
        let end = request.offset + request.length;
        let most = if request.has(command_flag::REQ_ONE) { 1 } else { MAXIMUM_EXTENTS };
        let mut extents = Vec::new();
        let mut offset = request.offset;
        while offset < end && extents.len() < most {
            let extent = backend.extent(offset, end);
            offset += extent.length;
            extents.push(extent);
        }
        let reply = self.terms.headers.block_status(request, ALLOCATION_ID, &extents);
        self.stream.reserve(reply.len())?;
        self.stream.put(&reply);
        self.session.served().traffic.count_request(false);
        GO_ON
    }

    /// Takes the payload piece by piece as it arrives and writes it; what is not allowed, or comes after a failure, is
    /// dropped. Nothing where the client ends before its payload does.
    fn take_payload(
        &mut self,
        request: &Request,
        payload: u64,
        mut outcome: Result<(), Fault>,
    ) -> io::Result<Option<Result<(), Fault>>> {
        let served = self.session.served();
        for (offset, length) in pieces(request.offset, payload) {
            if self.stream.fill(length, Until::default())? != Filled::Ready {
                return Ok(None);
            }
            if outcome.is_ok() {
                let written = served.backend.write(&self.stream.arrived()[..length], offset);
                outcome = written.map_err(|error| served.fault(&error));
            }
            self.stream.consume(length);
        }
        Ok(Some(outcome))
    }

    /// Does what is asked for and has no data to send; the payload of a WRITE is written by now.
    fn execute(&self, request: &Request) -> Result<(), Fault> {
        let served = self.session.served();
        let (backend, offset, length) = (&served.backend, request.offset, request.length);
        let stop = || served.stop.is_raised();
        let fault = |error: io::Error| served.fault(&error);
        match request.command {
            command::FLUSH => return served.flush().map_err(fault),
            _ if length == 0 => return Ok(()),
            command::CACHE => return backend.cache(offset, length).map_err(fault),
            command::TRIM => backend.trim(offset, length, stop).map_err(fault)?,
            command::WRITE => served.traffic.count_written(length),
            command::WRITE_ZEROES => {
                let may_punch = !request.has(command_flag::NO_HOLE);
                if !request.has(command_flag::FAST_ZERO) {
                    backend.write_zeroes(offset, length, may_punch, stop).map_err(fault)?;
                } else if !backend.zero_fast(offset, length, may_punch, stop).map_err(fault)? {
                    return Err(NOT_FAST);
                }
                served.traffic.count_written(length);
            }
            _ => return Err(UNKNOWN_COMMAND),
        }
        if request.has(command_flag::FUA) { served.flush().map_err(fault) } else { Ok(()) }
    }

    /// Answers without data.
    fn answer(&mut self, request: &Request, outcome: Result<(), Fault>) -> Flow {
        self.stream.reserve(0)?;
        self.session.served().traffic.count_request(outcome.is_err());
        match outcome {
            Ok(()) => self.stream.put(&self.terms.headers.success(request)),
            Err(fault) => self.stream.put(&self.terms.headers.failure(request, fault)),
        }
        GO_ON
    }
}

/// The payload of a refused request is read and dropped up to so many bytes; a longer one ends the connection, with
/// extended headers sooner, as the document has it.
fn longest_dropped(headers: Headers) -> u64 {
    let longest = u64::from(MAXIMUM_PAYLOAD);
    if headers == Headers::Extended { longest } else { 2 * longest }
}

/// Cuts a range into pieces that fit the buffers. The cuts are aligned, so that no page or block of the device is written
/// in halves.
fn pieces(mut offset: u64, mut left: u64) -> impl Iterator<Item = (u64, usize)> {
    const LONGEST: u64 = PIECE as u64;
    std::iter::from_fn(move || {
        let length = if left <= LONGEST { left } else { LONGEST - offset % LONGEST };
        let piece = (offset, length as usize);
        // The range of a refused WRITE may end beyond 2^64.
        offset = offset.wrapping_add(length);
        left -= length;
        (length > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_aligned_places() {
        let cut = |offset, length| pieces(offset, length).collect::<Vec<_>>();
        let piece = PIECE as u64;
        assert_eq!(cut(7, 0), []);
        assert_eq!(cut(piece - 1, 2), [(piece - 1, 2)]);
        assert_eq!(cut(piece - 1, 2 * piece), [(piece - 1, 1), (piece, PIECE), (2 * piece, PIECE - 1)]);
        assert_eq!(cut(u64::MAX, piece + 1).len(), 2);
    }
}
