//! The transmission phase of one connection: requests in, the device, replies out.

use std::io;
use std::ops::ControlFlow;

use super::exports::Session;
use super::protocol::{self, Errno, Fault, MAXIMUM_PAYLOAD, Request, command, command_flag};
use super::stream::{Filled, OUTPUT_LIMIT, PIECE, Stream, Until};

/// The payload of a refused WRITE is read and dropped up to so many bytes; a longer one ends the connection.
const MAXIMUM_DROPPED: u32 = 2 * MAXIMUM_PAYLOAD;

const CLOSING: Fault = Fault { errno: Errno::Shutdown, text: "the export is being closed" };
const GONE: Fault = Fault { errno: Errno::Io, text: "the device is gone" };

/// Whether the connection goes on.
type Flow = io::Result<ControlFlow<()>>;
const GO_ON: Flow = Ok(ControlFlow::Continue(()));
const END: Flow = Ok(ControlFlow::Break(()));

/// Serves requests until the client leaves, breaks the protocol, or the export closes.
pub(super) fn serve(stream: &mut Stream, session: &Session, structured: bool) -> io::Result<()> {
    let mut transmission = Transmission { stream, session, structured };
    while transmission.one_request()?.is_continue() {}
    Ok(())
}

struct Transmission<'a> {
    stream: &'a mut Stream,
    session: &'a Session,
    structured: bool,
}

impl Transmission<'_> {
    fn one_request(&mut self) -> Flow {
        let served = self.session.served();
        let stop = &served.stop;
        if self.stream.fill(Request::SIZE, Until { latch: Some(stop), deadline: None })? != Filled::Ready {
            return END;
        }
        let Some(request) = Request::parse(&self.stream.arrived()[..Request::SIZE]) else {
            tracing::debug!("an NBD client sent what is no request");
            return END;
        };
        self.stream.consume(Request::SIZE);
        self.session.note_request();
        let allowed = match () {
            () if stop.is_raised() => Err(CLOSING),
            () if served.is_gone() => Err(GONE),
            () => self.check(&request),
        };
        match request.command {
            command::DISC => END,
            command::WRITE => self.write(&request, allowed),
            command::READ if allowed.is_ok() => self.read(&request),
            _ => {
                let outcome = allowed.and_then(|()| self.execute(&request));
                self.answer(&request, outcome)
            }
        }
    }

    fn check(&self, request: &Request) -> Result<(), Fault> {
        check(request, self.session.offer().size, self.session.served().read_only)
    }

    fn read(&mut self, request: &Request) -> Flow {
        if request.length == 0 {
            return self.answer(request, Ok(()));
        }
        let served = self.session.served();
        let held = request.length as usize <= OUTPUT_LIMIT;
        self.stream.reserve(if held { request.length as usize } else { PIECE })?;
        let start = self.stream.waiting();
        for (offset, length) in pieces(request) {
            let first = offset == request.offset;
            let last = offset + length as u64 == request.offset + u64::from(request.length);
            if !held {
                self.stream.reserve(length)?;
            }
            let chunk = self.stream.waiting();
            if self.structured {
                self.stream.put(&protocol::data_chunk(request.cookie, offset, length as u32, last));
            } else if first {
                self.stream.put(&protocol::simple_reply(request.cookie, None));
            }
            if let Err(error) = self.stream.put_with(length, |buffer| served.backend.read(buffer, offset)) {
                let fault = served.fault(&error);
                match self.structured {
                    true => self.stream.take_back(chunk),
                    false if held || first => self.stream.take_back(start),
                    // A simple reply that has been sent in part, as a success, can only be broken off.
                    false => return END,
                }
                return self.answer(request, Err(fault));
            }
        }
        served.traffic.count_read(request.length.into());
        GO_ON
    }

    /// Writes the payload piece by piece as it arrives; what is not allowed, or comes after a failure, is dropped.
    fn write(&mut self, request: &Request, mut outcome: Result<(), Fault>) -> Flow {
        if request.length > MAXIMUM_DROPPED {
            return self.answer(request, outcome).map(|_| ControlFlow::Break(()));
        }
        let served = self.session.served();
        for (offset, length) in pieces(request) {
            if self.stream.fill(length, Until::default())? != Filled::Ready {
                return END;
            }
            if outcome.is_ok() {
                let written = served.backend.write(&self.stream.arrived()[..length], offset);
                outcome = written.map_err(|error| served.fault(&error));
            }
            self.stream.consume(length);
        }
        let outcome = outcome.and_then(|()| self.written(request));
        self.answer(request, outcome)
    }

    fn execute(&self, request: &Request) -> Result<(), Fault> {
        let served = self.session.served();
        let (offset, length) = (request.offset, u64::from(request.length));
        let stop = || served.stop.is_raised();
        let may_punch = !request.has(command_flag::NO_HOLE);
        let fault = |error: io::Error| served.fault(&error);
        match request.command {
            command::FLUSH => served.backend.flush().map_err(fault),
            command::TRIM => {
                served.backend.trim(offset, length, stop).map_err(fault)?;
                self.made_durable(request)
            }
            command::WRITE_ZEROES => {
                served.backend.write_zeroes(offset, length, may_punch, stop).map_err(fault)?;
                self.written(request)
            }
            _ => Err(UNKNOWN_COMMAND),
        }
    }

    fn written(&self, request: &Request) -> Result<(), Fault> {
        self.session.served().traffic.count_written(request.length.into());
        self.made_durable(request)
    }

    fn made_durable(&self, request: &Request) -> Result<(), Fault> {
        let served = self.session.served();
        if !request.has(command_flag::FUA) {
            return Ok(());
        }
        served.backend.flush().map_err(|error| served.fault(&error))
    }

    /// Answers without data. Once structured replies are agreed on, READ is never answered by a simple one, and an
    /// error says why.
    fn answer(&mut self, request: &Request, outcome: Result<(), Fault>) -> Flow {
        self.stream.reserve(0)?;
        match outcome {
            Err(fault) if self.structured => self.stream.put(&protocol::error_chunk(request.cookie, fault)),
            Ok(()) if self.structured && request.command == command::READ => {
                self.stream.put(&protocol::none_chunk(request.cookie));
            }
            outcome => {
                let errno = outcome.err().map(|fault| fault.errno);
                self.stream.put(&protocol::simple_reply(request.cookie, errno));
            }
        }
        GO_ON
    }
}

