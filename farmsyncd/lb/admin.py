"""The admin socket: lines of words in, a line of JSON out for each. Who may open it may steer: only its owner may.

An answer is what :class:`~farmsyncd.lb.steering.Steering` says, or ``{"error": TEXT, "status": EXIT_STATUS}``::

    $ echo explain 10.0.0.7 | nc -U -N /run/farmsync/lb.sock
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from farmsyncd.core.words import printable
from farmsyncd.errors import FarmsyncError
from farmsyncd.lb.steering import Answering
from farmsyncd.lb.unixdoor import UnixDoor

_IDLE_S = 60.0


@implementer(IHalfCloseableProtocol)
class AdminConnection(LineOnlyReceiver, TimeoutMixin):
    """One operator. Commands are answered in their order, also after the operator has said the last one and hung up."""

    delimiter = b"\n"
    MAX_LENGTH = 1000
    _log = Logger()

    def __init__(self, answer: Answering, there: set[AdminConnection]) -> None:
        self._answer = answer
        self._there = there
        self._waiting: deque[list[str]] = deque()
        self._busy = False
        self._working = False
        self._told_all = False

    def finish(self) -> None:
        """Answer what was asked, and hang up: who asks from now on asks another balancer."""
        self._told_all = True
        self._work()

    def connectionMade(self) -> None:  # noqa: N802 - IProtocol
        """Do not wait for ever."""
        self._there.add(self)
        self.setTimeout(_IDLE_S)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - LineOnlyReceiver
        """One command."""
        if self._told_all:
            return
        self.resetTimeout()  # type: ignore[no-untyped-call]
        self._waiting.append(line.decode("utf-8", "replace").split())
        self._work()

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002, N802 - LineOnlyReceiver
        """Whoever this is, it does not know the commands."""
        self.transport.loseConnection()  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """There will be no more commands; those that there are get their answers."""
        self._told_all = True
        self._work()

    def writeConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """Nobody reads the answers."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002, N802 - IProtocol
        """The operator has gone."""
        self._there.discard(self)
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        self._waiting.clear()

    def _work(self) -> None:
        """Answer what waits, one after the other."""
        if self._working:
            return
        self._working = True
        while self._waiting and not self._busy:
            words = self._waiting.popleft()
            self._busy = True
            answered = maybeDeferred(self._answer, words)
            answered.addErrback(self._failed, words)
            answered.addCallback(self._send)
        self._working = False
        if self._told_all and not self._busy:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def _send(self, answer: Any) -> None:
        self._busy = False
        self.transport.write(msgspec.json.encode(answer) + b"\n")  # type: ignore[union-attr]
        self._work()

    def _failed(self, failure: Failure, words: list[str]) -> dict[str, object]:
        error = failure.value
        if isinstance(error, FarmsyncError):
            return {"error": str(error), "status": error.exit_status}
        command = printable(" ".join(words), 80)
        self._log.failure("cannot answer {command}", failure, command=command)
        return {"error": f"the balancer failed at {command!r}; its log says more", "status": FarmsyncError.exit_status}


class AdminFactory(Factory):
    """Makes a connection for each operator."""

    noisy = False

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self._there: set[AdminConnection] = set()

    def buildProtocol(self, addr: IAddress | None) -> AdminConnection:  # noqa: ARG002, N802 - IProtocolFactory
        """A connection."""
        return AdminConnection(self._answer, self._there)

    def finish(self) -> None:
        """Hang up on all operators, once they have their answers."""
        for connection in list(self._there):
            connection.finish()


class AdminDoor(UnixDoor):
    """The admin socket at ``path``: whoever comes while the service does not run waits until somebody does."""

    def __init__(self, program: str, path: Path, answer: Answering, reactor: Any) -> None:
        self._operators = AdminFactory(answer)
        super().__init__(program, path, "admin commands", "--admin", self._operators, reactor, lasting=True)

    def stopService(self) -> None:  # noqa: N802 - IService
        """Take no more commands: an order that was given now would not be handed over."""
        super().stopService()
        self._operators.finish()
