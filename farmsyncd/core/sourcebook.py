"""How the sources of a balancer are written down with their nodes: frames that are appended, each whole or not there.

::

    book      a line "farmsync sources 1", then frames
    frame     length of the body (4 bytes), CRC-32 of the body (4 bytes), body: records
    node      00, number (4 bytes), length of the name (1 byte), name: what later records call by this number
    source    length of the source (1 byte, not 00), the source, number of its node (4 bytes),
              when it was last used, in seconds since 1970 (4 bytes)

Numbers are big-endian. Of two records about one source the later one holds. A frame that was cut off by a crash, and
whatever comes after it, does not count.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from farmsyncd.errors import LocalError

MAGIC = b"farmsync sources 1\n"
SECOND_NS = 1_000_000_000
_FRAME = struct.Struct("!II")
_NODE = struct.Struct("!xIB")
_STAY = struct.Struct("!II")
_LONGEST = 1 << 24
_LATEST = (1 << 32) - 1

Record = tuple[bytes, str, int]
"""A source, its node, and when it was last used, in nanoseconds since 1970."""


class Writer:
    """Makes frames for one book. ``nodes`` are those that the book has numbered already."""

    def __init__(self, nodes: Iterable[str] = ()) -> None:
        self._numbers = {node: number for number, node in enumerate(nodes)}

    def frame(self, records: Iterable[Record]) -> bytes:
        """One frame with all ``records``; nothing when there are none. A source has 1 to 255 bytes."""
        parts: list[bytes] = []
        numbers = self._numbers
        for source, node, used_ns in records:
            number = numbers.get(node)
            if number is None:
                number = numbers[node] = len(numbers)
                name = node.encode()
                parts.append(_NODE.pack(number, len(name)) + name)
            parts.append(bytes((len(source),)) + source + _STAY.pack(number, min(used_ns // SECOND_NS, _LATEST)))
        body = b"".join(parts)
        return _FRAME.pack(len(body), zlib.crc32(body)) + body if body else b""


class Reader:
    """Reads a book piece by piece, as far as it was written."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        """The nodes by their numbers."""
        self.good = 0
        """So many bytes are whole: here the next frame begins."""
        self.damaged = False
        """Whether what comes next is no frame, so that nothing more can be read."""
        self._rest = b""

    def drop_rest(self) -> None:
        """Forget what came after the frames that are whole: it will be fed anew, from :attr:`good` on."""
        self._rest = b""

    def feed(self, data: bytes) -> list[Record]:
        """The records in the frames that are whole with ``data``. LocalError when this is no book."""
        data = self._rest + data
        at = 0
        found: list[Record] = []
        if not self.good:
            if not data.startswith(MAGIC[: len(data)]):
                raise LocalError(f"expected a file that begins with {MAGIC!r}, found {data[: len(MAGIC)]!r}")
            at = len(MAGIC) if len(data) >= len(MAGIC) else 0
        if at or self.good:
            at = self._frames(data, at, found)
        self.good += at
        self._rest = data[at:]
        return found

    def _frames(self, data: bytes, at: int, found: list[Record]) -> int:
        """Read frames from ``at`` on; where the first one that is not whole begins."""
        while not self.damaged and len(data) - at >= _FRAME.size:
            length, check = _FRAME.unpack_from(data, at)
            body = data[at + _FRAME.size : at + _FRAME.size + length]
            if not 0 < length <= _LONGEST:
                self.damaged = True
            elif len(body) < length:
                break
            elif zlib.crc32(body) != check:
                self.damaged = True
            else:
                try:
                    self._records(body, found)
                except (struct.error, LookupError, UnicodeDecodeError):  # whole, and yet not written by us
                    self.damaged = True
                    break
                at += _FRAME.size + length
        return at

    def _records(self, body: bytes, found: list[Record]) -> None:
        at, end = 0, len(body)
        nodes = self.nodes
        stay = _STAY.unpack_from
        while at < end:
            length = body[at]
            at += 1
            if length:
                number, seconds = stay(body, at + length)
                found.append((body[at : at + length], nodes[number], seconds * SECOND_NS))
                at += length + _STAY.size
            else:
                at += _NODE.size - 1
                name = body[at : at + body[at - 1]]
                nodes.append(name.decode())
                at += len(name)
