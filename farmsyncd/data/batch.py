"""Many small writes that become durable together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Batch(Generic[T]):
    """Hands what is added to ``write``, all that has gathered while the last write went on as one."""

    def __init__(self, write: Callable[[list[T]], Deferred[None]]) -> None:
        self._write = write
        self._items: list[T] = []
        self._waiting: list[Deferred[None]] = []
        self._writing = False

    def add(self, item: T) -> Deferred[None]:
        """Write ``item``; fires when it is written, or fails as its write did."""
        done: Deferred[None] = Deferred()
        self._items.append(item)
        self._waiting.append(done)
        if not self._writing:
            self._begin()
        return done

    def _begin(self) -> None:
        items, waiting = self._items, self._waiting
        self._items, self._waiting = [], []
        self._writing = True

        def written(result: Failure | None) -> None:
            self._writing = False
            if self._items:
                self._begin()
            for done in waiting:
                if not done.called:
                    done.callback(result)

        self._write(items).addBoth(written)
