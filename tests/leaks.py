"""What a test may not leave behind: delayed calls, watched sockets, worker threads, errors nobody looked at."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Hashable
from typing import Any

import attrs
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.eventually import turn

reactor: Any = _reactor
PATIENCE = 15.0  # seconds for what is just closing


@implementer(ILogObserver)
@attrs.define(eq=False)
class LoggedErrors:
    """The failures that Twisted's log saw; a test that expects some takes them, the others fail it."""

    failures: list[Failure] = attrs.Factory(list)

    def __call__(self, event: LogEvent) -> None:
        if (failure := event.get("log_failure")) is not None:
            self.failures.append(failure)

    def take(self, *kinds: type[BaseException]) -> list[BaseException]:
        """Hand over what was logged (of these kinds, if any are named) and forget it."""
        gc.collect()  # an unhandled error in a Deferred is logged when the Deferred goes
        taken = [one for one in self.failures if not kinds or one.check(*kinds) is not None]
        self.failures = [one for one in self.failures if one not in taken]
        return [one.value for one in taken if one.value is not None]


@attrs.frozen
class Residue:
    """What hangs on the process at one moment."""

    calls: frozenset[Any]
    watched: frozenset[Hashable]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> Residue:
        """This moment's."""
        return cls(
            frozenset(call for call in reactor.getDelayedCalls() if call.active()),
            frozenset([*reactor.getReaders(), *reactor.getWriters()]),
            frozenset(thread for thread in threading.enumerate() if _counts(thread)),
        )

    def beyond(self, before: Residue) -> Residue:
        """What has come since ``before``."""
        return Residue(self.calls - before.calls, self.watched - before.watched, self.threads - before.threads)

    def __bool__(self) -> bool:
        return bool(self.calls or self.watched or self.threads)

    def lines(self) -> list[str]:
        """One line for each, for people."""
        return [
            *(f"delayed call: {call}" for call in self.calls),
            *(f"reactor still watches: {one}" for one in self.watched),
            *(f"thread still runs: {thread.name}" for thread in self.threads),
        ]

    def remove(self) -> None:
        """Take away what can be, so that the next test starts clean."""
        for call in self.calls:
            if call.active():
                call.cancel()
        for one in self.watched:
            reactor.removeReader(one)
            reactor.removeWriter(one)
            for close in ("stopListening", "abortConnection", "loseConnection"):
                if hasattr(one, close):
                    getattr(one, close)()
                    break


def _counts(thread: threading.Thread) -> bool:
    """Whether a test must end this thread: its own workers, not the reactor's pool nor a test runner's."""
    return not thread.name.startswith("PoolThread-") and (not thread.daemon or thread.name.startswith("farmsync-"))


def start() -> Residue:
    """What is there before a test; the first call starts the reactor, which has things of its own to watch."""
    pytest_twisted.blockon(turn())
    return Residue.now()


def settle(before: Residue) -> Residue:
    """Let the reactor turn until nothing is left beyond ``before``, for a while; what is left then."""
    ends = time.monotonic() + PATIENCE
    pytest_twisted.blockon(turn())
    while left := Residue.now().beyond(before):
        if time.monotonic() > ends:
            return left
        pytest_twisted.blockon(turn(0.01))
    return left


def watch_log(errors: LoggedErrors) -> None:
    """Begin to collect failures."""
    globalLogPublisher.addObserver(errors)


def leave_log(errors: LoggedErrors) -> None:
    """Stop collecting."""
    globalLogPublisher.removeObserver(errors)
