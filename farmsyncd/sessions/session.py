"""What an application holds while it answers one request: the shopper's state, a dict with a few more verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from farmsyncd.core.session.faults import SessionClosed, SessionConflict, SessionGone
from farmsyncd.core.session.token import Token
from farmsyncd.sessions.cache import Copy, short
from farmsyncd.sessions.stores.base import Lifetime
from farmsyncd.sessions.view import EXACT, Changes, Codec, View

if TYPE_CHECKING:
    from farmsyncd.sessions.engine import Sessions

_REPEATS = 5

Opened = tuple[Token | None, Copy | None]
"""What the client presented, and the row that it names; no row for a new session."""


class Session(MutableMapping[str, Any]):
    """One shopper's state during one request: keys are text, values are what ``core.session.encoding`` keeps.

    It belongs to one request, and to one thread at a time. It is looked up when it is first used: that may ask the
    database, and raise StoreUnavailable. Setting a value raises NotStorable at once when it cannot be kept. Nothing is
    stored before :meth:`commit`, which the framework's layer calls before the response's first byte; a session that
    nothing is put into is never stored.

    ``own_writes`` counts the versions that this request has written; ``destroyed`` says that it has ended a session.
    ``life`` is how long it lives from its next write on; None is as the settings say.
    """

    # What most requests never change is said once for all of them: a session is made for each request.
    _view: View | None = None
    _row: Copy | None = None
    _id: str | None = None
    _ending: Token | None = None
    _accessed = False
    _closed = False
    destroyed = False
    rotating = False
    touching = False
    own_writes = 0
    life: Lifetime | None = None

    def __init__(self, sessions: Sessions, opening: Callable[[], Opened], codec: Codec = EXACT) -> None:
        """A session that ``opening`` finds when it is first used."""
        self._sessions = sessions
        self._opening = opening
        self._codec = codec

    # -- a dict ---------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        self._accessed = True
        return (self._view or self.view).read(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._to_change().write(key, value)

    def __delitem__(self, key: str) -> None:
        self._to_change().delete(key)

    def __contains__(self, key: object) -> bool:
        self._accessed = True
        return (self._view or self.view).has(key)

    def __iter__(self) -> Iterator[str]:
        self._accessed = True
        return iter(self.view.keys())

    def __len__(self) -> int:
        self._accessed = True
        return len(self.view.keys())

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
        if self._view is None:
            return "<Session not used yet>"
        row = self._row
        return "<Session new>" if row is None else f"<Session {short(row.digest)} version {row.version}>"

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
        return None if row is None else Token(self.id, row.version)

    @property
    def accessed(self) -> bool:
        """Whether the application looked into it, or changed it."""
        return self._accessed

    @property
    def modified(self) -> bool:
        """Whether a commit now has something to store."""
        view = self._view
        if view is None:
            return False
        return self.rotating or self.touching or self._ending is not None or bool(view.changes())

    # -- verbs ----------------------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Give it a new id at commit, with the same state; the old id ends then. Call this when a shopper logs in."""
        self._to_change()
        self.rotating = True

    def touch(self) -> None:
        """Write it at commit although nothing has changed, so that it lives on. Without a row, this does nothing.

        There is no need to call this for a session that is used: it is touched after a tenth of its idle time.
        """
        self._to_change()
        self.touching = self.row is not None

    def destroy(self) -> None:
        """Empty it, and end it at commit. What is put in from now on becomes a new session."""
        self._to_change()
        ending = self.token or self._ending
        self.show(None, None)
        self._ending = ending

    def commit(self) -> None:
        """Store the changes now, for an application that wants to know before it answers.

        Raises SessionConflict, SessionGone, SessionTooLarge, NotStorable or StoreUnavailable; the session then still
        shows what the request made of it.
        """
        if self._closed:
            raise SessionClosed
        self._sessions.commit(self)

    def reload(self) -> None:
        """Drop the changes that are not stored, and read the row. If it has ended, this is a new session.

        A rotation that was asked for is still to come.
        """
        self._to_change()
        rotating = self.rotating
        self._sessions.reload(self)
        self.rotating = rotating

    def change(self, function: Callable[[Session], object]) -> None:
        """Call ``function`` with the session and commit; when another request came first, again with what that left.

        What was changed before is committed first. Raises SessionConflict if others are faster each time, and
        SessionGone if the session ends meanwhile.
        """
        self.commit()
        for attempt in range(1, _REPEATS + 1):
            function(self)
            try:
                return self.commit()
            except SessionConflict:
                self._sessions.stand_back(attempt)
                self.reload()
                if self.is_new:
                    raise SessionGone from None
        function(self)
        return self.commit()

    # -- for the layers above and below ---------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The row's state and this request's changes."""
        if self._view is None:
            self.show(*self._opening())
        assert self._view is not None
        return self._view

    @property
    def row(self) -> Copy | None:
        """What the database has of it; None for a new session."""
        if self._view is None:
            self.show(*self._opening())
        return self._row

    @property
    def id(self) -> str:
        """The secret id of a session that has a row."""
        if self._id is None:
            raise ValueError("expected a session that is stored, found a new one: it has no id yet")
        return self._id

    @property
    def opened(self) -> bool:
        """Whether it has been looked up."""
        return self._view is not None

    @property
    def closed(self) -> bool:
        """Whether the response begins, or has begun."""
        return self._closed

    @property
    def ending(self) -> Token | None:
        """What the next commit ends, because of :meth:`destroy`."""
        return self._ending

    def close(self) -> None:
        """The response begins: from now on a change raises SessionClosed. What was made before can still be stored."""
        self._closed = True

    def show(self, token: Token | None, row: Copy | None) -> None:
        """Be this row, without changes; a new session without a row."""
        if row is None or token is None:
            self._row = self._id = None
            self._view = View(None, self._codec)
        else:
            self._row = row
            self._id = token.id
            self._view = View(row.state, self._codec)
        self._ending = None
        self.rotating = self.touching = False

    def stored(self, session_id: str, row: Copy, changes: Changes, *, merged: bool = False) -> None:
        """The engine has written ``row`` with these changes; ``merged``: other requests' are in it too."""
        self.view.committed(row.state, changes, merged)
        self._id, self._row = session_id, row
        self.own_writes += 1
        self.rotating = self.touching = False

    def ended(self) -> None:
        """The engine has ended what :meth:`destroy` was called for."""
        self._ending = None
        self.destroyed = True

    def _to_change(self) -> View:
        if self._closed:
            raise SessionClosed
        self._accessed = True
        return self.view
