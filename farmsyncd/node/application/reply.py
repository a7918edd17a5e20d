"""From a thread of the application to the client: no faster than the client takes it, and no longer than it waits."""

from __future__ import annotations

import threading
from typing import Any

import attrs
from twisted.internet.interfaces import IPushProducer, IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from zope.interface import implementer

_AHEAD = 256 * 1024  # bytes that the application may be ahead of the connection


class ClientGoneError(ConnectionError):
    """The client has closed the connection, or has taken nothing for too long: nobody reads the rest."""


@attrs.frozen
class Head:
    """A response's status and headers, as they go out."""

    code: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]


@implementer(IPushProducer)
class Reply:
    """The response to ``request``.

    :meth:`send` and :meth:`cut` are for the application's thread, all else for the reactor's. A client that takes
    nothing for ``patience_s`` is cut off, so that it holds no thread.
    """

    log = Logger()

    def __init__(self, request: Request, reactor: IReactorFromThreads, patience_s: float) -> None:
        self._request = request
        self._reactor = reactor
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._gone = False
        self._paused = False
        self._queued = 0
        self._producing = False
        request.notifyFinish().addErrback(self._lost)

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the response any more."""
        return self._gone

    # in the application's thread

    def send(self, head: Head | None, data: bytes, *, last: bool) -> None:
        """Send the head, if it is given, and a piece of the body; ``last`` ends the response.

        Returns when there is room for the next piece. Raises ClientGoneError.
        """
        with self._changed:
            if self._gone:
                raise ClientGoneError("the client has gone")
            self._queued += len(data)
        self._reactor.callFromThread(self._deliver, head, data, last)
        if last:
            return
        with self._changed:
            if not self._changed.wait_for(self._has_room, self._patience_s):
                self._gone = True
                self._reactor.callFromThread(self._abort)
            if self._gone:
                raise ClientGoneError("the client has gone, or takes nothing")

    def cut(self) -> None:
        """End the connection so that the response does not look whole."""
        self._reactor.callFromThread(self._abort)

    def _has_room(self) -> bool:
        return self._gone or (not self._paused and self._queued <= _AHEAD)

    # in the reactor's thread

    def _deliver(self, head: Head | None, data: bytes, last: bool) -> None:
        if not self._gone:
            try:
                self._write(head, data, last)
            except Exception:
                self.log.failure("a response cannot be sent")
                self._abort()
        with self._changed:
            self._queued -= len(data)
            self._changed.notify_all()

    def _write(self, head: Head | None, data: bytes, last: bool) -> None:
        request = self._request
        if head is not None:
            request.setResponseCode(head.code, head.reason)
            named: dict[bytes, list[bytes]] = {}
            for name, value in head.headers:
                named.setdefault(name.lower(), []).append(value)
            for name, values in named.items():
                request.responseHeaders.setRawHeaders(name, values)
            if not last:
                self._producing = True
                request.registerProducer(self, True)
        if data or head is not None:
            request.write(data)
        if last:
            self._end_producing()
            request.finish()

    def _abort(self) -> None:
        channel: Any = self._request.channel if not self._request.finished else None
        self._mark_gone()
        if channel is not None:
            channel.transport.abortConnection()

    def _lost(self, _failure: Failure) -> None:
        self._mark_gone()

    def _mark_gone(self) -> None:
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _end_producing(self) -> None:
        if self._producing:
            self._producing = False
            self._request.unregisterProducer()

    def pauseProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The connection has enough for now."""
        self._paused = True

    def resumeProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The connection takes more."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def stopProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The connection is over."""
        self._mark_gone()
