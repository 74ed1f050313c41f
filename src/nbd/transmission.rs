//! The transmission phase of one connection: requests in, the device, replies out.

mod read;

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::prctl::set_timerslack;

use super::bell::Bell;
use super::check::check;
use super::deferred::{Deferred, Done};
use super::exports::Session;
use super::handshake::Terms;
use super::in_flight::Flight;
use super::patience::{GLANCE, Pace};
use super::protocol::{Errno, Fault, Headers, MAXIMUM_PAYLOAD, Request, command, command_flag};
use super::stream::{Filled, HEAD, HELD, LOOK_UP, PIECE, Stream, Turn, Until};
use super::work::{Outcome, Work, perform, takes_long};

/// A client that has sent so many requests one by one, each after the answer to the one before, goes on like that: nothing
/// waits behind the next one, and to have another thread do it would take longer.
const ONE_BY_ONE: u32 = 16;

const CLOSING: Fault = Fault { errno: Errno::Shutdown, text: "the export is being closed" };
const GONE: Fault = Fault { errno: Errno::Io, text: "the device is gone" };

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
    stream.be_patient(session.patience())?;
    // Else the kernel adds 50 us to this thread's rests; where it does, they may not pay.
    let _ = set_timerslack(1);
    let bell = Arc::new(Bell::new()?);
    stream.hear(Some(Arc::clone(&bell)));
    let (flight, deferred) = (session.flight(), Deferred::new(bell, session.served(), stream.halt()));
    let mut transmission = Transmission {
        stream,
        session,
        terms,
        flight,
        deferred,
        found: 0,
        alone: 0,
        unserved: Vec::new(),
        data: (0..0, 0),
    };
    let end = transmission.requests();
    // However it ends, the device is not used any more once the client's seat is left.
    let finished = transmission.finish();
    transmission.stream.hear(None);
    finished?;
    if end? == End::Over {
        return Ok(End::Over);
    }
    transmission.stream.put_back(&transmission.unserved);
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
    deferred: Deferred,
    /// How many requests have come since it was looked for more.
    found: u32,
    /// How many requests have come alone, one after the other.
    alone: u32,
    /// Requests that the next process is to serve.
    unserved: Vec<u8>,
    /// The data that a READ found last, and how many punches there had been: to look for their end takes as long as the
    /// file is long.
    data: (Range<u64>, u64),
}

