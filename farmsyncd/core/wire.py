r"""Bytes to frames and back: a verb line, then the netstrings that it announces.

A frame on the wire::

    VERB word word ... +2\n
    5:hello,3:you,

The line is visible ASCII words separated by single spaces, ended by a newline (a carriage return before it is
tolerated, for people with telnet). When its last word begins with a plus sign it is ``+N``, and N netstrings follow;
no value is spelled so. Nothing else is ever sent.

The parser holds no more than one frame's worth of bytes and looks at each byte once, so that its work is linear in
its input however the input is cut up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from farmsyncd.errors import PeerError

_LINE = re.compile(rb"[A-Z][A-Z0-9-]{0,31}(?: [\x21-\x7e]+)*")
_COMMA = ord(",")
_COUNT = re.compile(r"\+[1-9][0-9]{0,5}", re.ASCII)


class WireError(PeerError):
    """The bytes that arrived are no frames; the connection cannot be followed any further."""


@attrs.frozen
class Limits:
    """The largest frame that is accepted: bytes of a line, bytes of a netstring, netstrings, bytes of them together."""

    line: int = 64 * 1024
    netstring: int = 8 * 1024 * 1024
    count: int = 64
    total: int = 64 * 1024 * 1024


@attrs.frozen
class Frame:
    """One message as it travels: a verb, its words (already spelled), and its netstrings."""

    verb: str
    words: tuple[str, ...] = ()
    payload: tuple[bytes, ...] = ()


def header(frame: Frame) -> bytes:
    """The verb line of ``frame``, its newline included."""
    words = [frame.verb, *frame.words]
    if frame.payload:
        words.append(f"+{len(frame.payload)}")
    return " ".join(words).encode("ascii") + b"\n"


def pieces(frame: Frame) -> Iterator[bytes]:
    """The bytes of ``frame`` in pieces, its netstrings uncopied: for a transport's ``writeSequence``."""
    yield header(frame)
    for body in frame.payload:
        yield b"%d:" % len(body)
        yield body
        yield b","


def encode(frame: Frame) -> bytes:
    """The bytes of ``frame``."""
    return b"".join(pieces(frame))


@attrs.define
class _Unfinished:
    """A frame of which the line has come, and not yet all netstrings."""

    verb: str
    words: tuple[str, ...]
    count: int
    payload: list[bytes] = attrs.Factory(list)
    total: int = 0


class FrameParser:
    """Cuts a stream of bytes into frames.

    Feed it whatever arrives; it gives back the frames that became whole. After a :class:`WireError` it must not be
    fed again. ``limits`` may be replaced between two frames, for example once a peer has said who it is.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits if limits is not None else Limits()
        self._head = bytearray()  # the part of a line, or of a netstring's length, that has come
        self._frame: _Unfinished | None = None
        self._body = bytearray()  # the part of a netstring that has come
        self._missing: int | None = None  # bytes that the current netstring still lacks, its comma included

    @property
    def idle(self) -> bool:
        """Whether the stream stands between two frames, so that it may end here."""
        return not self._head and self._frame is None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes, in order, each as soon as it is whole: iterate to the end.

        Raises WireError at the first byte that fits nothing, after the frames before it.
        """
        at = 0
        while at < len(data):
            if self._missing is not None:
                at = self._take_body(data, at)
            elif self._frame is not None:
                at = self._take_length(data, at)
            else:
                at = self._take_line(data, at)
            if self._frame is not None and len(self._frame.payload) == self._frame.count:
                frame, self._frame = self._frame, None
                yield Frame(frame.verb, frame.words, tuple(frame.payload))

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end
        if len(self._head) + stop - at > self.limits.line:
            raise WireError(f"expected a line of at most {self.limits.line} bytes, and a longer one came")
        self._head += data[at:stop]
        if end < 0:
            return stop
        line = bytes(self._head).removesuffix(b"\r")
        self._head.clear()
        self._frame = self._read_line(line)
        return stop + 1

    def _read_line(self, line: bytes) -> _Unfinished:
        if _LINE.fullmatch(line) is None:
            raise WireError(f"expected a verb in capitals and words with single spaces between, and {line[:60]!r} came")
        verb, *words = line.decode("ascii").split(" ")
        count = 0
        if words and words[-1].startswith("+"):
            announced = words.pop()
            count = int(announced) if _COUNT.fullmatch(announced) else 0
            if not 0 < count <= self.limits.count:
                raise WireError(f"expected 1 to {self.limits.count} netstrings, and {announced[:20]!r} announces them")
        return _Unfinished(verb, tuple(words), count)

    def _take_length(self, data: bytes, at: int) -> int:
        frame = self._frame
        assert frame is not None
        longest = len(str(self.limits.netstring))
        end = data.find(b":", at, at + longest + 1)
        stop = min(len(data), at + longest + 1) if end < 0 else end
        self._head += data[at:stop]
        digits = bytes(self._head)
        if len(digits) > longest and digits.isdigit():
            raise WireError(
                f"expected a netstring of at most {self.limits.netstring} bytes, and a longer one is announced"
            )
        if not (digits.isdigit() or (not digits and end < 0)):
            raise WireError(f"expected a netstring's length and a colon, and {digits[:20]!r} came")
        if len(digits) > 1 and digits.startswith(b"0"):
            raise WireError(f"expected a length without leading zeros, and {digits[:20]!r} came")
        if end < 0:
            return stop
        self._head.clear()
        length = int(digits)
        frame.total += length
        if length > self.limits.netstring:
            raise WireError(
                f"expected a netstring of at most {self.limits.netstring} bytes, and {length} are announced"
            )
        if frame.total > self.limits.total:
            raise WireError(f"expected at most {self.limits.total} bytes together, and {frame.total} are announced")
        self._missing = length + 1
        return stop + 1

    def _take_body(self, data: bytes, at: int) -> int:
        frame = self._frame
        assert frame is not None
        assert self._missing is not None
        end = min(at + self._missing, len(data))
        self._missing -= end - at
        if self._missing:
            self._body += data[at:end]
            return end
        if data[end - 1] != _COMMA:
            raise WireError("a netstring is not as long as it says: no comma follows it")
        if self._body:
            self._body += data[at : end - 1]
            frame.payload.append(bytes(self._body))
            self._body = bytearray()
        else:
            frame.payload.append(data[at : end - 1])
        self._missing = None
        return end