const UNKNOWN_COMMAND: Fault = Fault { errno: Errno::Inval, text: "the command is not known" };

/// Whether a request may be tried, as "Request types" and "Error values" of the document have it.
fn check(request: &Request, size: u64, read_only: bool) -> Result<(), Fault> {
    let refuse = |errno, text| Err(Fault { errno, text });
    let changes = matches!(request.command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
    let flags = match request.command {
        command::WRITE_ZEROES => command_flag::FUA | command_flag::NO_HOLE,
        command::READ | command::WRITE | command::FLUSH | command::TRIM => command_flag::FUA,
        _ => return Err(UNKNOWN_COMMAND),
    };
    if request.flags & !flags != 0 {
        return refuse(Errno::Inval, "a flag does not apply to the command");
    }
    if changes && read_only {
        return refuse(Errno::Perm, "the export is read-only");
    }
    if request.command == command::FLUSH {
        let empty = request.offset == 0 && request.length == 0;
        return if empty { Ok(()) } else { refuse(Errno::Inval, "a flush has no range") };
    }
    if request.length > MAXIMUM_PAYLOAD {
        match request.command {
            command::READ => return refuse(Errno::Overflow, "more than the maximum of 32 MiB was asked for"),
            command::WRITE => return refuse(Errno::Inval, "more than the maximum of 32 MiB was sent"),
            _ => {}
        }
    }
    match request.offset.checked_add(request.length.into()) {
        Some(end) if end <= size => Ok(()),
        _ if matches!(request.command, command::WRITE | command::WRITE_ZEROES) => {
            refuse(Errno::NoSpc, "the range ends beyond the export")
        }
        _ => refuse(Errno::Inval, "the range ends beyond the export"),
    }
}

/// Cuts a request's range into pieces that fit the buffers. The cuts are aligned, so that no page or block of the
/// device is written in halves.
fn pieces(request: &Request) -> impl Iterator<Item = (u64, usize)> + use<> {
    let (mut offset, mut left) = (request.offset, request.length as usize);
    std::iter::from_fn(move || {
        let length = if left <= PIECE { left } else { PIECE - (offset % PIECE as u64) as usize };
        let piece = (offset, length);
        // The range of a refused WRITE may end beyond 2^64.
        offset = offset.wrapping_add(length as u64);
        left -= length;
        (length > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const SIZE: u64 = 1 << 30;

    fn request(command: u16, flags: u16, offset: u64, length: u32) -> Request {
        Request { flags, command, cookie: 0, offset, length }
    }

    fn errno(command: u16, flags: u16, offset: u64, length: u32, read_only: bool) -> Option<Errno> {
        check(&request(command, flags, offset, length), SIZE, read_only).err().map(|fault| fault.errno)
    }

    #[test]
    fn what_the_document_allows_is_allowed() {
        use command::{FLUSH, READ, TRIM, WRITE, WRITE_ZEROES};
        for command in [READ, WRITE, TRIM, WRITE_ZEROES] {
            for flags in [0, command_flag::FUA] {
                assert_eq!(errno(command, flags, SIZE - 4096, 4096, false), None, "{command}");
                assert_eq!(errno(command, flags, SIZE, 0, false), None, "{command}");
            }
        }
        assert_eq!(errno(FLUSH, command_flag::FUA, 0, 0, true), None);
        assert_eq!(errno(READ, 0, 1, 511, true), None);
        assert_eq!(errno(WRITE, 0, 0, MAXIMUM_PAYLOAD, false), None);
        assert_eq!(errno(WRITE_ZEROES, command_flag::NO_HOLE, 0, SIZE as u32, false), None);
        assert_eq!(errno(TRIM, 0, 0, SIZE as u32, false), None);
    }

    #[test]
    fn each_refusal_has_the_documents_error() {
        use command::{DISC, FLUSH, READ, TRIM, WRITE, WRITE_ZEROES};
        for (command, flags, offset, length, read_only, expected) in [
            (READ, 0, SIZE - 1, 2, false, Errno::Inval),
            (READ, 0, u64::MAX, 2, false, Errno::Inval),
            (READ, 0, SIZE + 1, 0, false, Errno::Inval),
            (READ, 0, 0, MAXIMUM_PAYLOAD + 1, false, Errno::Overflow),
            (READ, command_flag::NO_HOLE, 0, 1, false, Errno::Inval),
            (READ, 1 << 2, 0, 1, false, Errno::Inval),
            (WRITE, 0, SIZE - 1, 2, false, Errno::NoSpc),
            (WRITE, 0, u64::MAX, 2, false, Errno::NoSpc),
            (WRITE, 0, 0, MAXIMUM_PAYLOAD + 1, false, Errno::Inval),
            (WRITE, 0, 0, 1, true, Errno::Perm),
            (TRIM, 0, SIZE - 1, 2, false, Errno::Inval),
            (TRIM, 0, 0, 1, true, Errno::Perm),
            (WRITE_ZEROES, 0, SIZE - 1, 2, false, Errno::NoSpc),
            (WRITE_ZEROES, 0, 0, 1, true, Errno::Perm),
            (WRITE_ZEROES, 1 << 4, 0, 1, false, Errno::Inval),
            (FLUSH, 0, 1, 0, false, Errno::Inval),
            (FLUSH, 0, 0, 1, false, Errno::Inval),
            (DISC + 100, 0, 0, 0, false, Errno::Inval),
        ] {
            let found = errno(command, flags, offset, length, read_only);
            assert_eq!(found, Some(expected), "command {command} flags {flags} at {offset} for {length}");
        }
    }

    #[test]
    fn a_range_is_cut_at_aligned_places() {
        let cut = |offset, length| pieces(&request(command::READ, 0, offset, length)).collect::<Vec<_>>();
        let piece = PIECE as u64;
        assert_eq!(cut(7, 0), []);
        assert_eq!(cut(piece - 1, 2), [(piece - 1, 2)]);
        assert_eq!(cut(piece - 1, 2 * PIECE as u32), [(piece - 1, 1), (piece, PIECE), (2 * piece, PIECE - 1)]);
        assert_eq!(cut(u64::MAX, PIECE as u32 + 1).len(), 2);
    }
}
