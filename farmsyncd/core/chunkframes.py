"""A CHUNK message's frame, taken apart just far enough to find its way in a file of such frames.

Packs are made of these frames so that serving a chunk is sending a range of a file. The bytes are exactly those that
:class:`farmsyncd.core.messages.content.Chunk` gives; they are made and read here without a message for each, since a
store's start may walk through a million of them.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

_HEAD: Final = re.compile(rb"CHUNK ([0-9a-f]{64}) (raw|zstd) ([1-9][0-9]{0,7}) \+1\n([1-9][0-9]{0,7}):")
_ANY_HEAD: Final = re.compile(rb"[A-Z][^\n]{1,150} \+1\n([1-9][0-9]{0,8}):")
MAX_HEAD: Final = 6 + 64 + 1 + 4 + 1 + 8 + 4 + 8 + 1
"""Bytes of the longest head."""


@attrs.frozen
class FrameHead:
    """What stands before a chunk's packed bytes: ``size`` of them from byte ``body`` of the frame, then a comma."""

    digest: bytes
    codec: str
    length: int
    body: int
    size: int

    @property
    def frame_length(self) -> int:
        """Bytes of the whole frame."""
        return self.body + self.size + 1


def frame_head(digest: bytes, codec: str, length: int, size: int) -> bytes:
    """The bytes before the ``size`` packed bytes of a chunk of ``length`` bytes; after those comes a comma."""
    return b"CHUNK %b %b %d +1\n%d:" % (digest.hex().encode(), codec.encode(), length, size)


def read_head(data: bytes) -> FrameHead | None:
    """The head that ``data`` begins with, or None when it begins with anything else."""
    found = _HEAD.match(data)
    if found is None:
        return None
    return FrameHead(bytes.fromhex(found[1].decode()), found[2].decode(), int(found[3]), found.end(), int(found[4]))


def frame_length(data: bytes) -> int | None:
    """Bytes of the frame with one netstring, CHUNK or DELTA, of which ``data`` is the beginning; None for others."""
    found = _ANY_HEAD.match(data)
    return None if found is None else found.end() + int(found[1]) + 1
