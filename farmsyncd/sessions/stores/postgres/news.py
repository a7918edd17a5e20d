"""A thread that hears which sessions have ended, by LISTEN on a connection of its own.

It only makes the end of a session known sooner; nothing relies on it. What was said while it did not listen is lost, so
that each new connection begins with the news that something may have been missed.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from farmsyncd.sessions.stores.forks import tell_of_forks
from farmsyncd.sessions.stores.postgres.link import Link
from farmsyncd.sessions.stores.postgres.trouble import Trouble

_log = logging.getLogger("farmsync.sessions")
_HEARTBEAT_MS: Final = 30_000
_PAUSE_S: Final = 0.5
_DIGEST: Final = 32


class News:
    """Tells all listeners of ends on ``channel``; ``connect`` makes its connection."""

    def __init__(self, connect: Callable[[], Link], channel: str, patience_s: float) -> None:
        self._connect = connect
        self._channel = channel
        self._patience_s = patience_s
        self._listeners: list[Callable[[bytes | None], None]] = []
        self._parents: list[Link] = []  # what was open before a fork; kept, so that nobody closes it for the parent
        self.asleep = False  # there are listeners, and no thread: after a fork
        self._reset()
        tell_of_forks(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._wake = -1
        self._link: Link | None = None

    def listen(self, ended: Callable[[bytes | None], None]) -> None:
        """Tell this one too, from now on."""
        self._listeners.append(ended)
        self.start()

    def start(self) -> None:
        """Start the thread, if there is none."""
        with self._lock:
            self.asleep = False
            if self._thread is None and not self._stop.is_set():
                self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._thread = threading.Thread(target=self._run, name="farmsync-sessions-news", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread; nobody is told anything afterwards, except by a call that is under way."""
        self._stop.set()
        self._listeners.clear()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None or thread is threading.current_thread():
            return
        os.eventfd_write(self._wake, 1)
        thread.join(self._patience_s)
        if not thread.is_alive():
            os.close(self._wake)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._hear()
            except Trouble as error:
                _log.debug("no news of ended sessions: %s", error)
            except Exception:
                _log.exception("no news of ended sessions")
            self._stop.wait(_PAUSE_S)

    def _hear(self) -> None:
        self._link = link = self._connect()
        try:
            link.run(f"LISTEN {self._channel}")
            self._tell(None)
            watched = select.poll()
            watched.register(link.fileno(), select.POLLIN)
            watched.register(self._wake, select.POLLIN)
            while not self._stop.is_set():
                if not watched.poll(_HEARTBEAT_MS):
                    link.run("SELECT 1")  # so that a connection that leads nowhere is noticed
                for text in link.notifications():
                    if (digest := _digest(text)) is not None:
                        self._tell(digest)
        finally:
            self._link = None
            link.close()

    def _tell(self, digest: bytes | None) -> None:
        for ended in list(self._listeners):
            try:
                ended(digest)
            except Exception:
                _log.exception("a listener failed at the news of an ended session")

    def before_fork(self) -> None:
        """Nothing to do: the thread goes on in the parent."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """There is no thread here; the next use of the store starts one."""
        if self._link is not None:
            self._link.disown()
            self._parents.append(self._link)
        if self._wake >= 0:
            os.close(self._wake)
        self.asleep = bool(self._listeners)
        stopped = self._stop.is_set()
        self._reset()
        if stopped:
            self._stop.set()


def _digest(text: str) -> bytes | None:
    """What a notification says; None for what somebody else said on our channel."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return None
    return digest if len(digest) == _DIGEST else None
