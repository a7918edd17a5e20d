"""Sessions in PostgreSQL: whose tables they are, how they change, and that no password is shown."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from farmsyncd.core.session.faults import StoreUnavailable, WrongSchema
from farmsyncd.errors import ConfigError
from farmsyncd.sessions.stores.base import Written
from farmsyncd.sessions.stores.postgres import schema
from farmsyncd.sessions.stores.postgres.store import PostgresStore
from tests.postgres import Postgres
from tests.session_postgres import LIFE, PATIENT_S, A, execute


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    one = PostgresStore(postgres_url, timeout_s=PATIENT_S)
    yield one
    one.close()


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


def tables(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(b"SELECT relname FROM pg_class WHERE relname LIKE 'farmsync%'").fetchall()
    return sorted(name for (name,) in rows)


def test_a_store_that_creates_nothing_refuses_a_database_without_tables(
    store: PostgresStore, postgres_url: str
) -> None:
    looking = PostgresStore(postgres_url, timeout_s=PATIENT_S, creates=False)
    for call in (looking.prepare, lambda: looking.read(A), looking.stats):
        with pytest.raises(StoreUnavailable, match=r"sessions in postgresql://.*, and there are no such tables; name"):
            call()
    assert tables(postgres_url) == []
    store.create(A, b"one", LIFE)
    found = looking.read(A)
    assert found is not None
    assert found.state == b"one"
    execute(postgres_url, "DROP TABLE farmsync_sessions, farmsync_sessions_meta")
    with pytest.raises(StoreUnavailable, match="there are no such tables"):
        looking.read(A)
    assert tables(postgres_url) == []
    looking.close()


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
