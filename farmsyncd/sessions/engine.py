"""Sessions: what a process opens them with and commits them by; ``copies`` and ``committing`` do the work."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable

import attrs

from farmsyncd.core.session.cookies import marker_life_s
from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.core.session.token import ENTROPY_BYTES, Token, new_id
from farmsyncd.sessions.committing import Committing
from farmsyncd.sessions.copies import Copies
from farmsyncd.sessions.session import Opened, Session
from farmsyncd.sessions.settings import SessionSettings
from farmsyncd.sessions.stores.base import Store
from farmsyncd.sessions.sweeping import Sweeping

log = logging.getLogger("farmsync.sessions")


@attrs.frozen
class Statistics:
    """What the sessions of this process have done. ``bytes`` is about what the copies take in memory."""

    hits: int
    misses: int
    revalidations: int
    conflicts: int
    merges: int
    entries: int
    bytes: int


class Sessions:
    """The sessions of one application in one process. May be used from any thread, and forked.

    ``clock`` is monotonic seconds; ``entropy`` gives so many random bytes; ``pause`` waits so many seconds.
    """

    def __init__(
        self,
        store: Store,
        settings: SessionSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings = SessionSettings() if settings is None else settings
        self.store = store
        self._sweeping = Sweeping(store, settings.sweep_every_s)
        self._copies = Copies(store, settings, clock, self._sweeping)
        self._committing = Committing(self._copies, settings, lambda: new_id(entropy(ENTROPY_BYTES)), pause)
        mine = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _renew(mine()))
        weakref.finalize(self, self._sweeping.tell_to_stop)

    @classmethod
    def at(cls, url: str, settings: SessionSettings | None = None) -> Sessions:
        """Sessions in the database that ``url`` names, whose tables are made when they are not there.

        ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://...``. Raises ConfigError, WrongSchema. A
        database that is away is no reason not to start: what needs it raises StoreUnavailable until it is there.
        """
        from farmsyncd.sessions.stores.url import open_store  # noqa: PLC0415  a store's driver only where it is used

        store = open_store(url)
        try:
            store.prepare()
        except StoreUnavailable as error:
            log.warning("the sessions' database is not there yet: %s", error)
        except BaseException:
            store.close()
            raise
        return cls(store, settings)

    # -- opening --------------------------------------------------------------------------------------------------

    def open(self, token: Token | None) -> Session:
        """The session that a client presents, with at most one question to the database; else a new one."""
        session = Session(self, _nothing)
        session.show(token, None if token is None else self._copies.trusted(token) or self._copies.read(token))
        return session

    def open_cached(self, token: Token | None) -> Session | None:
        """The session, if it can be known without the database, else None: for threads that must not wait."""
        found = self.find_cached(token)
        if found is None:
            return None
        session = Session(self, _nothing)
        session.show(*found)
        return session

    def find(self, token: Token | None, *, versioned: bool = True) -> Opened:
        """What :meth:`open` shows.

        With ``versioned`` False it is not known which version the client has seen: the database is asked, unless the
        store knows that nothing has changed.
        """
        return self.find_cached(token, versioned=versioned) or self._ask(token)

    def find_cached(self, token: Token | None, *, versioned: bool = True) -> Opened | None:
        """What :meth:`open_cached` shows; ``versioned`` is as in :meth:`find`."""
        if token is None:
            return _NEW
        if not versioned and self.store.generation() is None:
            return None
        copy = self._copies.trusted(token)
        return None if copy is None else (token, copy)

    def reload(self, session: Session) -> None:
        """See :meth:`Session.reload`."""
        session.show(*self._ask(session.ending or session.token))

    # -- committing -----------------------------------------------------------------------------------------------

    def commit(self, session: Session, *, even_empty: bool = False) -> None:
        """Store what the request made of its session; see :meth:`Session.commit`.

        With ``even_empty``, a new session that nothing was put into gets a row as well.
        """
        self._committing.commit(session, even_empty=even_empty)

    def commit_asks(self, session: Session) -> bool:
        """Whether a commit now would ask the database."""
        return self._committing.needed(session)

    def stand_back(self, attempt: int) -> None:
        """Wait a moment after having been too late for the ``attempt``th time."""
        self._committing.stand_back(attempt)

    def change(self, token: Token | None, function: Callable[[Session], object]) -> Session:
        """Open a session, call ``function`` with it and commit, again if another request came first."""
        session = self.open(token)
        session.change(function)
        return session

    # -- besides --------------------------------------------------------------------------------------------------

    def marker_life_s(self) -> int | None:
        """How long markers live (core.session.cookies); None where copies are never older than the database."""
        return None if self.store.generation() is not None else marker_life_s(self.settings.revalidate_after_s)

    def cookie_life_s(self, session: Session) -> int | None:
        """What is left of the session's life, in whole seconds; None without a row."""
        row = session.row
        return None if row is None else max(1, round(row.until_s - self._copies.clock()))

    def end(self, token: Token) -> None:
        """End the session of this id, if there is one."""
        with self._copies.writing(token.digest):
            self.store.delete(token.digest)
        self._copies.cache.forget(token.digest)

    def sweep(self) -> int:
        """Remove what has expired now, rather than when the thread does it; how many rows that were."""
        return self._sweeping.sweep(threading.Event())

    def forget(self, digest: bytes) -> None:
        """Drop the copy of a session: the next request that presents it asks the database."""
        self._copies.cache.forget(digest)

    def statistics(self) -> Statistics:
        """What happened so far."""
        counted, cache = self._copies.counted(), self._copies.cache
        return Statistics(
            hits=cache.lookups - counted["untrusted"],
            misses=counted["misses"],
            revalidations=counted["revalidations"],
            conflicts=counted["conflicts"],
            merges=counted["merges"],
            entries=cache.entries,
            bytes=cache.bytes,
        )

    @property
    def away(self) -> str | None:
        """Why the last use of the database failed; None when it answered, or was not needed yet."""
        return self._copies.away

    def close(self) -> None:
        """Give back the database's connections and the threads."""
        self._sweeping.stop()
        self.store.close()

    def renew(self) -> None:
        """In a process that was just forked: locks may be held by threads that are not there, and no thread runs."""
        self._copies.renew()
        self._committing.renew()

    def _ask(self, token: Token | None) -> Opened:
        if token is None:
            return _NEW
        return token, self._copies.read(token)


_NEW: Opened = (None, None)


def _nothing() -> Opened:
    return _NEW


def _renew(sessions: Sessions | None) -> None:
    if sessions is not None:
        sessions.renew()
