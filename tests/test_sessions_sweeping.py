"""Expired rows are removed in small batches, by a thread that nothing stops but its end."""

from __future__ import annotations

import logging
import threading

import pytest

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.settings import SessionSettings
from farmsyncd.sessions.stores.base import Lifetime
from farmsyncd.sessions.sweeping import BATCH, Sweeping
from tests.eventually import eventually
from tests.session_farm import Farm
from tests.sessions_memory import MemoryDatabase, MemoryStore

SOON_S = 0.001


def expired(database: MemoryDatabase, count: int) -> None:
    store = MemoryStore(database)
    for number in range(count):
        store.create(number.to_bytes(32, "big"), b"\x80", Lifetime(1_000_000, 1_000_000))
    database.pass_s(2)


def test_it_removes_what_has_expired_in_small_batches() -> None:
    store = MemoryStore()
    expired(store.database, 2 * BATCH + 1)
    assert Sweeping(store, 60).sweep(threading.Event()) == 2 * BATCH + 1
    assert (store.database.rows, store.calls["sweep"]) == ({}, 3)


def test_it_leaves_the_rows_to_another_process_that_sweeps() -> None:
    store = MemoryStore()
    expired(store.database, 3)
    store.database.being_swept = True
    assert (Sweeping(store, 60).sweep(threading.Event()), store.calls["sweep"]) == (0, 1)


def test_it_stops_between_two_batches_when_it_is_told_to() -> None:
    store = MemoryStore()
    expired(store.database, 2 * BATCH)
    stop = threading.Event()
    store.before = lambda _name: stop.set()
    assert Sweeping(store, 60).sweep(stop) == BATCH


def test_the_thread_sweeps_again_and_again_until_it_is_stopped() -> None:
    store, before = MemoryStore(), threads()
    sweeping = Sweeping(store, SOON_S)
    sweeping.begin()
    try:
        for _ in range(3):
            expired(store.database, 2)
            eventually(lambda: not store.database.rows)
    finally:
        sweeping.stop()
    calls = store.calls["sweep"]
    expired(store.database, 2)
    sweeping.begin()  # it was stopped for good
    assert (threads() - before, store.calls["sweep"], len(store.database.rows)) == (set(), calls, 2)


def test_an_error_stops_nothing_and_is_logged_once_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    failures = [StoreUnavailable("away"), ZeroDivisionError(), ZeroDivisionError(), StoreUnavailable("away")]

    def before(name: str) -> None:
        if name == "sweep" and failures:
            raise failures.pop()

    store.before = before
    sweeping = Sweeping(store, SOON_S)
    with caplog.at_level(logging.INFO, "farmsync.sessions"):
        sweeping.begin()
        try:
            eventually(lambda: not failures)
            expired(store.database, 2)
            eventually(lambda: not store.database.rows)
        finally:
            sweeping.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "expired sessions cannot be removed; it is tried again every 0.001 s",
        "removed 2 expired sessions",
    ]


def test_sweepers_of_many_processes_do_not_stay_in_step() -> None:
    waits: list[tuple[float, float]] = []

    def spread(low: float, high: float) -> float:
        waits.append((low, high))
        return 1.0

    sweeping = Sweeping(MemoryStore(), SOON_S, spread)
    sweeping.begin()
    eventually(lambda: len(waits) > 2)
    sweeping.stop()
    assert set(waits) == {(0.8, 1.2)}


def test_no_thread_runs_before_the_database_is_used_and_none_after_the_sessions_are_closed() -> None:
    sessions = Farm().node(SessionSettings(sweep_every_s=1000)).sessions
    before = threads()
    session = sessions.open(None)
    assert threads() <= before
    session["a"] = 1
    session.commit()
    assert len(threads() - before) == 1
    sessions.close()
    assert threads() <= before


def test_no_thread_runs_when_sweeping_is_switched_off() -> None:
    node, before = Farm().node(SessionSettings(sweep_every_s=0)), threads()
    node.begin(a=1)
    assert threads() <= before
    node.sessions.close()


def threads() -> set[threading.Thread]:
    """Those that sweep; earlier tests may have left some that are about to end."""
    return {thread for thread in threading.enumerate() if thread.name == "farmsync-sweep"}
