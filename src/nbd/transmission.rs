//! The transmission phase of one connection: requests in, the device, replies out.

use std::io;
use std::ops::{ControlFlow, Range};

use super::check::{UNKNOWN_COMMAND, check};
use super::exports::Session;
use super::handshake::{ALLOCATION_ID, Terms};
use super::in_flight::Flight;
use super::protocol::{Errno, Extent, Fault, Headers, MAXIMUM_PAYLOAD, Request, command, command_flag};
use super::stream::{Filled, HEAD, LOOK_UP, OUTPUT_LIMIT, PIECE, Stream, Until};

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

/// How serving ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection has nothing more to say.
    Over,
    /// Between two requests, since another process is to go on.
    Halted,
}

/// Serves requests until the client leaves, breaks the protocol, the export closes, or the connection is to be handed
/// over.
pub(super) fn serve(stream: &mut Stream, session: &Session, terms: Terms) -> io::Result<End> {
    stream.be_patient()?;
    let flight = session.flight();
    let mut transmission = Transmission { stream, session, terms, flight, data: (0..0, 0) };
    while !transmission.is_halted() {
        let flow = transmission.one_request()?;
        session.note_answer();
        if flow.is_break() {
            return Ok(End::Over);
        }
    }
    transmission.stream.send()?;
    Ok(End::Halted)
}

/// What has arrived of a payload.
enum Taken {
    /// All of it, which was written, or not.
    Whole(Result<(), Fault>),
    /// So many bytes, which were written; the client sends no more, or not now.
    Part(u64),
    /// A part of one that is not written.
    PartOfRefused,
}

struct Transmission<'a> {
    stream: &'a mut Stream,
    session: &'a Session,
    terms: Terms,
    flight: Flight,
    /// The data that a READ found last, and how many punches there had been: to look for their end takes as long as the
    /// file is long.
    data: (Range<u64>, u64),
}

