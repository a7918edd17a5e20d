"""The main program of a worker: ``python -m farmsyncd.lb.processes.worker``, which only a supervisor starts.

What it inherits: the supervisor's words on descriptor 3, its own on 4, and its listening socket on 5.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogBeginner
from zope.interface import implementer

from farmsyncd.edges.config import load
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.processes.alone import Alone
from farmsyncd.lb.processes.asking import Answerer
from farmsyncd.lb.processes.lines import logged
from farmsyncd.lb.processes.shares import share_of

HEARS, SAYS, LISTENS = 3, 4, 5


class Worker:
    """Does what the supervisor says, and leaves when it has died."""

    def __init__(self, reactor: Any, listener: socket.socket) -> None:
        self._reactor = reactor
        self._listener = listener
        self._crew: Alone | None = None
        self._limit_s = 0.0
        self._leaving = False

    def handle(self, verb: str, arguments: Sequence[Any]) -> Any:
        """Answer one line."""
        if verb == "configure":
            return self._configure(*arguments)
        crew = self._crew
        assert crew is not None
        match verb:
            case "prepare":
                return crew.prepare([self._listener])
            case "begin":
                return crew.begin(*arguments)
            case "finish":
                return self._finish(*arguments)
            case "answer":
                return crew.answer(*arguments)
        assert verb in {"pause", "resume", "status", "metrics", "ready"}
        return getattr(crew, verb)()

    def abandoned(self) -> None:
        """The supervisor is gone: somebody else gets the port, so nobody is accepted any more."""
        if self._crew is None:
            self._leave(None)
        else:
            self._crew.abandon(self._limit_s).addBoth(self._leave)
            self._listener.close()

    def _configure(self, number: int, told: Mapping[str, object]) -> None:
        config = share_of(load(None, BalancerConfig, told), number)
        self._limit_s = config.drain_limit_ns / 1e9
        self._crew = Alone(config, self._reactor, number)

    def _finish(self, limit_s: float) -> Deferred[None]:
        assert self._crew is not None
        finished = self._crew.finish(limit_s).addBoth(self._leave)
        self._listener.close()
        return finished

    def _leave(self, _: object) -> None:
        if not self._leaving:
            self._leaving = True
            self._reactor.callLater(0, self._reactor.stop)  # after the answer


@implementer(ILogObserver)
class _Lines:
    """Logs to the standard error, from where the supervisor takes it: never waiting for it.

    What Twisted says of a process in general is the supervisor's to say, once.
    """

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("twisted.") and event.get("log_level") is LogLevel.info:
            return
        try:
            os.write(2, logged(event))
        except OSError:
            return  # it does not read, or is gone


def main() -> None:
    """Work until told to leave."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the supervisor, who says what to do
    os.set_blocking(2, False)
    globalLogBeginner.beginLoggingTo([_Lines()], redirectStandardIO=False, discardBuffer=True)
    from twisted.internet import reactor, stdio  # noqa: PLC0415 - importing the reactor installs it

    worker = Worker(reactor, socket.socket(fileno=LISTENS))
    running: Any = reactor
    pipes: Any = stdio.StandardIO  # mypy takes it for that of Windows
    pipes(Answerer(worker.handle, worker.abandoned), stdin=HEARS, stdout=SAYS)
    running.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
