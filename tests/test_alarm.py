"""The alarm rings once, by its own clock, whatever clock its timers run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import attrs
import pytest
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from farmsyncd.edges.timing.alarm import Alarm

SECOND = 1_000_000_000


@attrs.define
class _Slow:
    """Some clock, and an alarm by it whose timers run on another."""

    now: int = 1_000
    timers: Clock = attrs.Factory(Clock)
    rung: list[int] = attrs.Factory(list)

    def alarm(self, ring: Callable[[int], None] | None = None) -> Alarm:
        return Alarm(lambda: self.now, cast("IReactorTime", self.timers), ring or self.rung.append)

    def run(self, seconds: float, rate: float = 1.0) -> None:
        for _ in range(int(seconds * 10)):
            self.now += int(SECOND * 0.1 * rate)
            self.timers.advance(0.1)


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.5])
def test_an_alarm_rings_once_by_its_own_clock_whatever_the_timers_do(rate: float) -> None:
    slow = _Slow()
    alarm = slow.alarm()
    alarm.set(slow.now + 30 * SECOND)
    slow.run(29.0 / rate, rate)
    assert slow.rung == []
    slow.run(4, rate)
    assert slow.rung == [1_000 + 30 * SECOND]
    assert alarm.at_ns is None
    assert not slow.timers.getDelayedCalls()


def test_an_alarm_can_be_set_anew_and_taken_back() -> None:
    slow = _Slow()
    alarm = slow.alarm()
    alarm.set(slow.now + 5 * SECOND)
    alarm.set(slow.now + 10 * SECOND)
    slow.run(7)
    assert slow.rung == []
    assert alarm.at_ns == 1_000 + 10 * SECOND
    alarm.set(None)
    slow.run(7)
    assert slow.rung == []
    assert not slow.timers.getDelayedCalls()


def test_an_alarm_for_what_has_passed_rings_soon_but_not_inside_set() -> None:
    slow = _Slow()
    slow.alarm().set(slow.now - SECOND)
    assert slow.rung == []
    slow.timers.advance(0)
    assert slow.rung == [1_000 - SECOND]


def test_an_alarm_can_be_set_again_from_its_own_ring() -> None:
    slow = _Slow()

    def ring(at: int) -> None:
        slow.rung.append(at)
        if len(slow.rung) < 3:
            alarm.set(at + SECOND)

    alarm = slow.alarm(ring)
    alarm.set(slow.now + SECOND)
    slow.run(5)
    assert slow.rung == [1_000 + n * SECOND for n in (1, 2, 3)]