impl Transmission<'_> {
    /// Whether another process is to go on; never with a client that has to go.
    fn is_halted(&self) -> bool {
        self.stream.is_halted() && !self.session.served().stop.is_raised() && !self.session.is_kicked()
    }

    fn one_request(&mut self) -> Flow {
        let headers = self.terms.headers;
        let (size, stop) = (headers.request_size(), &self.session.served().stop);
        if self.stream.arrived().len() < size {
            self.land()?;
        }
        match self.stream.fill(size, Until { latch: Some(stop), deadline: None })? {
            Filled::Ready => {}
            Filled::Woken if self.is_halted() => return GO_ON,
            _ => return END,
        }
        let Some(request) = Request::parse(&self.stream.arrived()[..size], headers) else {
            tracing::debug!("an NBD client sent what is no request");
            return END;
        };
        if !self.takes_off(&request)? && self.is_halted() {
            return GO_ON;
        }
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
            match self.take_payload(&request, payload, allowed)? {
                Taken::Whole(outcome) => allowed = outcome,
                Taken::Part(taken) if self.is_halted() => return self.cut(&request, taken),
                Taken::Part(_) | Taken::PartOfRefused => return END,
            }
        }
        match request.command {
            command::DISC => END,
            command::READ if allowed.is_ok() && request.length > 0 => self.read(&request),
            command::BLOCK_STATUS if allowed.is_ok() => self.block_status(&request),
            _ => match allowed.and_then(|()| self.execute(&request)) {
                Ok(done) if done < request.length && self.is_halted() => self.cut(&request, done),
                Ok(done) if done < request.length => self.answer(&request, Err(CLOSING)),
                outcome => self.answer(&request, outcome.map(drop)),
            },
        }
    }

    /// Waits until the request may be in flight; false where something else comes first.
    fn takes_off(&mut self, request: &Request) -> io::Result<bool> {
        let bytes = match request.command {
            command::READ | command::WRITE => request.length.min(HELD),
            _ => 0,
        };
        if self.flight.take(bytes) {
            return Ok(true);
        }
        self.land()?;
        while !self.flight.wait_for(bytes, LOOK_UP) {
            if self.is_halted() || self.session.is_kicked() || self.session.served().stop.is_raised() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends all answers: nothing is in flight then.
    fn land(&mut self) -> io::Result<()> {
        self.stream.send()?;
        self.flight.land();
        Ok(())
    }

    /// Leaves the rest of a request to the next process: as a request of its own, with the same cookie, that the client
    /// might have sent.
    fn cut(&mut self, request: &Request, done: u64) -> Flow {
        let mut rest = request.rest(done);
        if request.command == command::WRITE {
            self.session.served().traffic.count_written(done);
        } else if done > 0 {
            // It was fast so far.
            rest.flags &= !command_flag::FAST_ZERO;
        }
        self.stream.put_back(&rest.encode(self.terms.headers));
        GO_ON
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
    fn part(&mut self, request: &Request, offset: u64, end: u64, known: usize) -> Extent {
        let rest = Extent { length: end - offset, hole: false };
        if request.length < SPARSE_FROM || known == MAXIMUM_PARTS {
            return rest;
        }
        let part = self.extent(offset, end);
        if request.has(command_flag::DF) && part.length < rest.length { rest } else { part }
    }

    fn extent(&mut self, offset: u64, end: u64) -> Extent {
        let backend = &self.session.served().backend;
        let punches = backend.punches();
        let (data, seen) = &self.data;
        if *seen == punches && data.contains(&offset) {
            return Extent { length: end.min(data.end) - offset, hole: false };
        }
        let found = backend.extent(offset, backend.size());
        if !found.hole {
            self.data = (offset..offset + found.length, punches);
        }
        Extent { length: found.length.min(end - offset), ..found }
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
    /// dropped.
    fn take_payload(&mut self, request: &Request, payload: u64, mut outcome: Result<(), Fault>) -> io::Result<Taken> {
        let served = self.session.served();
        for (offset, length) in pieces(request.offset, payload) {
            if self.stream.fill(length, Until::default())? != Filled::Ready {
                let taken = Taken::Part(offset.wrapping_sub(request.offset));
                return Ok(if outcome.is_ok() && request.command == command::WRITE {
                    taken
                } else {
                    Taken::PartOfRefused
                });
            }
            if outcome.is_ok() {
                let written = served.backend.write(&self.stream.arrived()[..length], offset);
                outcome = written.map_err(|error| served.fault(&error));
            }
            self.stream.consume(length);
        }
        Ok(Taken::Whole(outcome))
    }

    /// Does what is asked for and has no data to send; the payload of a WRITE is written by now. Gives how much of the
    /// range is dealt with: all of it, unless the export closes or the connection is to be handed over.
    fn execute(&self, request: &Request) -> Result<u64, Fault> {
        let served = self.session.served();
        let (backend, offset, length) = (&served.backend, request.offset, request.length);
        let stop = || served.stop.is_raised() || self.is_halted();
        let fault = |error: io::Error| served.fault(&error);
        let done = match request.command {
            command::FLUSH => return served.flush().map_err(fault).map(|()| length),
            _ if length == 0 => return Ok(length),
            command::CACHE => return backend.cache(offset, length).map_err(fault).map(|()| length),
            command::TRIM => backend.trim(offset, length, stop).map_err(fault)?,
            command::WRITE => {
                served.traffic.count_written(length);
                length
            }
            command::WRITE_ZEROES => {
                let may_punch = !request.has(command_flag::NO_HOLE);
                let zeroed = match request.has(command_flag::FAST_ZERO) {
                    true => backend.zero_fast(offset, length, may_punch, stop),
                    false => backend.write_zeroes(offset, length, may_punch, stop).map(Some),
                };
                let done = zeroed.map_err(fault)?.ok_or(NOT_FAST)?;
                served.traffic.count_written(done);
                done
            }
            _ => return Err(UNKNOWN_COMMAND),
        };
        if done == length && request.has(command_flag::FUA) {
            served.flush().map_err(fault)?;
        }
        Ok(done)
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
