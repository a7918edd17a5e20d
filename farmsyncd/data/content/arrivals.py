"""Chunks that an operator uploads for one offered version: verified and stored as they come."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from farmsyncd.core.chunks import Damaged
from farmsyncd.core.messages.content import Chunk
from farmsyncd.edges.content.packs import ChunkStore
from farmsyncd.edges.content.packwriter import PackWriter
from farmsyncd.edges.workthread import WorkThread
from farmsyncd.errors import PeerError

_HIGH = 16 * 1024 * 1024
_LOW = 4 * 1024 * 1024


class Arrivals:
    """Stores the chunks of one upload.

    ``crowded`` is called with True when more waits to be stored than should, and with False once that is over.
    """

    def __init__(self, store: ChunkStore, thread: WorkThread, crowded: Callable[[bool], None]) -> None:
        self._store = store
        self._thread = thread
        self._crowded = crowded
        self._is_crowded = False
        self._waiting: list[Chunk] = []
        self._waiting_bytes = 0
        self._writer: PackWriter | None = None
        self._storing: Deferred[None] | None = None
        self._failure: Failure | None = None
        self._finishing: list[Deferred[None]] = []

    def add(self, chunk: Chunk) -> None:
        """Store a chunk that came. What goes wrong is told by :meth:`finish`."""
        if self._failure is not None:
            return
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk.data)
        self._go_on()

    def finish(self) -> Deferred[None]:
        """Fires when all that came is durable.

        Fails with PeerError when a chunk was not what it said, and with Unavailable when the disk is full.
        """
        done: Deferred[None] = Deferred()
        self._finishing.append(done)
        self._go_on()
        return done

    def _go_on(self) -> None:
        self._tell_if_crowded()
        if self._storing is not None:
            return
        if self._waiting and self._failure is None:
            chunks, self._waiting = self._waiting, []
            self._begin(self._store_all, chunks)
        elif self._writer is not None and self._finishing:
            self._begin(self._close)
        elif self._finishing:
            finishing, self._finishing = self._finishing, []
            failure, self._failure = self._failure, None
            self._waiting.clear()
            for done in finishing:
                if not done.called:
                    done.callback(failure)

    def _begin(self, work: Callable[..., int], *args: object) -> None:
        self._storing = self._thread.run(work, *args).addCallbacks(self._stored, self._failed)
        self._storing.addBoth(lambda _: self._next())

    def _next(self) -> None:
        self._storing = None
        self._go_on()

    def _stored(self, size: int) -> None:
        self._waiting_bytes -= size

    def _failed(self, failure: Failure) -> None:
        self._failure = failure
        self._waiting.clear()
        self._waiting_bytes = 0

    def _tell_if_crowded(self) -> None:
        if not self._is_crowded and self._waiting_bytes > _HIGH:
            self._is_crowded = True
            self._crowded(True)
        elif self._is_crowded and self._waiting_bytes < _LOW:
            self._is_crowded = False
            self._crowded(False)

    def _store_all(self, chunks: list[Chunk]) -> int:
        if self._writer is None:
            self._writer = self._store.writer()
        try:
            for chunk in chunks:
                self._writer.put(chunk.digest, chunk.codec, chunk.length, chunk.data)
        except Damaged as error:
            raise PeerError(f"{error}: the upload is not what it says") from error
        return sum(len(chunk.data) for chunk in chunks)

    def _close(self) -> int:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        return 0
