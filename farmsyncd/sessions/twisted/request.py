"""A request of twisted.web whose response begins when its session has been stored; see farmsyncd.sessions.twisted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from farmsyncd.core.session.faults import SessionError, StoreUnavailable
from farmsyncd.errors import FarmsyncError
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.headers import added_headers
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import CookieSettings

_OF_THE_CONNECTION = (b"connection", b"server", b"date")


@attrs.define(eq=False)
class _Held:
    """A response that waits for its session to be stored: its head as it was at the first write, and what came then."""

    code: int
    message: bytes
    headers: Headers
    cookies: list[bytes]
    pieces: list[bytes]
    finished: bool = False
    producer: Any = None
    streaming: bool = False


class SessionRequest(Request):
    """A request whose response begins when its session has been stored."""

    _log = Logger()

    def __init__(
        self,
        *args: Any,
        sessions: Sessions,
        cookies: CookieSettings,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        **kwargs: Any,
    ) -> None:
        Request.__init__(self, *args, **kwargs)
        self._sessions = sessions
        self._session_cookies = cookies
        self._in_thread = in_thread
        self._exchange: Exchange | None = None
        self._opening: list[Deferred[Session]] | None = None
        self._held: _Held | None = None
        self._begun = False
        self._replaced = False

    # -- the session ----------------------------------------------------------------------------------------------

    def open_session(self) -> Deferred[Session]:
        """See :func:`farmsync_session`."""
        exchange = self._exchange
        if exchange is None:
            exchange = self._exchange = self._new_exchange()
            if self._begun:
                exchange.abandon()  # it can be read
        session = exchange.open_cached() if self._opening is None else None
        if session is not None:
            return succeed(session)
        waiting: Deferred[Session] = Deferred()
        if self._opening is not None:
            self._opening.append(waiting)
            return waiting
        self._opening = [waiting]
        self._in_thread(exchange.open).addBoth(self._opened)
        return waiting

    def _new_exchange(self) -> Exchange:
        lines = self.requestHeaders.getRawHeaders(b"cookie") or []
        header = b"; ".join(lines).decode("latin-1") if lines else None
        return Exchange(self._sessions, self._session_cookies, header, bool(self.isSecure()))  # type: ignore[no-untyped-call]

    def _opened(self, result: Session | Failure) -> None:
        waiting, self._opening = self._opening or [], None
        for one in waiting:
            one.callback(result)  # a Failure fires the errbacks

    # -- the response ---------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write a piece of the body; the first one stores the session."""
        if self._replaced:
            return
        if self._held is not None:
            if self._held.finished:
                raise RuntimeError("Request.write called on a request after Request.finish was called.")
            self._held.pieces.append(data)
        elif self._begun or self._inFakeHead or not self._begin(data, finished=False):
            Request.write(self, data)

    def finish(self) -> None:
        """End the response; a session is stored at the latest now."""
        if self._replaced:
            return
        if self._held is not None:
            self._held.finished = True
        elif self._begun or self._disconnected or not self._begin(b"", finished=True):
            self._end()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        """Register who writes the body; while the session is being stored, it waits."""
        if self._replaced:
            producer.stopProducing()
        elif self._held is not None and self._held.producer is None:
            self._hold(producer, streaming)
        else:
            Request.registerProducer(self, producer, streaming)

    def unregisterProducer(self) -> None:  # noqa: N802
        """The producer has written all it has."""
        if self._held is not None and self._held.producer is not None:
            self._held.producer = self.producer = None
        elif not self._replaced:
            Request.unregisterProducer(self)

    def processingFailed(self, reason: Failure) -> None:  # noqa: N802
        """The application failed; when it was the session that did, that is answered as when it cannot be stored.

        As an errback this deals with the failure: it is logged once.
        """
        if self._disconnected:  # finish raises then, and nobody can be answered
            self._log.info("{request}: {error}", request=self, error=reason.getErrorMessage())
        elif self._begun or self._exchange is None or reason.check(SessionError, StoreUnavailable) is None:
            Request.processingFailed(self, reason)
        else:
            self._begun = self._replaced = True
            self._answer_instead(reason.value)

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        """The client has gone."""
        Request.connectionLost(self, reason)
        if self._held is not None and self._held.producer is not None:
            self._held.producer.stopProducing()

    def _begin(self, data: bytes, *, finished: bool) -> bool:
        """Store the session; whether the response is held back meanwhile, or is another one now."""
        self._begun = True
        exchange = self._exchange
        if exchange is None:
            return False
        if not exchange.finish_asks(self.code):
            return self._finish_at_once(exchange)
        self._held = _Held(
            self.code, self.code_message, self.responseHeaders.copy(), list(self.cookies), [data], finished
        )
        if self.producer is not None and not self._disconnected:
            producer, streaming = self.producer, bool(self.streamingProducer)
            Request.unregisterProducer(self)
            self._hold(producer, streaming)
        exchange.session.close()
        storing = self._in_thread(partial(exchange.finish, self.code))
        storing.addCallbacks(self._stored, self._not_stored).addErrback(self._failed)
        return True

    def _finish_at_once(self, exchange: Exchange) -> bool:
        """Without the database; whether the response is another one now."""
        try:
            set_cookies = exchange.finish(self.code)
        except FarmsyncError as error:
            self._replaced = True
            if not self._disconnected:
                self._answer_instead(error)
            return True
        self._add_headers(set_cookies)
        return False

    def _hold(self, producer: Any, streaming: bool) -> None:
        assert self._held is not None
        self._held.producer, self._held.streaming = producer, streaming
        self.producer, self.streamingProducer = producer, streaming
        if streaming:
            producer.pauseProducing()

    def _stored(self, set_cookies: list[str]) -> None:
        held = self._let_go()
        if self._disconnected:
            return
        self._add_headers(set_cookies)
        for piece in held.pieces:
            self.write(piece)
        if held.producer is not None:
            self.producer = None
            Request.registerProducer(self, held.producer, held.streaming)
            if held.streaming:
                held.producer.resumeProducing()
        if held.finished:
            self._end()

    def _end(self) -> None:
        Request.finish(self)
        if self._exchange is not None:
            self._exchange.abandon()

    def _let_go(self) -> _Held:
        """Give up holding back, and what the application changed in the response's head after its first write."""
        held = self._held
        assert held is not None
        self._held = None
        self.code, self.code_message = held.code, held.message
        self.responseHeaders, self.cookies = held.headers, held.cookies
        return held

    def _add_headers(self, set_cookies: list[str]) -> None:
        assert self._exchange is not None
        headers = self.responseHeaders
        present = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, values in headers.getAllRawHeaders()
            for value in values
        ]
        for name, value in added_headers(present, set_cookies, self._exchange.accessed):
            if name == "Set-Cookie" and self.cookies:  # those of addCookie replace all that are among the headers
                self.cookies.append(value.encode("latin-1"))
            else:
                headers.addRawHeader(name, value)

    def _not_stored(self, failure: Failure) -> None:
        self._let_go()
        self._replaced = True
        if failure.check(FarmsyncError) is None:
            self._log.failure("the session of {request} could not be stored", failure, request=self)
        if not self._disconnected:
            self._answer_instead(failure.value)

    def _answer_instead(self, error: Any) -> None:
        """End the response as another one than the application's, which learns of it as of a client that has gone."""
        assert self._exchange is not None
        status, headers, body = self._exchange.answer(error)
        kept = [(name, self.responseHeaders.getRawHeaders(name)) for name in _OF_THE_CONNECTION]
        self.responseHeaders = Headers({name: values for name, values in kept if values is not None})
        for name, value in headers:
            self.responseHeaders.addRawHeader(name, value)
        self.setResponseCode(status)
        self.cookies, self.etag, self.lastModified, self._encoder = [], None, None, None
        waiting, self.notifications = self.notifications, []
        producer = self.producer
        if producer is not None:
            Request.unregisterProducer(self)
        Request.write(self, body)
        Request.finish(self)
        if producer is not None:
            producer.stopProducing()
        for one in waiting:
            one.errback(error)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the response to {request} could not be sent", failure, request=self)
        if not self._disconnected and not self.finished:
            self.loseConnection()  # type: ignore[no-untyped-call]
