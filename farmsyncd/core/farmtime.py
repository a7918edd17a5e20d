"""Clock comparison: from exchanges to the offset of farm time, its rate, and a bound that always holds.

**What an exchange proves.** The node sends at T1 and hears at T4, both by its own clock; the data server received at
T2 and answered at T3, in farm time. With ``x(L)`` the offset of farm time when the node's clock shows ``L``, nothing
but "a message arrives after it was sent" says that ``x(T1) <= T2 - T1`` and ``x(T4) >= T3 - T4``, however lopsided
the path. Each holds at an instant of its own, and is carried on from there by what clocks may do.

**What clocks may do.** Each of the two oscillators is off by at most 500 ppm (crystals keep 100, a rehearsal's
``--skew`` may add 500 to one) and changes its rate by at most 2 ppm in a second (a crystal moves about 1 ppm per
kelvin at the worst of its range, boards do not warm by two kelvin in a second). The rate of farm time against the
node's clock, ``r = (1 + s) / (1 + n) - 1``, then stays within ``1.0005 / 0.9995 - 1 < 1001 ppm`` and changes by less
than ``(2 / 0.9995 + 2 * 1.0005 / 0.9995**2) / 0.9995 < 4.01 ppm`` in a second of the node's: :data:`HARD`.

**What follows.** A :class:`Region` holds every (offset, rate) that agrees with all that has been proved: a box, which
grows as time passes and shrinks with each exchange. Its rate narrows by the offset's bounds at two instants ``D``
apart: the mean rate between them lies within ``m = (hi_b - lo_a) / D``; a rate that changes by at most ``w`` exceeds
the mean at the end by at most ``w * D / 2``. An empty box means that a clock stepped, or slept: start over.

The *bound* comes from the HARD box, so it is proved. The *estimate* is the centre of a second box, which believes
that rates change as slowly as they really do (:data:`LIKELY`) and so remembers good exchanges for longer. Where that
belief fails it costs accuracy only: the estimate is kept within the hard box, and the bound is measured from it.

All numbers are integers, rounded outwards: nanoseconds, and parts per billion (ppb).
"""

from __future__ import annotations

import enum
from typing import Final, Self

import attrs

from farmsyncd.core.messages.base import MessageError

GIGA: Final = 1_000_000_000
VALID_FOR_NS: Final = 1000 * GIGA


@attrs.frozen
class Behaviour:
    """What a pair of clocks may do: the rate between them, its change, and how far a reading may lag.

    ``reading_ns`` is the tick of the coarsest clock source that Linux uses (acpi_pm, 279 ns), rounded up: a reading
    may be that much older than it says, on either side.
    """

    rate_ppb: int = 1_001_000
    wander_ppb_per_s: int = 4_010
    reading_ns: int = 300


