"""What the tests of sessions in PostgreSQL have in common."""

from __future__ import annotations

import hashlib

import psycopg

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.base import Lifetime, Row
from farmsyncd.sessions.stores.postgres.store import PostgresStore

LIFE = Lifetime(3_600_000_000, 36_000_000_000)
PATIENT_S = 20.0


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


A, B, C = digest("a"), digest("b"), digest("c")


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def tried(store: PostgresStore) -> Row | None:
    """A, or None while the store says that the database is away."""
    try:
        return store.read(A)
    except StoreUnavailable:
        return None
