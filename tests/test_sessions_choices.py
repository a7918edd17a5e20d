"""What the layers of frameworks choose for a session: its lifetime, its touches, its codec, and whom they believe."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from farmsyncd.core.session.encoding import decode_value, encode_value
from farmsyncd.core.session.token import Token
from farmsyncd.sessions import Session, Sessions, SessionSettings
from farmsyncd.sessions.stores.base import Lifetime
from farmsyncd.sessions.view import Codec
from tests.sessions_memory import MemoryDatabase, MemoryStore

S = 1_000_000


class Node:
    """One process of a farm, with a clock that goes with the database's."""

    def __init__(self, database: MemoryDatabase, *, exact: bool = False) -> None:
        self.store = MemoryStore(database, exact=exact)
        settings = SessionSettings(idle_s=100, absolute_s=1000, sweep_every_s=0)
        self.sessions = Sessions(self.store, settings, clock=lambda: database.now_us / S)

    def stored(self, life: Lifetime | None = None) -> Token:
        """A session that was stored with this lifetime."""
        session = self.sessions.open(None)
        session.life = life
        session["x"] = 1
        session.commit()
        assert session.token is not None
        return session.token


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def node(database: MemoryDatabase) -> Iterator[Node]:
    made = Node(database)
    yield made
    made.sessions.close()


def use(node: Node, token: Token, life: Lifetime | None) -> Session:
    """A request that changes nothing."""
    session = node.sessions.open(token)
    session.life = life
    session.commit()
    return session


def test_a_session_may_have_a_lifetime_of_its_own(node: Node, database: MemoryDatabase) -> None:
    life = Lifetime(20 * S, 1000 * S)
    token = node.stored(life)
    database.pass_s(19)
    assert not node.sessions.open(token).is_new
    database.pass_s(1)
    assert node.sessions.open(token).is_new


@pytest.mark.parametrize(("life_s", "quiet_s", "due_s"), [(20, 1.9, 2.1), (None, 9.9, 10.1), (400, 39, 41)])
def test_it_is_touched_after_a_tenth_of_its_own_lifetime(
    life_s: int | None, quiet_s: float, due_s: float, node: Node, database: MemoryDatabase
) -> None:
    life = None if life_s is None else Lifetime(life_s * S, 1000 * S)
    token = node.stored(life)
    database.pass_s(quiet_s)
    assert use(node, token, life).version == 1
    database.pass_s(due_s - quiet_s)
    assert use(node, token, life).version == 2
    (row,) = database.rows.values()
    assert row.idle_expires_us - database.now_us == (life_s or 100) * S


def test_touching_writes_a_session_that_nothing_was_changed_in(node: Node, database: MemoryDatabase) -> None:
    session = node.sessions.open(node.stored())
    assert not session.modified
    session.touch()
    assert session.modified
    session.commit()
    assert (session.version, session.modified, session["x"]) == (2, False, 1)


def test_touching_a_new_session_stores_nothing(node: Node, database: MemoryDatabase) -> None:
    session = node.sessions.open(None)
    session.touch()
    session.commit()
    assert not database.rows


def test_without_a_version_the_database_is_asked_each_time(node: Node, database: MemoryDatabase) -> None:
    token = node.stored()
    for _ in range(2):
        assert node.sessions.find_cached(token, versioned=False) is None
        found = node.sessions.find(Token(token.id, 1), versioned=False)
        assert found[1] is not None
    assert node.store.calls["revalidate"] == 2
    assert node.sessions.find(None, versioned=False) == (None, None)


def test_without_a_version_a_store_that_knows_of_each_change_is_believed(database: MemoryDatabase) -> None:
    node = Node(database, exact=True)
    token = node.stored()
    reading = node.sessions.open(token)
    assert reading["x"] == 1
    node.store.calls.clear()
    assert node.sessions.find_cached(token, versioned=False) is not None
    assert not node.store.calls
    node.sessions.close()


def test_a_session_is_ended_by_its_id(node: Node, database: MemoryDatabase) -> None:
    token = node.stored()
    node.sessions.end(token)
    assert not database.rows
    assert node.sessions.open(token).is_new
    node.sessions.end(token)


def test_what_has_expired_is_removed_when_asked_for(node: Node, database: MemoryDatabase) -> None:
    for _ in range(3):
        node.stored()
    database.pass_s(101)
    node.stored()
    assert node.sessions.sweep() == 3
    assert len(database.rows) == 1


def test_a_codec_makes_the_bytes_and_the_values(node: Node) -> None:
    codec = Codec(lambda value, where: encode_value([value], where), lambda raw: decode_value(raw)[0])
    session = Session(node.sessions, lambda: (None, None), codec)
    session["x"] = {"a": 1}
    session.commit()
    token = session.token
    assert node.sessions.open(token)["x"] == [{"a": 1}]
    again = Session(node.sessions, lambda: node.sessions.find(token), codec)
    assert again["x"] == {"a": 1}
    assert not again.modified
    again["x"]["a"] = 2
    assert again.modified
