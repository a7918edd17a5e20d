"""Gives each new connection a seat at a node: at once when there is one, else after a wait that is bounded.

This is all that a relay has to know of the farm::

    request(source, decided, tried)   decided(seat) within the call, or later, or decided(None)
    connected(seat)                   the node has taken the connection
    refused(seat, reason)             it has not; the seat is given up: request() again with the node among ``tried``
    leave(seat)                       the connection has ended; the seat is given up
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from farmsyncd.lb.farm import Farm, Seat

Decided = Callable[[Seat | None], None]


class Request:
    """A connection that waits for its seat, or has been told."""

    def cancel(self) -> None:
        """The client has gone: ``decided`` is not called any more. Harmless after it was called."""


class Dispatcher:
    """Seats for connections, at the nodes of ``farm``."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    def request(self, source: bytes, decided: Decided, tried: Collection[str] = ()) -> Request:
        """A seat for a new connection of ``source``, at none of the nodes ``tried`` in vain.

        ``decided`` is called within this call when that can be; else later, with None when no seat was to be had
        in time. It is called once, unless the request is cancelled before.
        """
        decided(self._farm.seat(source, tried))
        return Request()

    def connected(self, seat: Seat) -> None:
        """The node of ``seat`` has taken the connection."""
        self._farm.connected(seat)

    def refused(self, seat: Seat, reason: str) -> None:
        """The node of ``seat`` has not taken the connection: the seat is given up."""
        self._farm.refused(seat, reason)

    def leave(self, seat: Seat, *, barren: bool = False) -> None:
        """The connection of ``seat`` has ended: the seat is given up, once.

        ``barren`` says that the node ended it, or reset it, before it had sent a single byte.
        """
        self._farm.leave(seat)
