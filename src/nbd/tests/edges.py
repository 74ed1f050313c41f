# Edge cases of each request, sent by libnbd without its own checks, to an export of 4 MiB.
import errno
import sys

import nbd

MIB = 1 << 20
SIZE = 4 * MIB


def connected(structured):
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_request_structured_replies(structured)
    if structured:
        h.add_meta_context("base:allocation")
    h.connect_uri(sys.argv[1])
    assert h.get_size() == SIZE
    return h


def refused(expected, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errnum == expected, (expected, error)
    else:
        raise AssertionError("not refused", expected)


def extents(h, length, offset, flags=0):
    found = []
    h.block_status(length, offset, lambda name, at, entries, error: found.extend(entries), flags)
    return list(zip(found[::2], found[1::2]))


for structured in [True, False]:
    h = connected(structured)
    assert h.get_structured_replies_negotiated() == structured
    assert h.can_df() == structured

    h.pwrite(b"\1" * 70000, 511, nbd.CMD_FLAG_FUA)
    assert h.pread(70002, 510) == b"\0" + b"\1" * 70000 + b"\0"
    h.pwrite(b"", SIZE)
    h.flush()
    h.cache(MIB, 0)
    h.zero(65536, 1000, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    h.zero(1, 600, nbd.CMD_FLAG_FAST_ZERO)
    h.trim(SIZE - 2 * MIB, 2 * MIB)
    assert h.pread(66536, 0) == b"\0" * 511 + b"\1" * 89 + b"\0" + b"\1" * 399 + b"\0" * 65536

    refused(errno.EINVAL, h.pread, 2, SIZE - 1)
    refused(errno.EINVAL, h.pread, 1, 1 << 62)
    refused(errno.ENOSPC, h.pwrite, b"\1\1", SIZE - 1)
    refused(errno.ENOSPC, h.zero, 2, SIZE - 1)
    refused(errno.EINVAL, h.trim, 2, SIZE - 1)
    refused(errno.EINVAL, h.cache, 2, SIZE - 1)
    refused(errno.EINVAL, h.trim, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
    if structured:
        # Libnbd itself refuses what a server may not send.
        chunks = []
        h.pread_structured(SIZE, 0, lambda data, at, status, error: chunks.append((at, len(data), status)))
        assert {status for _, _, status in chunks} == {nbd.READ_DATA, nbd.READ_HOLE}, chunks
        assert sum(length for _, length, _ in chunks) == SIZE
        chunks.clear()
        flags = nbd.CMD_FLAG_DF
        h.pread_structured(SIZE, 0, lambda data, at, status, error: chunks.append((at, len(data), status)), flags)
        assert chunks == [(0, SIZE, nbd.READ_DATA)], chunks
        found = extents(h, SIZE, 0)
        assert sum(length for length, _ in found) == SIZE and found[-1][1] == nbd.STATE_HOLE | nbd.STATE_ZERO, found
        assert extents(h, 4096, SIZE - MIB, nbd.CMD_FLAG_REQ_ONE) == [(4096, nbd.STATE_HOLE | nbd.STATE_ZERO)]
        assert extents(h, 512, 1) == [(512, 0)]
    assert h.pread(1, 0) == b"\0", "the connection lives"
    h.shutdown()
