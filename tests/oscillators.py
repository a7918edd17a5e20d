"""Simulated clocks, exact to the nanosecond, and a node that compares two of them: a test bench for the comparison.

True time is integer nanoseconds. A clock's rate is a polyline: it starts at some ppb, rises or falls by so many ppb per
second for a while, then by others, and is held within a limit. Its reading is the exact integral, rounded down.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

import attrs

from farmsyncd.core.farmtime import Comparison, Estimate, Outcome

MICRO, MILLI, SECOND = 1_000, 1_000_000, 1_000_000_000
_UNIT = 2 * SECOND * SECOND  # the phase is kept in parts of a nanosecond that are never rounded
LIMIT_PPB = 500_000
WANDER_PPB_PER_S = 2_000


@attrs.frozen
class _Segment:
    begins_ns: int
    phase: int
    rate_ppb: int
    slope: int

    def phase_at(self, at_ns: int) -> int:
        age = at_ns - self.begins_ns
        return self.phase + (2 * SECOND * self.rate_ppb + self.slope * age) * age

    def rate_at(self, at_ns: int) -> int:
        return self.rate_ppb + self.slope * (at_ns - self.begins_ns) // SECOND


class Oscillator:
    """A clock that shows ``starts_ns`` at true time 0; ``wander`` yields (duration in ns, slope in ppb per second)."""

    def __init__(
        self,
        starts_ns: int = 0,
        rate_ppb: int = 0,
        wander: Iterable[tuple[int, int]] = (),
        limit_ppb: int = LIMIT_PPB,
        tick_ns: int = 1,
    ) -> None:
        self._starts_ns = starts_ns
        self._limit = limit_ppb
        self._tick_ns = tick_ns
        self._wander = iter(wander)
        self._segments = [_Segment(0, 0, rate_ppb, 0)]
        self._ends = 0
        self._steps: list[tuple[int, int]] = []

    def step(self, at_ns: int, by_ns: int) -> None:
        """From true time ``at_ns`` on, show ``by_ns`` more."""
        self._steps.append((at_ns, by_ns))

    def exact(self, at_ns: int) -> int:
        """The reading at a true time, rounded down to a nanosecond."""
        while self._ends <= at_ns:
            self._extend()
        segment = self._segments[bisect_right(self._segments, at_ns, key=lambda one: one.begins_ns) - 1]
        stepped = sum(by for since, by in self._steps if since <= at_ns)
        return self._starts_ns + at_ns + stepped + segment.phase_at(at_ns) // _UNIT

    def read(self, at_ns: int) -> int:
        """What a program sees: the last tick of the clock."""
        exact = self.exact(at_ns)
        return exact - exact % self._tick_ns

    def _extend(self) -> None:
        last = self._segments[-1]
        begins = self._ends
        rate, phase = last.rate_at(begins), last.phase_at(begins)
        lasts, slope = next(self._wander, (1 << 62, 0))
        if slope:
            room = self._limit - rate if slope > 0 else self._limit + rate
            lasts = min(lasts, max(room * SECOND // abs(slope), 0))
            if lasts < MICRO:
                lasts, slope = SECOND, 0
        # A segment begins anew with a whole ppb: what is cut off is far below the slope times a microsecond.
        self._segments.append(_Segment(begins, phase, rate, slope))
        self._ends = begins + lasts


def steadily(slope: int) -> Iterable[tuple[int, int]]:
    """Always the same wander, until the limit is reached."""
    return repeat((SECOND, slope))


def wandering(chance: random.Random, most: int = WANDER_PPB_PER_S) -> Iterator[tuple[int, int]]:
    """Now this way and now that, by at most ``most`` ppb per second."""
    while True:
        yield chance.randrange(MILLI, 20 * SECOND), chance.randint(-most, most)


@attrs.frozen
class Path:
    """How long one exchange is under way: there, at the server, and back."""

    there_ns: int
    back_ns: int
    server_ns: int = 0


@attrs.define
class Bench:
    """Compares a node's clock with the data server's in true time, and judges each estimate by the truth."""

    node: Oscillator
    farm: Oscillator
    comparison: Comparison = attrs.Factory(Comparison)
    now: int = 0
    epoch: str = "0" * 16
    worst_use: float = 0.0  # the largest part of its bound that an error ever took
    errors: list[int] = attrs.Factory(list)
    bounds: list[int] = attrs.Factory(list)

    def exchange(self, path: Path) -> Outcome:
        t1 = self.node.read(self.now)
        self.now += path.there_ns
        t2 = self.farm.read(self.now)
        self.now += path.server_ns
        t3 = self.farm.read(self.now)
        self.now += path.back_ns
        return self.comparison.add(t1, t2, t3, self.node.read(self.now), self.epoch)

    def wait(self, ns: int) -> None:
        self.now += ns

    def estimate(self) -> Estimate:
        estimate = self.comparison.estimate(self.node.exact(self.now))
        assert estimate is not None
        return estimate

    def judge(self, estimate: Estimate | None = None) -> int:
        """I-1 at this moment, for the newest or any older estimate; the error. Fails on a violation."""
        local, truth = self.node.exact(self.now), self.farm.exact(self.now)
        judged = estimate if estimate is not None else self.estimate()
        error = abs(judged.farm_ns(local) - truth)
        bound = judged.bound_at(local)
        self.worst_use = max(self.worst_use, error / bound)
        self.errors.append(error)
        self.bounds.append(bound)
        assert error <= bound, f"I-1: error {error} ns, bound {bound} ns, at true time {self.now} ns"
        return error

    def settle(self, path: Path | Callable[[], Path], times: int, gap_ns: int) -> None:
        """So many exchanges so far apart, each judged before and after."""
        for _ in range(times):
            outcome = self.exchange(path if isinstance(path, Path) else path())
            assert outcome in (Outcome.STARTED, Outcome.NARROWED), outcome
            self.judge()
            self.wait(gap_ns)
            self.judge()
