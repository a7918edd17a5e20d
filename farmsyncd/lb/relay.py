"""A client's connection, carried to a node and back.

A relay is two connections that look at each other. Each is the other's producer, so that the slower side sets the pace
and no more waits here than one read and what the socket takes. The client is not read from until a node has taken the
connection: up to then nothing can be lost, and the next node can be tried.

How an end travels::

    one side ends its half (FIN)      the other's half is ended once all is written; the rest goes on
    both halves have ended            both connections are closed
    one side is reset or breaks       the other is reset (never closed as if all had come)
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from farmsyncd.lb.dispatcher import Dispatcher, Request
from farmsyncd.lb.endpoints import endpoint_of
from farmsyncd.lb.seating import Seat

_RESET, _ORDERLY = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)  # what closing a socket means: SO_LINGER
_UNKNOWN_SOURCE = b"?"  # a Unix socket's clients have no address: they count as one


@implementer(IHalfCloseableProtocol)
class Leg(Protocol):
    """One of a relay's two connections."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.reading_over = False
        self.writing_over = False
        self.gone = False

    def connectionMade(self) -> None:  # noqa: N802 - IProtocol
        """Notice a peer that vanishes, hold no small piece back, and do not look whole if the balancer dies."""
        transport: Any = self.transport
        if isinstance(transport.getHost(), (IPv4Address, IPv6Address)):
            transport.setTcpKeepAlive(1)
            transport.setTcpNoDelay(1)
            self._linger(_RESET)

    def finish(self) -> None:
        """All has been said and told: close in good order."""
        transport: Any = self.transport
        if isinstance(transport.getHost(), (IPv4Address, IPv6Address)):
            self._linger(_ORDERLY)
        transport.loseConnection()

    def _linger(self, how: bytes) -> None:
        transport: Any = self.transport
        transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - IProtocol
        """Carry on what came."""
        self.relay.carry(self, data)

    def readConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """The peer has said all."""
        self.reading_over = True
        self.relay.half_ended(self)

    def writeConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """The peer has been told all."""
        self.writing_over = True
        self.relay.half_written()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002, N802 - IProtocol
        """The connection is gone."""
        self.gone = True
        self.relay.leg_lost()


class Front(Leg):
    """The client's connection."""

    def connectionMade(self) -> None:  # noqa: N802 - IProtocol
        """Read nothing before a node is there."""
        super().connectionMade()
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.relay.seek()


class Back(Leg):
    """The connection to the node."""


class _BackFactory(Factory):
    noisy = False

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def buildProtocol(self, addr: IAddress | None) -> Back:  # noqa: ARG002, N802 - IProtocolFactory
        return Back(self._relay)


@attrs.frozen
class Patience:
    """How long a relay waits, in seconds: for a node to take the connection, and in silence once one half has ended."""

    connect: float
    half_closed: float


