//! What a request asks of the device, and doing it, on whichever thread.

use std::io;

use super::check::UNKNOWN_COMMAND;
use super::latch::Latch;
use super::memory::Aligned;
use super::protocol::{Errno, Extent, Fault, Request, command, command_flag};
use super::served::Served;

const NOT_FAST: Fault = Fault { errno: Errno::NotSup, text: "the device zeroes no faster than it writes" };

/// What is to be done for a request.
pub(super) enum Work {
    /// To read its range, which has these parts.
    Read(Vec<Extent>),
    /// To write these bytes.
    Write(Aligned),
    /// All that has no data, or whose data are written.
    Rest,
}

/// What has become of it.
pub(super) enum Outcome {
    /// What was read, with its parts; holes are zeroes.
    Read(Result<(Aligned, Vec<Extent>), Fault>),
    /// How much of the range is dealt with: all of it, unless the export closes or the connection is to be handed over.
    Done(Result<u64, Fault>),
}

/// Whether a request may take long, apart from its data.
pub(super) fn takes_long(request: &Request) -> bool {
    match request.command {
        command::FLUSH => true,
        command::TRIM | command::WRITE_ZEROES => request.length > 0,
        command::WRITE => request.has(command_flag::FUA),
        _ => false,
    }
}

/// Does the work of a request that is allowed. `halt` and the end of the export cut what is long between two pieces.
pub(super) fn perform(served: &Served, halt: &Latch, request: &Request, work: Work) -> Outcome {
    match work {
        Work::Read(parts) => Outcome::Read(read(served, request, &parts).map(|bytes| (bytes, parts))),
        Work::Write(mut bytes) => {
            let written = served.backend.write(bytes.bytes(), request.offset).map_err(|error| served.fault(&error));
            Outcome::Done(written.and_then(|()| execute(served, halt, request)))
        }
        Work::Rest => Outcome::Done(execute(served, halt, request)),
    }
}

fn read(served: &Served, request: &Request, parts: &[Extent]) -> Result<Aligned, Fault> {
    let mut bytes = served.spare.take(request.length as usize);
    let mut rest = bytes.bytes();
    let mut offset = request.offset;
    for part in parts {
        let (of_part, after) = rest.split_at_mut(part.length as usize);
        match part.hole {
            true => of_part.fill(0),
            false => served.backend.read(of_part, offset).map_err(|error| served.fault(&error))?,
        }
        (rest, offset) = (after, offset + part.length);
    }
    Ok(bytes)
}

/// Does what is asked for and has no data to send; the payload of a WRITE is written by now. Gives how much of the range
/// is dealt with.
fn execute(served: &Served, halt: &Latch, request: &Request) -> Result<u64, Fault> {
    let (backend, offset, length) = (&served.backend, request.offset, request.length);
    let stop = || served.stop.is_raised() || halt.is_raised();
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
