"""Has the disk work while a tree still grows, so that there is little left to wait for at its end.

Many small files are best left to the file system to lay out and write together. But it would let them wait for
seconds; so each time some megabytes have gathered, a thread has it write what there is, beside whoever goes on.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Final

from farmsyncd.edges.content import durable

_GATHERED: Final = 64 * 1024 * 1024


class Settling:
    """Makes what is written to the file system of the directory ``fd`` durable, in good time."""

    def __init__(self, fd: int, gathered: int = _GATHERED) -> None:
        self._fd = fd
        self._most = gathered
        self._gathered = 0
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None

    def wrote(self, amount: int) -> None:
        """So many bytes more wait to be written. For any thread. Raises OSError when the disk failed earlier ones."""
        with self._lock:
            self._gathered += amount
            if self._gathered < self._most or (self._running is not None and not self._running.done()):
                return
            self._gathered = 0
            before, self._running = self._running, self._begin()
        if before is not None:
            before.result()

    def _begin(self) -> Future[None]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "farmsync-settling")
        return self._pool.submit(durable.sync_file_system, self._fd)

    def settle(self) -> None:
        """Return when all that was written is durable. Raises OSError when that failed at any time."""
        if self._running is not None:
            self._running.result()
        durable.sync_file_system(self._fd)

    def close(self) -> None:
        """End the thread; again does nothing."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
