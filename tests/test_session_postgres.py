"""Sessions in PostgreSQL: round trips, answers that are lost, the clock, sweeping, forks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.base import Lifetime, Row, Same, Written
from farmsyncd.sessions.stores.postgres import schema
from farmsyncd.sessions.stores.postgres.store import PostgresStore
from tests.daemons import TREE, environment
from tests.eventually import eventually
from tests.postgres import Postgres
from tests.postgres_relay import PostgresRelay
from tests.session_postgres import LIFE, PATIENT_S, A, B, C, execute, tried


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    one = PostgresStore(postgres_url, timeout_s=PATIENT_S)
    yield one
    one.close()


@pytest.fixture
def relay(postgres: Postgres) -> Iterator[PostgresRelay]:
    with PostgresRelay(postgres.socket) as one:
        yield one


@pytest.fixture
def relayed(relay: PostgresRelay, own_postgres_url: str) -> Iterator[PostgresStore]:
    """A store behind the relay, with one connection, on which a session A of version 1 was created."""
    one = PostgresStore(relay.url(own_postgres_url), timeout_s=PATIENT_S, connections=1)
    one.create(A, b"one", LIFE)
    yield one
    one.close()


# Round trips


def test_each_call_is_one_round_trip(relay: PostgresRelay, relayed: PostgresStore) -> None:
    calls: list[tuple[Callable[[], object], int]] = [
        (lambda: relayed.create(B, b"x" * 60_000, LIFE), 1),
        (lambda: relayed.read(B), 1),
        (lambda: relayed.read(C), 1),
        (lambda: relayed.revalidate(B, 1), 1),
        (lambda: relayed.revalidate(B, 2), 1),
        (lambda: relayed.write(B, 1, b"y", LIFE), 1),
        (lambda: relayed.write(B, 1, b"late", LIFE), 2),
        (lambda: relayed.rotate(B, 2, C, b"z", LIFE), 1),
        (lambda: relayed.rotate(B, 2, C, b"late", LIFE), 2),
        (lambda: relayed.delete(C), 1),
        (lambda: relayed.delete(C), 1),
        (lambda: relayed.sweep(10), 1),
        (lambda: relayed.find(b"", 10), 1),
        (relayed.stats, 1),
        (relayed.generation, 0),
    ]
    counted = []
    for call, _ in calls:
        before = relay.answers
        call()
        counted.append(relay.answers - before)
    assert counted == [expected for _, expected in calls]


# Answers that are lost


def test_a_write_whose_answer_is_lost_is_done_once_and_told_so(relay: PostgresRelay, relayed: PostgresStore) -> None:
    relay.lose_answers = 1
    written = relayed.write(A, 1, b"two", LIFE)
    assert isinstance(written, Written)
    assert written.version == 2
    found = relayed.read(A)
    assert found is not None
    assert (found.version, found.state, relay.lose_answers) == (2, b"two", 0)


def test_a_write_that_never_arrived_is_sent_again(relay: PostgresRelay, relayed: PostgresStore) -> None:
    relay.lose_requests = 1
    written = relayed.write(A, 1, b"two", LIFE)
    assert isinstance(written, Written)
    assert (written.version, relay.lose_requests) == (2, 0)


def test_a_creation_whose_answer_is_lost_is_done_once(relay: PostgresRelay, relayed: PostgresStore) -> None:
    relay.lose_answers = 1
    assert relayed.create(B, b"new", LIFE).version == 1
    found = relayed.read(B)
    assert found is not None
    assert (found.version, found.state) == (1, b"new")


def test_a_rotation_whose_answer_is_lost_is_done_once(relay: PostgresRelay, relayed: PostgresStore) -> None:
    relay.lose_answers = 1
    written = relayed.rotate(A, 1, B, b"two", LIFE)
    assert isinstance(written, Written)
    assert written.version == 2
    assert relayed.read(A) is None
    found = relayed.read(B)
    assert found is not None
    assert (found.version, found.state) == (2, b"two")


def test_a_deletion_whose_answer_is_lost_has_ended_the_session(relay: PostgresRelay, relayed: PostgresStore) -> None:
    relay.lose_answers = 1
    assert relayed.delete(A) is True
    assert relayed.read(A) is None


def test_a_read_whose_answer_is_lost_is_asked_again(relay: PostgresRelay, relayed: PostgresStore) -> None:
    relay.lose_answers = 1
    assert isinstance(relayed.revalidate(A, 1), Same)
    relay.lose_answers = 1
    found = relayed.read(A)
    assert found is not None
    assert found.state == b"one"


def test_a_write_that_never_arrived_and_came_second_is_shown_who_was_first(
    relay: PostgresRelay, relayed: PostgresStore, own_postgres_url: str
) -> None:
    other = PostgresStore(own_postgres_url, timeout_s=PATIENT_S)
    assert isinstance(other.write(A, 1, b"other", LIFE), Written)
    other.close()
    relay.lose_requests = 1
    answer = relayed.write(A, 1, b"two", LIFE)
    assert isinstance(answer, Row)
    assert (answer.version, answer.state) == (2, b"other")


def test_a_lost_answer_that_others_wrote_over_is_never_guessed(
    relay: PostgresRelay, relayed: PostgresStore, own_postgres_url: str
) -> None:
    other = PostgresStore(own_postgres_url, timeout_s=PATIENT_S)
    relay.meanwhile = lambda: other.write(A, 2, b"other", LIFE)
    relay.lose_answers = 1
    with pytest.raises(StoreUnavailable, match="whether a write was done"):
        relayed.write(A, 1, b"two", LIFE)
    other.close()
    found = relayed.read(A)
    assert found is not None
    assert (found.version, found.state) == (3, b"other")


def test_a_connection_that_breaks_twice_is_an_error(relay: PostgresRelay, relayed: PostgresStore) -> None:
    relay.lose_answers = 2
    with pytest.raises(StoreUnavailable, match=r"postgresql://"):
        relayed.write(A, 1, b"two", LIFE)
    relay.lose_answers = 0
    assert eventually(lambda: tried(relayed)).version in (1, 2)


# Durability, the clock


@pytest.mark.parametrize(("chosen", "used"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
def test_commits_are_durable_whatever_the_database_is_set_to(postgres_url: str, chosen: str, used: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {chosen}'.encode())
    store = PostgresStore(postgres_url, timeout_s=PATIENT_S)
    link = store._link()
    assert link.run("SHOW synchronous_commit") == [(used,)]
    assert link.run("SHOW transaction_isolation") == [("read committed",)]
    link.close()
    store.close()


def test_the_databases_clock_alone_counts(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: 4e9)
        wrong.setattr(time, "time_ns", lambda: 4 * 10**18)
        store.create(A, b"one", LIFE)
        found = store.read(A)
        listed = store.find(A, 1)[0]
    assert found is not None
    assert 0 < found.idle_left_us <= LIFE.idle_us
    with psycopg.connect(postgres_url) as connection:
        now = connection.execute(b"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
    assert now is not None
    assert now[0] - 600_000_000 < listed.created_us <= now[0]


# Sweeping and news


def test_only_one_process_sweeps_at_a_time(store: PostgresStore, postgres_url: str) -> None:
    store.create(A, b"one", Lifetime(1, 1))
    with psycopg.connect(postgres_url) as other:
        other.execute(f"SELECT pg_advisory_xact_lock({schema.LOCK}, 2)".encode())
        assert store.sweep(10) is None
        assert store.stats().expired == 1
    assert eventually(lambda: store.sweep(10)) == 1


class Ear:
    """Hears news."""

    def __init__(self) -> None:
        self.heard: list[bytes | None] = []

    def __call__(self, ended: bytes | None) -> None:
        self.heard.append(ended)


def test_ends_of_sessions_are_heard_by_other_stores(store: PostgresStore, postgres_url: str) -> None:
    ear, other = Ear(), PostgresStore(postgres_url, timeout_s=PATIENT_S)
    other.listen(ear)
    eventually(lambda: ear.heard == [None])
    store.create(A, b"one", LIFE)
    store.create(C, b"one", LIFE)
    store.write(A, 1, b"two", LIFE)
    execute(postgres_url, "NOTIFY farmsync_sessions, 'nonsense'", "NOTIFY farmsync_sessions")
    store.rotate(A, 2, B, b"three", LIFE)
    store.rotate(A, 2, B, b"late", LIFE)
    store.delete(C)
    store.delete(C)
    eventually(lambda: ear.heard == [None, A, C])
    other.close()
    store.delete(B)
    assert ear.heard == [None, A, C]
    assert not [one for one in threading.enumerate() if one.name == "farmsync-sessions-news"]


def test_a_listener_learns_that_it_may_have_missed_something(postgres: Postgres, own_postgres_url: str) -> None:
    ear, store = Ear(), PostgresStore(own_postgres_url, timeout_s=PATIENT_S)
    store.listen(ear)
    eventually(lambda: ear.heard == [None])
    postgres.kill()
    postgres.start()
    eventually(lambda: ear.heard == [None, None])
    store.create(A, b"one", LIFE)
    store.delete(A)
    eventually(lambda: ear.heard == [None, None, A])
    store.close()


def test_a_listener_that_fails_stops_no_news(
    store: PostgresStore, logged_errors: object, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_ended: bytes | None) -> None:
        raise ZeroDivisionError

    ear = Ear()
    store.listen(fails)
    store.listen(ear)
    store.create(A, b"one", LIFE)
    eventually(lambda: ear.heard)
    store.delete(A)
    eventually(lambda: A in ear.heard)
    assert "a listener failed" in caplog.text


# Forks


_FORKING = """
import os, sys, threading, time
from farmsyncd.sessions.stores.base import Lifetime, Written
from farmsyncd.sessions.stores.postgres.store import PostgresStore

