"""How bytes leave a connection: straight through its socket where there is one, else through the transport.

Twisted's ``write`` queues until the reactor's next turn and copies what it joins. Over plain TCP we send at once what
the kernel takes and wait for the socket to become writable for the rest: probes are stamped when they really leave,
bulk is never copied, and what waits is counted in one place only, the outbox.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.interfaces import IPullProducer, IPushProducer, ISSLTransport
from zope.interface import implementer

WINDOW = 64 * 1024
PIECE = 1024 * 1024


class Outlet(Protocol):
    """Takes bytes as far as there is room, and calls back when there is room again."""

    def write(self, data: memoryview) -> int:
        """Take the first bytes of ``data``; how many, 0 when there is no room now."""

    def write_file(self, fd: int, offset: int, count: int) -> int:
        """Take up to ``count`` bytes of a file from ``offset`` on; how many. EOFError when the file ends there."""

    def wait(self) -> None:
        """Call back once there is room."""

    def detach(self) -> None:
        """Let go of the transport, so that it can be closed."""


def outlet_for(transport: Any, writable: Callable[[], None], gone: Callable[[], None]) -> Outlet:
    """The best outlet for ``transport``; ``writable`` is called when there is room, ``gone`` when there is no more."""
    if isinstance(transport, tcp.Connection) and not ISSLTransport.providedBy(transport):
        return SocketOutlet(transport, writable, gone)
    return TransportOutlet(transport, writable, gone)


@implementer(IPullProducer)
class SocketOutlet:
    """Sends straight through the socket of a plain TCP or Unix transport, whose own buffer stays empty."""

    def __init__(self, transport: tcp.Connection, writable: Callable[[], None], gone: Callable[[], None]) -> None:
        self._transport = transport
        self._writable = writable
        self._gone = gone
        self._broken = False
        self._waiting = False
        transport.registerProducer(self, False)

    def write(self, data: memoryview) -> int:
        """Send what the kernel takes."""
        if self._broken:
            return 0
        try:
            return self._transport.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return self._break()

    def write_file(self, fd: int, offset: int, count: int) -> int:
        """Send file bytes without ever looking at them."""
        if self._broken:
            return 0
        try:
            sent = os.sendfile(self._transport.socket.fileno(), fd, offset, min(count, PIECE))
        except BlockingIOError:
            return 0
        except OSError:
            return self._break()
        if not sent:
            raise EOFError
        return sent

    def _break(self) -> int:
        # What the peer sent before the connection broke is still to be read; then the transport, asked to write
        # nothing, finds the error by itself and tells the protocol.
        self._broken = True
        self._transport.startWriting()
        return 0

    def wait(self) -> None:
        """Ask the reactor for the socket."""
        self._waiting = True
        self._transport.startWriting()

    def detach(self) -> None:
        """Stop producing."""
        self._waiting = False
        if self._transport.producer is self:
            self._transport.unregisterProducer()

    def resumeProducing(self) -> None:  # noqa: N802 - IPullProducer
        """The socket is writable, or somebody closes the transport over our head."""
        if self._transport.disconnecting:
            self.detach()
        elif self._broken:
            self._transport.abortConnection()
        elif self._waiting:
            self._waiting = False
            self._writable()

    def stopProducing(self) -> None:  # noqa: N802 - IPullProducer
        """The connection is lost."""
        self._broken = True
        self._gone()


@implementer(IPushProducer)
class TransportOutlet:
    """Writes to any transport, a window at a time: TLS, and the transports that tests use.

    TLS says when it is full; it is given a push producer, because it turns a pull producer into a busy loop. Other
    transports say when they are empty.
    """

    def __init__(self, transport: Any, writable: Callable[[], None], gone: Callable[[], None]) -> None:
        self._transport = transport
        self._writable = writable
        self._gone = gone
        self._pushes = ISSLTransport.providedBy(transport)
        self._taken = 0
        self._full = False
        self._attached = True
        transport.registerProducer(self, self._pushes)

    def write(self, data: memoryview) -> int:
        """Hand over as much as the window holds."""
        if self._full:
            return 0
        taken = bytes(data[: WINDOW - self._taken])
        if not self._pushes:
            self._taken += len(taken)
            self._full = self._taken >= WINDOW
        self._transport.write(taken)
        return len(taken)

    def write_file(self, fd: int, offset: int, count: int) -> int:
        """Read a piece and hand it over."""
        if self._full:
            return 0
        data = os.pread(fd, min(count, WINDOW - self._taken), offset)
        if not data:
            raise EOFError
        return self.write(memoryview(data))

    def wait(self) -> None:
        """Nothing to do: the transport calls by itself when it was full."""

    def detach(self) -> None:
        """Stop producing."""
        if self._attached:
            self._attached = False
            self._transport.unregisterProducer()

    def pauseProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The transport is full."""
        self._full = True

    def resumeProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The transport is empty, or has room."""
        self._taken = 0
        self._full = False
        if self._attached:
            self._writable()

    def stopProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The connection is lost."""
        self._full = True
        self._gone()
