"""Reading files against their manifest entry."""

from __future__ import annotations

import contextlib
import os

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.entries import Entry


def good_chunks(fd: int, entry: Entry, buffer: memoryview) -> frozenset[int]:
    """The offsets of those chunks of a file that are what they should be; ``buffer`` has room for the largest."""
    good: set[int] = set()
    offset = 0
    for digest, length in zip(entry.chunks, entry.lengths, strict=True):
        piece = buffer[:length]
        with contextlib.suppress(OSError):
            if read_into(fd, offset, piece) and digest_of(piece) == digest:
                good.add(offset)
        offset += length
    return frozenset(good)


def read_into(fd: int, offset: int, buffer: memoryview) -> bool:
    """Fill ``buffer`` from ``offset`` of a file; False where the file ends before."""
    while buffer:
        got = os.preadv(fd, [buffer], offset)
        if not got:
            return False
        buffer, offset = buffer[got:], offset + got
    return True
