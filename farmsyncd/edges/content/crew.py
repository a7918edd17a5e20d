"""A few threads that share a piece of work with whoever ordered it, and that can be called off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import TypeVar

from farmsyncd.errors import LocalError

T = TypeVar("T")


class Cancelled(LocalError):
    """The work was given up by whoever ordered it."""


class Crew:
    """``workers`` threads, the caller's one of them. One piece of work at a time."""

    def __init__(self, workers: int) -> None:
        self._workers = max(1, workers)
        self._pool: ThreadPoolExecutor | None = None
        self._cancelled = Event()

    def share(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Do ``work`` for each of ``items``, which are begun in their order; returns when all are done.

        When one raises, no further ones are begun, and its exception is raised once the others have ended.
        """
        left, taking, failed = iter(items), Lock(), Event()

        def drain() -> None:
            while not failed.is_set():
                with taking:
                    item = next(left, left)
                if item is left:
                    return
                try:
                    self.check()
                    work(item)  # type: ignore[arg-type]  # anything but the iterator itself is an item
                except BaseException:
                    failed.set()
                    raise

        if len(items) > 1 and self._workers > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers - 1, "farmsync-content")
        helpers = [self._pool.submit(drain) for _ in range(min(self._workers, len(items)) - 1)] if self._pool else []
        try:
            drain()
        finally:
            wait(helpers)
        for helper in helpers:
            helper.result()

    def check(self) -> None:
        """Raise Cancelled once :meth:`cancel` was called."""
        if self._cancelled.is_set():
            raise Cancelled("the work was cancelled")

    def cancel(self) -> None:
        """Have :meth:`check` raise from now on, in every thread. For any thread."""
        self._cancelled.set()

    def close(self) -> None:
        """End the threads; again does nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
