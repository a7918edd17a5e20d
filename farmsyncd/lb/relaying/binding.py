"""From the description of an endpoint to a socket of our own to listen with.

Twisted's own parsers read the description: they are given something in a reactor's place that binds instead of
listening.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

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


def where(listener: socket.socket) -> IAddress:
    """Where a socket that :func:`bind` gave listens."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return UNIXAddress(name)
    kind = IPv6Address if listener.family == socket.AF_INET6 else IPv4Address
    return kind("TCP", *name)


def unlink(listener: socket.socket) -> None:
    """Take away the path of a Unix socket that nobody goes on listening at. Nothing for other sockets."""
    if listener.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            Path(listener.getsockname()).unlink()
