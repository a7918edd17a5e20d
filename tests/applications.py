"""WSGI applications that tests have nodes serve."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Start = Callable[..., Callable[[bytes], object]]
Environ = dict[str, Any]


def plain(start: Start, text: str, status: str = "200 OK") -> list[bytes]:
    """An answer of text."""
    body = text.encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


def various(environ: Environ, start: Start) -> Any:
    """An application with a page for each thing that a server must get right."""
    page = PAGES.get(environ["PATH_INFO"])
    return plain(start, "nothing here\n", "404 Not Found") if page is None else page(environ, start)


def _echo(environ: Environ, start: Start) -> list[bytes]:
    """What came, as JSON: the method, the query, and the digest of the body."""
    body = environ["wsgi.input"].read()
    told = {
        "method": environ["REQUEST_METHOD"],
        "query": environ["QUERY_STRING"],
        "length": environ.get("CONTENT_LENGTH"),
        "type": environ.get("CONTENT_TYPE"),
        "size": len(body),
        "digest": hashlib.sha256(body).hexdigest(),
        "node": environ["farmsync.node"],
        "thread": threading.current_thread().name,
        "datasets": {name: snap.version for name, snap in environ["farmsync.snapshots"].items()},
    }
    return plain(start, json.dumps(told))


def _stream(environ: Environ, start: Start) -> Iterator[bytes]:
    """So many mebibytes as the query says, piece by piece; the file that it also names appears when it is closed."""
    count, _, file = environ["QUERY_STRING"].partition("&")
    start("200 OK", [("Content-Type", "application/octet-stream")])
    try:
        for number in range(int(count)):
            yield bytes([number % 256]) * 2**20
    finally:
        if file:
            Path(file).touch()


def _version(environ: Environ, start: Start) -> Iterator[bytes]:
    """The page of the active version, again and again until the file that the query names is there."""
    snap = environ["farmsync.snapshot"]
    start("200 OK", [("Content-Type", "text/plain")])
    yield snap["page"]
    while not Path(environ["QUERY_STRING"]).exists():
        time.sleep(0.02)
    yield b" " + snap["page"] + b" " + snap["late"] + b" " + snap.version.encode()


def _wait(environ: Environ, start: Start) -> list[bytes]:
    """Says that it is there with a file, and waits for another one."""
    here, _, go = environ["QUERY_STRING"].partition("&")
    Path(here).touch()
    while not Path(go).exists():
        time.sleep(0.02)
    return plain(start, "waited\n")


def _raise(_environ: Environ, _start: Start) -> list[bytes]:
    raise RuntimeError("the application's own fault")


def _break(_environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    yield b"begun "
    raise RuntimeError("in the middle")


def _cookies(_environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Type", "text/plain")])
    return [b"two"]


def _complain(environ: Environ, start: Start) -> list[bytes]:
    environ["wsgi.errors"].write("a complaint of the application\n")
    return plain(start, "told\n")


PAGES: dict[str, Callable[[Environ, Start], Any]] = {
    "/": lambda _environ, start: plain(start, "home\n"),
    "/echo": _echo,
    "/stream": _stream,
    "/version": _version,
    "/wait": _wait,
    "/raise": _raise,
    "/break": _break,
    "/cookies": _cookies,
    "/complain": _complain,
    "/caf\xc3\xa9": lambda _environ, start: plain(start, "coffee\n"),
}

not_callable = "a text"


def counting(environ: Environ, start: Start) -> list[bytes]:
    """Counts the requests of a session; ``/free`` needs none."""
    if environ["PATH_INFO"] == "/free":
        return plain(start, "free\n")
    session = environ["farmsync.session"]
    session["count"] = session.get("count", 0) + 1
    return plain(start, f"{session['count']}\n")


def carts(environ: Environ, start: Start) -> list[bytes]:
    """A shop without goods: POST puts the article that the query names into the cart, every answer shows the cart.

    ``/empty`` touches no session.
    """
    if environ["PATH_INFO"] == "/empty":
        return plain(start, "{}")
    session = environ["farmsync.session"]
    if environ["REQUEST_METHOD"] == "POST":
        article = environ["QUERY_STRING"]
        session[article] = session.get(article, 0) + 1
    return plain(start, json.dumps({"node": environ["farmsync.node"], "cart": dict(session)}))
