"""How the balancer's sockets are made, and what is set on them.

Until both halves of a connection have ended, closing its socket means a reset: also when it is the kernel that closes
it, because the process died. What was under way must not look whole.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import cast

Address = tuple[str, int] | tuple[str, int, int, int] | str
"""As the socket module has it; a path for a Unix socket."""
Target = tuple[int, Address]
"""An address family and an address of it."""

SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""The machine or the process has no more descriptors, memory or ports: not the peer's fault, and it passes."""

RESET, ORDERLY = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
_CLOSED = 7  # TCP_CLOSE of <netinet/tcp.h>
_TCP = frozenset({socket.AF_INET, socket.AF_INET6})


def prepare_listener(listener: socket.socket) -> None:
    """Set what each accepted connection is to have: they inherit it, at no cost for each."""
    listener.setblocking(False)
    if listener.family in _TCP:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def new(family: int) -> socket.SocketType:
    """A socket to connect with, which does not block. Raises OSError."""
    made = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0)
    if family in _TCP:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made


def adopt(descriptor: int, family: int) -> socket.SocketType:
    """The object for a descriptor that accept(2) gave."""
    return socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, descriptor)


def end_in_order(sock: socket.SocketType) -> None:
    """All was said and told: closing this one is an end, not a reset. A peer that is gone already does not matter."""
    if sock.family in _TCP:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ORDERLY)
        except OSError:
            return


def push(sock: socket.SocketType) -> None:
    """Send what was held back for more to come. Raises OSError."""
    if sock.family in _TCP:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def is_closed(sock: socket.SocketType) -> bool:
    """Whether a TCP connection is over for the kernel: its peer has reset it, or does not answer any more."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSED
    except OSError:
        return False


def target_of(host: str, port: int) -> Target | None:
    """Where to connect to; ``host`` is an address or the path of a Unix socket, starting with a slash. Else None."""
    if host.startswith("/"):
        return socket.AF_UNIX, host
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return None
    family, _, _, _, address = found[0]
    return family, cast("Address", address)
