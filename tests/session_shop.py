"""A small shop over real HTTP on loopback, whose store counts its calls; and a client that sends any bytes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import attrs

from farmsyncd.sessions import CookieSettings, Sessions, SessionSettings
from farmsyncd.sessions.stores.base import Listed
from farmsyncd.sessions.stores.url import open_store
from farmsyncd.sessions.wsgi import SessionMiddleware
from tests.browser import Browser

LIMIT_S = 30
Start = Callable[..., Any]
_BESIDES = ("generation", "listen")


@attrs.frozen
class Answer:
    """A response; ``told`` is what its JSON body says, None for another one's."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body) if ("Content-Type", "application/json") in self.headers else None

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name.lower()]


class Counted:
    """A store that counts the calls of each of its methods."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def counted(*given: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return method(*given, **named)

        return counted


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = False
    request_queue_size = 64


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_given: Any) -> None:
        """Nothing: the test tells."""


class Shop:
    """``with Shop(url) as shop``: serves until the end. ``secure``: as if all requests came over TLS."""

    def __init__(
        self,
        url: str,
        settings: SessionSettings | None = None,
        cookies: CookieSettings | None = None,
        *,
        secure: bool = False,
    ) -> None:
        self.secure = secure
        self.store: Any = Counted(open_store(url))
        self.store.prepare()
        self.sessions = Sessions(self.store, SessionSettings(sweep_every_s=0) if settings is None else settings)
        self.goes_on = threading.Event()
        self.waiting = threading.Event()
        app = SessionMiddleware(self._answer, self.sessions, cookies)
        self._server = make_server("127.0.0.1", 0, app, _Threading, _Quiet)
        self._server.base_environ["HTTPS"] = "on" if secure else "off"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="shop")

    def __enter__(self) -> Self:
        self._thread.start()
        self.store.calls.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.sessions.close()

    # -- pages ----------------------------------------------------------------------------------------------------

    def _answer(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        page: Callable[..., Any] = getattr(self, "page_" + environ["PATH_INFO"].strip("/"))
        told = page(environ)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(told).encode()]

    def page_static(self, _environ: dict[str, Any]) -> Any:
        return "static"

    def page_cart(self, environ: dict[str, Any]) -> Any:
        return dict(environ["farmsync.session"])

    def page_put(self, environ: dict[str, Any]) -> Any:
        """What is in the body is put into the session."""
        environ["farmsync.session"].update(json.loads(_body(environ)))
        return dict(environ["farmsync.session"])

    def page_echo(self, environ: dict[str, Any]) -> Any:
        environ["farmsync.session"]["kind"] = environ["CONTENT_TYPE"]
        return _body(environ).decode("latin-1")

    def page_login(self, environ: dict[str, Any]) -> Any:
        environ["farmsync.session"].rotate()
        environ["farmsync.session"]["user"] = _body(environ).decode()
        return "welcome"

    def page_logout(self, environ: dict[str, Any]) -> Any:
        environ["farmsync.session"].destroy()
        return "bye"

    def page_slow(self, environ: dict[str, Any]) -> Any:
        """Has read the session, and changes it when the test says so."""
        session = environ["farmsync.session"]
        before = dict(session)
        self.waiting.set()
        assert self.goes_on.wait(LIMIT_S)
        if environ["QUERY_STRING"] == "login":
            session.rotate()
        session["slow"] = True
        return before

    def page_odd(self, environ: dict[str, Any]) -> Any:
        environ["farmsync.session"]["odd"] = {"set": object, "surrogate": "\ud800", "cycle": _cycle()}[
            environ["QUERY_STRING"]
        ]
        return "kept"

    # -- its client -----------------------------------------------------------------------------------------------

    def send(self, raw: bytes) -> bytes:
        """All that comes back on a connection on which this is sent."""
        came = bytearray()
        with socket.create_connection(("127.0.0.1", self._server.server_port), timeout=LIMIT_S) as connection:
            with contextlib.suppress(ConnectionError):  # it may be refused before it was read to its end
                connection.sendall(raw)
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(65_536):
                    came += piece
        return bytes(came)

    def ask(
        self, path: str, cookie: str | bytes | Browser | None = None, body: bytes = b"", *headers: tuple[str, str]
    ) -> Answer:
        """One request. A Browser sends the cookies it has, and takes those it is sent."""
        browser = cookie if isinstance(cookie, Browser) else None
        said = cookie.header(secure=self.secure) if isinstance(cookie, Browser) else cookie
        line = said.encode("latin-1") if isinstance(said, str) else said
        method = b"POST" if body else b"GET"
        lines = [method + b" /" + path.encode() + b" HTTP/1.0", b"Host: shop.example"]
        lines += [] if line is None else [b"Cookie: " + line]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
        lines += [b"Content-Length: %d" % len(body), b"", body]
        head, _, answer = self.send(b"\r\n".join(lines)).partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        pairs = [(name, value) for name, _, value in (one.partition(": ") for one in rest)]
        if browser is not None:
            browser.receive([value for name, value in pairs if name == "Set-Cookie"], secure=self.secure)
        return Answer(int(first.split()[1]), pairs, answer)

    def put(self, browser: Browser, **state: Any) -> Answer:
        return self.ask("put", browser, json.dumps(state).encode())

    def rows(self) -> list[Listed]:
        """The sessions that live."""
        found: list[Listed] = self.store.find(b"", 100_000)
        self.store.calls["find"] -= 1
        return found

    def calls(self) -> dict[str, int]:
        """Which calls the store had since this was asked last, but for those that ask nobody for a session."""
        found = {name: count for name, count in self.store.calls.items() if count and name not in _BESIDES}
        self.store.calls.clear()
        return found


def _body(environ: dict[str, Any]) -> bytes:
    body: bytes = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    return body


def _cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found
