"""From the description of an endpoint to a listening socket of our own, and its life as one of Twisted's ports.

Twisted's own parsers read the description: they are given something in a reactor's place that binds instead of
listening.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from farmsyncd.lb.relaying.front import Front

_MODE = 0o666


class _Binder:
    """Has of a reactor what endpoints ask for to listen, and binds."""

    def __init__(self) -> None:
        self.bound: socket.socket | None = None

    def listenTCP(  # noqa: N802 - IReactorTCP
        self,
        port: int,
        factory: object,  # noqa: ARG002 - as above
        backlog: int = 50,  # noqa: ARG002 - as above
        interface: str = "",
    ) -> None:
        """Bind to a port."""
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        self.bound = _bind(family, (interface, port))

    def listenUNIX(  # noqa: N802 - IReactorUNIX
        self,
        address: str,
        factory: object,  # noqa: ARG002 - as above
        backlog: int = 50,  # noqa: ARG002 - as above
        mode: int = _MODE,
        wantPID: bool = False,  # noqa: ARG002, N803 - as above
    ) -> None:
        """Bind to a path, in place of a socket there that nobody listens on."""
        path = Path(os.fsdecode(address))
        _clear(path)
        self.bound = _bind(socket.AF_UNIX, str(path))
        path.chmod(mode)


def bind(endpoint: str) -> socket.socket:
    """A socket bound as ``endpoint`` (``tcp:...``, ``tcp6:...`` or ``unix:...``) says. Raises OSError, ValueError."""
    binder: Any = _Binder()
    failed: list[Any] = []
    serverFromString(binder, endpoint).listen(Factory()).addErrback(failed.append)
    if failed:
        failed[0].raiseException()
    if binder.bound is None:
        raise ValueError(f"expected a tcp or unix endpoint, found {endpoint!r}")
    bound: socket.socket = binder.bound
    return bound


def _bind(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            host, port = address
            address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def _clear(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX) as trial:
                try:
                    trial.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink()


@implementer(IStreamServerEndpoint)
class RawEndpoint:
    """Listens with a :class:`Front`, which ``made`` makes of the socket; listen()'s factory is not used."""

    def __init__(self, endpoint: str, made: Callable[[socket.socket], Front]) -> None:
        self._endpoint = endpoint
        self._made = made

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: ARG002, N803 - the interface
        """Bind and start."""
        return execute(self._listen)

    def _listen(self) -> IListeningPort:
        try:
            listener = bind(self._endpoint)
        except OSError as error:
            raise CannotListenError(None, self._endpoint, error) from None
        front = self._made(listener)
        front.start()
        return RawPort(listener, front)


@implementer(IListeningPort)
class RawPort:
    """A listening socket with its front, which runs already."""

    def __init__(self, listener: socket.socket, front: Front) -> None:
        self._listener = listener
        self._front = front

    def startListening(self) -> None:  # noqa: N802 - IListeningPort
        """It does."""

    def stopListening(self) -> Deferred[None]:  # noqa: N802 - IListeningPort
        """Accept nobody any more, and close the socket."""
        if self._listener.fileno() >= 0:
            self._front.stop_accepting()
            if self._listener.family == socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    Path(self._listener.getsockname()).unlink()
            self._listener.close()
        return succeed(None)

    def getHost(self) -> IAddress:  # noqa: N802 - IListeningPort
        """Where it listens."""
        name = self._listener.getsockname()
        if self._listener.family == socket.AF_UNIX:
            return UNIXAddress(name)
        kind = IPv6Address if self._listener.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *name)
