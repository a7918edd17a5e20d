"""The connections of one process: a few, kept open; and what is known of a database that is away.

While it is away, one thread at a time tries to connect, a short while after the last try; all others are told at once.
So a database that is gone costs no thread its time, and one that comes back is found by the next call.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.forks import tell_of_forks
from farmsyncd.sessions.stores.postgres.link import Link
from farmsyncd.sessions.stores.postgres.trouble import Trouble

_log = logging.getLogger("farmsync.sessions")
_PAUSE_S: Final = 0.25


class Pool:
    """At most ``size`` links, made by ``connect`` when they are needed; ``shown`` names the database to people."""

    def __init__(self, connect: Callable[[], Link], size: int, timeout_s: float, shown: str) -> None:
        self._connect = connect
        self._size = size
        self._timeout_s = timeout_s
        self._shown = shown
        self._parents: list[Link] = []  # what was open before a fork; kept, so that nobody closes it for the parent
        self._reset()
        tell_of_forks(self)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._idle: list[Link] = []
        self._lent: set[Link] = set()
        self._connecting = 0
        self._away = ""  # why, while it is
        self._try_at = 0.0
        self._closed = False

    def take(self) -> Link:
        """A link for this thread, to be given back or dropped; raises StoreUnavailable, and what connecting raises."""
        ends = time.monotonic() + self._timeout_s
        with self._changed:
            while True:
                if self._closed:
                    raise StoreUnavailable(f"expected {self._shown} to be in use, and it was closed")
                while self._idle:
                    link = self._idle.pop()
                    if link.quiet():
                        self._lent.add(link)
                        return link
                    link.close()
                if self._away:
                    if self._connecting or time.monotonic() < self._try_at:
                        raise self._unavailable()
                    break
                if len(self._lent) + self._connecting < self._size:
                    break
                if not self._changed.wait(ends - time.monotonic()):
                    raise StoreUnavailable(
                        f"expected one of {self._size} connections to {self._shown} to become free within "
                        f"{self._timeout_s:g} s, and all are in use"
                    )
            self._connecting += 1
        return self._connected()

    def _connected(self) -> Link:
        link = None
        trouble = ""
        try:
            link = self._connect()
        except Trouble as error:
            trouble = str(error)
        finally:
            with self._changed:
                self._connecting -= 1
                if link is not None:
                    self._lent.add(link)
                    self._is_back()
                elif trouble:
                    self._is_away(trouble)
                self._changed.notify_all()
        if link is None:
            raise StoreUnavailable(f"expected {self._shown} to answer, and it does not: {trouble}")
        return link

    def give(self, link: Link) -> None:
        """Give back a link that is good: the database answered."""
        with self._changed:
            self._lent.discard(link)
            if not self._closed:
                self._idle.append(link)
                self._is_back()
                self._changed.notify()
                return
        link.close()

    def drop(self, link: Link, away: str = "") -> None:
        """Give back a link that is of no use, and close those that nobody uses: what broke one broke them all.

        ``away`` says why the database is taken to be away.
        """
        with self._changed:
            self._lent.discard(link)
            useless, self._idle = [link, *self._idle], []
            if away:
                self._is_away(away)
            self._changed.notify_all()
        for one in useless:
            one.close()

    def _is_away(self, why: str) -> None:
        if not self._away:
            _log.debug("%s is away: %s", self._shown, why)  # what uses the store says so too, once
        self._away = why
        self._try_at = time.monotonic() + _PAUSE_S

    def _is_back(self) -> None:
        if self._away:
            _log.debug("%s is back", self._shown)
        self._away = ""

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(f"expected {self._shown} to answer, and it does not: {self._away}")

    def close(self) -> None:
        """Close what nobody uses; what is in use is closed when it is given back."""
        with self._changed:
            self._closed = True
            useless, self._idle = self._idle, []
            self._changed.notify_all()
        for one in useless:
            one.close()

    def before_fork(self) -> None:
        """Nothing to do: the child makes connections of its own."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew; what is open belongs to the parent, and is not used nor ended from here."""
        for one in (*self._idle, *self._lent):
            one.disown()
            self._parents.append(one)
        closed = self._closed
        self._reset()
        self._closed = closed
