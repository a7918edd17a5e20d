"""Rings at an instant of some clock, to the accuracy of the reactor's timers: for what need not be precise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

LONGEST: Final = 1.0
_SHORTEST: Final = 0.001


class Alarm:
    """Calls ``ring(at_ns)`` once ``now_ns()`` has reached the time it is set to.

    Never early by its own clock. The timer is armed at most a second ahead and the clock read again, so that a timer
    that runs on another clock, as the reactor's does, brings it no further from its time than that clock is set back.
    """

    def __init__(self, now_ns: Callable[[], int], wakes: IReactorTime, ring: Callable[[int], None]) -> None:
        self._now_ns = now_ns
        self._wakes = wakes
        self._ring = ring
        self._at_ns: int | None = None
        self._call: IDelayedCall | None = None

    @property
    def at_ns(self) -> int | None:
        """What it is set to; None when it is not, or has rung."""
        return self._at_ns

    def set(self, at_ns: int | None) -> None:
        """Ring at ``at_ns`` and at no other time; None is never. Rings soon, never at once, when that has passed."""
        self._at_ns = at_ns
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if at_ns is not None:
            self._arm(at_ns)

    def _arm(self, at_ns: int) -> None:
        left = (at_ns - self._now_ns()) / 1e9
        self._call = self._wakes.callLater(min(LONGEST, max(left, _SHORTEST) if left > 0 else 0), self._look)

    def _look(self) -> None:
        at_ns = self._at_ns
        assert at_ns is not None
        if self._now_ns() < at_ns:
            self._arm(at_ns)
        else:
            self._at_ns = self._call = None
            self._ring(at_ns)
