"""One request and its response, as every framework's layer sees them: a ``Cookie`` header comes, a session is used,
``Set-Cookie`` headers go.

A layer makes an :class:`Exchange` for each request, gives the application its session, and calls
:meth:`Exchange.finish` before the response's first byte. When that raises, nothing of the application's response may
be sent: :meth:`Exchange.answer` says what is sent instead. Session errors that the application lets escape before
its response has begun are answered in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from farmsyncd.core.session.cookies import Presented, delete_cookies, presented, set_cookies
from farmsyncd.core.session.faults import (
    SessionConflict,
    SessionError,
    SessionGone,
    StoreUnavailable,
)
from farmsyncd.core.session.token import Token
from farmsyncd.errors import FarmsyncError
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.session import Opened, Session
from farmsyncd.sessions.settings import CookieSettings

log = logging.getLogger("farmsync.sessions")

_FAILED = 500  # from this status on nothing is stored

Answer = tuple[int, list[tuple[str, str]], bytes]
"""A status, headers and a body."""


class Exchange:
    """One request. ``secure``: it came over TLS. ``permanent`` set to False: its cookie ends with the browser."""

    __slots__ = (
        "_cookies",
        "_finished",
        "_header",
        "_presented",
        "_secure",
        "_sessions",
        "_stored",
        "permanent",
        "session",
    )

    def __init__(
        self,
        sessions: Sessions,
        cookies: CookieSettings,
        cookie_header: str | None,
        secure: bool,
        kind: Callable[[Sessions, Callable[[], Opened]], Session] = Session,
    ) -> None:
        """``kind`` makes the session, for a framework that has a kind of its own."""
        self._sessions = sessions
        self._cookies = cookies
        self._header = cookie_header
        self._secure = secure
        self._presented: Presented | None = None
        self._finished = self._stored = False
        self.permanent = True
        self.session = kind(sessions, self._find)
        """The request's session: it is looked up when it is first used."""

    @property
    def presented(self) -> Presented:
        """What the client's cookies say."""
        seen = self._presented
        if seen is None:
            seen = self._presented = presented(self._header, self._cookies, self._secure)
        return seen

    @property
    def opened(self) -> bool:
        """Whether the session has been looked up."""
        return self.session.opened

    @property
    def accessed(self) -> bool:
        """Whether the application used it: the response then depends on the cookie."""
        return self.session.accessed

    def open(self) -> Session:
        """Look the session up, with at most one question to the database. Raises StoreUnavailable."""
        if not self.session.opened:
            self.session.show(*self._find())
        return self.session

    def open_cached(self) -> Session | None:
        """Look the session up without the database; None when it has to be asked, by :meth:`open` in a thread."""
        if not self.session.opened:
            found = self._sessions.find_cached(self.presented.token)
            if found is None:
                return None
            self.session.show(*found)
        return self.session

    def finish_asks(self, status: int) -> bool:
        """Whether :meth:`finish` would ask the database: an event loop then calls it in a thread."""
        if status >= _FAILED or not self.session.accessed:
            return False
        try:
            return self._sessions.commit_asks(self.session)
        except SessionError:
            return False  # finish raises it too, at once

    def finish(self, status: int) -> list[str]:
        """Close the session and store what the application did; the values of the response's ``Set-Cookie`` headers.

        An event loop that calls this in a thread closes the session first, so that nothing changes it meanwhile. With
        a ``status`` of 500 and above nothing is stored. A session that was not used costs nothing. Raises what
        :meth:`Session.commit` does.
        """
        if self._finished:
            return []
        self._finished = True
        session = self.session
        session.close()
        if session.accessed and status < _FAILED:
            self._sessions.commit(session)
            self._stored = True
        return self.set_cookies()

    def abandon(self) -> None:
        """Nothing more is stored; for an application that has failed, or once all has been sent."""
        self._finished = True
        self.session.close()
        if self._stored:
            self._stored = False
            self._look_for_late_changes()

    def _look_for_late_changes(self) -> None:
        """Say what would be lost silently: a change inside a value, which no session can refuse."""
        try:
            late = ", ".join(map(repr, self.session.view.changes()))
        except SessionError as error:
            late = str(error)
        if late:
            log.warning("%r was changed after its response had begun, which is not stored: %s", self.session, late)

    def set_cookies(self) -> list[str]:
        """``Set-Cookie`` for what is stored by now and this client has not seen yet."""
        session = self.session
        if not (session.opened and session.accessed):
            return []
        seen, row = self.presented, session.row
        if row is None:
            return delete_cookies(self._cookies, self._secure) if session.destroyed else []
        if not session.own_writes and seen.token is not None and row.version <= seen.token.version:
            return []  # most responses
        return set_cookies(
            self._cookies,
            self._secure,
            seen,
            Token(session.id, row.version),
            own_writes=session.own_writes,
            life_s=self._sessions.cookie_life_s(session) if self.permanent else None,
            marker_s=self._sessions.marker_life_s(),
        )

    def answer(self, error: FarmsyncError) -> Answer:
        """What is sent instead of the application's response; with the cookies of what it had stored before."""
        self.abandon()
        status, headers, body = answer_for(error)
        return status, [*headers, *(("Set-Cookie", value) for value in self.set_cookies())], body

    def _find(self) -> Opened:
        return self._sessions.find(self.presented.token)


def answer_for(error: FarmsyncError) -> Answer:
    """The response that says to a person, in plain text, that the session could not be kept; the reason is logged."""
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
    if isinstance(error, SessionConflict | SessionGone):
        log.info("a request was answered with 409: %s", error)
        status, text = 409, "Another request changed your session at the same time. Nothing was stored: please repeat."
    elif isinstance(error, StoreUnavailable):
        headers.append(("Retry-After", "1"))
        status, text = 503, "Sessions cannot be kept at this moment. Nothing was lost: please repeat in a moment."
    else:
        log.error("a request was answered with 500: %s", error)
        status, text = 500, "The session could not be stored. The server's log says why."
    body = f"{text}\n".encode()
    return status, [*headers, ("Content-Length", str(len(body)))], body
