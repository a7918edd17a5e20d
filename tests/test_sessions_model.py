"""Sessions in a farm in which everything happens at once, checked at every step against a model of what must hold.

Hypothesis looks for the shortest way to trouble; days by chance are cheap, and go where many requests lead together.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from farmsyncd.sessions.stores.base import Store
from farmsyncd.sessions.stores.sqlite import SqliteStore
from tests.sessions_machine import MISCHIEF, run, stroll
from tests.sessions_memory import MemoryDatabase, MemoryStore

# What has to come about in the long days for them to tell something.
LEAST = 10
REACHED = [
    "merged",
    "conflict",
    "gone",
    "marker set",
    "could not be stored",
    "write done, answer lost",
    "node died",
    "requests of one shopper at the same time",
    "response overtaken by a later one",
    "response arrived that shows less than was seen",
    "copy shown to one who has seen it",
    "database asked for what the client has seen",
    "older copy shown to one who may not know",
    "copy of a rotated session shown",
    "copy of a destroyed session shown",
    "ended or unknown id presented",
    "something else happened before the database was asked",
    "something else happened after the database was asked",
    *(f"mischief: {what}" for what in sorted(set(MISCHIEF))),
]


def in_memory() -> tuple[Callable[[], Store], Callable[[float], None]]:
    database = MemoryDatabase()

    def set_clock(now_s: float) -> None:
        database.now_us = round(now_s * 1e6)

    return lambda: MemoryStore(database, exact=True), set_clock


@pytest.fixture
def _quiet() -> Iterator[None]:
    """A database that goes and comes fills the log."""
    log = logging.getLogger("farmsync.sessions")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


@pytest.mark.usefixtures("_quiet")
def test_a_farm_keeps_its_promises_whatever_hypothesis_makes_happen() -> None:
    run(in_memory, 40, 50, Counter())


@pytest.mark.usefixtures("_quiet")
def test_a_farm_keeps_its_promises_on_many_long_days() -> None:
    counts: Counter[str] = Counter()
    for seed in range(200):
        stroll(in_memory, seed, 60, counts)
    rare = {what: counts[what] for what in REACHED if counts[what] < LEAST}
    assert not rare, f"expected each of these to come about {LEAST} times, else the days tell little"


@pytest.mark.usefixtures("_quiet")
def test_a_farm_keeps_its_promises_over_sqlite(tmp_path: Path) -> None:
    numbers = count()

    with ExitStack() as opened:

        def in_sqlite() -> tuple[Callable[[], Store], Callable[[float], None]]:
            path, now_us = tmp_path / f"{next(numbers)}.db", [0]

            def store() -> Store:
                made = SqliteStore(path, clock=lambda: now_us[0])
                made.prepare()
                opened.callback(made.close)
                return made

            def set_clock(now_s: float) -> None:
                now_us[0] = round(now_s * 1e6)

            return store, set_clock

        counts: Counter[str] = Counter()
        for seed in range(10):
            stroll(in_sqlite, 1000 + seed, 40, counts)
            opened.close()
    assert counts["merged"]
