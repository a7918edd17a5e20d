"""The thread that removes expired rows: in small batches, so that it holds up nobody, and in one process at a time.

The database sees to it that only one sweeps. The thread is started when the sessions first need their database, in a
forked process anew, and ends with the process or when it is told to.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.base import Store

log = logging.getLogger("farmsync.sessions")

BATCH = 200
_BETWEEN_BATCHES_S = 0.05
_SPREAD = 0.2


class Sweeping:
    """Sweeps ``store`` about every ``every_s`` seconds; 0 is never."""

    def __init__(
        self, store: Store, every_s: float, random_s: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._store = store
        self._every_s = every_s
        self._random_s = random_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def renew(self) -> None:
        """In a process that was just forked: there is no thread, and what it waited for may be locked."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = None

    def begin(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is not None or self._every_s <= 0:
            return
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                thread = threading.Thread(target=self._run, args=(self._stop,), name="farmsync-sweep", daemon=True)
                thread.start()
                self._thread = thread

    def tell_to_stop(self) -> None:
        """End the thread soon."""
        self._stop.set()

    def stop(self) -> None:
        """End the thread; returns when it has ended, but does not wait long for a database that does not answer."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)

    def _run(self, stop: threading.Event) -> None:
        failing = False
        while not stop.wait(self._every_s * self._random_s(1 - _SPREAD, 1 + _SPREAD)):
            try:
                removed = self.sweep(stop)
            except StoreUnavailable:
                continue  # whoever needs the database says so
            except Exception:
                if not failing:
                    log.exception("expired sessions cannot be removed; it is tried again every %g s", self._every_s)
                failing = True
                continue
            failing = False
            if removed:
                log.info("removed %d expired sessions", removed)

    def sweep(self, stop: threading.Event) -> int:
        """Remove what has expired, batch by batch; how many rows that were."""
        removed = 0
        while not stop.is_set():
            batch = self._store.sweep(BATCH)
            removed += batch or 0
            if batch is None or batch < BATCH:
                break
            stop.wait(_BETWEEN_BATCHES_S)
        return removed
