"""The admin socket: lines of words in, a line of JSON out for each. Who may open it may steer: only its owner may.

An answer is what :class:`~farmsyncd.lb.steering.Steering` says, or ``{"error": TEXT, "status": EXIT_STATUS}``::

    $ echo explain 10.0.0.7 | nc -U -N /run/farmsync/lb.sock
"""

from __future__ import annotations

import os
import socket
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IReadDescriptor
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from farmsyncd.core.words import printable
from farmsyncd.edges.startup import one_line
from farmsyncd.edges.unixpath import short
from farmsyncd.errors import ConfigError, FarmsyncError
from farmsyncd.lb.steering import Answering

_IDLE_S = 60.0
_BACKLOG = 16


@implementer(IHalfCloseableProtocol)
class AdminConnection(LineOnlyReceiver, TimeoutMixin):
    """One operator. Commands are answered in their order, also after the operator has said the last one and hung up."""

    delimiter = b"\n"
    MAX_LENGTH = 1000
    _log = Logger()

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self._waiting: deque[list[str]] = deque()
        self._busy = False
        self._working = False
        self._told_all = False

    def connectionMade(self) -> None:  # noqa: N802 - IProtocol
        """Do not wait for ever."""
        self.setTimeout(_IDLE_S)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - LineOnlyReceiver
        """One command."""
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

    def buildProtocol(self, addr: IAddress | None) -> AdminConnection:  # noqa: ARG002, N802 - IProtocolFactory
        """A connection."""
        return AdminConnection(self._answer)


@implementer(IReadDescriptor)
class _Door:
    """A listening Unix socket in the reactor. Twisted's own port would unlink the name that it was bound to."""

    def __init__(self, listening: socket.socket, factory: Factory, reactor: Any) -> None:
        self._listening = listening
        self._factory = factory
        self._reactor = reactor
        reactor.addReader(self)

    def fileno(self) -> int:
        """For the reactor."""
        return self._listening.fileno()

    def logPrefix(self) -> str:  # noqa: N802 - ILoggingContext
        """For the reactor's log."""
        return "admin"

    def doRead(self) -> None:  # noqa: N802 - IReadDescriptor
        """Somebody is there."""
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return
        with connection:
            connection.setblocking(False)
            self._reactor.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, self._factory)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002, N802 - IReadDescriptor
        """The reactor has no more use of it."""
        self.close()

    def close(self) -> None:
        """Take nobody in any more."""
        if self._listening.fileno() != -1:
            self._reactor.removeReader(self)
            self._listening.close()


class AdminSocket(Service):
    """Listens on a Unix socket at ``path``, which only its owner may open.

    A balancer that is started takes the path over, from one that died as from one that it replaces; who ends takes the
    path away only if it is still its own.
    """

    _log = Logger()

    def __init__(self, program: str, path: Path, answer: Answering, reactor: Any) -> None:
        self._program = program
        self._path = path
        self._factory = AdminFactory(answer)
        self._reactor = reactor
        self._door: _Door | None = None
        self._own: os.stat_result | None = None

    def startService(self) -> None:  # noqa: N802 - IService
        """Listen."""
        super().startService()  # type: ignore[no-untyped-call]
        with one_line(self._program):
            try:
                listening = self._listen()
            except OSError as error:
                raise ConfigError(
                    f"expected to listen on the Unix socket {self._path} for `farmsync lb`: {error.strerror}; "
                    "name a place where this user may write, with --admin"
                ) from None
        self._door = _Door(listening, self._factory, self._reactor)
        self._log.info("admin commands are taken on {path}", path=str(self._path))

    def stopService(self) -> None:  # noqa: N802 - IService
        """Take nobody in any more."""
        super().stopService()  # type: ignore[no-untyped-call]
        door, self._door = self._door, None
        if door is None:
            return
        door.close()
        try:
            found = self._path.lstat()
            if self._own is not None and os.path.samestat(found, self._own):
                self._path.unlink()
        except OSError:
            return  # somebody else has tidied up

    def _listen(self) -> socket.socket:
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            draft.unlink(missing_ok=True)
            with short(draft) as name:
                listening.bind(name)
            try:
                draft.chmod(0o600)  # nobody is let in before it listens
                listening.listen(_BACKLOG)
                listening.setblocking(False)
                draft.rename(self._path)
            except OSError:
                draft.unlink(missing_ok=True)
                raise
            self._own = self._path.lstat()
        except BaseException:
            listening.close()
            raise
        return listening
