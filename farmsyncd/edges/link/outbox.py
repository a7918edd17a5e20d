"""What is still to be sent over one connection: messages in order, and between them what is poured."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred

from farmsyncd.edges.link.outlet import PIECE, Outlet
from farmsyncd.errors import LocalError

TURN = 2 * PIECE


class Extent(Protocol):
    """Bytes of a file that are whole frames: ``length`` of them, from ``offset`` on.

    The file is open for as long as the extent is held, and may have lost its name meanwhile.
    """

    @property
    def fd(self) -> int:
        """The open file; its position is never used."""

    @property
    def offset(self) -> int:
        """Where the frames begin."""

    @property
    def length(self) -> int:
        """How many bytes they have."""


class PourEnded(LocalError):
    """A pour could not be finished: the connection went away or was closed first."""


class _FilePart:
    """The unsent part of an extent, which it holds on to."""

    def __init__(self, extent: Extent) -> None:
        self._extent = extent
        self._fd = extent.fd
        self._offset = extent.offset
        self.left = extent.length
        os.posix_fadvise(self._fd, extent.offset, extent.length, os.POSIX_FADV_WILLNEED)

    def step(self, outlet: Outlet) -> int:
        sent = outlet.write_file(self._fd, self._offset, self.left)
        self._offset += sent
        self.left -= sent
        return sent

    def close(self) -> None:
        """Nothing to do: the extent's file is its owner's."""


class _BytesPart:
    """Unsent bytes."""

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self.left = len(data)

    def step(self, outlet: Outlet) -> int:
        sent = outlet.write(self._view[:PIECE])
        self._view = self._view[sent:]
        self.left -= sent
        return sent

    def close(self) -> None:
        self._view.release()


class Outbox:
    """Sends through an outlet as fast as it takes bytes, messages first, a pour when no message waits.

    ``moved`` is called whenever the peer took something, ``empty`` whenever nothing is left, ``torn`` with a reason
    when a frame could not be finished: the connection is of no use then.
    """

    def __init__(self, moved: Callable[[], None], empty: Callable[[], None], torn: Callable[[str], None]) -> None:
        self._moved = moved
        self._empty = empty
        self._torn = torn
        self._outlet: Outlet | None = None
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._part: _FilePart | _BytesPart | None = None
        self._part_begun = False
        self._source: Iterator[bytes | Extent] | None = None
        self._poured: Deferred[None] | None = None
        self._pumping = False
        self._closed = False

    def attach(self, outlet: Outlet) -> None:
        """Begin to send through ``outlet``."""
        self._outlet = outlet
        self.pump()

    @property
    def unsent(self) -> int:
        """Bytes of messages that wait; files that are being poured wait on the disk and do not count."""
        return self._queued + (self._part.left if isinstance(self._part, _BytesPart) else 0)

    @property
    def idle(self) -> bool:
        """Whether nothing waits at all: what is sent now leaves now."""
        return self._part is None and not self._queue and self._source is None

    def put(self, frames: bytes) -> None:
        """Send whole frames after all that waits."""
        if self._closed or not frames:
            return
        self._queue.append(frames)
        self._queued += len(frames)
        self.pump()

    def pour(self, source: Iterator[bytes | Extent]) -> Deferred[None]:
        """Send all that ``source`` yields, each piece whole frames, as the peer takes it; fires when the last left."""
        if self._source is not None:
            raise RuntimeError("one pour at a time")
        done: Deferred[None] = Deferred()
        if self._closed:
            done.errback(PourEnded("the connection is closed"))
            return done
        self._source, self._poured = source, done
        self.pump()
        return done

    def pump(self) -> None:
        """Send what the outlet takes now, but let others have their turn."""
        if self._pumping or self._closed or self._outlet is None:
            return
        self._pumping = True
        try:
            drained = self._pump(self._outlet)
        finally:
            self._pumping = False
        if not self._closed:
            if drained:
                self._empty()
            else:
                self._outlet.wait()

    def _pump(self, outlet: Outlet) -> bool:
        budget = TURN
        while budget > 0 and not self._closed:
            if self._part is None and not self._next():
                return True
            part = self._part
            if part is None:
                continue
            try:
                sent = part.step(outlet) if part.left else 0
            except (EOFError, OSError) as error:
                if self._part_begun:
                    self._torn(f"a file that was being sent could not be read: {str(error) or 'it is too short'}")
                    return False
                self._part = None
                self._end_pour(error)
                continue
            if sent:
                budget -= sent
                self._part_begun = True
                self._moved()
            if not part.left:
                part.close()
                self._part = None
            elif not sent:
                return False
        return False

    def _next(self) -> bool:
        """Take up the next part; False when there is none."""
        self._part_begun = False
        if self._queue:
            frames = self._queue.popleft() if len(self._queue) == 1 else self._join()
            self._queued -= len(frames)
            self._part = _BytesPart(frames)
            return True
        if self._source is None:
            return False
        try:
            item = next(self._source)
            self._part = _BytesPart(item) if isinstance(item, bytes) else _FilePart(item)
        except StopIteration:
            self._end_pour(None)
        except Exception as error:
            self._end_pour(error)
        return True

    def _join(self) -> bytes:
        """The first messages of the queue, together: one call of the kernel for many of them."""
        taken, size = [], 0
        while self._queue and size < PIECE // 4:
            taken.append(self._queue.popleft())
            size += len(taken[-1])
        return b"".join(taken)

    def _end_pour(self, error: Exception | None) -> None:
        done, self._source, self._poured = self._poured, None, None
        if done is None:
            return
        if error is None:
            done.callback(None)
        else:
            done.errback(error)

    def end_pour(self, reason: str) -> None:
        """Pour no more; what has been begun is still sent to its end."""
        self._end_pour(PourEnded(reason))

    def close(self, reason: str) -> None:
        """Forget all that waits, for good."""
        self._closed = True
        self._queue.clear()
        self._queued = 0
        if self._part is not None:
            self._part.close()
            self._part = None
        self._end_pour(PourEnded(reason))
