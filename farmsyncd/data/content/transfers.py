"""How many nodes are served bulk at once, and how fast all of them together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from farmsyncd.core.chunkframes import frame_length
from farmsyncd.edges.link import Extent, Link

_LONGEST_HEAD: Final = 200
_LEAST: Final = 16 * 1024


class Pace:
    """A rate of bytes per second that all transfers share, first come, first served; None is no limit."""

    def __init__(self, rate_bytes: int | None, clock: IReactorTime) -> None:
        self._rate_bytes = rate_bytes
        self._clock = clock
        self._free_at = 0.0

    @property
    def stride(self) -> int | None:
        """How many bytes to send at once, so that the rate is kept to within a moment; None when nobody ever waits."""
        return None if self._rate_bytes is None else max(_LEAST, self._rate_bytes // 10)

    def take(self, count: int) -> Deferred[None]:
        """Fires when ``count`` bytes may be sent; cancel it to give up."""
        if self._rate_bytes is None:
            return succeed(None)
        now = self._clock.seconds()
        begins = max(self._free_at, now)
        self._free_at = begins + count / self._rate_bytes
        return deferLater(self._clock, begins - now, lambda: None)


class Transfers:
    """Sends bulk over links: at most ``at_once`` at a time, the others wait in the order in which they came."""

    def __init__(self, at_once: int, pace: Pace) -> None:
        self._slots = DeferredSemaphore(at_once)
        self._pace = pace
        self.sent_bytes = 0

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._slots.waiting)

    @property
    def running(self) -> int:
        """How many are being served."""
        return self._slots.limit - self._slots.tokens

    async def send(self, link: Link, find: Callable[[], Iterable[Extent]]) -> None:
        """Send what ``find``, called when it is this link's turn, says. Fails when the link ends first."""
        await self._slots.run(self._send, link, find)

    async def _send(self, link: Link, find: Callable[[], Iterable[Extent]]) -> None:
        extents, stride = list(find()), self._pace.stride
        if stride is None:
            self.sent_bytes += sum(extent.length for extent in extents)
            await link.pour(iter(extents))
            return
        for extent in extents:
            for portion in portions(extent, stride):
                await self._pace.take(portion.length)
                self.sent_bytes += portion.length
                await link.pour(iter((portion,)))


@attrs.frozen
class _Portion:
    """Some of the frames of an extent."""

    of: Extent
    offset: int
    length: int

    @property
    def fd(self) -> int:
        """The extent's file."""
        return self.of.fd


def portions(extent: Extent, most: int) -> Iterator[Extent]:
    """``extent`` in portions of at most ``most`` bytes, or of one frame: between frames other messages may be sent.

    Where there is no frame, as in a damaged file, the rest is one portion: whoever gets it finds that out.
    """
    start = at = extent.offset
    end = extent.offset + extent.length
    while at < end:
        following = at + (_length_at(extent.fd, at) or end - at)
        if at > start and following - start > most:
            yield _Portion(extent, start, at - start)
            start = at
        at = min(following, end)
    if start < end:
        yield _Portion(extent, start, end - start)


def _length_at(fd: int, at: int) -> int | None:
    try:
        return frame_length(os.pread(fd, _LONGEST_HEAD, at))
    except OSError:
        return None  # sending it will say the same
