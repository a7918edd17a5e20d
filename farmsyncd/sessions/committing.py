"""What a request did to its session, written: one conditional write, over exactly the version that the request read.

When another request came first, its change and this one's are merged key by key, and the write is tried again over
what the other one left. Within one process the requests of a session take turns, each knowing what the one before it
has left: only another process can come first.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping

import attrs

from farmsyncd.core.session.encoding import Encoded, check_size, join, largest, split
from farmsyncd.core.session.faults import SessionConflict, SessionGone, StoreUnavailable
from farmsyncd.core.session.merging import merge
from farmsyncd.core.session.token import Token
from farmsyncd.sessions.cache import Copy, short
from farmsyncd.sessions.copies import Copies
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import SessionSettings
from farmsyncd.sessions.stores.base import CENTURY_US, Lifetime, Row
from farmsyncd.sessions.turns import Turns
from farmsyncd.sessions.view import Changes

log = logging.getLogger("farmsync.sessions")

_ROUNDS = 5  # of merging, before a commit gives up
_PATIENCE_S = 2.0
_PAUSE_S = 0.002


def _us(seconds: float) -> int:
    return CENTURY_US if seconds * 1e6 >= CENTURY_US else round(seconds * 1e6)


class Committing:
    """Writes sessions. ``fresh_id`` makes an id, ``pause`` waits so many seconds."""

    def __init__(
        self, copies: Copies, settings: SessionSettings, fresh_id: Callable[[], str], pause: Callable[[float], None]
    ) -> None:
        self._copies = copies
        self._settings = settings
        self._life = Lifetime(_us(settings.idle_s), _us(settings.absolute_s))
        self._fresh_id = fresh_id
        self._pause = pause
        self.renew()

    def renew(self) -> None:
        """In a process that was just forked: another thread may have held a lock."""
        self._turns = Turns(_PATIENCE_S)

    def stand_back(self, attempt: int) -> None:
        """Let others go first for a moment, the longer the more often this one was too late."""
        self._pause(random.uniform(0, _PAUSE_S * 2**attempt))  # noqa: S311  no secret

    def needed(self, session: Session) -> bool:
        """Whether :meth:`commit` would ask the database."""
        if not session.opened:
            return False
        return session.modified or (session.row is not None and self._touch_is_due(session, session.row))

    def commit(self, session: Session, *, even_empty: bool = False) -> None:
        """Store what the session has become; with ``even_empty``, a new session that nothing was put into too."""
        if not (session.opened or even_empty):
            return
        try:
            changes = session.view.changes()
            if session.row is None:
                self._begin_anew(session, changes, even_empty)
            elif changes or session.rotating or session.touching:
                self._replace(session, session.row, changes)
            elif self._touch_is_due(session, session.row):
                self._touch(session, session.row)
        except SessionConflict:
            self._copies.count("conflicts")
            raise

    def _begin_anew(self, session: Session, changes: Changes, even_empty: bool) -> None:
        parts = merge({}, changes, {})
        state = self._state(parts, None)  # may raise: before anything is ended
        if session.ending is not None:
            with self._copies.writing(session.ending.digest):
                self._copies.store.delete(session.ending.digest)
            self._copies.cache.forget(session.ending.digest)
            session.ended()
        if parts or even_empty:
            token = Token(self._fresh_id(), 1)
            with self._copies.asking(token.digest) as question:
                written = self._copies.store.create(token.digest, state, self._life_of(session))
            copy = self._copies.keep(question, question.copy(written.version, state, written))
            session.stored(token.id, copy, changes)

    def _replace(self, session: Session, row: Copy, changes: Changes) -> None:
        base = session.view.parts()
        with self._turns.of(row.digest):
            latest = self._copies.newest(row)
            for attempt in range(_ROUNDS + 1):
                theirs = base if latest is row else split(latest.state)
                state = self._state(merge(base, changes, theirs), row)
                answer = self._write(session, latest, state, changes, merged=latest is not row)
                if answer is None:
                    return
                if attempt:
                    self.stand_back(attempt)
                latest = self._copies.newest(answer)
        raise SessionConflict(next(iter(changes), "(its id)"))

    def _write(self, session: Session, over: Copy, state: bytes, changes: Changes, *, merged: bool) -> Copy | None:
        """None when it was written, else what another request has left."""
        session_id = session.id
        new = Token(self._fresh_id(), over.version + 1) if session.rotating else None
        store, old = self._copies.store, over.digest
        with self._copies.writing(old) as question:
            if new is None:
                answer = store.write(old, over.version, state, self._life_of(session))
            else:
                answer = store.rotate(old, over.version, new.digest, state, self._life_of(session))
        if answer is None:
            self._copies.cache.forget(old)
            raise SessionGone
        if isinstance(answer, Row):
            return self._copies.keep(question, question.copy(answer.version, answer.state, answer))
        if new is not None:
            session_id = new.id
            question = attrs.evolve(question, digest=new.digest, seen=None)
            self._copies.cache.forget(old)
        copy = self._copies.keep(question, question.copy(answer.version, state, answer))
        if merged:
            self._copies.count("merges")
        session.stored(session_id, copy, changes, merged=merged)
        return None

    def _life_of(self, session: Session) -> Lifetime:
        return self._life if session.life is None else session.life

    def _touch_is_due(self, session: Session, row: Copy) -> bool:
        return self._copies.touch_is_due(row, self._life_of(session))

    def _touch(self, session: Session, row: Copy) -> None:
        """Make the session live longer. If that fails, a later request will."""
        if self._copies.newest(row) is not row:
            return  # another request has written it just now
        try:
            with self._copies.asking(row.digest) as question:
                answer = self._copies.store.write(row.digest, row.version, row.state, self._life_of(session))
        except StoreUnavailable:
            return
        if answer is None:
            self._copies.cache.forget(row.digest)
        elif isinstance(answer, Row):
            self._copies.keep(question, question.copy(answer.version, answer.state, answer))
        else:
            copy = self._copies.keep(question, question.copy(answer.version, row.state, answer))
            session.stored(session.id, copy, {})

    def _state(self, parts: Mapping[str, Encoded], before: Copy | None) -> bytes:
        state = join(parts)
        check_size(state, self._settings.limit_bytes)
        if len(state) >= self._settings.warn_bytes and (
            before is None or len(before.state) < self._settings.warn_bytes
        ):
            name = "a new session" if before is None else f"session {short(before.digest)}"
            log.warning("%s has become %d bytes large; its largest keys are %s", name, len(state), largest(state))
        return state