class Relay:
    """One client, from the moment it is accepted."""

    _log = Logger()

    def __init__(
        self, dispatcher: Dispatcher, source: bytes, reactor: Any, patience: Patience, ended: Callable[[Relay], None]
    ) -> None:
        self.front = Front(self)
        self._dispatcher = dispatcher
        self._source = source
        self._request: Request | None = None
        self._reactor = reactor
        self._patience = patience
        self._ended = ended
        self._back: Back | None = None
        self._seat: Seat | None = None
        self._attempt: Deferred[Any] | None = None
        self._tried: set[str] = set()
        self._silence: IDelayedCall | None = None
        self._broken = False
        self._over = False

    def seek(self) -> None:
        """Ask the next node to take the connection."""
        self._request = self._dispatcher.request(self._source, self._decided, self._tried)

    def _decided(self, seat: Seat | None) -> None:
        self._seat = seat
        if seat is None:
            self._log.warn(
                "no node takes a client's connection; tried {tried}", tried=", ".join(sorted(self._tried)) or "none"
            )
            self.abort()
            return
        endpoint = endpoint_of(self._reactor, seat.node.address, self._patience.connect)
        self._attempt = endpoint.connect(_BackFactory(self))
        self._attempt.addCallbacks(self._connected, self._refused)

    def abort(self) -> None:
        """Reset both sides."""
        self._broken = True
        if self._request is not None:
            self._request.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
        for leg in self._legs():
            if not leg.gone:
                leg.transport.abortConnection()  # type: ignore[union-attr]
        self._finish()

    def carry(self, leg: Leg, data: bytes) -> None:
        """Write to the other side what ``leg`` brought."""
        other = self._other(leg)
        if other is not None and not other.gone:
            other.transport.write(data)  # type: ignore[union-attr]
        if self._silence is not None:
            self._silence.reset(self._patience.half_closed)

    def half_ended(self, leg: Leg) -> None:
        """``leg`` has brought all there is: say so to the other side, after the last byte."""
        if self._silence is None and not self._over:
            self._silence = self._reactor.callLater(self._patience.half_closed, self._silent)
        other: Any = self._other(leg)
        if other is not None and not other.gone:
            other.transport.unregisterProducer()
            other.transport.loseWriteConnection()
        self.half_written()

    def half_written(self) -> None:
        """Close both connections once all four halves have ended."""
        if self._back is None or not all(leg.reading_over and leg.writing_over for leg in self._legs()):
            return
        for leg in self._legs():
            if not leg.gone:
                leg.finish()

    def leg_lost(self) -> None:
        """One connection is gone; unless all was said on both, the other must not look as if it were whole."""
        if not self._broken and not all(leg.reading_over and leg.writing_over for leg in self._legs()):
            self.abort()
        self._finish()

    def _connected(self, back: Any) -> None:
        self._attempt = None
        assert self._seat is not None
        self._dispatcher.connected(self._seat)
        self._back = back
        if self._broken or self.front.gone:
            self.abort()
            return
        front: Any = self.front
        front.transport.registerProducer(back.transport, True)
        back.transport.registerProducer(front.transport, True)
        front.transport.resumeProducing()

    def _refused(self, failure: Failure) -> None:
        self._attempt = None
        seat, self._seat = self._seat, None
        assert seat is not None
        if self._broken:
            self._dispatcher.leave(seat)
            self._finish()
            return
        self._tried.add(seat.node.address.name)
        self._dispatcher.refused(seat, failure.getErrorMessage())
        self.seek()

    def _silent(self) -> None:
        self._silence = None
        self.abort()

    def _finish(self) -> None:
        """When all is gone: give the seat back, once."""
        if self._over or self._attempt is not None or not all(leg.gone for leg in self._legs()):
            return
        self._over = True
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if self._seat is not None:
            self._dispatcher.leave(self._seat)
        self._ended(self)

    def _legs(self) -> list[Leg]:
        return [self.front] if self._back is None else [self.front, self._back]

    def _other(self, leg: Leg) -> Leg | None:
        return self._back if leg is self.front else self.front


class RelayFactory(Factory):
    """Makes a relay for each client; knows those that are open."""

    noisy = False

    def __init__(
        self, dispatcher: Dispatcher, source_of: Callable[[str], bytes], reactor: Any, patience: Patience
    ) -> None:
        self._dispatcher = dispatcher
        self._source_of = source_of
        self._reactor = reactor
        self._patience = patience
        self._open: set[Relay] = set()
        self._all_gone: Deferred[None] | None = None

    def __len__(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    def buildProtocol(self, addr: IAddress | None) -> Front:  # noqa: N802 - IProtocolFactory
        """The client's side of a new relay."""
        known = isinstance(addr, (IPv4Address, IPv6Address))
        source = self._source_of(addr.host) if known else _UNKNOWN_SOURCE  # type: ignore[union-attr]
        relay = Relay(self._dispatcher, source, self._reactor, self._patience, self._closed)
        self._open.add(relay)
        return relay.front

    def abort_all(self) -> Deferred[None]:
        """Reset all clients, since the balancer ends; fires when they are gone."""
        gone = self._all_gone = Deferred()
        for relay in list(self._open):
            relay.abort()
        self._tell_if_gone()
        return gone

    def _closed(self, relay: Relay) -> None:
        self._open.discard(relay)
        self._tell_if_gone()

    def _tell_if_gone(self) -> None:
        if self._all_gone is not None and not self._open:
            gone, self._all_gone = self._all_gone, None
            gone.callback(None)
