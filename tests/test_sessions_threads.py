"""Sessions used from many threads at once, in forked processes, and dropped."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import attrs
import pytest

from farmsyncd.core.session.faults import SessionConflict
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.settings import SessionSettings
from farmsyncd.sessions.stores.base import Lifetime, Row, Written
from farmsyncd.sessions.turns import Turns
from tests.session_farm import QUIET, Farm, Node, foreign
from tests.sessions_memory import MemoryStore

EXACT = attrs.evolve(QUIET, revalidate_after_s=1e6)


@pytest.fixture
def farm() -> Farm:
    return Farm()


@pytest.fixture
def node(farm: Farm) -> Node:
    return farm.node()


def in_threads(*works: Callable[[], object]) -> None:
    """Run them all at once; what one raises is raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        try:
            ready.wait(30)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_many_requests_of_one_session_at_once_lose_nothing(node: Node) -> None:
    token = node.begin(start=True)

    def requests(worker: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(15):
                session = node.open(token)
                session[f"{worker} {number}"] = number
                session.commit()

        return run

    in_threads(*(requests(worker) for worker in range(12)))
    shown = node.shows(node.open(token).token or token)
    assert len(shown) == 1 + 12 * 15


def test_many_that_add_to_one_counter_lose_nothing(node: Node) -> None:
    token = node.begin(n=0)
    added = [0] * 6

    def requests(worker: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(20):
                try:
                    node.sessions.change(token, lambda session: session.update(n=session["n"] + 1))
                except SessionConflict:
                    continue  # said so: not counted
                added[worker] += 1

        return run

    in_threads(*(requests(worker) for worker in range(6)))
    node.sessions.forget(token.digest)
    assert node.shows(token) == {"n": sum(added)}
    assert sum(added) > 0


def test_readers_and_writers_in_threads_never_see_a_session_go_backwards(farm: Farm) -> None:
    nodes = [farm.node(attrs.evolve(QUIET, cache_entries=2)) for _ in range(2)]
    first = nodes[0].begin(n=0)
    others = [nodes[0].begin(n=0) for _ in range(3)]
    seen = threading.Lock()
    newest = [first]
    wrong: list[tuple[int, int]] = []

    def write() -> None:
        for number in range(1, 60):
            token = nodes[number % 2].set(newest[0], n=number)
            with seen:
                newest[0] = token

    def read(node: Node) -> Callable[[], None]:
        def run() -> None:
            for number in range(200):
                with seen:
                    token = newest[0]
                session = node.open(token)
                if session.version < token.version or session["n"] < token.version - 1:
                    wrong.append((session.version, token.version))
                node.open(others[number % 3])  # others push it out of the cache

        return run

    in_threads(write, read(nodes[0]), read(nodes[1]), read(nodes[0]))
    assert wrong == []


def test_statistics_are_exact_under_threads(node: Node) -> None:
    token = node.begin(a=1)

    def work() -> None:
        for _ in range(300):
            node.open(token)
            node.open(foreign())

    in_threads(work, work, work)
    statistics = node.sessions.statistics()
    assert (statistics.hits, statistics.misses, statistics.revalidations) == (900, 900, 0)
    assert (statistics.entries, statistics.conflicts, statistics.merges) == (1, 0, 0)


def test_a_forked_process_goes_on_with_locks_of_its_own(node: Node) -> None:
    token = node.begin(a=1)
    sessions = node.sessions
    copies = sessions._copies
    with copies.cache._lock, copies._lock:  # as if another thread was in the middle of something
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if node.shows(token) == {"a": 1} and node.set(token, a=2).version == 2 else 2
            finally:
                os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert node.shows(token) == {"a": 1}  # this process has its own database in memory


def test_sessions_that_are_dropped_are_collected(farm: Farm) -> None:
    import gc
    import weakref

    node = Sessions(MemoryStore(farm.database, news_arrive=False), SessionSettings(sweep_every_s=1000))
    node.open(foreign())
    thread = node._sweeping._thread
    assert thread is not None
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None
    thread.join(30)
    assert not thread.is_alive()


def test_close_closes_the_store(node: Node) -> None:
    node.open(foreign())
    node.sessions.close()
    assert node.store.closed


class Contrary(MemoryStore):
    """A store whose write fails with something that nobody expects."""

    def write(self, digest: bytes, version: int, state: bytes, life: Lifetime) -> Written | Row | None:
        super().write(digest, version, state, life)
        raise ZeroDivisionError


def test_whatever_a_write_fails_with_the_copy_is_dropped(farm: Farm) -> None:
    node = farm.node(store=Contrary(farm.database))
    token = node.begin(a=1)
    session = node.open(token)
    session["a"] = 2
    with pytest.raises(ZeroDivisionError):
        session.commit()
    assert node.shows(token) == {"a": 2}


def test_commits_of_one_session_in_one_process_never_write_in_vain(node: Node) -> None:
    token = node.begin(start=True)
    node.calls()

    def request(key: str) -> Callable[[], object]:
        return lambda: [node.set(token, **{key: number}) for number in range(10)]

    in_threads(*(request(f"key {number}") for number in range(8)))
    assert node.calls()["write"] == 80


def test_nobody_waits_for_ever_for_a_turn_and_none_is_left_behind() -> None:
    turns = Turns(patience_s=0.01)
    with turns.of(b"a"):
        with turns.of(b"b"), turns.of(b"a"):  # not within a lock: the patience is over
            assert len(turns) == 2
        assert len(turns) == 1
    assert len(turns) == 0
