"""What an application holds while it answers one request: the shopper's state, a dict with a few more verbs.

A session is a view of one version of the row, as bytes, with the request's own changes over it. It is opened when it
is first looked at, and a value is decoded when *it* is first looked at: a request pays for what it reads, and has
objects of its own. What it changed is found at commit: keys that were set or deleted, and those values that can change
inside and were looked at; they are encoded again and compared with what they were made from.

A session belongs to one request, and to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from farmsyncd.core.session.encoding import Encoded, check_key, decode_value, encode_value, split
from farmsyncd.core.session.faults import SessionClosed, SessionConflict, SessionGone
from farmsyncd.core.session.token import Token
from farmsyncd.sessions.cache import Copy

if TYPE_CHECKING:
    from farmsyncd.sessions.engine import Sessions

# What was decoded as one of these is the same at commit. (A tuple may hold a list.)
_UNCHANGING = frozenset(
    (type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID, frozenset)
)
_MISSING: Any = object()
_REPEATS = 5

Opened = tuple[Token | None, Copy | None]
"""What the client presented, and the row that it names; no row for a new session."""


class Session(MutableMapping[str, Any]):
    """One shopper's state during one request: keys are text, values are what ``core.session.encoding`` keeps.

    Setting a value raises NotStorable at once when it cannot be kept. Nothing is stored before :meth:`commit`, which
    the framework's layer calls before the response's first byte; a session that nothing is put into is never stored.
    The first access may ask the database, and raise StoreUnavailable.
    """

    __slots__ = (
        *("_accessed", "_closed", "_ended", "_id", "_open", "_orphans", "_parts", "_row", "_sessions", "_set"),
        *("_values", "_watched", "destroyed", "own_writes", "rotating"),
    )

    def __init__(self, sessions: Sessions, opening: Callable[[], Opened]) -> None:
        """A session that ``opening`` is asked for when it is first looked at."""
        self._sessions = sessions
        self._open: Callable[[], Opened] | None = opening
        self._row: Copy | None = None
        self._id: str | None = None
        self._ended: Token | None = None
        self._accessed = self._closed = False
        self.destroyed = self.rotating = False
        self.own_writes = 0
        self._parts: Mapping[str, Encoded] | None = None
        self._values: dict[str, Any] = {}
        self._set: dict[str, bytes | None] = {}
        self._watched: set[str] = set()
        self._orphans: list[tuple[str, Any, bytes]] = []

    # -- a dict ---------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        self._accessed = True
        value = self._values.get(key, _MISSING)
        if value is not _MISSING:
            return value
        raw = self.parts().get(key)
        if raw is None or key in self._set:
            raise KeyError(key)
        value = self._values[key] = decode_value(raw)
        if type(value) not in _UNCHANGING:
            self._watched.add(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._begin_change()
        check_key(key)
        self._set[key] = encode_value(value, key)
        self._values[key] = value
        if type(value) in _UNCHANGING:
            self._watched.discard(key)
        else:
            self._watched.add(key)

    def __delitem__(self, key: str) -> None:
        self._begin_change()
        if key not in self:
            raise KeyError(key)
        self._values.pop(key, None)
        self._watched.discard(key)
        self._set[key] = None

    def __contains__(self, key: object) -> bool:
        self._accessed = True
        if key in self._set:
            return self._set[key] is not None
        return key in self.parts()

    def __iter__(self) -> Iterator[str]:
        self._accessed = True
        parts, changed = self.parts(), self._set
        if not changed:
            return iter(list(parts))
        kept = [key for key in parts if changed.get(key, b"") is not None]
        return iter(kept + [key for key, raw in changed.items() if raw is not None and key not in parts])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        if key not in self:
            return default
        return self[key]

    def clear(self) -> None:
        """Delete every key. The session stays; :meth:`destroy` ends it."""
        for key in self:
            del self[key]

    def __repr__(self) -> str:
        """Says nothing secret: neither the id nor a value."""
        if self._open is not None:
            return "<Session not looked at>"
        return f"<Session {'new' if self._row is None else self._row.digest.hex()[:12]} version {self.version}>"

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Whether there is no row of it (yet)."""
        return self.row is None

    @property
    def version(self) -> int:
        """The row's version; 0 without a row."""
        row = self.row
        return 0 if row is None else row.version

    @property
    def digest(self) -> str | None:
        """What operators and logs know it by, in hexadecimal; None without a row."""
        row = self.row
        return None if row is None else row.digest.hex()

    @property
    def token(self) -> Token | None:
        """What the client's cookie is to say; None without a row. The id in it is a secret."""
        row = self.row
        return None if row is None or self._id is None else Token(self._id, row.version)

    @property
    def accessed(self) -> bool:
        """Whether the application looked into it, or changed it."""
        return self._accessed

    @property
    def modified(self) -> bool:
        """Whether a commit now has something to store."""
        return self._open is None and (self.rotating or self._ended is not None or bool(self.changes()))

    # -- verbs ----------------------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Give it a new id at commit, with the same state; the old id ends then. Call this when a shopper logs in."""
        self._begin_change()
        self.rotating = True

    def destroy(self) -> None:
        """Empty it, and end it at commit. What is put in from now on becomes a new session."""
        self._begin_change()
        ended = self.token or self._ended
        self.show(None, None)
        self._ended = ended

    def commit(self) -> None:
        """Store the changes now, for an application that wants to know before it answers.

        Raises SessionConflict, SessionGone, SessionTooLarge, NotStorable or StoreUnavailable; the session then still
        shows what the request made of it.
        """
        self._sessions.commit(self)

    def reload(self) -> None:
        """Drop the changes that are not stored, and read the row. If it has ended, this is a new session."""
        self._begin_change()
        self._sessions.reload(self)

    def change(self, function: Callable[[Session], object]) -> None:
        """Call ``function`` with the session and commit; when another request came first, again with what that left.

        What was changed before is committed first. Raises SessionConflict if others are faster each time.
        """
        self.commit()
        for _ in range(_REPEATS):
            function(self)
            try:
                return self.commit()
            except SessionConflict:
                self.reload()
                if self.is_new:
                    raise SessionGone from None
        function(self)
        return self.commit()

    # -- for the layers above and below ---------------------------------------------------------------------------

    @property
    def row(self) -> Copy | None:
        """What the database has of it; None for a new session."""
        if self._open is not None:
            self.show(*self._open())
        return self._row

    @property
    def token_id(self) -> str:
        """The secret id of a session that has a row."""
        assert self._id is not None, "expected a session with a row"
        return self._id

    @property
    def opened(self) -> bool:
        """Whether it is known yet."""
        return self._open is None

    @property
    def closed(self) -> bool:
        """Whether the response has begun."""
        return self._closed

    @property
    def ending(self) -> Token | None:
        """What the next commit ends, because of :meth:`destroy`."""
        return self._ended

    def close(self) -> None:
        """The response has begun: from now on a change raises SessionClosed."""
        self._closed = True

    def show(self, token: Token | None, row: Copy | None) -> None:
        """Be this row, without changes; a new session without a row."""
        self._open = self._ended = None
        self._row = row
        self._id = None if token is None or row is None else token.id
        self._parts = None
        self.rotating = False
        if self._set or self._values or self._orphans:
            self._values.clear()
            self._set.clear()
            self._watched.clear()
            self._orphans.clear()

    def parts(self) -> Mapping[str, Encoded]:
        """The row's state, key by key, as bytes."""
        parts = self._parts
        if parts is None:
            row = self.row
            parts = self._parts = {} if row is None else split(row.state)
        return parts

    def changes(self) -> dict[str, Encoded | None]:
        """What this request changed since the row: a key's new value, or None for a key that it deleted.

        Raises NotStorable for what was put into a value since it was set, and SessionConflict for an object that is no
        longer the session's: it was read before a commit in which another request's value took its place.
        """
        if not (self._set or self._watched or self._orphans):
            return {}
        parts = self.parts()
        now: dict[str, bytes | None] = {**self._set}
        for key in self._watched:
            now[key] = encode_value(self._values[key], key)
        for key, value, seen in self._orphans:
            if encode_value(value, key) != seen:
                raise SessionConflict(key)
        return {key: raw for key, raw in now.items() if raw != _bytes(parts.get(key))}

    def stored(self, token_id: str, row: Copy, changes: Mapping[str, object], theirs: bool) -> None:
        """The engine has written ``row`` with these changes, and ``theirs`` says that others' are in it too.

        What others changed is then read again. If the application still holds an object made of the old value, and
        changes that, it is told at the next commit: see :meth:`changes`.
        """
        before, self._parts = self.parts(), None
        self._id, self._row = token_id, row
        self.own_writes += 1
        self.rotating = False
        self._set.clear()
        if not theirs:
            return
        after = self.parts()
        for key in [key for key in self._values if key not in changes]:
            old = _bytes(before.get(key))
            if old == _bytes(after.get(key)):
                continue
            value = self._values.pop(key)
            if key in self._watched and old is not None:
                self._watched.discard(key)
                self._orphans.append((key, value, old))

    def ended(self) -> None:
        """The engine has ended what :meth:`destroy` was called for."""
        self._ended = None
        self.destroyed = True

    def _begin_change(self) -> None:
        """Before each change."""
        if self._closed:
            raise SessionClosed
        self._accessed = True
        if self._open is not None:
            self.show(*self._open())


def _bytes(encoded: Encoded | None) -> bytes | None:
    return None if encoded is None else bytes(encoded)