impl Transmission<'_> {
    /// Whether another process is to go on; never with a client that has to go.
    fn is_halted(&self) -> bool {
        self.stream.is_halted() && !self.session.served().stop.is_raised() && !self.session.is_kicked()
    }

    fn requests(&mut self) -> io::Result<End> {
        while !self.is_halted() {
            self.answer_done()?;
            if self.deferred.is_enough() {
                self.land()?;
                self.deferred.wait()?.into_iter().try_for_each(|done| self.settle(done).map(drop))?;
            }
            if self.deferred.pending() == 0 {
                self.session.note_answer();
            }
            if self.one_request()?.is_break() {
                return Ok(End::Over);
            }
        }
        Ok(End::Halted)
    }

    fn one_request(&mut self) -> Flow {
        let headers = self.terms.headers;
        let (size, served) = (headers.request_size(), self.session.served());
        if self.stream.arrived().len() < size {
            self.land()?;
            let has_rested = self.let_gather();
            self.stream.expect(if has_rested { Turn::Unknown } else { self.turn() });
        }
        match self.stream.fill(size, Until { latch: Some(&served.stop), deadline: None, ring: self.deferred.ring() })? {
            Filled::Ready => {}
            Filled::Rung => return GO_ON,
            Filled::Woken if self.is_halted() => return GO_ON,
            _ => return END,
        }
        let Some(mut request) = Request::parse(&self.stream.arrived()[..size], headers) else {
            tracing::debug!("an NBD client sent what is no request");
            return END;
        };
        let mut allowed = self.allowed(&request);
        if !self.takes_off(if allowed.is_ok() { held_by(&request) } else { 0 })? {
            if self.is_halted() {
                return GO_ON;
            }
            allowed = self.allowed(&request);
        }
        if self.session.is_kicked() {
            return END;
        }
        self.stream.consume(size);
        request.asked_from = self.stream.take_begun(request.cookie).unwrap_or(request.offset);
        self.session.note_request();
        self.found += 1;
        let is_alone = self.deferred.pending() == 0 && self.stream.arrived().len() as u64 <= request.payload(headers);
        self.alone = if is_alone { self.alone.saturating_add(1) } else { 0 };
        let payload = request.payload(headers);
        if payload > longest_dropped(headers) {
            return self.answer(&request, allowed).map(|_| ControlFlow::Break(()));
        }
        let is_held = request.command == command::WRITE && payload <= HELD as u64;
        if payload > 0 && allowed.is_ok() && is_held && served.backend.is_direct() {
            return self.defer_write(&request);
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
            _ => match allowed {
                Ok(()) if takes_long(&request) => self.defer(request, Work::Rest),
                Ok(()) => {
                    let outcome = perform(served, self.stream.halt(), &request, Work::Rest);
                    self.settle(Done { request, outcome })
                }
                Err(fault) => self.answer(&request, Err(fault)),
            },
        }
    }

    /// Rests a moment where more requests are to be had for it, and says so; not while others wait for the device or for an
    /// answer.
    fn let_gather(&mut self) -> bool {
        let rest = self.session.served().gather.look(std::mem::take(&mut self.found));
        if let Some(rest) = rest.filter(|_| self.alone < ONE_BY_ONE && self.deferred.pending() == 0) {
            std::thread::sleep(rest);
            return true;
        }
        false
    }

    /// Who is to send next: where something is with other threads, it may be us.
    fn turn(&self) -> Turn {
        match self.alone {
            _ if self.deferred.pending() > 0 => Turn::Unknown,
            0 => Turn::Unknown,
            1..ONE_BY_ONE => Turn::ClientsOnce,
            ONE_BY_ONE.. => Turn::Clients,
        }
    }

    /// Waits until so many bytes of a payload have arrived, and answers meanwhile what is done.
    fn fill(&mut self, wanted: usize) -> io::Result<Filled> {
        self.deferred.begin()?;
        if self.stream.arrived().len() >= wanted {
            return Ok(Filled::Ready);
        }
        let mut pace = Pace::new(self.stream.arrived().len());
        loop {
            self.stream.expect(self.turn());
            let deadline = Some(Instant::now() + GLANCE);
            match self.stream.fill(wanted, Until { deadline, ring: self.deferred.ring(), ..Until::default() })? {
                Filled::Rung => self.answer_done()?,
                Filled::TimedOut => self.stream.bear(&mut pace, self.stream.arrived().len())?,
                filled => return Ok(filled),
            }
        }
    }

    /// Leaves the work of a request to another thread, unless nothing else is to be done meanwhile.
    fn defer(&mut self, request: Request, work: Work) -> Flow {
        if self.alone >= ONE_BY_ONE {
            let outcome = perform(self.session.served(), self.stream.halt(), &request, work);
            return self.settle(Done { request, outcome });
        }
        self.deferred.submit(request, work);
        GO_ON
    }

    /// Answers what other threads have done.
    fn answer_done(&mut self) -> io::Result<()> {
        self.deferred.take()?.into_iter().try_for_each(|done| self.settle(done).map(drop))
    }

    /// Waits until nothing is deferred any more, and answers it, also where the client does not hear that any more.
    fn finish(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        while self.deferred.pending() > 0 {
            for done in self.deferred.wait()? {
                if outcome.is_ok() {
                    outcome = self.settle(done).map(drop);
                }
            }
        }
        outcome
    }

    /// Answers a request whose work is done. What was cut short, or what a client that is handed over does not take, is
    /// left to the next process.
    fn settle(&mut self, Done { request, outcome }: Done) -> Flow {
        let is_halted = self.is_halted();
        match outcome {
            Outcome::Read(Ok((mut bytes, parts))) => {
                if !self.stream.try_reserve(request.length as usize + (parts.len() + 1) * HEAD)? {
                    return self.leave(&request);
                }
                let (start, bytes) = (request.offset, bytes.bytes());
                let copy = |buffer: &mut [u8], offset: u64| -> io::Result<()> {
                    let at = (offset - start) as usize;
                    buffer.copy_from_slice(&bytes[at..at + buffer.len()]);
                    Ok(())
                };
                self.put_parts(&request, start + request.length, &parts, copy)?;
                self.count_read(&request);
                GO_ON
            }
            Outcome::Read(Err(fault)) => self.answer(&request, Err(fault)),
            Outcome::Done(Ok(done)) if done < request.length && is_halted => self.leave(&rest(&request, done)),
            Outcome::Done(Ok(done)) if done < request.length => self.answer(&request, Err(CLOSING)),
            Outcome::Done(outcome) => self.answer(&request, outcome.map(drop)),
        }
    }

    /// Waits until a request that holds so many bytes may be in flight; false where something else comes first.
    fn takes_off(&mut self, bytes: u64) -> io::Result<bool> {
        if self.flight.take(bytes) {
            return Ok(true);
        }
        self.finish()?;
        self.land()?;
        let since = Instant::now();
        while !self.flight.wait_for(bytes, since, LOOK_UP) {
            if self.is_halted() || self.session.is_kicked() || self.session.served().stop.is_raised() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends all answers: what is deferred alone is in flight then.
    fn land(&mut self) -> io::Result<()> {
        self.deferred.begin()?;
        self.stream.send()?;
        self.flight.land_but(self.deferred.held());
        Ok(())
    }

    /// Leaves a request without payload to the next process.
    fn leave(&mut self, request: &Request) -> Flow {
        let encoded = self.encoded(request);
        self.unserved.extend(encoded);
        GO_ON
    }

    /// Leaves the rest of a WRITE, whose payload has arrived and is written in part, to the next process: as a request of
    /// its own, with the same cookie, that the client might have sent.
    fn cut(&mut self, request: &Request, done: u64) -> Flow {
        self.session.served().traffic.count_written(done);
        let encoded = self.encoded(&request.rest(done));
        self.stream.put_back(&encoded);
        GO_ON
    }

    /// A request for the next process; where it is a rest, that is noted.
    fn encoded(&mut self, request: &Request) -> Vec<u8> {
        if request.asked_from != request.offset {
            self.stream.note_begun(request.cookie, request.asked_from);
        }
        request.encode(self.terms.headers)
    }

    fn allowed(&self, request: &Request) -> Result<(), Fault> {
        let served = self.session.served();
        match () {
            () if served.stop.is_raised() => Err(CLOSING),
            () if served.is_gone() => Err(GONE),
            () => check(request, self.terms, served.read_only, &self.session.offer(self.terms.headers)),
        }
    }

    /// Takes the payload piece by piece as it arrives and writes it; what is not allowed, or comes after a failure, is
    /// dropped.
    fn take_payload(&mut self, request: &Request, payload: u64, mut outcome: Result<(), Fault>) -> io::Result<Taken> {
        let served = self.session.served();
        for (offset, length) in pieces(request.offset, payload, PIECE) {
            if self.fill(length)? != Filled::Ready {
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

    /// Takes the payload of a WRITE, and leaves it to another thread to write it.
    fn defer_write(&mut self, request: &Request) -> Flow {
        let mut bytes = self.session.served().spare.take(request.length as usize);
        let mut taken = 0;
        for (_, length) in pieces(request.offset, request.length, PIECE) {
            if self.fill(length)? != Filled::Ready {
                let written = self.session.served().backend.write(&bytes.bytes()[..taken], request.offset);
                return if written.is_ok() && self.is_halted() { self.cut(request, taken as u64) } else { END };
            }
            bytes.bytes()[taken..taken + length].copy_from_slice(&self.stream.arrived()[..length]);
            self.stream.consume(length);
            taken += length;
        }
        self.defer(*request, Work::Write(bytes))
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

/// The bytes that a request holds while it is in flight.
pub(super) fn held_by(request: &Request) -> u64 {
    match request.command {
        command::READ | command::WRITE => request.length.min(HELD as u64),
        _ => 0,
    }
}

/// What is left of a request without payload, as one that the client might have sent.
fn rest(request: &Request, done: u64) -> Request {
    let mut rest = request.rest(done);
    if done > 0 {
        // It was fast so far.
        rest.flags &= !command_flag::FAST_ZERO;
    }
    rest
}

/// The payload of a refused request is read and dropped up to so many bytes; a longer one ends the connection, with
/// extended headers sooner, as the document has it.
fn longest_dropped(headers: Headers) -> u64 {
    let longest = u64::from(MAXIMUM_PAYLOAD);
    if headers == Headers::Extended { longest } else { 2 * longest }
}

/// Cuts a range into pieces of at most so many bytes. The cuts are aligned, so that no page or block of the device is written
/// in halves.
fn pieces(mut offset: u64, mut left: u64, longest: usize) -> impl Iterator<Item = (u64, usize)> {
    let longest = longest as u64;
    std::iter::from_fn(move || {
        let length = if left <= longest { left } else { longest - offset % longest };
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
        let cut = |offset, length| pieces(offset, length, PIECE).collect::<Vec<_>>();
        let piece = PIECE as u64;
        assert_eq!(cut(7, 0), []);
        assert_eq!(cut(piece - 1, 2), [(piece - 1, 2)]);
        assert_eq!(cut(piece - 1, 2 * piece), [(piece - 1, 1), (piece, PIECE), (2 * piece, PIECE - 1)]);
        assert_eq!(cut(u64::MAX, piece + 1).len(), 2);
    }
}