HARD: Final = Behaviour()
LIKELY: Final = Behaviour(wander_ppb_per_s=20)


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def ramp_ns(rate_ppb: int, wander_ppb_per_s: int, limit_ppb: int, age_ns: int) -> int:
    """How far a clock can get ahead in ``age_ns``: its rate starts at ``rate_ppb``, rises as fast as wander allows, and
    stops at ``limit_ppb``. Rounded up; negative when the rate is.
    """
    rising = max(0, min(age_ns, (limit_ppb - rate_ppb) * GIGA // wander_ppb_per_s))
    doubled = 2 * GIGA * (rate_ppb * rising + limit_ppb * (age_ns - rising)) + wander_ppb_per_s * rising * rising
    return _ceil(doubled, 2 * GIGA * GIGA)


@attrs.frozen
class Estimate:
    """Farm time as a node reckons it: at local time ``as_of_ns`` the offset (farm minus local) was ``offset_ns``.

    The truth is then within ``error_bound_ns`` of it, and farm time gains ``rate_ppb`` on the local clock, within
    ``rate_error_ppb``. After ``valid_until_ns`` the numbers still hold, but the bound may have grown by a second.
    """

    offset_ns: int
    rate_ppb: int
    error_bound_ns: int
    as_of_ns: int
    valid_until_ns: int
    rate_error_ppb: int
    behaviour: Behaviour = HARD

    def farm_ns(self, local_ns: int) -> int:
        """Farm time when the local clock shows ``local_ns``."""
        return local_ns + self.offset_at(local_ns)

    def offset_at(self, local_ns: int) -> int:
        """Farm time minus local time when the local clock shows ``local_ns``."""
        return self.offset_ns + self.rate_ppb * (local_ns - self.as_of_ns) // GIGA

    def local_ns(self, farm_ns: int) -> int:
        """The first local time at which :meth:`farm_ns` is ``farm_ns`` or later."""
        elapsed = farm_ns - self.as_of_ns - self.offset_ns
        local = self.as_of_ns + elapsed * GIGA // (GIGA + self.rate_ppb)
        while self.farm_ns(local) >= farm_ns:
            local -= 1
        while self.farm_ns(local) < farm_ns:
            local += 1
        return local

    def bound_at(self, local_ns: int) -> int:
        """How far :meth:`farm_ns` can be from the truth at ``local_ns``: grows with the distance from ``as_of_ns``."""
        return self.error_bound_ns + self._growth_ns(abs(local_ns - self.as_of_ns))

    def at(self, local_ns: int) -> Estimate:
        """The same line, told as of ``local_ns``."""
        age = abs(local_ns - self.as_of_ns)
        risen = self.rate_error_ppb + _ceil(self.behaviour.wander_ppb_per_s * age, GIGA)
        return attrs.evolve(
            self,
            offset_ns=self.offset_at(local_ns),
            error_bound_ns=self.error_bound_ns + self._growth_ns(age) + 1,  # the offset was rounded once more
            as_of_ns=local_ns,
            rate_error_ppb=min(self._limit_ppb, risen),
        )

    @property
    def _limit_ppb(self) -> int:
        return self.behaviour.rate_ppb + abs(self.rate_ppb)

    def _growth_ns(self, age_ns: int) -> int:
        # One more for the rounding of the offset.
        return ramp_ns(self.rate_error_ppb, self.behaviour.wander_ppb_per_s, self._limit_ppb, age_ns) + (age_ns > 0)


@attrs.frozen
class _Mark:
    """What was known of the offset at one instant."""

    at_ns: int
    low_ns: int
    high_ns: int


@attrs.define
class Region:
    """Every (offset, rate) that clocks of one behaviour can have had at ``at_ns``, given what was proved: a box."""

    behaviour: Behaviour
    at_ns: int
    low_ns: int
    high_ns: int
    slow_ppb: int
    fast_ppb: int
    _marks: list[_Mark] = attrs.Factory(list)

    @classmethod
    def of(cls, behaviour: Behaviour, t1: int, t2: int, t3: int, t4: int) -> Self:
        """What one exchange alone proves, at T4."""
        rate = behaviour.rate_ppb
        high = t2 - t1 + behaviour.reading_ns + 1 + _ceil(rate * (t4 - t1), GIGA)
        low = t3 - t4 - behaviour.reading_ns - 1
        return cls(behaviour, t4, low, high, -rate, rate, [_Mark(t4, low, high)])

    @property
    def empty(self) -> bool:
        """Whether nothing that these clocks may do agrees with all that was seen."""
        return self.low_ns > self.high_ns or self.slow_ppb > self.fast_ppb

    def believing(self, behaviour: Behaviour) -> Region:
        """The same box for clocks of another behaviour, without the past."""
        box = Region(behaviour, self.at_ns, self.low_ns, self.high_ns, self.slow_ppb, self.fast_ppb)
        box._remember()
        return box

    def take(self, t1: int, t2: int, t3: int, t4: int) -> None:
        """Shrink by one exchange, of which T4 must not be before ``at_ns``; ask :attr:`empty` afterwards."""
        known = self.behaviour
        high = t2 - t1 + known.reading_ns + 1
        if t1 < self.at_ns:  # sent before the last answer came: carry it up to here at the worst rate
            high += _ceil(known.rate_ppb * (self.at_ns - t1), GIGA)
        else:
            self._advance(t1)
        self.high_ns = min(self.high_ns, high)
        self._advance(t4)
        self.low_ns = max(self.low_ns, t3 - t4 - known.reading_ns - 1)
        self._narrow_rate()
        self._remember()

    def _advance(self, at_ns: int) -> None:
        known, age = self.behaviour, at_ns - self.at_ns
        self.high_ns += ramp_ns(self.fast_ppb, known.wander_ppb_per_s, known.rate_ppb, age)
        self.low_ns -= ramp_ns(-self.slow_ppb, known.wander_ppb_per_s, known.rate_ppb, age)
        wander = _ceil(known.wander_ppb_per_s * age, GIGA)
        self.fast_ppb = min(known.rate_ppb, self.fast_ppb + wander)
        self.slow_ppb = max(-known.rate_ppb, self.slow_ppb - wander)
        self.at_ns = at_ns

    def _narrow_rate(self) -> None:
        for mark in self._marks:
            apart = self.at_ns - mark.at_ns
            if apart > 0:
                wander = _ceil(self.behaviour.wander_ppb_per_s * apart, 2 * GIGA)
                self.fast_ppb = min(self.fast_ppb, _ceil((self.high_ns - mark.low_ns) * GIGA, apart) + wander)
                self.slow_ppb = max(self.slow_ppb, (self.low_ns - mark.high_ns) * GIGA // apart - wander)

    def _remember(self) -> None:
        """Keep marks as far apart as a third of their age: some thirty of them reach back for an hour."""
        older = [mark for mark in self._marks if self.at_ns - 3600 * GIGA <= mark.at_ns < self.at_ns]
        kept = [_Mark(self.at_ns, self.low_ns, self.high_ns)]
        while older:
            mark = older.pop()
            if not older or 3 * (kept[-1].at_ns - older[-1].at_ns) > self.at_ns - kept[-1].at_ns:
                kept.append(mark)  # without it, there would be too large a gap to the one before
        self._marks = kept[::-1]


class Outcome(enum.Enum):
    """What an exchange did to a comparison."""

    STARTED = "started"  #: the first exchange, or the first of a new epoch
    NARROWED = "narrowed"  #: agrees with the ones before
    RESTARTED = "restarted"  #: contradicts the ones before, so that a clock must have stepped: started over with it
    IMPOSSIBLE = "impossible"  #: contradicts itself: a clock stepped or slept on its way; nothing is known any more


class Comparison:
    """One node's comparison with one data server: takes exchanges, gives estimates. Knows no clock."""

    def __init__(self, hard: Behaviour = HARD, likely: Behaviour = LIKELY) -> None:
        self._hard, self._likely = hard, likely
        self._proved: Region | None = None
        self._believed: Region | None = None
        self._estimate: Estimate | None = None
        self.epoch: str | None = None

    def add(self, t1: int, t2: int, t3: int, t4: int, epoch: str) -> Outcome:
        """Take an exchange: sent at local ``t1``, received and answered at farm ``t2``, ``t3``, back at local ``t4``.

        Exchanges come in the order of their answers. Raises MessageError when the server's times run backwards.
        """
        if t3 < t2:
            raise MessageError(
                f"expected an answer that leaves after its question came, and it left {t2 - t3} ns before"
            )
        if epoch != self.epoch:
            self.start_over()
            self.epoch = epoch
        alone = Region.of(self._hard, t1, t2, t3, t4)
        if alone.empty:
            self.start_over()
            return Outcome.IMPOSSIBLE
        outcome = self._take_proved(alone, (t1, t2, t3, t4))
        self._take_believed(outcome, (t1, t2, t3, t4))
        self._estimate = self._centre()
        return outcome

    def start_over(self) -> None:
        """Forget all exchanges: after a suspend, or whatever else makes the local clock not what it was."""
        self._proved = self._believed = self._estimate = None
        self.epoch = None

    def estimate(self, local_ns: int) -> Estimate | None:
        """Farm time as of ``local_ns``; None when nothing is known (any more)."""
        return None if self._estimate is None else self._estimate.at(local_ns)

    def _take_proved(self, alone: Region, times: tuple[int, int, int, int]) -> Outcome:
        if self._proved is None:
            self._proved = alone
            return Outcome.STARTED
        if times[3] >= self._proved.at_ns:
            self._proved.take(*times)
            if not self._proved.empty:
                return Outcome.NARROWED
        self._proved = alone
        return Outcome.RESTARTED

    def _take_believed(self, outcome: Outcome, times: tuple[int, int, int, int]) -> None:
        proved = self._proved
        assert proved is not None
        if self._believed is not None and outcome is Outcome.NARROWED:
            self._believed.take(*times)
            if not self._believed.empty:
                return
        self._believed = proved.believing(self._likely)

    def _centre(self) -> Estimate:
        proved, believed = self._proved, self._believed
        assert proved is not None
        assert believed is not None
        offset = min(max((believed.low_ns + believed.high_ns) // 2, proved.low_ns), proved.high_ns)
        rate = min(max((believed.slow_ppb + believed.fast_ppb) // 2, proved.slow_ppb), proved.fast_ppb)
        return Estimate(
            offset_ns=offset,
            rate_ppb=rate,
            error_bound_ns=max(proved.high_ns - offset, offset - proved.low_ns),
            as_of_ns=proved.at_ns,
            valid_until_ns=proved.at_ns + VALID_FOR_NS,
            rate_error_ppb=max(proved.fast_ppb - rate, rate - proved.slow_ppb),
            behaviour=self._hard,
        )
