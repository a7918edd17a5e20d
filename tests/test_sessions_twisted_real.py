"""Sessions of twisted.web over real connections: a database that does not answer holds up nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.internet import reactor as _reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from twisted.web.static import File

from farmsyncd.sessions import Sessions
from farmsyncd.sessions.twisted import SessionSite, farmsync_session
from tests.eventually import eventually_async
from tests.session_farm import QUIET
from tests.sessions_memory import MemoryStore

reactor: Any = _reactor
LIMIT_S = 30


class Counting(Resource):
    isLeaf = True  # noqa: N815

    def render_GET(self, request: Request) -> int:  # noqa: N802
        ensureDeferred(self.count(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def count(self, request: Request) -> None:
        session = await farmsync_session(request)
        session["count"] = session.get("count", 0) + 1
        request.write(b"%d" % session["count"])
        request.finish()


class Static(Resource):
    isLeaf = True  # noqa: N815

    def render_GET(self, _request: Request) -> bytes:  # noqa: N802
        return b"static"


class Remembering(File):
    """A file, sent by a pull producer, whose reading is remembered in the session."""

    def render_GET(self, request: Request) -> int:  # noqa: N802
        ensureDeferred(self.remember(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def remember(self, request: Request) -> None:
        session = await farmsync_session(request)
        session["read"] = session.get("read", 0) + 1
        super().render_GET(request)


class Slow:
    """Holds up each call of a store, until it is let go."""

    def __init__(self, store: MemoryStore) -> None:
        self.go = threading.Event()
        self.came: list[int] = []
        store.before = self.wait

    def wait(self, _name: str) -> None:
        self.came.append(threading.get_ident())
        assert self.go.wait(LIMIT_S)


class Place:
    """A site that listens, and clients of it."""

    def __init__(self, sessions: Sessions, root: Resource) -> None:
        self.port = reactor.listenTCP(0, SessionSite(root, sessions), interface="127.0.0.1")
        self.pools: list[HTTPConnectionPool] = []

    def client(self) -> HTTPClient:
        pool = HTTPConnectionPool(reactor)
        self.pools.append(pool)
        return HTTPClient(Agent(reactor, pool=pool))

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port.getHost().port}/{path}"

    async def get(self, client: HTTPClient, path: str, cookie: str | None = None) -> tuple[int, bytes, list[str]]:
        headers = Headers({} if cookie is None else {"cookie": [cookie]})
        answer = await client.get(self.url(path), headers=headers, timeout=LIMIT_S)
        body = await answer.content()
        return answer.code, body, answer.headers.getRawHeaders("set-cookie", [])

    async def close(self) -> None:
        await self.port.stopListening()
        for pool in self.pools:
            await pool.closeCachedConnections()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def place(store: MemoryStore, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "file").write_bytes(b"0123456789" * 100_000)
    root = Resource()
    root.putChild(b"count", Counting())
    root.putChild(b"static", Static())
    root.putChild(b"file", Remembering(str(tmp_path / "file")))
    one = Place(Sessions(store, QUIET), root)
    yield one
    pytest_twisted.blockon(ensureDeferred(one.close()))


@pytest_twisted.ensureDeferred
async def test_the_reactor_goes_on_while_the_database_does_not_answer(place: Place, store: MemoryStore) -> None:
    slow, first, second = Slow(store), place.client(), place.client()
    waiting = ensureDeferred(place.get(first, "count"))
    await eventually_async(lambda: slow.came)
    for _ in range(3):
        assert (await place.get(second, "static"))[1] == b"static"
    assert not waiting.called
    slow.go.set()
    assert (await waiting)[:2] == (200, b"1")
    assert threading.get_ident() not in slow.came


@pytest_twisted.ensureDeferred
async def test_a_session_goes_on_over_connections(place: Place) -> None:
    _, _, cookies = await place.get(place.client(), "count")
    for expected in (b"2", b"3"):
        cookie = cookies[0].partition(";")[0]
        _, body, cookies = await place.get(place.client(), "count", cookie)
        assert body == expected


@pytest_twisted.ensureDeferred
async def test_a_large_file_comes_whole_after_the_session_is_stored(place: Place, store: MemoryStore) -> None:
    client = place.client()
    code, body, cookies = await place.get(client, "file")
    assert (code, len(body), len(cookies), len(store.database.rows)) == (200, 1_000_000, 1, 1)
    store.away = True
    code, body, cookies = await place.get(client, "file")
    assert (code, len(body) < 1_000, cookies) == (503, True, [])
    store.away = False
    assert (await place.get(client, "count"))[:2] == (200, b"1")


@pytest_twisted.ensureDeferred
async def test_requests_of_one_session_at_once_are_each_kept_or_refused(place: Place) -> None:
    _, _, cookies = await place.get(place.client(), "count")
    cookie = cookies[0].partition(";")[0]
    asked = [ensureDeferred(place.get(place.client(), "count", cookie)) for _ in range(8)]
    answers = [answer for _, answer in await DeferredList(asked, fireOnOneErrback=True, consumeErrors=True)]
    kept = [int(body) for code, body, _ in answers if code == 200]
    assert {code for code, _, _ in answers} <= {200, 409}
    assert sorted(kept) == list(range(2, 2 + len(kept)))
    assert int((await place.get(place.client(), "count", cookie))[1]) == len(kept) + 2
