"""Timers on CLOCK_MONOTONIC: they keep Twisted's contract, and the wall clock is nothing to them."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from zope.interface.verify import verifyObject

from farmsyncd.edges.timing.steady import SteadyTime
from tests.leaks import LoggedErrors

reactor: Any = _reactor


def test_it_is_what_twisted_calls_a_reactors_time() -> None:
    assert verifyObject(IReactorTime, SteadyTime(reactor))


@pytest_twisted.ensureDeferred
async def test_calls_come_in_their_order_and_not_early() -> None:
    steady = SteadyTime(reactor)
    seen: list[str] = []
    done: Deferred[None] = Deferred()
    begun = steady.seconds()
    steady.callLater(0.06, done.callback, None)
    steady.callLater(0.04, seen.append, "later")
    steady.callLater(0.02, seen.append, "sooner")
    steady.callLater(0, seen.append, "at once")
    assert len(steady.getDelayedCalls()) == 4
    assert seen == []
    await done
    assert seen == ["at once", "sooner", "later"]
    assert steady.seconds() - begun >= 0.06
    assert steady.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_setting_the_reactors_clock_back_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = reactor.seconds
    steady = SteadyTime(reactor)
    monkeypatch.setattr(reactor, "seconds", lambda: wall() - 3600)
    await deferLater(steady, 0.05, lambda: None)
    monkeypatch.undo()


@pytest_twisted.ensureDeferred
async def test_a_call_can_be_cancelled_put_off_and_brought_forward() -> None:
    steady = SteadyTime(reactor)
    seen: list[str] = []
    cancelled = steady.callLater(0.01, seen.append, "cancelled")
    put_off = steady.callLater(0.01, seen.append, "put off")
    forward = steady.callLater(3600, seen.append, "brought forward")
    cancelled.cancel()
    put_off.delay(0.05)
    forward.reset(0.02)
    await deferLater(steady, 0.1, lambda: None)
    assert seen == ["brought forward", "put off"]
    with pytest.raises(AlreadyCancelled):
        cancelled.cancel()
    with pytest.raises(AlreadyCalled):
        forward.cancel()


@pytest_twisted.ensureDeferred
async def test_a_call_that_fails_is_logged_and_stops_no_other(logged_errors: LoggedErrors) -> None:
    steady = SteadyTime(reactor)
    seen: list[int] = []
    steady.callLater(0, lambda: 1 / 0)
    steady.callLater(0, seen.append, 1)
    await deferLater(steady, 0.02, lambda: None)
    assert seen == [1]
    assert len(logged_errors.take(ZeroDivisionError)) == 1


@pytest_twisted.ensureDeferred
async def test_a_call_may_cancel_another_that_is_due_and_make_new_ones() -> None:
    steady = SteadyTime(reactor)
    seen: list[int] = []
    done: Deferred[None] = Deferred()

    def first() -> None:
        second.cancel()
        steady.callLater(0, seen.append, 1)
        steady.callLater(0.01, done.callback, None)

    steady.callLater(0, first)
    second = steady.callLater(0, seen.append, 2)
    await done
    assert seen == [1]


@pytest_twisted.ensureDeferred
async def test_of_calls_that_are_due_together_the_first_may_cancel_one_and_put_off_another() -> None:
    steady = SteadyTime(reactor)
    seen: list[str] = []
    done: Deferred[None] = Deferred()
    done.addTimeout(30, reactor)  # a timer that fails is not watched any more

    def first() -> None:
        seen.append("first")
        cancelled.cancel()
        put_off.reset(0.02)

    def last() -> None:
        seen.append("put off")
        done.callback(None)

    steady.callLater(0.001, first)
    cancelled = steady.callLater(0.001, seen.append, "cancelled")
    put_off = steady.callLater(0.001, last)
    second = steady.callLater(0.001, seen.append, "second")
    while steady.seconds() <= second.getTime():
        pass  # so that one look finds all of them due
    await done
    assert seen == ["first", "second", "put off"]


@pytest_twisted.ensureDeferred
async def test_a_looping_call_runs_on_it() -> None:
    ticks: list[float] = []
    done: Deferred[None] = Deferred()

    def tick() -> None:
        ticks.append(loop.clock.seconds())
        if len(ticks) == 5:
            loop.stop()
            done.callback(None)

    loop = LoopingCall(tick)
    loop.clock = SteadyTime(reactor)
    loop.start(0.01)
    await done
    assert ticks[-1] - ticks[0] >= 0.03


def test_without_pending_calls_the_reactor_watches_nothing() -> None:
    before = set(reactor.getReaders())
    steady = SteadyTime(reactor)
    call = steady.callLater(3600, lambda: None)
    assert len(set(reactor.getReaders()) - before) == 1
    call.cancel()
    assert set(reactor.getReaders()) == before
