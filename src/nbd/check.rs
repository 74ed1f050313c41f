//! Whether a request may be tried, as "Request types" and "Error values" of the protocol's document have it. Pure.

use super::handshake::Terms;
use super::protocol::{Errno, Fault, Headers, MAXIMUM_PAYLOAD, Request, command, command_flag, transmission_flag};
use super::served::Offer;

/// What no command of ours is answered by.
pub(super) const UNKNOWN_COMMAND: Fault = Fault { errno: Errno::Inval, text: "the command is not known" };

type Verdict = Result<(), Fault>;

fn refuse(errno: Errno, text: &'static str) -> Verdict {
    Err(Fault { errno, text })
}

/// Checks a request of a client that has agreed on such terms, and was offered this.
pub(super) fn check(request: &Request, terms: Terms, read_only: bool, offer: &Offer) -> Verdict {
    check_flags(request, terms.headers)?;
    if read_only && matches!(request.command, command::WRITE | command::TRIM | command::WRITE_ZEROES) {
        return refuse(Errno::Perm, "the export is read-only");
    }
    check_command(request, terms, offer)?;
    match request.command {
        command::FLUSH | command::DISC => Ok(()),
        _ => check_range(request, terms, offer),
    }
}

fn check_flags(request: &Request, headers: Headers) -> Verdict {
    let of_command = match request.command {
        command::READ if headers == Headers::Simple => 0,
        command::READ => command_flag::DF,
        command::WRITE if headers == Headers::Extended => command_flag::PAYLOAD_LEN,
        command::WRITE_ZEROES => command_flag::NO_HOLE | command_flag::FAST_ZERO,
        command::BLOCK_STATUS => command_flag::REQ_ONE,
        command::WRITE | command::FLUSH | command::TRIM | command::CACHE | command::DISC => 0,
        _ => return Err(UNKNOWN_COMMAND),
    };
    // Clients are known to set FUA on what writes nothing.
    if request.flags & !(of_command | command_flag::FUA) != 0 {
        return refuse(Errno::Inval, "a flag does not apply to the command");
    }
    Ok(())
}

fn check_command(request: &Request, terms: Terms, offer: &Offer) -> Verdict {
    let too_long = request.length > MAXIMUM_PAYLOAD.into();
    match request.command {
        command::READ if too_long => refuse(Errno::Overflow, "more than the maximum of 32 MiB was asked for"),
        command::WRITE if too_long => refuse(Errno::Inval, "more than the maximum of 32 MiB was sent"),
        command::FLUSH if request.offset != 0 || request.length != 0 => refuse(Errno::Inval, "a flush has no range"),
        command::TRIM if offer.flags & transmission_flag::SEND_TRIM == 0 => {
            refuse(Errno::Inval, "the device takes no discards")
        }
        command::BLOCK_STATUS if !terms.allocation => refuse(Errno::Inval, "no metadata context was chosen"),
        command::BLOCK_STATUS if request.length == 0 => refuse(Errno::Inval, "the status of nothing was asked for"),
        _ => Ok(()),
    }
}

