"""The listening sockets of a balancer: bound here, listening from the beginning, passed on to other processes.

Workers share a port as a group of sockets, one for each. The kernel numbers the sockets of a group in the order in
which they began to listen, and renumbers them when one is closed: so whoever holds a group holds all of it until the
end, and a worker that dies closes nothing but its copy of one. The clients that wait at it wait for the successor.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Iterable

from farmsyncd.lb.relaying.front import BACKLOG
from farmsyncd.lb.relaying.sockets import prepare_listener

_MOST_AT_ONCE = 253  # the kernel's limit
_FD_SIZE = array.array("i").itemsize


def group(first: socket.socket, count: int) -> list[socket.socket]:
    """``count`` sockets that listen where ``first``, which is one of them, is bound. Raises OSError.

    ``first`` was bound as if it were to be alone, so a port that somebody else has was refused.
    """
    sockets = [first]
    if count > 1:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sockets.extend(_another(first) for _ in range(1, count))
        for one in sockets:
            prepare_listener(one)  # before the first client comes, who inherits it
            one.listen(BACKLOG)
    except BaseException:
        close(sockets)
        raise
    return sockets


def _another(first: socket.socket) -> socket.socket:
    made = socket.socket(first.family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        made.bind(first.getsockname())
    except BaseException:
        made.close()
        raise
    return made


def close(sockets: Iterable[socket.socket]) -> None:
    """Close this process's copies."""
    for one in sockets:
        one.close()


def take(channel: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """One byte of what the other side of ``channel``, a Unix socket, says; and the sockets that it passes with it.

    No byte at the end. Raises OSError.
    """
    data, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(_MOST_AT_ONCE * _FD_SIZE), socket.MSG_CMSG_CLOEXEC)
    return data, [socket.socket(fileno=fd) for fd in _descriptors(ancillary)]


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % _FD_SIZE])
    return list(found)
