"""Sessions for any ASGI application: ``scope["farmsync.session"]``, and Starlette's and FastAPI's ``request.session``.

::

    application = SessionMiddleware(application, Sessions.at("postgresql://..."))

A session that this node knows is there without waiting; the event loop never waits for the database, which is asked in
a thread. The session is stored when the application sends ``http.response.start``, before that goes out. When it
cannot be stored, the whole response is another one (409 when another request changed the same key, 503 when the
database is away), and the application's ``send`` raises an OSError, as it does when a client has gone. A response of
status 500 and above, and an exception, leave the session as it was. Bodies are passed on as they come.

Over a WebSocket a session can be changed until ``websocket.accept``, and read from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from farmsyncd.core.session.faults import SessionError, StoreUnavailable
from farmsyncd.errors import FarmsyncError
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.headers import added_headers
from farmsyncd.sessions.session import Opened, Session
from farmsyncd.sessions.settings import CookieSettings

if TYPE_CHECKING:
    from farmsyncd.sessions.engine import Sessions

SESSION = "farmsync.session"
_SWITCHING_PROTOCOLS = 101
_DENIAL = "websocket.http.response"
_log = logging.getLogger("farmsync.sessions")

_Message = MutableMapping[str, Any]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]
_Headers = Iterable[tuple[bytes, bytes]]


class ResponseReplaced(OSError):
    """What the application sends goes nowhere: its session could not be stored, and the client has been told so."""

    def __init__(self) -> None:
        super().__init__("the session could not be stored; the client was sent another response, which is complete")


class SessionMiddleware:
    """Gives ``app`` a session in ``scope``, and stores it before the response begins."""

    def __init__(self, app: _App, sessions: Sessions, cookies: CookieSettings | None = None) -> None:
        self._app = app
        self._sessions = sessions
        self._cookies = CookieSettings() if cookies is None else cookies

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request, or serve one WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        secure = scope.get("scheme") in ("https", "wss")
        exchange = Exchange(self._sessions, self._cookies, _cookie_header(scope["headers"]), secure)
        session = await self._open(exchange)
        scope[SESSION] = scope["session"] = session  # in place, as others' middleware looks for the route in it later
        response = (_Response if scope["type"] == "http" else _WebSocket)(exchange, scope, send)
        try:
            await self._app(scope, receive, response.send)
        except (SessionError, StoreUnavailable) as error:
            if response.begun:
                raise
            await response.replace(error)
        except Exception:
            if not response.replaced:
                raise
            _log.debug("the application ended with an error after its response was replaced", exc_info=True)
        finally:
            exchange.abandon()

    async def _open(self, exchange: Exchange) -> Session:
        session = exchange.open_cached()
        if session is not None:
            return session
        try:
            return await asyncio.to_thread(exchange.open)
        except StoreUnavailable as error:  # a page that needs no session is served all the same
            reason = str(error)

        def opening() -> Opened:
            raise StoreUnavailable(reason)

        return Session(self._sessions, opening)


class _Response:
    """What the application sends, and what is sent: they differ when the session cannot be stored."""

    def __init__(self, exchange: Exchange, scope: _Scope, send: _Send) -> None:
        self.begun = False
        self.replaced = False
        self._exchange = exchange
        self._scope = scope
        self._send = send

    async def send(self, message: _Message) -> None:
        """``send`` as the application sees it."""
        if self.replaced:
            raise ResponseReplaced
        if message["type"] == "http.response.start" and not self.begun:
            message = await self._begin(message, message["status"])
        await self._send(message)

    async def replace(self, error: FarmsyncError) -> None:
        """Answer that the session could not be stored, or read."""
        self.begun = self.replaced = True
        await self._refuse(error)

    async def _begin(self, message: _Message, status: int) -> _Message:
        """Store the session; the message with the headers that this adds."""
        self.begun = True
        try:
            set_cookies = await _finish(self._exchange, status)
        except FarmsyncError as error:
            await self.replace(error)
            raise ResponseReplaced from error
        own = list(message.get("headers", ()))
        read = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in own]
        added = added_headers(read, set_cookies, self._exchange.accessed)
        return {**message, "headers": [*own, *_encoded(added)]}

    async def _refuse(self, error: FarmsyncError) -> None:
        await self._answer(error, "http.response")

    async def _answer(self, error: FarmsyncError, kind: str) -> None:
        status, headers, body = self._exchange.answer(error)
        await self._send({"type": f"{kind}.start", "status": status, "headers": _encoded(headers)})
        await self._send({"type": f"{kind}.body", "body": b"" if self._scope.get("method") == "HEAD" else body})


class _WebSocket(_Response):
    """The same for a WebSocket, whose response is its acceptance, or its denial."""

    async def send(self, message: _Message) -> None:
        """``send`` as the application sees it."""
        if self.replaced:
            raise ResponseReplaced
        if not self.begun:
            if message["type"] == "websocket.accept":
                message = await self._begin(message, _SWITCHING_PROTOCOLS)
            elif message["type"] == f"{_DENIAL}.start":
                message = await self._begin(message, message["status"])
        await self._send(message)

    async def _refuse(self, error: FarmsyncError) -> None:
        if _DENIAL in (self._scope.get("extensions") or {}):
            await self._answer(error, _DENIAL)
        else:
            await self._send({"type": "websocket.close", "code": 1013, "reason": "the session could not be stored"})


async def _finish(exchange: Exchange, status: int) -> list[str]:
    if exchange.finish_asks(status):
        exchange.session.close()  # other tasks of the application change nothing meanwhile
        return await asyncio.to_thread(exchange.finish, status)
    return exchange.finish(status)


def _cookie_header(headers: _Headers) -> str | None:
    """All ``Cookie`` headers as one: HTTP/2 may cut it into several."""
    found = [value for name, value in headers if name == b"cookie"]
    return b"; ".join(found).decode("latin-1") if found else None


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
