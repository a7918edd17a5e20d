"""A few named timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")


def fire(waiting: list[Deferred[T]], result: T) -> None:
    """Fire all that wait, and forget them."""
    fired = waiting[:]
    waiting.clear()
    for each in fired:
        each.callback(result)


class Timers:
    """At most one timer of each name."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: dict[str, IDelayedCall] = {}

    def start(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Call ``call`` in about ``seconds``; replaces the timer of that name."""
        self.stop(name)
        self._calls[name] = self._clock.callLater(seconds, call)

    def stop(self, *names: str) -> None:
        """Forget these timers, if they run."""
        for name in names:
            call = self._calls.pop(name, None)
            if call is not None and call.active():
                call.cancel()

    def stop_all(self) -> None:
        """Forget them all."""
        self.stop(*self._calls)
