"""One client, from its acceptance to its end.

A relay takes one step at a time until its bytes flow: a greeting is read (where one is expected), a node is waited for,
an attempt is made at connecting to it, and at the next one if it fails.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol

from farmsyncd.lb.relaying import sockets
from farmsyncd.lb.relaying.attempt import Attempt
from farmsyncd.lb.relaying.common import Common
from farmsyncd.lb.relaying.events import BOTH
from farmsyncd.lb.relaying.greeting import Greeting
from farmsyncd.lb.relaying.leg import Leg
from farmsyncd.lb.relaying.prologue import Accepted
from farmsyncd.lb.relaying.sockets import Address
from farmsyncd.lb.relaying.waiting import Waiting

UNKNOWN_SOURCE = b""
"""A Unix socket's clients have no address: they count as one."""


class Step(Protocol):
    """What is under way before bytes flow."""

    def cancel(self) -> None:
        """The client is gone, or the balancer ends."""


class Relay:
    """One client's connection, and the one to its node."""

    __slots__ = (
        "_breaking", "_tried", "back", "client", "common", "ended", "front", "seat", "server", "step", "touched_ns",
    )  # fmt: skip

    def __init__(self, common: Common, sock: socket.SocketType, client: Address) -> None:
        self.common = common
        self.client = client
        """The client's address, as accept(2) gave it or as a balancer in front said."""
        self.server: Address | None = None
        """What the client connected to, if a balancer in front said so."""
        self.front = Leg(self, sock, 0)
        self.back: Leg | None = None
        self.seat: Any = None
        self.step: Step | None = None
        self.ended = False
        self.touched_ns = common.events.now_ns
        self._breaking = False
        self._tried: tuple[str, ...] = ()
        common.open.begin(self, self.touched_ns)

    def begin(self) -> None:
        """The client was accepted."""
        prologue = self.common.prologue
        if prologue is not None and prologue.expects:
            self.step = Greeting(self, prologue)
        else:
            self.seek()

    def greeted(self, accepted: Accepted) -> None:
        """The balancer in front has said who the client is."""
        if accepted.client is not None:
            self.client = accepted.client
        self.server = accepted.server
        self.front.say_first(accepted.rest)
        self.seek()

    def seek(self) -> None:
        """Ask for a node, none of those that were tried."""
        if self.ended:
            return
        self.step = None
        request = self.common.dispatcher.request(self._source(), self.seated, self._tried)
        if self.seat is None and not self.ended:
            self.step = Waiting(self, request)

    def seated(self, seat: Any | None) -> None:
        """A node was chosen; or there is none."""
        if self.ended:
            if seat is not None:
                self.common.dispatcher.leave(seat)
            return
        if seat is None:
            self.step = None
            self.common.found_nobody(self._tried)
            self.abort()
            return
        self.seat = seat
        attempt = self.step = Attempt(self)
        attempt.begin(seat.node.address)

    def refused(self, reason: str) -> None:
        """The node does not take the connection: the next one, at once. Nothing was read from the client."""
        self._tried = (*self._tried, self.seat.node.address.name)
        seat, self.seat = self.seat, None
        self.step = None
        self.common.dispatcher.refused(seat, reason)
        self.common.events.soon(self.seek)

    def no_descriptor(self) -> None:
        """There is no descriptor (or port, or memory) for a connection to the node, which is not the node's fault."""
        self.abort()
        self.common.door.out_of_descriptors()

    def connected(self, sock: socket.SocketType, flags: int) -> None:
        """The node has taken the connection. ``flags``: what else its socket was told to be."""
        common = self.common
        self.step = None
        common.dispatcher.connected(self.seat)
        if not common.served:
            common.found_somebody()
        self.touched_ns = common.events.now_ns
        front = self.front
        back = self.back = Leg(self, sock, BOTH)
        front.other, back.other = back, front
        common.events.handlers[back.fd] = back
        if common.prologue is not None:
            server = self.server if self.server is not None else front.sock.getsockname()
            header = common.prologue.header(self.client, server, self.seat.node.address.name)
            if header:
                front.say_first(header + front.rest)
        front.pump()
        if not self.ended:
            front.watch()
            if flags:
                back.event(flags)

    def half_over(self, leg: Leg) -> None:
        """All that comes to ``leg`` has come: tell its peer so; if the other half is over too, that is the end.

        Not while the relay breaks: a socket whose error was told already says "the end" when it is read.
        """
        if self._breaking:
            return
        if leg.over:
            self._end(orderly=True)
        else:
            leg.sock.shutdown(socket.SHUT_WR)
            self.common.half_closed.begin(self, self.touched_ns)

    def broken(self, leg: Leg) -> None:
        """``leg`` cannot be read from, or what it brought not be written: after the other's last words, reset both."""
        if self._breaking:
            return
        self._breaking = True
        other = leg.other
        if other is not None and not other.over and not other.stuck:
            other.ready = other.eager = True
            other.pump()
        back = self.back
        self._end(orderly=False, barren=back is not None and back.silent and sockets.is_closed(back.sock))

    def expire(self) -> None:
        """Nothing was said for too long."""
        self.abort()

    def abort(self) -> None:
        """Reset whoever is there: what was under way is not whole."""
        self._end(orderly=False)

    def _end(self, *, orderly: bool, barren: bool = False) -> None:
        if self.ended:
            return
        self.ended = True
        common = self.common
        common.open.end(self)
        common.half_closed.end(self)
        step, self.step = self.step, None
        if step is not None:
            step.cancel()
        for leg in (self.front,) if self.back is None else (self.front, self.back):
            leg.detach()
            if orderly:
                sockets.end_in_order(leg.sock)
            common.events.close(leg.sock)
        seat, self.seat = self.seat, None
        if seat is not None:
            common.dispatcher.leave(seat, barren=barren)
        common.door.relay_ended()

    def _source(self) -> bytes:
        client = self.client
        return self.common.source_of(client[0]) if isinstance(client, tuple) else UNKNOWN_SOURCE
