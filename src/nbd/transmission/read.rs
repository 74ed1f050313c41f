//! What is read: the data of a READ with its holes, and the extents of a BLOCK_STATUS.

use std::io;

use super::{END, Flow, GO_ON, Transmission, pieces};
use crate::nbd::handshake::ALLOCATION_ID;
use crate::nbd::protocol::{Extent, Fault, Headers, Request, command_flag};
use crate::nbd::stream::{HEAD, HELD, PIECE};
use crate::nbd::work::Work;

/// Data are read and sent so many bytes at a time: they stay in a core's cache in between, and the client has something to
/// do meanwhile.
const CHUNK: usize = 256 << 10;
/// READs of fewer bytes are not looked through for holes: that would cost more than it saves.
const SPARSE_FROM: u64 = 64 << 10;
/// The reply to a READ tells so many parts of it apart.
const MAXIMUM_PARTS: usize = 64;
/// The reply to a BLOCK_STATUS has so many extents at most; a client asks for the rest.
const MAXIMUM_EXTENTS: usize = 4096;

impl Transmission<'_> {
    pub(super) fn read(&mut self, request: &Request) -> Flow {
        match self.terms.headers {
            _ if request.length <= HELD as u64 => self.read_held(request),
            Headers::Simple => self.read_long(request),
            Headers::Structured | Headers::Extended => self.read_long_parts(request),
        }
    }

    /// Answers at once where all is in the page cache: in chunks where that is allowed, each of which is sent while the
    /// next one is read. What has to wait for the device is left to others, and all that follows it.
    fn read_held(&mut self, request: &Request) -> Flow {
        let served = self.session.served();
        let end = request.offset + request.length;
        let mut done = 0;
        for chunk in self.chunks(request) {
            let rest = request.rest(done);
            let piece = Request { length: chunk.length, ..rest };
            if !self.stream.try_reserve(piece.length as usize + 2 * HEAD)? {
                return self.leave(&rest);
            }
            let start = self.stream.waiting();
            let read = |buffer: &mut [u8], offset| served.backend.read_cached(buffer, offset);
            if let Err(error) = self.put_parts(&piece, end, &[chunk], read) {
                self.stream.take_back(start);
                return match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        let parts = self.parts(&rest);
                        self.defer(rest, Work::Read(parts))
                    }
                    _ => self.answer(&rest, Err(served.fault(&error))),
                };
            }
            done += chunk.length;
            served.traffic.count_read(chunk.length);
            if self.stream.waiting() >= CHUNK {
                self.stream.send()?;
            }
        }
        served.traffic.count_request(false);
        GO_ON
    }

    /// The parts of a READ, of which data are cut into pieces where they may be.
    fn chunks(&mut self, request: &Request) -> Vec<Extent> {
        let parts = self.parts(request);
        if self.terms.headers == Headers::Simple || request.has(command_flag::DF) {
            return parts;
        }
        let mut chunks = Vec::with_capacity(parts.len());
        let mut offset = request.offset;
        for part in parts {
            let cut = |(_, length)| Extent { length: length as u64, ..part };
            match part.hole {
                true => chunks.push(part),
                false => chunks.extend(pieces(offset, part.length, CHUNK).map(cut)),
            }
            offset += part.length;
        }
        chunks
    }

    /// Puts the reply to a request, or to a piece of one that goes on to `end`; its data come from `read`.
    pub(super) fn put_parts<E>(
        &mut self,
        request: &Request,
        end: u64,
        parts: &[Extent],
        mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let headers = self.terms.headers;
        let mut offset = request.offset;
        for part in parts {
            let (length, last) = (part.length as u32, offset + part.length == end);
            if part.hole {
                self.stream.put(&headers.hole(request, offset, length, last));
            } else {
                self.stream.put(&headers.data(request, offset, length, last));
                self.stream.put_with(length as usize, |buffer| read(buffer, offset))?;
            }
            offset += part.length;
        }
        Ok(())
    }

    /// Answers a READ that is too long to be held back by a simple reply, which says that it is a success before its data.
    fn read_long(&mut self, request: &Request) -> Flow {
        let served = self.session.served();
        for (offset, length) in pieces(request.offset, request.length, PIECE) {
            let first = offset == request.offset;
            self.stream.reserve(length + HEAD)?;
            let start = self.stream.waiting();
            if first {
                self.stream.put(&Headers::Simple.data(request, offset, length as u32, true));
            }
            if let Err(error) = self.stream.put_with(length, |buffer| served.backend.read(buffer, offset)) {
                let fault = served.fault(&error);
                if !first {
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

    /// Answers one by a chunk for each part of the range that is alike.
    fn read_long_parts(&mut self, request: &Request) -> Flow {
        let mut offset = request.offset;
        for part in self.parts(request) {
            if part.hole {
                self.stream.reserve(HEAD)?;
                self.stream.put(&self.terms.headers.hole(request, offset, part.length as u32, false));
            } else if let Err(fault) = self.read_long_part(request, offset, part.length)? {
                return self.answer(request, Err(fault));
            }
            offset += part.length;
        }
        self.stream.reserve(HEAD)?;
        self.stream.put(&self.terms.headers.success(request));
        self.count_read(request);
        GO_ON
    }

    /// Puts a chunk of data, and pads it where it cannot be read to its end.
    fn read_long_part(&mut self, request: &Request, offset: u64, length: u64) -> io::Result<Result<(), Fault>> {
        let served = self.session.served();
        self.stream.reserve(HEAD)?;
        self.stream.put(&self.terms.headers.data(request, offset, length as u32, false));
        let mut outcome = Ok(());
        for (offset, length) in pieces(offset, length, PIECE) {
            self.stream.reserve(length)?;
            if outcome.is_ok() {
                let read = self.stream.put_with(length, |buffer| served.backend.read(buffer, offset));
                outcome = read.map_err(|error| served.fault(&error));
            }
            if outcome.is_err() {
                self.stream.put_zeroes(length);
            }
        }
        Ok(outcome)
    }

    pub(super) fn count_read(&self, request: &Request) {
        let traffic = &self.session.served().traffic;
        traffic.count_request(false);
        traffic.count_read(request.length);
    }

    /// The parts of a READ that are alike; the last one may have all the rest.
    fn parts(&mut self, request: &Request) -> Vec<Extent> {
        let end = request.offset + request.length;
        let (mut parts, mut offset) = (Vec::new(), request.offset);
        while offset < end {
            let rest = Extent { length: end - offset, hole: false };
            let part = match parts.len() < MAXIMUM_PARTS && self.is_looked_through(request) {
                true => self.extent(offset, end),
                false => rest,
            };
            let part = if request.has(command_flag::DF) && part.length < rest.length { rest } else { part };
            offset += part.length;
            parts.push(part);
        }
        parts
    }

    fn is_looked_through(&self, request: &Request) -> bool {
        self.terms.headers != Headers::Simple && request.length >= SPARSE_FROM
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

    pub(super) fn block_status(&mut self, request: &Request) -> Flow {
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
}
