"""A connection to a node while it is being made: each of the node's addresses in turn, until one answers."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from farmsyncd.lb.relaying import sockets
from farmsyncd.lb.relaying.events import BOTH, ERROR, HANGUP, OUT
from farmsyncd.lb.relaying.sockets import Target

if TYPE_CHECKING:
    from farmsyncd.lb.relaying.relay import Relay

_UNDER_WAY = frozenset({0, errno.EINPROGRESS})


class Attempt:
    """Connects for ``relay``, and tells it: connected, refused, or short of descriptors."""

    __slots__ = ("_index", "_relay", "_sock", "_targets", "touched_ns")

    def __init__(self, relay: Relay) -> None:
        self.touched_ns = 0
        self._relay = relay
        self._sock: socket.SocketType | None = None
        self._targets: Sequence[Target] = ()
        self._index = 0

    def begin(self, address: Any) -> None:
        """Connect to ``address``. When a name has to be looked up first, that has as much time as connecting."""
        common = self._relay.common
        common.names.find(address.path or address.host, address.port, self.found)
        if self._relay.step is self and self._sock is None:
            self.touched_ns = common.events.refresh()
            common.connecting.begin(self, self.touched_ns)

    def found(self, targets: Sequence[Target]) -> None:
        """The node's addresses are known."""
        if self._relay.step is not self:
            return
        self._targets = targets
        self._index = 0
        if targets:
            self._try()
        else:
            self.cancel()
            self._relay.refused("its name has no address")

    def event(self, flags: int) -> None:
        """The node has answered."""
        sock = self._sock
        assert sock is not None
        if flags & (ERROR | HANGUP):
            self._next(os.strerror(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET))
        elif flags & OUT:
            common = self._relay.common
            common.connecting.end(self)
            self._sock = None
            self._relay.connected(sock, flags & ~OUT)

    def fail(self) -> None:
        """The balancer is at fault."""
        self._relay.abort()

    def expire(self) -> None:
        """The node has not answered in time."""
        self._next("timed out" if self._targets else "its name was not found in time")

    def cancel(self) -> None:
        """The client is gone, or the balancer ends."""
        common = self._relay.common
        common.connecting.end(self)
        sock, self._sock = self._sock, None
        if sock is not None:
            common.events.handlers.pop(sock.fileno(), None)
            common.events.close(sock)

    def _next(self, reason: str) -> None:
        self.cancel()
        self._index += 1
        if self._index < len(self._targets):
            self._try()
        else:
            self._relay.refused(reason)

    def _try(self) -> None:
        family, address = self._targets[self._index]
        try:
            sock = self._sock = self._open(family)
            code = sock.connect_ex(address)
        except OSError as error:
            code = error.errno or errno.EINVAL
        if code in _UNDER_WAY:
            assert self._sock is not None
            common = self._relay.common
            fd = self._sock.fileno()
            common.events.handlers[fd] = self
            common.events.watch(fd, BOTH)
            self.touched_ns = common.events.refresh()
            common.connecting.begin(self, self.touched_ns)
        elif code in sockets.SHORTAGE:
            self.cancel()
            self._relay.no_descriptor()
        else:
            self._next(os.strerror(code))

    def _open(self, family: int) -> socket.SocketType:
        try:
            return sockets.new(family)
        except OSError as error:
            if error.errno not in sockets.SHORTAGE or not self._relay.common.reserve.spend():
                raise
            return sockets.new(family)
