"""One worker thread, in order, with its results in the reactor's thread."""

from __future__ import annotations

import threading

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from farmsyncd.edges.workthread import Stopped, WorkThread


def worker() -> WorkThread:
    return WorkThread("test", reactor)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_work_is_done_elsewhere_in_order_and_told_here() -> None:
    thread = worker()
    here, elsewhere, done = threading.current_thread(), set(), []

    def work(number: int, *, more: int) -> int:
        elsewhere.add(threading.current_thread())
        done.append(number)
        return number + more

    results = await gatherResults([thread.run(work, number, more=100) for number in range(50)])
    assert results == [number + 100 for number in range(50)]
    assert done == list(range(50))
    assert len(elsewhere) == 1
    assert here not in elsewhere
    assert threading.current_thread() is here
    await thread.stop()


@pytest_twisted.ensureDeferred
async def test_an_exception_reaches_who_asked_and_the_thread_goes_on() -> None:
    thread = worker()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    with pytest.raises(KeyboardInterrupt):
        await thread.run(_interrupt)
    assert await thread.run(str, 5) == "5"
    await thread.stop()


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_all_that_was_taken_and_takes_no_more() -> None:
    thread = worker()
    gate = threading.Event()
    done: list[str] = []
    first = thread.run(gate.wait, 30)
    second = thread.run(done.append, "second")
    ends = [thread.stop(), thread.stop()]
    with pytest.raises(Stopped):
        await thread.run(done.append, "late")
    assert not done
    gate.set()
    await gatherResults(ends)
    assert done == ["second"]
    assert first.called
    assert second.called
    await thread.stop()
    with pytest.raises(Stopped):
        await thread.run(done.append, "late")


@pytest_twisted.ensureDeferred
async def test_cancelled_work_is_not_begun() -> None:
    thread = worker()
    gate = threading.Event()
    done: list[str] = []
    running = thread.run(gate.wait, 30)
    waiting: Deferred[None] = thread.run(done.append, "never")
    last = thread.run(done.append, "last")
    waiting.cancel()
    running.cancel()
    gate.set()
    await last
    assert done == ["last"]
    for cancelled in (waiting, running):
        with pytest.raises(CancelledError):
            await cancelled
    await thread.stop()


@pytest_twisted.ensureDeferred
async def test_a_thread_that_had_nothing_to_do_stops_at_once() -> None:
    await worker().stop()
