"""Sessions in PostgreSQL while the server is away, hangs, or is busy."""

from __future__ import annotations

import logging
import signal
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.base import Same, Written
from farmsyncd.sessions.stores.postgres.store import PostgresStore
from tests.eventually import eventually
from tests.postgres import Postgres
from tests.session_postgres import LIFE, PATIENT_S, A, tried


def create(url: str) -> None:
    """Session A, by a store with patience."""
    store = PostgresStore(url, timeout_s=PATIENT_S)
    store.create(A, b"one", LIFE)
    store.close()


def test_a_call_that_is_interrupted_leaves_the_store_usable(postgres_url: str) -> None:
    class InterruptedHere(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptedHere

    create(postgres_url)
    store = PostgresStore(postgres_url, timeout_s=PATIENT_S, connections=1)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with psycopg.connect(postgres_url) as other:
            other.execute(b"SELECT * FROM farmsync_sessions FOR UPDATE")
            store.prepare()
            with pytest.raises(InterruptedHere):  # noqa: PT012 - wherever it comes
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                store.write(A, 1, b"two", LIFE)
            found = store.read(A)
            assert found is not None
            assert found.version == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        store.close()


def test_connections_that_died_while_idle_are_replaced_unseen(postgres: Postgres, own_postgres_url: str) -> None:
    store = PostgresStore(own_postgres_url, timeout_s=PATIENT_S)
    store.create(A, b"one", LIFE)
    for end in (postgres.stop, postgres.kill):
        end()
        postgres.start()
        assert isinstance(store.revalidate(A, 1), Same)
    postgres.kill()
    postgres.start()
    assert isinstance(store.write(A, 1, b"two", LIFE), Written)
    store.close()


def test_while_the_server_is_away_each_call_says_so_and_its_return_is_found(
    postgres: Postgres, own_postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostgresStore(own_postgres_url, timeout_s=PATIENT_S)
    store.create(A, b"one", LIFE)
    with caplog.at_level(logging.DEBUG, "farmsync.sessions"):
        postgres.kill()
        for _ in range(50):
            with pytest.raises(StoreUnavailable, match=r"postgresql://"):
                store.write(A, 1, b"lost", LIFE)
            with pytest.raises(StoreUnavailable):
                store.read(A)
        postgres.start()
        found = eventually(lambda: tried(store))
    assert (found.version, found.state) == (1, b"one")
    assert [record.message.split(" is ")[1][:4] for record in caplog.records] == ["away", "back"]
    store.close()


def test_a_server_that_hangs_ends_each_call_and_costs_others_no_time(postgres: Postgres, own_postgres_url: str) -> None:
    create(own_postgres_url)
    store = PostgresStore(own_postgres_url, timeout_s=1.0)
    eventually(lambda: tried(store))
    postgres.pause()
    with pytest.raises(StoreUnavailable, match="no answer within 1 s"):
        store.write(A, 1, b"two", LIFE)
    with ThreadPoolExecutor(1) as pool:

        def others_are_told_while_one_tries() -> bool:
            trying = pool.submit(tried, store)
            while not trying.done():
                with pytest.raises(StoreUnavailable):
                    store.read(A)
                if not trying.done():
                    return True
            return False

        eventually(others_are_told_while_one_tries)
    postgres.resume()
    found = eventually(lambda: tried(store))
    assert found.version in (1, 2)  # a write that was not answered may have been done, and nobody said that it was
    store.close()


def test_a_server_that_is_away_at_the_start_is_used_once_it_is_there(postgres: Postgres, own_postgres_url: str) -> None:
    postgres.stop()
    store = PostgresStore(own_postgres_url, timeout_s=PATIENT_S)
    with pytest.raises(StoreUnavailable, match=r"expected postgresql://postgres@.* to answer"):
        store.prepare()
    postgres.start()

    def created() -> Written | None:
        try:
            return store.create(A, b"one", LIFE)
        except StoreUnavailable:
            return None

    assert eventually(created).version == 1
    store.close()


def test_a_row_that_is_locked_ends_the_write_and_not_the_database(postgres_url: str) -> None:
    create(postgres_url)
    store = PostgresStore(postgres_url, timeout_s=1.0)
    eventually(lambda: tried(store))
    with psycopg.connect(postgres_url) as other:
        other.execute(b"SELECT * FROM farmsync_sessions FOR UPDATE")
        with pytest.raises(StoreUnavailable, match=r"statement timeout|no answer"):
            store.write(A, 1, b"two", LIFE)
        assert eventually(lambda: tried(store)).state == b"one"
        other.rollback()
    assert isinstance(eventually(lambda: written_when_there(store)), Written)
    store.close()


def written_when_there(store: PostgresStore) -> object:
    try:
        return store.write(A, 1, b"two", LIFE)
    except StoreUnavailable:
        return None


def test_more_threads_than_connections_take_turns(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, timeout_s=PATIENT_S, connections=2)
    store.create(A, b"one", LIFE)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: store.read(A), range(300)))
    assert {one.version for one in found if one is not None} == {1}
    assert None not in found
    with psycopg.connect(postgres_url) as connection:
        counted = connection.execute(
            b"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'farmsync-sessions'"
            b" AND datname = current_database()"
        ).fetchone()
    assert counted == (2,)
    store.close()


def test_all_connections_in_use_is_an_error_after_a_while(postgres: Postgres, own_postgres_url: str) -> None:
    create(own_postgres_url)
    store = PostgresStore(own_postgres_url, timeout_s=1.0, connections=1)
    eventually(lambda: tried(store))
    postgres.pause()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(store.read, A) for _ in range(3)]
        faults = [one.exception() for one in waiting]
    postgres.resume()
    assert [type(one) for one in faults] == [StoreUnavailable] * 3
    store.close()