life = Lifetime(3_600_000_000, 36_000_000_000)
store = PostgresStore(sys.argv[1], timeout_s=20.0)
heard = []
store.listen(heard.append)
store.create(b"p" * 32, b"0", life)
while None not in heard:
    time.sleep(0.01)
busy = threading.Event()
def keep_busy():
    while not busy.is_set():
        assert store.read(b"p" * 32) is not None
threads = [threading.Thread(target=keep_busy) for _ in range(4)]
for thread in threads: thread.start()
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        heard.clear()
        mine = bytes([number]) * 32
        store.create(mine, b"child", life)
        while None not in heard:
            time.sleep(0.01)  # what ends before one listens is not heard
        for version in range(1, 20):
            assert isinstance(store.write(mine, version, b"x", life), Written)
        store.delete(mine)
        while mine not in heard:
            time.sleep(0.01)
        store.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
busy.set()
for thread in threads: thread.join()
assert isinstance(store.write(b"p" * 32, 1, b"parent", life), Written)
store.delete(b"p" * 32)
while b"p" * 32 not in heard:
    time.sleep(0.01)
store.close()
print("done")
"""


def test_a_fork_leaves_the_parents_connections_alone_and_makes_its_own(postgres_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", _FORKING, postgres_url],
        cwd=TREE, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("done\n", "")
