"""The threads that run a node's application: bounded, and so is the queue before them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from farmsyncd.node.application.crew import Crew
from tests.eventually import LIMIT, eventually
from tests.leaks import LoggedErrors


def held(gate: threading.Event, done: list[str]) -> Callable[[], None]:
    """A job that waits at the gate, and says which thread it was done in."""

    def job() -> None:
        assert gate.wait(LIMIT)
        done.append(threading.current_thread().name)

    return job


def test_jobs_run_in_a_few_threads_and_a_few_more_wait() -> None:
    crew = Crew(threads=2, waiting=3)
    gate, done = threading.Event(), list[str]()
    assert [crew.begin(held(gate, done)) for _ in range(6)] == [True] * 5 + [False]
    assert crew.jobs == 5
    assert not crew.has_room
    gate.set()
    eventually(lambda: crew.jobs == 0)
    assert len(done) == 5
    assert set(done) <= {"application-1", "application-2"}
    assert crew.begin(held(gate, done))
    eventually(lambda: crew.jobs == 0)
    crew.close()
    assert not crew.begin(held(gate, done))


def test_threads_are_started_as_they_are_needed_and_end_when_the_crew_is_closed() -> None:
    before = {one.ident for one in threading.enumerate()}

    def mine() -> int:
        return len([one for one in threading.enumerate() if one.ident not in before])

    crew = Crew(threads=8, waiting=0)
    gate, done = threading.Event(), list[str]()
    gate.set()
    for _ in range(3):
        assert crew.begin(held(gate, done))
        eventually(lambda: crew.jobs == 0)
    assert mine() == 1, "one after the other needs one thread"
    crew.close()
    eventually(lambda: mine() == 0)


def test_a_job_that_fails_is_logged_and_its_thread_goes_on(logged_errors: LoggedErrors) -> None:
    crew = Crew(threads=1, waiting=1)
    gate, done = threading.Event(), list[str]()
    gate.set()

    def fail() -> None:
        raise ValueError("must not be")

    assert crew.begin(fail)
    eventually(lambda: crew.jobs == 0)
    assert crew.begin(held(gate, done))
    eventually(lambda: done == ["application-1"])
    assert logged_errors.take(ValueError)
    crew.close()
