"""Where the chunks of one pack lie: the index file beside it, and how it is made again from the pack itself.

A pack's index is written when the pack is complete and durable, so a pack without a good index was being written when
the machine or the process died. Then nothing in it is believed: it is walked frame by frame, every chunk is verified,
and what comes after the last whole frame is cut off.

The index file: a line naming the format, the pack's size and the number of entries; the entries, each a digest, the
frame's offset and length and the chunk's length; and the BLAKE3 digest of all that.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import blake3
import msgspec

from farmsyncd.core.chunkframes import MAX_HEAD, FrameHead, read_head
from farmsyncd.core.chunks import Damaged, Unpacker
from farmsyncd.edges.content import durable

_LINE: Final = b"farmsync-pack-index-1\n"
_COUNTS: Final = struct.Struct(">QQ")
_ENTRY: Final = struct.Struct(">32sQII")
_SUM_SIZE: Final = 32


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a chunk's frame lies: pack number, offset and length of the frame, and bytes of the chunk once unpacked."""

    pack: int
    offset: int
    length: int
    raw: int


def save(path: Path, pack_size: int, places: Mapping[bytes, Place]) -> None:
    """Write the index of a pack of ``pack_size`` bytes, durably."""
    entries = [_ENTRY.pack(digest, at.offset, at.length, at.raw) for digest, at in places.items()]
    body = b"".join([_LINE, _COUNTS.pack(pack_size, len(entries)), *entries])
    durable.write_file(path, body, blake3.blake3(body).digest())


def load(path: Path, pack: int, pack_size: int) -> dict[bytes, Place] | None:
    """Read the index of pack number ``pack``; None when it is missing, torn, or that of a pack of another size."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    body = memoryview(data)[:-_SUM_SIZE]
    start = len(_LINE) + _COUNTS.size
    if not data.startswith(_LINE) or len(body) < start or blake3.blake3(body).digest() != data[-_SUM_SIZE:]:
        return None
    size, count = _COUNTS.unpack_from(data, len(_LINE))
    if size != pack_size or len(body) != start + count * _ENTRY.size:
        return None
    entries: Iterable[tuple[bytes, int, int, int]] = _ENTRY.iter_unpack(body[start:])
    return {digest: Place(pack, offset, length, raw) for digest, offset, length, raw in entries}


def rebuild(fd: int, pack: int) -> tuple[dict[bytes, Place], int, list[Damaged]]:
    """Walk through the frames of the pack open as ``fd``.

    Returns the places of its good chunks, the bytes up to the end of the last whole frame, and the damaged chunks
    among them. What follows those bytes is no frame: a write that was torn.
    """
    places: dict[bytes, Place] = {}
    damaged: list[Damaged] = []
    unpacker = Unpacker()
    at = 0
    while (frame := _whole_frame(fd, at)) is not None:
        head, body = frame
        try:
            unpacker.unpack(head.digest, head.codec, head.length, body)
            places[head.digest] = Place(pack, at, head.frame_length, head.length)
        except Damaged as error:
            damaged.append(error)
        at += head.frame_length
    return places, at, damaged


def _whole_frame(fd: int, at: int) -> tuple[FrameHead, memoryview] | None:
    head = read_head(os.pread(fd, MAX_HEAD, at))
    if head is None:
        return None
    data = os.pread(fd, head.size + 1, at + head.body)
    if len(data) != head.size + 1 or not data.endswith(b","):
        return None
    return head, memoryview(data)[:-1]
