"""The connections to PostgreSQL while it is away: one try at a time, with a pause between; nobody else waits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.postgres.link import Link
from farmsyncd.sessions.stores.postgres.pool import Pool
from farmsyncd.sessions.stores.postgres.trouble import Lost
from tests.eventually import LIMIT, eventually


class Instant:
    """The pool's ``time``, which tests move."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Server:
    """What the pool connects to. ``holding`` makes whoever connects wait for ``free``."""

    def __init__(self) -> None:
        self.away = True
        self.tries = 0
        self.holding = False
        self.free = threading.Event()

    def connect(self) -> Link:
        self.tries += 1
        if self.holding:
            assert self.free.wait(LIMIT)
        if self.away:
            raise Lost("connection refused")
        return cast("Link", Connection())


class Connection:
    """A connection that is good."""

    def quiet(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> Instant:
    instant = Instant()
    monkeypatch.setattr("farmsyncd.sessions.stores.postgres.pool.time", instant)
    return instant


def pool_of(server: Server, size: int = 2) -> Any:
    return Pool(server.connect, size, LIMIT, "postgresql://shop@db/shop")


def test_a_server_that_is_away_is_tried_once_in_a_while_and_others_are_told_at_once(instant: Instant) -> None:
    server = Server()
    pool = pool_of(server)
    for _ in range(50):
        with pytest.raises(StoreUnavailable, match="connection refused"):
            pool.take()
    assert server.tries == 1
    instant.now_s = 0.3
    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            pool.take()
    assert server.tries == 2
    server.away, instant.now_s = False, 0.6
    pool.give(pool.take())
    pool.give(pool.take())
    assert server.tries == 3, "it is back, and so is its connection"
    pool.close()


def test_while_one_thread_tries_nobody_waits_for_it(instant: Instant) -> None:
    server = Server()
    pool = pool_of(server)
    with pytest.raises(StoreUnavailable):
        pool.take()
    server.away, server.holding, instant.now_s = False, True, 0.3
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(pool.take)
        eventually(lambda: server.tries == 2, what="one thread tries")
        with pytest.raises(StoreUnavailable, match="connection refused"):
            pool.take()
        server.free.set()
        pool.give(first.result(LIMIT))
    assert server.tries == 2
    pool.close()
