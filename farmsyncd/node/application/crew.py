"""The threads that run the application, and the bounded queue before them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from twisted.logger import Logger

Job = Callable[[], None]


class Crew:
    """At most ``threads`` jobs at a time, while at most ``waiting`` others wait.

    Threads are started as they are needed. They do not keep the process alive: whoever wants jobs to end well waits
    until :attr:`jobs` is 0. A job that raises is logged, and its thread goes on.
    """

    log = Logger()

    def __init__(self, threads: int, waiting: int) -> None:
        self._most = threads
        self._room = threads + waiting
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._taken = 0
        self._threads = 0
        self._closed = False

    @property
    def jobs(self) -> int:
        """How many jobs are in work or wait."""
        return self._taken

    @property
    def has_room(self) -> bool:
        """Whether another job would be taken now."""
        return not self._closed and self._taken < self._room

    def begin(self, job: Job) -> bool:
        """Have ``job`` done soon; False, and nothing is done, when there is no room for it."""
        with self._lock:
            if self._closed or self._taken >= self._room:
                return False
            self._taken += 1
            fresh = self._taken > self._threads and self._threads < self._most
            self._threads += fresh
            number = self._threads
        self._jobs.put(job)
        if fresh:
            threading.Thread(target=self._main, name=f"application-{number}", daemon=True).start()
        return True

    def close(self) -> None:
        """Take no more jobs; each thread ends after what there is to do."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._jobs.put(None)

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException:
                self.log.failure("a request failed where it must not")
            del job
            with self._lock:
                self._taken -= 1
