"""Nodes that share a database of sessions in memory, on clocks that the test moves: for tests of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from farmsyncd.core.session.token import Token
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import CookieSettings, SessionSettings
from farmsyncd.sessions.stores.base import Row
from tests.sessions_memory import MemoryDatabase, MemoryStore

QUIET = SessionSettings(sweep_every_s=0)  # no thread


class SlowStore(MemoryStore):
    """Has its answer to ``read`` ready, and lets the test do something before it hands that over."""

    on_its_way: Callable[[], object] | None = None

    def read(self, digest: bytes) -> Row | None:
        answer = super().read(digest)
        meanwhile, self.on_its_way = self.on_its_way, None
        if meanwhile is not None:
            meanwhile()
        return answer


@attrs.define(eq=False)
class Farm:
    """``node()`` adds a node; ``pass_s`` moves the clocks of all nodes and of the database."""

    database: MemoryDatabase = attrs.Factory(MemoryDatabase)
    now_s: float = 1000.0
    pauses: list[float] = attrs.Factory(list)

    def node(self, settings: SessionSettings = QUIET, store: MemoryStore | None = None) -> Node:
        """One more process that serves the sessions."""
        store = MemoryStore(self.database) if store is None else store
        return Node(store, Sessions(store, settings, clock=lambda: self.now_s, pause=self.pauses.append))

    def pass_s(self, seconds: float) -> None:
        """Let time pass, everywhere."""
        self.now_s += seconds
        self.database.pass_s(seconds)


@attrs.frozen(eq=False)
class Node:
    """One process."""

    store: MemoryStore
    sessions: Sessions

    def begin(self, **state: Any) -> Token:
        """A new session with this state."""
        session = self.sessions.open(None)
        session.update(state)
        session.commit()
        return known(session)

    def open(self, token: Token | None) -> Session:
        return self.sessions.open(token)

    def shows(self, token: Token) -> dict[str, Any]:
        """What a request that presents this token sees."""
        return dict(self.sessions.open(token))

    def set(self, token: Token, **changes: Any) -> Token:
        """A request that changes these keys."""
        session = self.sessions.open(token)
        session.update(changes)
        session.commit()
        return known(session)

    def rotate(self, token: Token) -> Token:
        """A request that gives the session a new id."""
        session = self.sessions.open(token)
        session.rotate()
        session.commit()
        return known(session)

    def end(self, token: Token) -> None:
        """A request that destroys the session."""
        session = self.sessions.open(token)
        session.destroy()
        session.commit()

    def exchange(self, cookie: str | None = None, *, secure: bool = False) -> Exchange:
        """A request with this ``Cookie`` header."""
        return Exchange(self.sessions, CookieSettings(), cookie, secure)

    def calls(self) -> dict[str, int]:
        """How often each method of the store was called since this was asked last."""
        calls = dict(self.store.calls)
        self.store.calls.clear()
        return calls


def known(session: Session) -> Token:
    """The token of a session that has a row."""
    token = session.token
    assert token is not None
    return token


def foreign() -> Token:
    """A token of a valid spelling that no server has issued."""
    return Token("A" * 43, 7)
