"""How many nodes are served bulk at once, and how fast all of them together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from farmsyncd.edges.link import Extent, Link


class Pace:
    """A rate of bytes per second that all transfers share, first come, first served; None is no limit."""

    def __init__(self, rate_bytes: int | None, clock: IReactorTime) -> None:
        self._rate_bytes = rate_bytes
        self._clock = clock
        self._free_at = 0.0

    @property
    def unlimited(self) -> bool:
        """Whether nobody ever waits."""
        return self._rate_bytes is None

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
        extents = deque(find())
        if self._pace.unlimited:
            self.sent_bytes += sum(extent.length for extent in extents)
            await link.pour(iter(extents))
            return
        while extents:
            extent = extents.popleft()
            await self._pace.take(extent.length)
            self.sent_bytes += extent.length
            await link.pour(iter((extent,)))
