"""Whoever does what blocks: a thread, or in tests nobody but the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred

P = ParamSpec("P")
T = TypeVar("T")


class Worker(Protocol):
    """What :class:`farmsyncd.edges.workthread.WorkThread` is: does what it is given, in order."""

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """What ``work`` returns or raises, once it is done."""
        ...

    def stop(self) -> Deferred[None]:
        """Fires when all is done; nothing is taken any more."""
        ...
