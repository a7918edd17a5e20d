"""The listening sockets of a balancer: bound here, listening from the beginning, passed on to other processes.

Workers share a port as a group of sockets, one for each. The kernel numbers the sockets of a group in the order in
which they began to listen, and renumbers them when one is closed: so whoever holds a group holds all of it until the
end, and a worker that dies closes nothing but its copy of one. The clients that wait at it wait for the successor.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Iterable, Sequence

from farmsyncd.lb.relaying.front import BACKLOG
from farmsyncd.lb.relaying.sockets import prepare_listener

_MOST_AT_ONCE = 128  # the kernel passes 253 at most with one message
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


def send(channel: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Pass copies of ``sockets`` to the other side of ``channel``, a Unix socket that may block. Raises OSError."""
    for start in range(0, len(sockets), _MOST_AT_ONCE):
        some = array.array("i", [one.fileno() for one in sockets[start : start + _MOST_AT_ONCE]])
        channel.sendmsg([b"*"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)])


def receive(channel: socket.socket, count: int) -> list[socket.socket]:
    """So many sockets that the other side of ``channel`` passes. Raises OSError, EOFError when it ends before."""
    found: list[socket.socket] = []
    try:
        while len(found) < count:
            wanted = min(count - len(found), _MOST_AT_ONCE)
            data, ancillary, flags, _ = channel.recvmsg(
                1, socket.CMSG_SPACE(wanted * _FD_SIZE), socket.MSG_CMSG_CLOEXEC
            )
            found += [socket.socket(fileno=fd) for fd in _descriptors(ancillary)]
            if not data or flags & socket.MSG_CTRUNC:
                raise EOFError
    except BaseException:
        close(found)
        raise
    return found


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % _FD_SIZE])
    return list(found)