fn check_range(request: &Request, terms: Terms, offer: &Offer) -> Verdict {
    let fits = request.offset.checked_add(request.length).is_some_and(|end| end <= offer.size);
    if !fits {
        let writes = matches!(request.command, command::WRITE | command::WRITE_ZEROES);
        return refuse(if writes { Errno::NoSpc } else { Errno::Inval }, "the range ends beyond the export");
    }
    // A hint may be for less than whole blocks: it is rounded.
    let is_hint = matches!(request.command, command::TRIM | command::CACHE);
    let minimum = u64::from(offer.block_sizes.minimum);
    if terms.block_sizes && !is_hint && (request.offset | request.length) & (minimum - 1) != 0 {
        return refuse(Errno::Inval, "the range is not made of whole blocks");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::protocol::BlockSizes;
    use super::*;

    const SIZE: u64 = 1 << 40;
    const MIB_32: u64 = MAXIMUM_PAYLOAD as u64;
    const SIMPLE: Terms = Terms { headers: Headers::Simple, allocation: false, block_sizes: false };
    const STRUCTURED: Terms = Terms { headers: Headers::Structured, allocation: true, block_sizes: false };
    const EXTENDED: Terms = Terms { headers: Headers::Extended, allocation: true, block_sizes: true };

    fn offer(flags: u16) -> Offer {
        Offer { size: SIZE, flags, block_sizes: BlockSizes { minimum: 512, preferred: 4096 } }
    }

    fn errno(terms: Terms, command: u16, flags: u16, offset: u64, length: u64, read_only: bool) -> Option<Errno> {
        let request = Request { flags, command, cookie: 0, offset, length, asked_from: offset };
        check(&request, terms, read_only, &offer(transmission_flag::SEND_TRIM)).err().map(|fault| fault.errno)
    }

    #[test]
    fn what_the_document_allows_is_allowed() {
        use command::{CACHE, FLUSH, READ, TRIM, WRITE, WRITE_ZEROES};
        for command in [READ, WRITE, TRIM, WRITE_ZEROES, CACHE] {
            for flags in [0, command_flag::FUA] {
                assert_eq!(errno(SIMPLE, command, flags, SIZE - 4096, 4096, false), None, "{command}");
                assert_eq!(errno(SIMPLE, command, flags, SIZE, 0, false), None, "{command}");
            }
        }
        let (whole, all_zero_flags) = (u32::MAX.into(), command_flag::NO_HOLE | command_flag::FAST_ZERO);
        for (terms, command, flags, offset, length) in [
            (SIMPLE, FLUSH, command_flag::FUA, 0, 0),
            (SIMPLE, READ, 0, 1, 511),
            (SIMPLE, WRITE, 0, 0, MIB_32),
            (SIMPLE, WRITE_ZEROES, all_zero_flags, 0, whole),
            (SIMPLE, TRIM, 0, 0, whole),
            (STRUCTURED, READ, command_flag::DF, 1, 511),
            (STRUCTURED, command::BLOCK_STATUS, command_flag::REQ_ONE, 0, whole),
            (EXTENDED, WRITE, command_flag::PAYLOAD_LEN, 0, 512),
            (EXTENDED, WRITE, 0, 0, 512),
            (EXTENDED, TRIM, 0, 0, SIZE),
            (EXTENDED, TRIM, 0, 1, 511),
            (EXTENDED, command::BLOCK_STATUS, 0, 0, SIZE),
        ] {
            let found = errno(terms, command, flags, offset, length, false);
            assert_eq!(found, None, "command {command} flags {flags} at {offset} for {length}");
        }
    }

    #[test]
    fn each_refusal_has_the_documents_error() {
        use command::{BLOCK_STATUS, CACHE, DISC, FLUSH, READ, TRIM, WRITE, WRITE_ZEROES};
        for (terms, command, flags, offset, length, read_only, expected) in [
            (SIMPLE, READ, 0, SIZE - 1, 2, false, Errno::Inval),
            (SIMPLE, READ, 0, u64::MAX, 2, false, Errno::Inval),
            (SIMPLE, READ, 0, SIZE + 1, 0, false, Errno::Inval),
            (SIMPLE, READ, 0, 0, MIB_32 + 1, false, Errno::Overflow),
            (SIMPLE, READ, command_flag::NO_HOLE, 0, 1, false, Errno::Inval),
            (SIMPLE, READ, command_flag::DF, 0, 1, false, Errno::Inval),
            (SIMPLE, WRITE, 0, SIZE - 1, 2, false, Errno::NoSpc),
            (SIMPLE, WRITE, 0, u64::MAX, 2, false, Errno::NoSpc),
            (SIMPLE, WRITE, 0, 0, MIB_32 + 1, false, Errno::Inval),
            (SIMPLE, WRITE, 0, 0, 1, true, Errno::Perm),
            (SIMPLE, WRITE, command_flag::PAYLOAD_LEN, 0, 1, false, Errno::Inval),
            (SIMPLE, TRIM, 0, SIZE - 1, 2, false, Errno::Inval),
            (SIMPLE, TRIM, 0, 0, 1, true, Errno::Perm),
            (SIMPLE, WRITE_ZEROES, 0, SIZE - 1, 2, false, Errno::NoSpc),
            (SIMPLE, WRITE_ZEROES, 0, 0, 1, true, Errno::Perm),
            (SIMPLE, WRITE_ZEROES, command_flag::DF, 0, 1, false, Errno::Inval),
            (SIMPLE, FLUSH, 0, 1, 0, false, Errno::Inval),
            (SIMPLE, FLUSH, 0, 0, 1, false, Errno::Inval),
            (SIMPLE, CACHE, 0, SIZE - 1, 2, true, Errno::Inval),
            (SIMPLE, CACHE, command_flag::DF, 0, 1, true, Errno::Inval),
            (SIMPLE, BLOCK_STATUS, 0, 0, 1, false, Errno::Inval),
            (STRUCTURED, BLOCK_STATUS, 0, 0, 0, false, Errno::Inval),
            (STRUCTURED, BLOCK_STATUS, 0, SIZE - 1, 2, false, Errno::Inval),
            (EXTENDED, TRIM, command_flag::PAYLOAD_LEN, 0, 512, false, Errno::Inval),
            (EXTENDED, BLOCK_STATUS, command_flag::PAYLOAD_LEN, 0, 12, false, Errno::Inval),
            (EXTENDED, READ, 0, 1, 512, false, Errno::Inval),
            (EXTENDED, READ, 0, 512, 511, false, Errno::Inval),
            (EXTENDED, WRITE_ZEROES, 0, 256, 512, false, Errno::Inval),
            (SIMPLE, DISC + 100, 0, 0, 0, false, Errno::Inval),
        ] {
            let found = errno(terms, command, flags, offset, length, read_only);
            assert_eq!(found, Some(expected), "command {command} flags {flags} at {offset} for {length}");
        }
        let trim = Request { flags: 0, command: TRIM, cookie: 0, offset: 0, length: 512, asked_from: 0 };
        let found = check(&trim, SIMPLE, false, &offer(0)).err().map(|fault| fault.errno);
        assert_eq!(found, Some(Errno::Inval), "a device that takes no discards");
    }
}
