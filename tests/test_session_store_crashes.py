"""What was acknowledged is there: processes that write one session are killed, and so is the database under them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.base import Row, Store
from tests.eventually import eventually
from tests.postgres import Postgres
from tests.session_scenes import patient_store
from tests.session_writers import LIFE, Writer, counts

DIGEST = b"d" * 32


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def writers() -> Iterator[Callable[[str, int], list[Writer]]]:
    running: list[Writer] = []

    def start(url: str, count: int) -> list[Writer]:
        running.extend(Writer.start(url, DIGEST, f"w{number}") for number in range(count))
        return running

    yield start
    for one in running:
        if one.process.poll() is None:
            one.end(kill=True)


def created(url: str) -> Store:
    store = patient_store(url)
    store.prepare()
    store.create(DIGEST, b"{}", LIFE)
    return store


def whole(store: Store, writers: list[Writer]) -> None:
    """Each acknowledged write is there, and there were as many writes as the numbers say: none lost or done twice."""
    row = eventually(lambda: found(store))
    there = counts(row)
    assert [one.name for one in writers if there.get(one.name, 0) < one.acknowledged] == []
    assert row.version == 1 + sum(there.values())


def found(store: Store) -> Row | None:
    try:
        return store.read(DIGEST)
    except StoreUnavailable:
        return None


def test_what_processes_write_at_once_is_all_there(url: str, writers: Callable[[str, int], list[Writer]]) -> None:
    store = created(url)
    running = writers(url, 3)
    for one in running:
        one.go_on(acknowledged=15)
    for one in running:
        one.end()
    whole(store, running)
    store.close()


def test_what_was_acknowledged_before_a_process_was_killed_is_there(
    url: str, writers: Callable[[str, int], list[Writer]]
) -> None:
    store = created(url)
    running = writers(url, 4)
    for number, one in enumerate(running):
        one.go_on(acknowledged=3 + 4 * number)
        if number % 2:
            one.end(kill=True)
    for one in running[::2]:
        one.go_on(acknowledged=3)
        one.end()
    whole(store, running)
    store.close()
    again = patient_store(url)
    whole(again, running)
    again.close()


def test_a_database_that_is_killed_under_load_loses_nothing_and_is_found_again(
    postgres: Postgres, own_postgres_url: str, writers: Callable[[str, int], list[Writer]]
) -> None:
    store = created(own_postgres_url)
    running = writers(own_postgres_url, 3)
    for end in (postgres.kill, postgres.stop):
        for one in running:
            one.go_on(acknowledged=5)
        end()
        for one in running:
            one.go_on(unavailable=3)
        postgres.start()
        for one in running:
            one.go_on(acknowledged=3)
    for one in running:
        one.end()
    whole(store, running)
    store.close()
