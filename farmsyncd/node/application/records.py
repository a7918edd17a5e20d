"""What the application and its sessions tell Python's ``logging`` becomes lines of the node's log.

With no handler, ``logging`` would write warnings to the standard error, where nobody sees how bad they are and who
says so, and drop all else: which requests were answered with 409, for one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger, LogLevel

_SESSIONS = "farmsync.sessions"
_LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)


class Records(logging.Handler):
    """Hands records to Twisted's log, from any thread, under the names of their loggers."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        super().__init__()
        self._reactor = reactor

    def emit(self, record: logging.LogRecord) -> None:
        """Log it."""
        level = next((ours for theirs, ours in _LEVELS if record.levelno >= theirs), LogLevel.debug)
        log = Logger(namespace=record.name)
        self._reactor.callFromThread(log.emit, level, "{text}", text=self.format(record))


@contextlib.contextmanager
def told_to_the_node(reactor: IReactorFromThreads) -> Iterator[None]:
    """Inside, unless the application has said itself where records go."""
    root, sessions = logging.getLogger(), logging.getLogger(_SESSIONS)
    if root.hasHandlers() or sessions.hasHandlers():
        yield
        return
    before, records = sessions.level, Records(reactor)
    root.addHandler(records)
    if before == logging.NOTSET:
        sessions.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(records)
        sessions.setLevel(before)
