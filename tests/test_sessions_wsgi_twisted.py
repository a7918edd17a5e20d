"""The WSGI middleware under twisted.web's WSGIResource and its thread pool, over real connections."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.internet import reactor as _reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.server import Site
from twisted.web.wsgi import WSGIResource

from farmsyncd.sessions import Sessions
from farmsyncd.sessions.wsgi import SessionMiddleware
from tests.browser import Browser
from tests.eventually import eventually_async
from tests.session_farm import QUIET
from tests.sessions_memory import MemoryStore

reactor: Any = _reactor
LIMIT_S = 30
THREADS = 4
REQUESTS = 24
Start = Callable[..., Any]


class Shop:
    """A small application; what its pages do is told by the path."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.closed = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        page: Callable[..., Iterable[bytes]] = getattr(self, environ["PATH_INFO"].strip("/").partition("/")[0])
        return page(environ, start_response)

    def count(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session = environ["farmsync.session"]
        session["count"] = session.get("count", 0) + 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % session["count"]]

    def put(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        environ["farmsync.session"][environ["QUERY_STRING"]] = True
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"kept"]

    def keys(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [" ".join(sorted(environ["farmsync.session"])).encode()]

    def static(self, _environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"static"]

    def fail(self, environ: dict[str, Any], _start_response: Start) -> Iterable[bytes]:
        environ["farmsync.session"]["failed"] = True
        raise ZeroDivisionError

    def stream(self, environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        environ["farmsync.session"]["streamed"] = True
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            yield b"first "
            assert self.goes_on.wait(LIMIT_S)
            yield b"second " * 1000
            yield b"third"
        finally:
            self.closed.set()


class Place:
    """The shop on a port, and one browser's connections to it."""

    def __init__(self, store: MemoryStore) -> None:
        self.shop = Shop()
        self.browser = Browser("127.0.0.1")
        self.threads = ThreadPool(THREADS, THREADS)
        self.threads.start()
        checked = validator(SessionMiddleware(validator(self.shop), Sessions(store, QUIET)))
        self.port = reactor.listenTCP(0, Site(WSGIResource(reactor, self.threads, checked)), interface="127.0.0.1")
        self.pool = HTTPConnectionPool(reactor)
        self.pool.maxPersistentPerHost = REQUESTS

    def connections(self) -> int:
        """How many connections the site has now."""
        return sum(1 for one in reactor.getReaders() if getattr(one, "server", None) is self.port)

    async def begin(self, path: str) -> Any:
        """The response to a request, when its head is here."""
        client = HTTPClient(Agent(reactor, pool=self.pool))
        cookie = self.browser.header()
        headers = Headers({} if cookie is None else {"cookie": [cookie]})
        url = f"http://127.0.0.1:{self.port.getHost().port}/{path}"
        response = await client.get(url, headers=headers, timeout=LIMIT_S, unbuffered=True)
        self.browser.receive(response.headers.getRawHeaders("set-cookie", []))
        return response

    async def get(self, path: str) -> tuple[int, bytes]:
        response = await self.begin(path)
        return response.code, await response.content()

    async def close(self) -> None:
        await self.port.stopListening()
        await self.pool.closeCachedConnections()
        await deferToThread(self.threads.stop)  # its threads may have to call this one before they end


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def place(store: MemoryStore) -> Iterator[Place]:
    one = Place(store)
    yield one
    one.shop.goes_on.set()
    pytest_twisted.blockon(ensureDeferred(one.close()))


@pytest_twisted.ensureDeferred
async def test_a_browser_finds_its_session_again(place: Place) -> None:
    assert [await place.get("count") for _ in range(3)] == [(200, b"1"), (200, b"2"), (200, b"3")]
    assert place.browser.refused == []


@pytest_twisted.ensureDeferred
async def test_parallel_requests_of_one_session_lose_nothing(place: Place) -> None:
    await place.get("count")

    async def put(number: int) -> int:
        again = 0
        while (answer := await place.get(f"put?key{number:02}")) != (200, b"kept"):
            assert answer[0] == 409  # others were faster, each time
            again += 1
        return again

    await DeferredList(
        [ensureDeferred(put(number)) for number in range(REQUESTS)], fireOnOneErrback=True, consumeErrors=True
    )
    expected = " ".join(["count", *(f"key{number:02}" for number in range(REQUESTS))])
    assert await place.get("keys") == (200, expected.encode())
    assert place.browser.refused == []


@pytest_twisted.ensureDeferred
async def test_parallel_requests_that_change_one_key_are_kept_or_refused(place: Place) -> None:
    await place.get("count")
    asked = [ensureDeferred(place.get("count")) for _ in range(REQUESTS)]
    answers = [answer for _, answer in await DeferredList(asked, fireOnOneErrback=True, consumeErrors=True)]
    kept = sorted(int(body) for code, body in answers if code == 200)
    assert {code for code, _ in answers} <= {200, 409}
    assert kept == list(range(2, 2 + len(kept)))
    assert await place.get("count") == (200, b"%d" % (len(kept) + 2))


@pytest_twisted.ensureDeferred
async def test_a_stream_leaves_piece_by_piece_after_the_session_is_stored(place: Place, store: MemoryStore) -> None:
    response = await place.begin("stream")
    assert (response.code, len(store.database.rows)) == (200, 1)
    came: list[bytes] = []
    collected = response.collect(came.append)
    await eventually_async(lambda: came)
    assert (b"".join(came), place.shop.closed.is_set()) == (b"first ", False)
    place.shop.goes_on.set()
    await collected
    assert b"".join(came) == b"first " + b"second " * 1000 + b"third"


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_in_the_middle_closes_the_application(place: Place, store: MemoryStore) -> None:
    with socket.create_connection(("127.0.0.1", place.port.getHost().port)) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        client.setblocking(False)
        await eventually_async(lambda: select.select([client], [], [], 0)[0])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends by a reset
    await eventually_async(lambda: not place.connections())
    place.shop.goes_on.set()
    await eventually_async(place.shop.closed.is_set)
    assert len(store.database.rows) == 1
    assert await place.get("static") == (200, b"static")


@pytest_twisted.ensureDeferred
async def test_the_database_away_is_answered_by_503_and_everything_else_goes_on(
    place: Place, store: MemoryStore
) -> None:
    assert await place.get("count") == (200, b"1")
    store.away = True
    assert (await place.get("count"))[0] == 503
    assert await place.get("static") == (200, b"static")
    store.away = False
    assert await place.get("count") == (200, b"2")


@pytest_twisted.ensureDeferred
async def test_an_application_that_fails_leaves_the_session_as_it_was(place: Place, logged_errors: Any) -> None:
    await place.get("count")
    assert (await place.get("fail"))[0] == 500
    assert await place.get("keys") == (200, b"count")
    assert len(logged_errors.take(ZeroDivisionError)) == 1


@pytest_twisted.ensureDeferred
async def test_as_many_threads_as_there_are_can_wait_for_the_database(place: Place, store: MemoryStore) -> None:
    await place.get("count")
    waiting: Counter[int] = Counter()
    go = threading.Event()

    def wait(_name: str) -> None:
        waiting[threading.get_ident()] += 1
        assert go.wait(LIMIT_S)

    store.before = wait
    asked = [ensureDeferred(place.get(f"put?key{number}")) for number in range(THREADS)]
    await eventually_async(lambda: waiting)
    go.set()
    answers = await DeferredList(asked, fireOnOneErrback=True, consumeErrors=True)
    assert {code for _, (code, _) in answers} <= {200, 409}
    assert threading.get_ident() not in waiting
