"""What is particular to sessions in PostgreSQL: round trips, lost answers, schemas, passwords, news, forks."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from farmsyncd.core.session.faults import StoreUnavailable, WrongSchema
from farmsyncd.errors import ConfigError
from farmsyncd.sessions.stores.base import Lifetime, Row, Same, Written
from farmsyncd.sessions.stores.postgres import schema
from farmsyncd.sessions.stores.postgres.store import PostgresStore
from tests.daemons import TREE, environment
from tests.eventually import eventually
from tests.postgres import Postgres
from tests.postgres_relay import PostgresRelay

LIFE = Lifetime(3_600_000_000, 36_000_000_000)
PATIENT_S = 20.0


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


A, B, C = digest("a"), digest("b"), digest("c")


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


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


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


# A server that is away, or hangs


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


def tried(store: PostgresStore) -> Row | None:
    try:
        return store.read(A)
    except StoreUnavailable:
        return None


def test_a_server_that_hangs_ends_each_call_and_costs_others_no_time(postgres: Postgres, own_postgres_url: str) -> None:
    store = PostgresStore(own_postgres_url, timeout_s=1.0)
    store.create(A, b"one", LIFE)
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
    assert isinstance(store.write(A, found.version, b"three", LIFE), Written)
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
    store = PostgresStore(postgres_url, timeout_s=1.0)
    store.create(A, b"one", LIFE)
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
    store = PostgresStore(own_postgres_url, timeout_s=1.0, connections=1)
    store.create(A, b"one", LIFE)
    postgres.pause()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(store.read, A) for _ in range(3)]
        faults = [one.exception() for one in waiting]
    postgres.resume()
    assert [type(one) for one in faults] == [StoreUnavailable] * 3
    store.close()


# Schemas


def test_tables_of_a_newer_farmsync_are_not_touched(store: PostgresStore, postgres_url: str) -> None:
    store.prepare()
    store.close()
    execute(postgres_url, "UPDATE farmsync_sessions_meta SET schema = 99")
    newer = PostgresStore(postgres_url, timeout_s=PATIENT_S)
    for call in (newer.prepare, lambda: newer.read(A)):
        with pytest.raises(WrongSchema, match=r"schema 1 or older, found schema 99; run the newer farmsync"):
            call()
    newer.close()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE TABLE farmsync_sessions (id int)", "found a table of that name without farmsync_sessions_meta"),
        (
            "CREATE TABLE farmsync_sessions_meta (id int); CREATE TABLE farmsync_sessions (id int)",
            "a table that differs",
        ),
        (
            "CREATE TABLE farmsync_sessions_meta AS SELECT 1 AS schema; CREATE TABLE farmsync_sessions (digest text)",
            "expected the tables of sessions as farmsync makes them",
        ),
        (
            "CREATE TABLE farmsync_sessions_meta (schema int); CREATE TABLE farmsync_sessions (digest text)",
            "to have one row, found 0",
        ),
    ],
)
def test_foreign_tables_are_not_touched(postgres_url: str, statement: str, says: str) -> None:
    execute(postgres_url, statement)
    store = PostgresStore(postgres_url, timeout_s=PATIENT_S)
    with pytest.raises(WrongSchema, match=says):
        store.prepare()
    with pytest.raises(WrongSchema):
        store.read(A)
    store.close()


def test_an_older_schema_becomes_todays_and_keeps_its_sessions(store: PostgresStore, postgres_url: str) -> None:
    store.create(A, b"one", LIFE)
    later = [*schema.MIGRATIONS, ["ALTER TABLE farmsync_sessions ADD COLUMN colour text", "CREATE TABLE more (x int)"]]
    newer = [PostgresStore(postgres_url, timeout_s=PATIENT_S, migrations=later) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.prepare(), newer))
    found = newer[0].read(A)
    assert found is not None
    assert found.state == b"one"
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(b"SELECT colour FROM farmsync_sessions").fetchall() == [(None,)]
        assert connection.execute(b"SELECT schema FROM farmsync_sessions_meta").fetchall() == [(2,)]
    assert isinstance(store.write(A, 1, b"two", LIFE), Written)  # who is connected already goes on
    for one in newer:
        one.close()


def test_a_migration_that_fails_leaves_everything_as_it_was(store: PostgresStore, postgres_url: str) -> None:
    store.create(A, b"one", LIFE)
    broken = [*schema.MIGRATIONS, ["CREATE TABLE more (x int)", "SELECT 1 / 0"]]
    newer = PostgresStore(postgres_url, timeout_s=PATIENT_S, migrations=broken)
    with pytest.raises(StoreUnavailable, match="division by zero"):
        newer.prepare()
    newer.close()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(b"SELECT to_regclass('more')").fetchall() == [(None,)]
        assert connection.execute(b"SELECT schema FROM farmsync_sessions_meta").fetchall() == [(1,)]
    assert store.read(A) is not None


def test_tables_that_were_dropped_are_made_anew(store: PostgresStore, postgres_url: str) -> None:
    store.create(A, b"one", LIFE)
    execute(postgres_url, "DROP TABLE farmsync_sessions, farmsync_sessions_meta")
    assert store.write(A, 1, b"two", LIFE) is None
    store.create(A, b"one", LIFE)
    assert store.read(A) is not None


def test_a_user_who_may_not_create_tables_is_told_what_is_missing(postgres: Postgres, own_postgres_url: str) -> None:
    execute(own_postgres_url, "DO $$ BEGIN CREATE ROLE nothing LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    store = PostgresStore(own_postgres_url.replace("postgres@", "nothing@"), timeout_s=PATIENT_S)
    with pytest.raises(ConfigError, match="GRANT CREATE on the schema"):
        store.prepare()
    store.close()


def test_another_schema_of_the_search_path_has_sessions_of_its_own(store: PostgresStore, postgres_url: str) -> None:
    execute(postgres_url, "CREATE SCHEMA shop")
    separator = "&" if "?" in postgres_url else "?"
    shop = PostgresStore(f"{postgres_url}{separator}options=-csearch_path%3Dshop", timeout_s=PATIENT_S)
    shop.create(A, b"shop", LIFE)
    store.create(A, b"public", LIFE)
    found = shop.read(A)
    assert found is not None
    assert found.state == b"shop"
    shop.close()


def test_a_server_that_only_reads_is_not_taken_for_a_good_one(store: PostgresStore, postgres_url: str) -> None:
    store.create(A, b"one", LIFE)
    separator = "&" if "?" in postgres_url else "?"
    reads = PostgresStore(f"{postgres_url}{separator}options=-cdefault_transaction_read_only%3Don", timeout_s=PATIENT_S)
    with pytest.raises(StoreUnavailable, match="read-only"):
        reads.read(A)
    reads.close()


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


# Passwords


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:s3cret@127.0.0.1:1/farm",
        "postgresql://shop@127.0.0.1:1/farm?password=s3cret",
        "postgresql://shop:s3cret@127.0.0.1:port/farm",
        "postgresql://shop:s3cret@[::1/farm",
        "postgresql://shop:s3cret%zz@127.0.0.1/farm",
        "postgresql://shop:s3cret@127.0.0.1/farm?passwort=s3cret",
        "postgresql://shop:/s3cret@127.0.0.1:1/farm",
        "postgresql://shop:1/s3cret@127.0.0.1:1/farm",
        "postgresql://shop:@s3cret@127.0.0.1:1/farm",
        "postgresql://shop:s3cret/farm",
        "postgresql://shop:?s3cret@127.0.0.1:1/farm",
        "postgresql://shop:#s3cret@127.0.0.1:1/farm",
    ],
)
def test_a_password_is_never_shown(url: str, caplog: pytest.LogCaptureFixture) -> None:
    seen = []
    with caplog.at_level(logging.DEBUG):
        try:
            store = PostgresStore(url, timeout_s=2.0)
            seen += [repr(store), repr(vars(store)), repr(store._target)]
            store.prepare()
        except (ConfigError, StoreUnavailable) as error:
            seen += ["".join(traceback.format_exception(error)), str(error)]
    seen += [record.getMessage() for record in caplog.records]
    assert len(seen) >= 2
    assert not [text for text in seen if "s3cret" in text]


def test_a_wrong_password_is_said_to_be_wrong_and_not_shown(postgres: Postgres, own_postgres_url: str) -> None:
    execute(
        own_postgres_url,
        "DO $$ BEGIN CREATE ROLE with_password LOGIN; EXCEPTION WHEN duplicate_object THEN END $$",
        "ALTER ROLE with_password PASSWORD 'right'",
        "GRANT CREATE ON SCHEMA public TO with_password",
    )
    wrong = PostgresStore(own_postgres_url.replace("postgres@", "with_password:s3cret@"), timeout_s=PATIENT_S)
    with pytest.raises(StoreUnavailable, match='password authentication failed for user "with_password"') as caught:
        wrong.prepare()
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    wrong.close()
    right = PostgresStore(own_postgres_url.replace("postgres@", "with_password:right@"), timeout_s=PATIENT_S)
    right.create(A, b"one", LIFE)
    right.close()


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

    def heard() -> bool:
        store.delete(A)
        return A in ear.heard

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
        [sys.executable, "-c", _FORKING, postgres_url],
        cwd=TREE, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("done\n", "")
