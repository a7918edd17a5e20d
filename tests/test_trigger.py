"""The trigger fires once, at its instant or just after, wherever the deadline moves and whatever other clocks do."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from farmsyncd.core.skew import Skew
from farmsyncd.edges.timing.clocks import RawClock, SkewedClock
from farmsyncd.edges.timing.steady import SteadyTime
from farmsyncd.edges.timing.trigger import MILLI, REHEARSAL_NS, STRETCH_NS, Trigger
from farmsyncd.edges.timing.urgency import Urgency
from tests.leaks import LoggedErrors

SECOND = 1_000_000_000
reactor: Any = _reactor


class _NoUrgency(Urgency):
    """Writes down when it is raised, and leaves the process alone."""

    def __init__(self) -> None:
        self.wants: bool = False
        self.was_wanted: int = 0

    def begin(self) -> None:
        self.was_wanted += not self.wants
        self.wants = True

    def end(self) -> None:
        self.wants = False


@attrs.define
class _World:
    """A local clock in which every reading takes a little, and timers that may be late or run at another rate."""

    now: int = 1_000 * SECOND
    due: int | None = None
    late_ns: int = 0
    timers: Clock = attrs.Factory(Clock)
    fired: list[tuple[int, int]] = attrs.Factory(list)
    rehearsed: list[int] = attrs.Factory(list)
    woken: int = 0
    stops: bool = False
    urgency: _NoUrgency = attrs.Factory(_NoUrgency)
    trigger: Trigger = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.trigger = Trigger(
            self,
            cast("IReactorTime", self.timers),
            lambda: self.due,
            self._fire,
            self._rehearse,
            self._sleep,
            self.urgency,
        )

    def now_ns(self) -> int:
        self.now += 50
        return self.now

    def machine_ns(self, local_ns: int) -> int:
        return local_ns

    def _sleep(self, seconds: float) -> None:
        assert seconds < 0.002, "the reactor stands still meanwhile"
        self.now += int(seconds * SECOND) + 100_000

    def _fire(self, due: int) -> None:
        assert self.urgency.wants
        self.fired.append((due, self.now))

    def _rehearse(self) -> None:
        self.rehearsed.append(self.now)
        if self.stops:
            self.trigger.stop()

    def turn(self) -> float:
        """Let time pass to the next timer, and its lateness; how long that was, in seconds."""
        call = min(self.timers.getDelayedCalls(), key=lambda one: one.getTime())
        wait = call.getTime() - self.timers.seconds()
        self.now += int(wait * SECOND) + self.late_ns
        self.woken += 1
        self.timers.advance(wait)
        return wait

    def run(self, limit: int = 10_000) -> None:
        while self.timers.getDelayedCalls() and limit:
            limit -= 1
            self.turn()


@pytest.mark.parametrize("ahead", [0, 1, MILLI, STRETCH_NS, 3 * MILLI, 400 * MILLI, SECOND, 90 * SECOND, 5000 * SECOND])
@pytest.mark.parametrize("late", [0, 100_000, MILLI])
def test_it_fires_once_not_early_and_hardly_late(ahead: int, late: int) -> None:
    world = _World(late_ns=late)
    due = world.due = world.now + ahead
    world.trigger.start()
    world.run()
    assert len(world.fired) == 1
    told, at = world.fired[0]
    assert told == due
    assert 0 <= at - due <= 1_000
    assert not world.trigger.running
    assert not world.urgency.wants


@given(st.integers(0, 20 * SECOND), st.integers(0, 5 * MILLI))
def test_it_is_never_early(ahead: int, late: int) -> None:
    world = _World(late_ns=late)
    due = world.due = world.now + ahead
    world.trigger.start()
    world.run()
    assert [told for told, at in world.fired if at >= told] == [due]
    assert world.fired[0][1] - due <= late + 1_000


def test_a_deadline_that_has_passed_fires_at_once() -> None:
    world = _World()
    world.due = world.now - SECOND
    world.trigger.start()
    assert len(world.fired) == 1
    assert not world.timers.getDelayedCalls()
    assert world.rehearsed == []


def test_it_rehearses_once_half_a_second_before_and_stays_awake() -> None:
    world = _World()
    due = world.due = world.now + 100 * SECOND
    world.trigger.start()
    world.run()
    assert len(world.rehearsed) == 1
    assert 0 <= REHEARSAL_NS - (due - world.rehearsed[0]) < MILLI
    assert world.woken < 120


def test_a_rehearsal_that_fails_is_logged_and_changes_nothing(logged_errors: LoggedErrors) -> None:
    world = _World()
    world.trigger = Trigger(
        world, cast("IReactorTime", world.timers), lambda: world.due, world._fire, _fail, world._sleep, world.urgency
    )
    world.due = world.now + 2 * SECOND
    world.trigger.start()
    world.run()
    assert len(world.fired) == 1
    assert len(logged_errors.take(ZeroDivisionError)) == 1


def _fail() -> None:
    raise ZeroDivisionError


def test_it_goes_ahead_of_the_others_for_a_tenth_of_a_second_only() -> None:
    world = _World()
    due = world.due = world.now + 100 * SECOND
    world.trigger.start()
    while not world.urgency.wants:
        world.turn()
    assert 0 < due - world.now <= 120 * MILLI
    world.due += 3 * SECOND
    while world.urgency.wants:
        world.turn()
    assert not world.fired
    world.run()
    assert len(world.fired) == 1
    assert world.urgency.was_wanted == 2


def test_a_swap_that_fails_leaves_the_process_as_it_was() -> None:
    world = _World()
    world.trigger = Trigger(
        world, cast("IReactorTime", world.timers), lambda: world.due, lambda _: _fail(), urgency=world.urgency
    )
    world.due = world.now
    world.urgency.begin()
    with pytest.raises(ZeroDivisionError):
        world.trigger.start()
    assert not world.urgency.wants
    assert not world.trigger.running


def test_a_deadline_that_cannot_be_told_is_asked_for_again(logged_errors: LoggedErrors) -> None:
    world = _World()
    asked = []

    def due() -> int | None:
        asked.append(world.now)
        if len(asked) < 3:
            raise ZeroDivisionError
        return world.due

    world.trigger = Trigger(
        world,
        cast("IReactorTime", world.timers),
        due,
        world._fire,
        sleep=world._sleep,
        urgency=world.urgency,
    )
    world.due = world.now + 5 * SECOND
    world.trigger.start()
    world.run()
    assert len(world.fired) == 1
    assert len(logged_errors.take(ZeroDivisionError)) == 2


def test_a_deadline_that_moves_is_followed_without_being_told() -> None:
    world = _World()
    first = world.now + 10 * SECOND
    world.due = first
    world.trigger.start()
    for _ in range(5):
        world.turn()
    later = world.due = first + 30 * SECOND
    world.run()
    assert [told for told, _ in world.fired] == [later]


def test_a_deadline_that_moves_near_is_noticed_within_a_second_or_when_told() -> None:
    for told in (True, False):
        world = _World()
        world.due = world.now + 100 * SECOND
        world.trigger.start()
        near = world.due = world.now + 200 * MILLI
        if told:
            world.trigger.check()
        world.run()
        assert 0 <= world.fired[0][1] - near <= (1_000 if told else SECOND)


def test_a_deadline_that_moves_away_after_the_rehearsal_is_rehearsed_again() -> None:
    world = _World()
    world.due = world.now + SECOND
    world.trigger.start()
    while not world.rehearsed:
        world.turn()
    world.due += 60 * SECOND
    world.run()
    assert len(world.rehearsed) == 2
    assert len(world.fired) == 1


def test_without_a_deadline_it_waits_for_one() -> None:
    world = _World()
    world.trigger.start()
    for _ in range(5):
        world.turn()
    assert not world.fired
    world.due = world.now + 5 * SECOND
    world.run()
    assert len(world.fired) == 1


def test_a_stopped_trigger_leaves_nothing_behind_and_never_fires() -> None:
    world = _World()
    world.due = world.now + 5 * SECOND
    world.trigger.start()
    world.turn()
    world.trigger.stop()
    world.trigger.stop()
    world.trigger.check()
    assert not world.timers.getDelayedCalls()
    assert not world.fired


def test_a_rehearsal_may_stop_it() -> None:
    world = _World()
    world.stops = True
    world.due = world.now + SECOND
    world.trigger.start()
    world.run()
    assert not world.fired


@pytest.mark.parametrize("rate", [0.92, 1.08])
def test_timers_that_are_slewed_by_as_much_as_chrony_does_delay_nothing(rate: float) -> None:
    world = _World()
    due = world.due = world.now + 20 * SECOND
    world.trigger.start()
    while world.timers.getDelayedCalls():
        before = world.now
        wait = world.turn()
        if rate > 1:  # the local clock was faster than the timers
            world.now = max(world.now, before + int(wait * rate * SECOND))
    assert 0 <= world.fired[0][1] - due < 100 * MILLI


# With real clocks


@pytest_twisted.ensureDeferred
async def test_in_real_time_it_is_not_early_and_no_step_of_the_reactors_clock_moves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reactor's clock, the wall clock, is set back by an hour while the trigger waits."""
    clock = SkewedClock(RawClock(), Skew(-7_000 * SECOND, 200_000))
    done: Deferred[int] = Deferred()
    due = clock.now_ns() + 700 * MILLI
    rehearsed: list[int] = []
    trigger = Trigger(
        clock,
        SteadyTime(reactor),
        lambda: due,
        lambda _: done.callback(clock.now_ns()),
        lambda: rehearsed.append(clock.now_ns()),
    )
    trigger.start()
    wall = reactor.seconds
    monkeypatch.setattr(reactor, "seconds", lambda: wall() - 3600)
    at = await done
    monkeypatch.undo()
    assert 0 <= at - due < 20 * SECOND
    assert len(rehearsed) <= 1
