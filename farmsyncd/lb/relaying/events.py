"""Readiness of many sockets: an epoll of our own, which the reactor sees as one reader.

The reactor spends several microseconds on each event (a log context, type checks, a removal or two); here an event is
a look into a dictionary and a call. Sockets are watched once, edge-triggered, and never touched again: so handlers read
until nothing is left, and a closed socket leaves by itself.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

IN = select.EPOLLIN
OUT = select.EPOLLOUT
ERROR = select.EPOLLERR
HANGUP = select.EPOLLHUP
URGENT = select.EPOLLPRI
END = select.EPOLLRDHUP
EDGE = select.EPOLLET
READING = IN | END | URGENT | EDGE
BOTH = READING | OUT
ONLY_LOSS = EDGE  # errors and hang-ups are always told

_AT_ONCE = 512
_ROUNDS = 8


class Handler(Protocol):
    """What is told of the events of one socket."""

    def event(self, flags: int) -> None:
        """These have happened since the last time."""

    def fail(self) -> None:
        """:meth:`event` raised what it should not have: give up, so that the others go on."""


@implementer(IReadDescriptor)
class Events:
    """Tells handlers what happened. Runs from :meth:`start` to :meth:`stop`."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self.now_ns = time.monotonic_ns()
        """When the events that are being told were gathered."""
        self._reactor = reactor
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._closing: list[socket.SocketType] = []
        self._soon: list[Callable[[], None]] = []
        self._again: IDelayedCall | None = None
        self._telling = False
        self._running = False
        self.watch = self._epoll.register
        """``watch(fd, mask)``: from now on :attr:`handlers` is asked for ``fd``; also tells what is ready already."""
        self.rewatch = self._epoll.modify
        """``rewatch(fd, mask)``: the same with another mask."""
        self.unwatch = self._epoll.unregister
        """``unwatch(fd)``: no more; closing does it too."""
        self.handlers = self._handlers
        """Who is told of which descriptor; an event of one that is not in here goes to nobody."""

    def start(self) -> None:
        """Begin to tell."""
        self._running = True
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Watch nothing any more; also when one of those who are told says so."""
        self._running = False
        self._reactor.removeReader(self)
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._flush()
        self._epoll.close()

    def refresh(self) -> int:
        """Set :attr:`now_ns` anew, for what is done outside a round."""
        self.now_ns = time.monotonic_ns()
        return self.now_ns

    def close(self, sock: socket.SocketType) -> None:
        """Close ``sock``, whose handler is gone: at the end of the round, so that no event finds its number reused."""
        self._closing.append(sock)
        if not self._telling:
            self._flush()

    def soon(self, call: Callable[[], None]) -> None:
        """Call after the events of this round, or in a moment."""
        self._soon.append(call)
        if not self._telling and self._again is None:
            self._again = self._reactor.callLater(0, self._continue)

    def doRead(self) -> None:  # noqa: N802 - IReadDescriptor
        """Tell what happened; a few rounds of it, since more happens meanwhile and the way here is long."""
        poll = self._epoll.poll
        for _ in range(_ROUNDS):
            if not self._running:
                return
            happened = poll(0, _AT_ONCE)
            if not happened and not self._soon:
                return
            self.now_ns = time.monotonic_ns()
            self._round(happened)
        if self._soon and self._again is None and self._running:
            self._again = self._reactor.callLater(0, self._continue)

    def fileno(self) -> int:
        """The epoll's own descriptor, which is readable while one of its sockets is."""
        return self._epoll.fileno()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - IReadDescriptor
        """Never told: an epoll does not break."""

    def logPrefix(self) -> str:  # noqa: N802 - ILoggingContext
        """For the reactor's log context."""
        return "relaying"

    def _continue(self) -> None:
        self._again = None
        self.doRead()

    def _round(self, happened: list[tuple[int, int]]) -> None:
        get = self._handlers.get
        self._telling = True
        for fd, flags in happened:
            handler = get(fd)
            if handler is not None:
                try:
                    handler.event(flags)
                except Exception:
                    self._log.failure("a connection is given up, for a reason that lies in the balancer")
                    handler.fail()
        if self._closing:
            self._flush()
        if self._soon:
            calls, self._soon = self._soon, []
            for call in calls:
                try:
                    call()
                except Exception:
                    self._log.failure("a connection did not go on, for a reason that lies in the balancer")
        self._telling = False
        if self._closing:
            self._flush()

    def _flush(self) -> None:
        for sock in self._closing:
            sock.close()
        self._closing.clear()
