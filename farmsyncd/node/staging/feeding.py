"""From the connection to the worker's thread: in batches, no more than the disk keeps up with, at the pace allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from farmsyncd.core.messages.content import Chunk
from farmsyncd.edges.link import Link
from farmsyncd.node.staging.conversation import Part
from farmsyncd.node.staging.pace import Pace
from farmsyncd.node.staging.work import Hush, Work
from farmsyncd.node.worker import Worker

BATCH: Final = 1024 * 1024
QUEUED_MOST: Final = 32 * 1024 * 1024
_OVERHEAD: Final = 100  # bytes of a message besides its data, about


class Feeder:
    """Hands what comes over ``link`` to ``work``, in ``thread``. It stops reading while too much waits there.

    ``now_ns`` is any clock that runs forward; ``pace`` and ``hush`` are shared by all that is staged on the node.
    """

    def __init__(
        self,
        link: Link,
        work: Work,
        thread: Worker,
        wakes: IReactorTime,
        now_ns: Callable[[], int],
        pace: Pace,
        hush: Hush,
    ) -> None:
        self.received = 0
        self.damaged = 0
        self._link = link
        self._work = work
        self._thread = thread
        self._wakes = wakes
        self._now_ns = now_ns
        self._pace = pace
        self._hush = hush
        self._chunks: list[Chunk] = []
        self._parts: list[bytes] = []
        self._gathered = 0
        self._queued = 0
        self._flushing: IDelayedCall | None = None
        self._resting: IDelayedCall | None = None
        self._fault: Failure | None = None
        self._idle: Deferred[None] | None = None

    def part(self, part: Part) -> None:
        """One part came."""
        if self._fault is not None:
            return
        if isinstance(part, Chunk):
            self._chunks.append(part)
            self._gathered += len(part.data) + _OVERHEAD
        else:
            self._parts.append(part.part)
            self._gathered += len(part.part) + _OVERHEAD
        if self._gathered >= BATCH:
            self._flush()
        elif self._flushing is None:
            self._flushing = self._wakes.callLater(0, self._flush)

    def arrived(self, amount: int) -> None:
        """So many bytes came, whether or not they make a whole part: read no more before the pace allows it."""
        self.received += amount
        rest = self._pace.took(amount, self._now_ns())
        if rest > 0:
            self._slow_down(rest)

    def drained(self) -> Deferred[None]:
        """Fires when the thread is done with all that came; fails with what went wrong there."""
        self._flush()
        if self._queued == 0:
            return succeed(None) if self._fault is None else _failed(self._fault)
        self._idle = Deferred()
        return self._idle

    def stop(self) -> None:
        """Nothing more will come."""
        for call in (self._flushing, self._resting):
            if call is not None and call.active():
                call.cancel()
        self._flushing = self._resting = None
        self._chunks, self._parts, self._gathered = [], [], 0

    def _flush(self) -> None:
        if self._flushing is not None and self._flushing.active():
            self._flushing.cancel()
        self._flushing = None
        size, self._gathered = self._gathered, 0
        if not size:
            return
        chunks, self._chunks = self._chunks, []
        parts, self._parts = self._parts, []
        self._queued += size
        if parts:
            self._thread.run(self._work.take_parts, parts).addErrback(self._failed)
        self._thread.run(self._work.take_chunks, chunks).addCallbacks(self._took, self._failed).addCallback(
            lambda _: self._finished(size)
        )
        self._slow_down(0.0)

    def _took(self, damaged: int) -> None:
        self.damaged += damaged

    def _failed(self, failure: Failure) -> None:
        if self._fault is None:
            self._fault = failure
            # Nobody needs the rest: whoever waits for the answer hears of it at once.
            self._link.abort("what came could not be used")

    def _finished(self, size: int) -> None:
        self._queued -= size
        if self._resting is None:
            self._slow_down(0.0)
        if self._queued == 0 and self._idle is not None:
            idle, self._idle = self._idle, None
            if self._fault is None:
                idle.callback(None)
            else:
                idle.errback(self._fault)

    @property
    def fault(self) -> Failure | None:
        """What went wrong in the thread."""
        return self._fault

    def _slow_down(self, seconds: float) -> None:
        """Read on, unless it is too fast, too much waits, or a swap is near."""
        seconds = max(seconds, self._hush.left())
        if self._resting is not None:
            if seconds <= 0:
                return
            self._resting.cancel()
            self._resting = None
        if seconds > 0:
            self._link.pause()
            self._resting = self._wakes.callLater(seconds, self._rested)
        elif self._queued > QUEUED_MOST:
            self._link.pause()
        elif self._queued <= QUEUED_MOST // 2:
            self._link.resume()

    def _rested(self) -> None:
        self._resting = None
        self._slow_down(0.0)


def _failed(failure: Failure) -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.errback(failure)
    return done
