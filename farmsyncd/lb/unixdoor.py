"""A Unix socket that a daemon listens on: only its owner may open it, and it passes from one daemon to the next."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from farmsyncd.edges.startup import one_line
from farmsyncd.edges.unixpath import short
from farmsyncd.errors import ConfigError

_BACKLOG = 16


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
        return "door"

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


class UnixDoor(Service):
    """Listens on a Unix socket at ``path`` for ``what``; ``option`` is where the path can be changed.

    A balancer that is started takes the path over, from one that died as from one that it replaces; who ends takes the
    path away only if it is still its own.
    """

    _log = Logger()

    def __init__(self, program: str, path: Path, what: str, option: str, factory: Factory, reactor: Any) -> None:
        self._program = program
        self._path = path
        self._what = what
        self._option = option
        self._factory = factory
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
                    f"expected to listen on the Unix socket {self._path} for {self._what}: {error.strerror}; "
                    f"name a place where this user may write, with {self._option}"
                ) from None
        self._door = _Door(listening, self._factory, self._reactor)
        self._log.info("{what} are taken on {path}", what=self._what, path=str(self._path))

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
