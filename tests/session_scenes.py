"""One database of sessions of each kind, for tests that must hold for all: stores on it, and time that passes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import attrs
import psycopg
import pytest

from farmsyncd.sessions.stores.base import Store
from farmsyncd.sessions.stores.postgres.schema import TABLE
from farmsyncd.sessions.stores.postgres.store import PostgresStore
from farmsyncd.sessions.stores.sqlite import SqliteStore, wall_clock_us
from tests.sessions_memory import MemoryDatabase, MemoryStore

KINDS = ("memory", "sqlite", "postgres")


def patient_store(url: str) -> Store:
    """The store of a URL, with so much patience that a busy machine is never taken for a database that is away."""
    if url.startswith("sqlite:"):
        return SqliteStore(Path(url.removeprefix("sqlite:///")), timeout_s=20.0)
    return PostgresStore(url, timeout_s=20.0)


class Scene(Protocol):
    """A database with stores on it."""

    def store(self) -> Store:
        """One more store on the same database, as another node has it."""

    def pass_s(self, seconds: float) -> None:
        """Let time pass by the database's clock."""


@attrs.define
class MemoryScene:
    database: MemoryDatabase = attrs.Factory(MemoryDatabase)

    def store(self) -> Store:
        return MemoryStore(self.database)

    def pass_s(self, seconds: float) -> None:
        self.database.pass_s(seconds)


@attrs.define
class SqliteScene:
    path: Path
    stack: ExitStack
    passed_us: int = 0

    def store(self) -> Store:
        store = SqliteStore(self.path, timeout_s=20.0, clock=lambda: wall_clock_us() + self.passed_us)
        self.stack.callback(store.close)
        return store

    def pass_s(self, seconds: float) -> None:
        self.passed_us += round(seconds * 1_000_000)


@attrs.define
class PostgresScene:
    """Time passes by making all that is there older: a server's clock cannot be moved."""

    url: str
    stack: ExitStack

    def store(self) -> Store:
        store = PostgresStore(self.url, timeout_s=20.0)
        self.stack.callback(store.close)
        return store

    def pass_s(self, seconds: float) -> None:
        columns = ("created_us", "changed_us", "idle_expires_us", "absolute_expires_us", "sweep_us")
        moves = ", ".join(f"{name} = {name} - {round(seconds * 1_000_000)}" for name in columns)
        with psycopg.connect(self.url) as connection:
            connection.execute(f"UPDATE {TABLE} SET {moves}".encode())


@contextmanager
def scene_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene of this kind; its stores are closed at the end."""
    makers: dict[str, Callable[[ExitStack], Scene]] = {
        "memory": lambda _stack: MemoryScene(),
        "sqlite": lambda stack: SqliteScene(folder / "sessions.db", stack),
        "postgres": lambda stack: PostgresScene(request.getfixturevalue("postgres_url"), stack),
    }
    with ExitStack() as stack:
        yield makers[kind](stack)
