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
    the bound will have doubled, or grown by ``growth_ns`` if that is more; ``settled_ns`` is always far enough, and
    ``longest_ns`` is never too far. ``rushes``: before an activation, the windows in which bursts begin.
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
    """Plans the questions of one connection, of which one at a time is under way.

    ``next_at`` says when to ask next; ``answered`` is told of each answer. ``chance`` is uniform in [0, 1), as
    ``random.random`` is.
    """

    _chance: Callable[[], float]
    pace: Pace = attrs.Factory(Pace)
    _left: int = attrs.field(default=0, init=False)  # of the burst
    _gap_ns: int = attrs.field(default=0, init=False)
    _next_ns: int = attrs.field(default=0, init=False)
    _rushes: dict[int, tuple[int, ...]] = attrs.field(factory=dict, init=False)  # activation: bursts not yet begun

    def burst(self, now_ns: int) -> None:
        """Ask several times from now on: a new connection, a step, somebody who wants to know well."""
        self._left = self.pace.burst
        self._gap_ns = 0
        self._next_ns = now_ns

    def expect(self, now_ns: int, activations: Iterable[int]) -> None:
        """The activations to come, in local time. Those that hardly moved since keep the instants drawn for them."""
        known, self._rushes = self._rushes, {}
        for at_ns in activations:
            old = next((one for one in known if abs(one - at_ns) < SECOND), None)
            if old is not None:
                self._rushes[at_ns] = known[old]
            elif at_ns > now_ns:
                self._rushes[at_ns] = tuple(self._draw_begin(now_ns, at_ns, *window) for window in self.pace.rushes)

    def next_at(self, now_ns: int) -> int:
        """When to ask next; a time that has passed means at once."""
        for at_ns, begins in self._rushes.items():
            if any(begin <= now_ns for begin in begins):
                self._rushes[at_ns] = tuple(begin for begin in begins if begin > now_ns)
                self.burst(now_ns)
        return min([self._next_ns, *(begin for begins in self._rushes.values() for begin in begins)])

    def answered(self, now_ns: int, estimate: Estimate | None) -> None:
        """An exchange is done; ``estimate`` is what is known now, None when it told nothing."""
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

    def _draw_begin(self, now_ns: int, at_ns: int, farthest: int, nearest: int) -> int:
        """When one burst begins: in what is left of its window, at once when nothing is."""
        first = max(now_ns, at_ns - farthest)
        return self._draw(first, max(first, at_ns - nearest))

    def _draw(self, first: int, last: int) -> int:
        return first + int((last - first) * self._chance())
