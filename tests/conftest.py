"""Fixtures for every test: nothing may leak, no error may go unseen, and real daemons are always ended."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.daemons import Daemons
from tests.leaks import LoggedErrors, leave_log, settle, start, watch_log
from tests.nursery import ForkedDaemons, Nursery
from tests.postgres import NAMED, Postgres, fresh_database

# A busy machine is no fault of the code: examples have no deadline. They are the same ones each time, to be repeatable.
settings.register_profile(
    "farmsync", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("farmsync")


def pytest_collection_finish() -> None:
    """Put aside what exists before the first test: the collections after each test then cost next to nothing."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def logged_errors(_nothing_leaks: LoggedErrors) -> LoggedErrors:
    """The failures that the test's code logs; ``logged_errors.take(Kind)`` expects and forgets them."""
    return _nothing_leaks


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[LoggedErrors]:
    """Fails a test that leaves something behind in the reactor, or errors in the log that it did not expect."""
    errors = LoggedErrors()
    before = start()
    watch_log(errors)
    try:
        yield errors
        left = settle(before)
        seen = [f"logged error: {one!r}" for one in errors.take()]
    finally:
        leave_log(errors)
    lines = [*left.lines(), *seen]
    left.remove()
    if lines:
        pytest.fail("\n".join(["the test leaves behind:", *lines]), pytrace=False)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Real daemons, each with its state in the test's directory; all are ended with the test, and their logs shown."""
    with Daemons(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that forks daemons."""
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def forked(nursery: Nursery, tmp_path: Path) -> Iterator[ForkedDaemons]:
    """Real daemons that start at once, for tests that start very many."""
    with ForkedDaemons(tmp_path, nursery) as running:
        yield running


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres(_postgres: Postgres) -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own, which the test may stop, kill or pause."""
    _postgres.heal()
    yield _postgres
    _postgres.heal()


@pytest.fixture
def own_postgres_url(postgres: Postgres) -> Iterator[str]:
    """A fresh database on the server that the fixture ``postgres`` controls."""
    with fresh_database(postgres.url()) as url:
        yield url
        postgres.heal()


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh database on a real PostgreSQL: the one that FARMSYNC_TEST_POSTGRES names, else one of the tests' own."""
    if server := os.environ.get(NAMED):
        with fresh_database(server) as url:
            yield url
    else:
        yield str(request.getfixturevalue("own_postgres_url"))
