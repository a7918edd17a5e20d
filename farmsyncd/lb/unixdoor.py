"""A Unix socket that a daemon listens on: only its owner may open it, and it passes from one daemon to the next.

A successor binds a socket of its own and puts it in the place of the former one; or, for a door that is to stay open
all the time, it is passed the socket itself.
"""

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
    """A listening Unix socket in the reactor. Twisted's own port would unlink the name that it was bound to.

    The socket stays the caller's to close.
    """

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
        self._reactor.removeReader(self)


class UnixDoor(Service):
    """Listens on a Unix socket at ``path`` for ``what``; ``option`` is where the path can be changed.

    A balancer that is started takes the path over, from one that died as from one that it replaces; who ends takes the
    path away only if it is still its own. A ``lasting`` door is closed by :meth:`release` alone: while the service does
    not run, those who come wait.
    """

    _log = Logger()

    def __init__(
        self, program: str, path: Path, what: str, option: str, factory: Factory, reactor: Any, *, lasting: bool = False
    ) -> None:
        self.described = str(path.absolute())
        self.held: list[socket.socket] = []
        """See :class:`farmsyncd.lb.processes.held.Held`."""
        self._program = program
        self._path = path
        self._what = what
        self._option = option
        self._factory = factory
        self._reactor = reactor
        self._lasting = lasting
        self._door: _Door | None = None
        self._own: os.stat_result | None = None

    def startService(self) -> None:  # noqa: N802 - IService
        """Listen."""
        super().startService()  # type: ignore[no-untyped-call]
        with one_line(self._program):
            try:
                self._hold()
            except OSError as error:
                raise ConfigError(
                    f"expected to listen on the Unix socket {self._path} for {self._what}: {error.strerror}; "
                    f"name a place where this user may write, with {self._option}"
                ) from None
        self._door = _Door(self.held[0], self._factory, self._reactor)
        self._log.info("{what} are taken on {path}", what=self._what, path=str(self._path))

    def stopService(self) -> None:  # noqa: N802 - IService
        """Take nobody in any more."""
        super().stopService()  # type: ignore[no-untyped-call]
        door, self._door = self._door, None
        if door is not None:
            door.close()
        if not self._lasting:
            self.release(passed_on=False)

    def release(self, *, passed_on: bool) -> None:
        """Hold the socket no more; take its path away when it is still its own, and nobody goes on there."""
        for one in self.held:
            one.close()
        self.held = []
        own, self._own = self._own, None
        if passed_on or own is None:
            return
        try:
            found = self._path.lstat()
            if os.path.samestat(found, own):
                self._path.unlink()
        except OSError:
            return  # somebody else has tidied up

    def _hold(self) -> None:
        if self.held and not self._path.is_socket():
            self.release(passed_on=True)  # nobody could find it
        if not self.held:
            self.held = [self._listen()]
        self._own = self._path.lstat()

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
        except BaseException:
            listening.close()
            raise
        return listening
