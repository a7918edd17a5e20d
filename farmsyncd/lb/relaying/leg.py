"""One of a relay's two connections: what comes from its peer is carried to the other leg, by copying.

Its socket is watched edge-triggered. So after an event it is read until it has no more, which a short read shows; only
when the peer has ended or something urgent came, a short read shows nothing, and reading goes on until the end or until
the kernel says that there is nothing. While the other side does not take what was read, nothing more is read.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from farmsyncd.lb.relaying import bulk, sockets
from farmsyncd.lb.relaying.events import BOTH, END, ERROR, HANGUP, IN, OUT, READING, URGENT
from farmsyncd.lb.relaying.pipes import Pipe

if TYPE_CHECKING:
    from farmsyncd.lb.relaying.relay import Relay

_NOW = socket.MSG_DONTWAIT
_LAST = socket.MSG_DONTWAIT | socket.MSG_MORE
_READABLE = IN | END | ERROR | HANGUP | URGENT
_UNUSUAL = END | ERROR | HANGUP | URGENT
_TURNS = 16
_LARGE = 1 << 14
_LARGE_ONES = 4


class Leg:
    """One connection of ``relay``; :attr:`other` is the one its bytes go to."""

    __slots__ = (
        "bulky", "eager", "ending", "fd", "held", "large", "mask", "other", "over", "pipe", "ready", "relay", "rest",
        "silent", "sock", "stuck", "urgent",
    )  # fmt: skip

    def __init__(self, relay: Relay, sock: socket.SocketType, mask: int) -> None:
        self.relay = relay
        self.sock = sock
        self.fd = sock.fileno()
        self.mask = mask
        """How it is watched; 0 is not at all."""
        self.other: Leg | None = None
        self.over = False
        """Its peer has ended, and all that it sent was carried on."""
        self.ready = True
        """There may be something to read."""
        self.eager = False
        """A short read does not mean that there is no more."""
        self.ending = False
        """Its peer has sent all that it will."""
        self.urgent = False
        """Its peer has sent urgent data, which splicing does not get over."""
        self.stuck = False
        """The other side has not taken what was read: it is in ``rest`` (bytes), or ``held`` bytes are in ``pipe``."""
        self.rest = b""
        self.pipe: Pipe | None = None
        self.held = 0
        self.large = 0
        """How many of the last reads were large ones, in a row."""
        self.silent = True
        """Its peer has not sent a byte."""
        self.bulky = False
        """Spliced, not copied."""

    def watch(self) -> None:
        """Hear of whatever comes from now on, and of what is there already."""
        events = self.relay.common.events
        events.handlers[self.fd] = self
        if self.mask == 0:
            self.mask = READING
            events.watch(self.fd, READING)
        else:
            self.mask = READING
            events.rewatch(self.fd, READING)

    def event(self, flags: int) -> None:
        """Something happened to the socket."""
        if flags & _READABLE:
            if flags & _UNUSUAL:
                self.eager = True
                if flags & END:
                    self.ending = True
                if flags & URGENT:
                    self.urgent = True
                if flags & ERROR and (self.over or self.stuck):
                    self.relay.broken(self)
                    return
            if not self.over:
                self.ready = True
                if not self.stuck:
                    self.pump()
        if flags & OUT:
            other = self.other
            if other is not None and other.stuck:
                other.pump()

    def fail(self) -> None:
        """The balancer is at fault."""
        self.relay.abort()

    def pump(self) -> None:
        """Carry on what has come, as far as the other side takes it."""
        other = self.other
        if other is None:
            return  # it has ended meanwhile
        try:
            if self.stuck and not self._unstick(other):
                return
            if not self.ready or self.over:
                return
            if self.bulky:
                bulk.carry(self, other)
            else:
                self.copy(other)
        except OSError:
            self.relay.broken(self)

    def copy(self, other: Leg) -> None:
        """Read and write until there is no more, or the other side takes no more. Raises OSError.

        What is probably the last piece is held back in the kernel for the end that follows: one segment has both.
        """
        common = self.relay.common
        view = common.view
        last = False
        for _ in range(_TURNS):
            try:
                size = self.sock.recv_into(view, 0, _NOW)
            except BlockingIOError:
                self.ready = False
                if last:
                    sockets.push(other.sock)
                return
            if not size:
                self.over = True
                self.relay.half_over(other)
                return
            self.silent = False
            self.relay.touched_ns = common.events.now_ns
            try:
                last = self.ending and size < len(view)
                sent = other.sock.send(view[:size], _LAST if last else _NOW)
            except BlockingIOError:
                sent = 0
            if sent < size:
                self.rest = bytes(view[sent:size])
                self.stick(other)
                return
            if size >= _LARGE:
                self.large += 1
                if self.large >= _LARGE_ONES and not self.eager:
                    bulk.begin(self, other)
                    return
            else:
                self.large = 0
                if not self.eager:
                    self.ready = False
                    return
        common.events.soon(self.pump)

    def stick(self, other: Leg) -> None:
        """The other side does not take what was read: go on when it can be written to."""
        self.stuck = True
        if other.mask != BOTH:
            other.mask = BOTH
            self.relay.common.events.rewatch(other.fd, BOTH)

    def say_first(self, data: bytes) -> None:
        """Carry ``data`` on before whatever this leg's peer sends."""
        self.rest = data
        self.stuck = True

    def detach(self) -> None:
        """It is over: know nobody any more."""
        self.other = None
        self.relay.common.events.handlers.pop(self.fd, None)
        if self.pipe is not None:
            self.relay.common.pipes.discard(self.pipe)
            self.pipe = None

    def _unstick(self, other: Leg) -> bool:
        """Write what waits; whether all of it was taken. Raises OSError."""
        if self.pipe is not None:
            return bulk.drain(self, other)
        try:
            sent = other.sock.send(self.rest, _NOW)
        except BlockingIOError:
            sent = 0
        if sent:
            self.relay.touched_ns = self.relay.common.events.now_ns
        if sent < len(self.rest):
            self.rest = self.rest[sent:]
            self.stick(other)
            return False
        self.rest = b""
        self.stuck = False
        return True
