"""Sessions for any WSGI application: ``environ["farmsync.session"]``.

::

    application = SessionMiddleware(application, Sessions.at("postgresql://..."))

The application's status and headers are held back until its first piece of body (or its end), then the session is
stored, and only then does the response begin. When it cannot be stored, the whole response is another one: 409 when
another request changed the same key, 503 when the database is away. A response of status 500 and above, and an
exception, leave the session as it was. Pieces after the first are passed on one by one as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any

from farmsyncd.core.session.faults import SessionError, StoreUnavailable
from farmsyncd.errors import FarmsyncError
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.headers import added_headers
from farmsyncd.sessions.settings import CookieSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from farmsyncd.sessions.engine import Sessions

SESSION = "farmsync.session"
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
_Headers = list[tuple[str, str]]
_Write = Callable[[bytes], object]


class SessionMiddleware:
    """Gives ``app`` a session in ``environ["farmsync.session"]``, and stores it before the response begins."""

    def __init__(self, app: WSGIApplication, sessions: Sessions, cookies: CookieSettings | None = None) -> None:
        self._app = app
        self._sessions = sessions
        self._cookies = CookieSettings() if cookies is None else cookies

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        secure = environ.get("wsgi.url_scheme") == "https"
        exchange = Exchange(self._sessions, self._cookies, environ.get("HTTP_COOKIE"), secure)
        environ[SESSION] = exchange.session
        response = _Response(exchange, start_response, environ.get("REQUEST_METHOD") == "HEAD")
        try:
            result = self._app(environ, response.start)
        except BaseException as error:
            return [response.failed(error)]
        if response.knows_all_of(result, environ.get("wsgi.file_wrapper")):
            return response.at_once(result)
        return _Pieces(response, result)


class _Response:
    """What the application wants to answer, and what is answered: they differ when the session cannot be stored."""

    def __init__(self, exchange: Exchange, start_response: StartResponse, head: bool) -> None:
        self.begun = False
        self.replaced = False
        self._exchange = exchange
        self._start_response = start_response
        self._head = head
        self._wanted: tuple[str, _Headers] | None = None
        self._added: _Headers = []
        self._write: _Write | None = None

    def start(self, status: str, headers: _Headers, exc_info: _ExcInfo | None = None, /) -> _Write:
        """``start_response`` as the application sees it."""
        try:
            if exc_info is None and self._wanted is not None:
                raise AssertionError("expected start_response to be called once, found a second call without exc_info")
            self._wanted = (status, list(headers))
            if self.begun and not self.replaced:  # the server knows whether it is too late, and raises then
                self._write = self._start_response(status, [*headers, *self._added], exc_info)
        finally:
            del exc_info  # a traceback refers to its frames: no cycle
        return self.write

    def write(self, piece: bytes) -> None:
        """What ``start`` returns, for applications that do not return their body."""
        if not piece and not self.begun:
            return
        if not self.begun:
            instead = self.begin()
            piece = piece if instead is None else instead
        elif self.replaced:
            return
        assert self._write is not None
        self._write(piece)

    def begin(self) -> bytes | None:
        """Store the session and begin the response; the whole body to send instead when it could not be stored."""
        if self._wanted is None:
            raise AssertionError("expected start_response to be called before the first piece of the body")
        status, headers = self._wanted
        self.begun = True
        try:
            set_cookies = self._exchange.finish(int(status[:3]))
        except FarmsyncError as error:
            return self._replace(error)
        self._added = added_headers(headers, set_cookies, self._exchange.accessed)
        self._write = self._start_response(status, headers + self._added)
        return None

    def knows_all_of(self, result: Iterable[bytes], file_wrapper: object) -> bool:
        """Whether nothing that the application can still do would change the session or the headers."""
        if self._wanted is None or self.begun:
            return False
        is_file = isinstance(file_wrapper, type) and isinstance(result, file_wrapper)
        return is_file or type(result) in (list, tuple)

    def at_once(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """Begin, and hand the application's own object to the server, which may know better what to do with it."""
        try:
            instead = self.begin()
        except BaseException:
            _close(result)
            raise
        if instead is None:
            return result
        _close(result)
        return [instead]

    def abandon(self) -> None:
        """No more is asked for: what has not been stored is dropped."""
        self._exchange.abandon()

    def failed(self, error: BaseException) -> bytes:
        """The application let ``error`` escape: the whole body to send instead if it is about the session."""
        self._exchange.abandon()
        if self.begun or not isinstance(error, SessionError | StoreUnavailable):
            raise error
        self.begun = True
        return self._replace(error)

    def _replace(self, error: FarmsyncError) -> bytes:
        self.replaced = True
        code, headers, body = self._exchange.answer(error)
        self._write = self._start_response(f"{code} {HTTPStatus(code).phrase}", headers)
        return b"" if self._head else body


class _Pieces:
    """The body as the server iterates over it."""

    def __init__(self, response: _Response, result: Iterable[bytes]) -> None:
        self._response = response
        self._result = result
        self._rest: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._rest is None:
            self._rest = iter(self._result)
        if self._response.replaced:
            raise StopIteration
        try:
            return next(self._rest) if self._response.begun else self._first(self._rest)
        except StopIteration:
            raise
        except BaseException as error:
            return self._response.failed(error)

    def close(self) -> None:
        """The server is done, or its client has gone."""
        self._response.abandon()
        _close(self._result)

    def _first(self, pieces: Iterator[bytes]) -> bytes:
        # Empty pieces are not passed on before the headers are known: the server would have to send some.
        piece = next((one for one in pieces if one or self._response.begun), b"")
        if self._response.begun:  # by a write() meanwhile
            return b"" if self._response.replaced else piece
        instead = self._response.begin()
        return piece if instead is None else instead


def _close(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()
