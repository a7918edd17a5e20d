"""When to compare clocks next: a pure planner. Times are the node's local nanoseconds, chance is an argument.

A burst at connect, since the best of a few exchanges is far better than one. Then at growing distances, as often as the
bound's growth demands but never so often that a thousand nodes would weigh on the data server. Before an activation
two bursts: one some seconds ahead, in case the second finds no path, and one as late as the rehearsal of the swap
allows. Both are drawn at random for each node, so that a farm does not ask in one millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from farmsyncd.core.farmtime import Estimate

MILLI: Final = 1_000_000
SECOND: Final = 1000 * MILLI


@attrs.frozen
class Pace:
    """How often to ask; durations in nanoseconds.

    ``burst`` exchanges ``burst_gap_ns`` apart. Between bursts the distance doubles from ``first_gap_ns``, up to where
    the bound will have grown by itself or by ``growth_ns``, whichever is more; but it is ``settled_ns`` at least, once it
    has grown so far, and ``longest_ns`` at most. ``rushes``: the windows before an activation in which bursts begin.
    """

    burst: int = 8
    burst_gap_ns: int = 25 * MILLI
    first_gap_ns: int = SECOND
    settled_ns: int = 10 * SECOND
    longest_ns: int = 30 * SECOND
    growth_ns: int = MILLI
    rushes: tuple[tuple[int, int], ...] = ((6 * SECOND, 3 * SECOND), (1700 * MILLI, 1100 * MILLI))


@attrs.define
class Prober:
    """Plans one connection's questions. ``chance`` is uniform in [0, 1), like ``random.random``.

    ``next_at(now)`` says when to ask next; ``asked`` and ``answered`` are told as they happen. One question is under way at
    a time.
    """

    pace: Pace
    _chance: Callable[[], float]
    _left: int = attrs.field(default=0, init=False)  # of the burst
    _gap_ns: int = attrs.field(default=0, init=False)
    _next_ns: int = attrs.field(default=0, init=False)
    _rushes: dict[int, tuple[int, ...]] = attrs.field(factory=dict, init=False)
    _done_rushes: set[tuple[int, int]] = attrs.field(factory=set, init=False)

    def burst(self, now_ns: int) -> None:
        """Ask several times from now on: a new connection, a step, somebody who wants to know well."""
        self._left = self.pace.burst
        self._gap_ns = 0
        self._next_ns = now_ns

    def expect(self, now_ns: int, activations: Iterable[int]) -> None:
        """The activations to come, in local time. Those that hardly moved since keep the instants drawn for them."""
        known = self._rushes
        self._rushes = {}
        for at_ns in activations:
            old = next((one for one in known if abs(one - at_ns) < SECOND), None)
            begins = (
                known[old] if old is not None else tuple(at_ns - self._draw(*window) for window in self.pace.rushes)
            )
            # A window that has passed when the activation became known is of no use any more.
            self._rushes[at_ns] = begins if old is not None else tuple(begin for begin in begins if begin > now_ns)

    def next_at(self, now_ns: int) -> int:
        """When to ask next: now or earlier means at once."""
        for at_ns, begins in self._rushes.items():
            if any(begin <= now_ns for begin in begins):
                self._rushes[at_ns] = tuple(begin for begin in begins if begin > now_ns)
                self.burst(now_ns)
        pending = [begin for begins in self._rushes.values() for begin in begins]
        return min([self._next_ns, *pending])

    def answered(self, now_ns: int, estimate: Estimate | None) -> None:
        """An exchange is done; ``estimate`` is what is known now."""
        self._left -= 1
        if self._left > 0 or estimate is None:
            self._next_ns = now_ns + self.pace.burst_gap_ns
            return
        self._gap_ns = min(max(2 * self._gap_ns, self.pace.first_gap_ns), self._longest(estimate))
        self._next_ns = now_ns + self._gap_ns - self._draw(0, self._gap_ns // 4)

    def _longest(self, estimate: Estimate) -> int:
        """The distance after which the bound will have grown too far."""
        allowed = estimate.error_bound_ns + max(estimate.error_bound_ns, self.pace.growth_ns)
        gap = self.pace.settled_ns
        while gap < self.pace.longest_ns and estimate.bound_at(estimate.as_of_ns + gap) <= allowed:
            gap = gap * 5 // 4
        return min(gap, self.pace.longest_ns)

    def _draw(self, one: int, other: int) -> int:
        return one + int((other - one) * self._chance())
