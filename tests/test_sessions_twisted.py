"""Sessions of twisted.web: stored before the first byte leaves, and the reactor never waits for the database."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from twisted.web.test.requesthelper import DummyRequest
from zope.interface import implementer

from farmsyncd.core.session.faults import SessionClosed, StoreUnavailable
from farmsyncd.sessions import Session, Sessions
from farmsyncd.sessions.twisted import SessionRequest, SessionSite, farmsync_session
from tests.browser import Browser
from tests.session_farm import QUIET
from tests.sessions_memory import MemoryStore

Render = Callable[[Request], Any]


class Page(Resource):
    """A resource made of one function."""

    isLeaf = True  # noqa: N815

    def __init__(self, render: Render) -> None:
        super().__init__()
        self._render = render

    def render(self, request: Request) -> Any:
        return self._render(request)


def page(function: Callable[[Request], Coroutine[Any, Any, None]]) -> Page:
    """A resource made of one coroutine function."""

    def render(request: Request) -> int:
        ensureDeferred(function(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    return Page(render)


@page
async def counting(request: Request) -> None:
    session = await farmsync_session(request)
    session["count"] = session.get("count", 0) + 1
    request.write(b"%d" % session["count"])
    request.finish()


@page
async def reading(request: Request) -> None:
    session = await farmsync_session(request)
    request.write(repr(dict(sorted(session.items()))).encode())
    request.finish()


@Page
def static(_request: Request) -> bytes:
    return b"static"


@attrs.frozen
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name.lower()]


class Threads:
    """Calls that wait until the test lets them go, as if a thread were at them."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.held = False

    def __call__(self, function: Callable[[], Any]) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()

        def run() -> None:
            try:
                value = function()
            except BaseException:
                result.errback(Failure())
            else:
                result.callback(value)

        self.waiting.append(run)
        if not self.held:
            self.go()
        return result

    def go(self) -> None:
        waiting, self.waiting = self.waiting, []
        for run in waiting:
            run()


class Connection:
    """A client's connection to a site, in memory."""

    def __init__(self, site: Site) -> None:
        self.protocol = site.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def send(self, method: str = "GET", cookie: str | None = None) -> None:
        lines = [f"{method} / HTTP/1.1", "Host: shop.example", *([f"Cookie: {cookie}"] if cookie else []), "", ""]
        self.protocol.dataReceived("\r\n".join(lines).encode("latin-1"))

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def out(self) -> bytes:
        return bytes(self.transport.value())

    def answer(self) -> Answer:
        head, _, body = self.out.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        if ("Transfer-Encoding", "chunked") in pairs:
            body = b"".join(chunks(body))
        return Answer(int(first.split()[1]), pairs, body)


def chunks(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        yield body[:length]
        body = body[length + 2 :]


@attrs.define(eq=False)
class Farm:
    """One node's site over a database in memory."""

    store: MemoryStore = attrs.Factory(MemoryStore)
    threads: Threads = attrs.Factory(Threads)
    sessions: Sessions = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sessions = Sessions(self.store, QUIET)

    def elsewhere(self) -> Farm:
        return Farm(self.store)

    def connect(self, resource: Resource, **more: Any) -> Connection:
        clock = MemoryReactorClock()
        return Connection(SessionSite(resource, self.sessions, in_thread=self.threads, reactor=clock, **more))

    def ask(self, resource: Resource, browser: Browser | None = None, method: str = "GET") -> Answer:
        connection = self.connect(resource)
        connection.send(method, None if browser is None else browser.header())
        answer = connection.answer()
        if browser is not None:
            browser.receive(answer.all("set-cookie"))
        return answer


@pytest.fixture
def farm() -> Farm:
    return Farm()


def test_a_browser_finds_its_session_again(farm: Farm) -> None:
    browser = Browser()
    assert [farm.ask(counting, browser).body for _ in range(3)] == [b"1", b"2", b"3"]
    assert farm.ask(counting, Browser()).body == b"1"
    assert browser.refused == []
    (cookie,) = browser.cookies
    assert (cookie.name, cookie.http_only, cookie.same_site, cookie.secure) == ("farmsync", True, "Lax", False)


def test_a_request_over_tls_has_a_secure_cookie(farm: Farm) -> None:
    @page
    async def behind_a_proxy(request: Request) -> None:
        request.setHost(b"shop.example", 443, ssl=True)
        await counting_of(request)

    answer = farm.ask(behind_a_proxy)
    assert answer.all("set-cookie")[0].startswith("__Host-farmsync=")
    assert "; Secure; HttpOnly" in answer.all("set-cookie")[0]


async def counting_of(request: Request) -> None:
    session = await farmsync_session(request)
    session["count"] = session.get("count", 0) + 1
    request.write(b"%d" % session["count"])
    request.finish()


def test_the_response_says_that_it_depends_on_the_cookie(farm: Farm) -> None:
    answer = farm.ask(counting)
    assert (answer.all("vary"), answer.all("cache-control")) == (["Cookie"], ['no-cache="Set-Cookie"'])
    answer = farm.ask(static)
    assert [answer.all(name) for name in ("set-cookie", "vary", "cache-control")] == [[], [], []]


def test_the_response_begins_when_the_session_is_stored(farm: Farm) -> None:
    connection = farm.connect(counting)
    farm.threads.held = True
    connection.send()
    assert (connection.out, len(farm.store.database.rows)) == (b"", 0)
    farm.threads.go()
    assert len(farm.store.database.rows) == 1
    assert (connection.answer().status, connection.answer().body) == (200, b"1")


def test_a_session_that_is_known_needs_no_thread(farm: Farm) -> None:
    browser = Browser()
    farm.ask(counting, browser)
    farm.threads.held = True
    assert farm.ask(reading, browser).body == b"{'count': 1}"
    assert farm.ask(reading, Browser()).body == b"{}"


def test_a_session_that_is_not_known_is_read_in_a_thread_once(farm: Farm) -> None:
    browser = Browser()
    farm.ask(counting, browser)
    seen: list[Session] = []

    @page
    async def twice(request: Request) -> None:
        first, second = farmsync_session(request), farmsync_session(request)
        seen.extend([await first, await second, await farmsync_session(request)])
        request.finish()

    elsewhere = farm.elsewhere()
    elsewhere.threads.held = True
    connection = elsewhere.connect(twice)
    connection.send(cookie=browser.header())
    assert (seen, connection.out, len(elsewhere.threads.waiting)) == ([], b"", 1)
    elsewhere.threads.go()
    assert len(seen) == 3
    assert len({id(one) for one in seen}) == 1
    assert connection.answer().status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_when_the_session_cannot_be_stored_nothing_of_the_application_is_sent(farm: Farm, method: str) -> None:
    @page
    async def chatty(request: Request) -> None:
        (await farmsync_session(request))["a"] = 1
        request.setHeader(b"X-Own", b"1")
        request.setLastModified(1)
        request.setETag(b"1")
        request.addCookie(b"own", b"1")
        request.write(b"first")
        request.write(b"second")
        request.finish()

    farm.store.away = True
    answer = farm.ask(chatty, method=method)
    assert (answer.status, answer.all("retry-after")) == (503, ["1"])
    assert [answer.all(name) for name in ("set-cookie", "x-own", "last-modified", "etag")] == [[], [], [], []]
    assert b"first" not in answer.body
    assert b"second" not in answer.body
    assert (answer.body == b"") == (method == "HEAD")
    assert int(answer.all("content-length")[0]) > 0


def test_a_connection_goes_on_after_a_response_that_was_replaced(farm: Farm) -> None:
    farm.store.away = True
    connection = farm.connect(counting)
    connection.send()
    assert connection.answer().status == 503
    connection.transport.clear()
    farm.store.away = False
    connection.send()
    assert (connection.answer().status, connection.answer().body) == (200, b"1")


def test_a_conflict_is_answered_by_409(farm: Farm) -> None:
    browser = Browser()
    farm.ask(counting, browser)

    @page
    async def overtaken(request: Request) -> None:
        (await farmsync_session(request))["count"] += 1
        farm.ask(counting, browser.twin())
        request.finish()

    assert farm.ask(overtaken, browser).status == 409
    assert farm.ask(reading, browser).body == b"{'count': 2}"


def test_parallel_requests_are_merged(farm: Farm) -> None:
    browser = Browser()
    farm.ask(counting, browser)
    elsewhere = farm.elsewhere()

    @page
    async def other(request: Request) -> None:
        (await farmsync_session(request))["other"] = 1
        late.append(elsewhere.ask(counting, browser.twin()))
        request.finish()

    late: list[Answer] = []
    assert farm.ask(other, browser).status == 200
    browser.receive(late[0].all("set-cookie"))
    for node in (farm, elsewhere):
        assert node.ask(reading, browser).body == b"{'count': 2, 'other': 1}"
    assert browser.refused == []


def test_an_application_that_failed_leaves_the_session_as_it_was(farm: Farm, logged_errors: Any) -> None:
    browser = Browser()
    farm.ask(counting, browser)

    @page
    async def failing(request: Request) -> None:
        (await farmsync_session(request))["count"] = 99
        raise ZeroDivisionError

    assert farm.ask(failing, browser).status == 500
    assert farm.ask(reading, browser).body == b"{'count': 1}"
    gc.collect()
    assert len(logged_errors.take(ZeroDivisionError)) == 1


def test_what_cannot_be_stored_is_answered_by_500_at_once(farm: Farm) -> None:
    @page
    async def odd(request: Request) -> None:
        session = await farmsync_session(request)
        session["list"] = []
        session["list"].append(object())
        request.write(b"all is well")
        request.finish()

    answer = farm.ask(odd)
    assert answer.status == 500
    assert b"all is well" not in answer.body


def test_a_database_that_is_away_stops_only_pages_that_need_it(farm: Farm) -> None:
    browser = Browser()
    farm.ask(counting, browser)
    elsewhere, farm.store.away = farm.elsewhere(), True

    @page
    async def careful(request: Request) -> None:
        try:
            await farmsync_session(request)
        except StoreUnavailable:
            request.write(b"no cart at this moment")
        request.finish()

    assert elsewhere.ask(static, browser).status == 200
    assert elsewhere.ask(careful, browser).body == b"no cart at this moment"
    assert elsewhere.ask(reading, browser).status == 503


def test_the_head_is_what_it_was_at_the_first_write(farm: Farm) -> None:
    @page
    async def hasty(request: Request) -> None:
        session = await farmsync_session(request)
        session["a"] = 1
        request.write(b"first ")
        request.setResponseCode(500)
        request.setHeader(b"X-Late", b"1")
        with pytest.raises(SessionClosed):
            session["a"] = 2
        request.write(b"second %d" % session["a"])
        request.finish()
        with pytest.raises(RuntimeError, match="write called on a request after"):
            request.write(b"third")

    connection = farm.connect(hasty)
    farm.threads.held = True
    connection.send()
    farm.threads.go()
    answer = connection.answer()
    assert (answer.status, answer.body, answer.all("x-late")) == (200, b"first second 1", [])


def test_cookies_of_the_application_stay(farm: Farm) -> None:
    @page
    async def by_add_cookie(request: Request) -> None:
        (await farmsync_session(request))["a"] = 1
        request.addCookie(b"own", b"1")
        request.finish()

    @page
    async def by_header(request: Request) -> None:
        (await farmsync_session(request))["a"] = 1
        request.responseHeaders.addRawHeader(b"Set-Cookie", b"own=1")
        request.finish()

    for resource in (by_add_cookie, by_header):
        names = [one.partition("=")[0] for one in farm.ask(resource).all("set-cookie")]
        assert names == ["own", "farmsync"]


def test_twisteds_own_sessions_work_beside(farm: Farm) -> None:
    @Page
    def own(request: Request) -> bytes:
        session = request.getSession()
        session.seen = getattr(session, "seen", 0) + 1
        return b"%d" % session.seen

    connection = farm.connect(own)
    browser = Browser()
    for expected in (b"1", b"2"):
        connection.transport.clear()
        connection.send(cookie=browser.header())
        browser.receive(connection.answer().all("set-cookie"))
        assert connection.answer().body == expected
    assert [one.name for one in browser.cookies] == ["TWISTED_SESSION"]
    site = connection.protocol.factory
    for session in list(site.sessions.values()):
        session.expire()


def test_a_head_request_for_a_page_that_has_only_get_is_stored_too(farm: Farm) -> None:
    class OnlyGet(Resource):
        isLeaf = True  # noqa: N815

        def render_GET(self, request: Request) -> bytes:  # noqa: N802
            found: list[Session] = []
            farmsync_session(request).addCallback(found.append)
            found[0]["a"] = 1
            return b"body"

    answer = farm.ask(OnlyGet(), method="HEAD")
    assert (answer.status, answer.body, len(answer.all("set-cookie"))) == (200, b"", 1)
    assert len(farm.store.database.rows) == 1


@implementer(IPushProducer)
class Pushing:
    """Tells what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:  # noqa: N802
        self.told.append("pause")

    def resumeProducing(self) -> None:  # noqa: N802
        self.told.append("resume")

    def stopProducing(self) -> None:  # noqa: N802
        self.told.append("stop")


def streaming(farm: Farm, *, when: str) -> tuple[Connection, Request, Pushing]:
    """A response by a push producer, registered before the session was asked for, before or after the first write."""
    requests: list[Request] = []
    producer = Pushing()

    @page
    async def render(request: Request) -> None:
        requests.append(request)
        if when == "first":
            request.registerProducer(producer, True)
        (await farmsync_session(request))["a"] = 1
        if when == "second":
            request.registerProducer(producer, True)
        request.write(b"first ")
        if when == "third":
            request.registerProducer(producer, True)

    connection = farm.connect(render)
    farm.threads.held = True
    connection.send()
    return connection, requests[0], producer


@pytest.mark.parametrize("when", ["first", "second", "third"])
def test_a_push_producer_waits_until_the_session_is_stored(farm: Farm, when: str) -> None:
    connection, request, producer = streaming(farm, when=when)
    assert (producer.told, connection.out) == (["pause"], b"")
    farm.threads.go()
    assert producer.told == ["pause", "resume"]
    request.write(b"second")
    assert b"second" in connection.out  # not kept until the end
    request.unregisterProducer()
    request.finish()
    assert connection.answer().body == b"first second"
    connection.transport.clear()
    farm.threads.held = False
    connection.send()
    assert connection.out


@pytest.mark.parametrize("when", ["first", "second", "third"])
def test_a_push_producer_may_be_done_before_the_session_is_stored(farm: Farm, when: str) -> None:
    connection, request, producer = streaming(farm, when=when)
    request.unregisterProducer()
    request.finish()
    farm.threads.go()
    assert producer.told == ["pause"]
    assert connection.answer().body == b"first "


@pytest.mark.parametrize("when", ["first", "second", "third"])
def test_a_producer_is_stopped_when_the_response_is_replaced(farm: Farm, when: str) -> None:
    connection, request, producer = streaming(farm, when=when)
    ended = request.notifyFinish()
    why: list[Failure] = []
    ended.addErrback(why.append)
    farm.store.away = True
    farm.threads.go()
    assert producer.told == ["pause", "stop"]
    assert connection.answer().status == 503
    assert [one.type for one in why] == [StoreUnavailable]
    late = Pushing()
    request.registerProducer(late, True)
    request.write(b"late")
    request.unregisterProducer()
    request.finish()
    assert late.told == ["stop"]
    assert b"late" not in connection.out


@pytest.mark.parametrize("when", ["first", "second", "third"])
def test_a_client_that_goes_away_while_the_session_is_stored_stops_the_producer_once(farm: Farm, when: str) -> None:
    connection, _request, producer = streaming(farm, when=when)
    connection.lose()
    farm.threads.go()
    assert producer.told == ["pause", "stop"]
    assert connection.out == b""
    assert len(farm.store.database.rows) == 1


def test_a_client_that_goes_away_before_the_response_stores_nothing(farm: Farm) -> None:
    lost: list[Failure] = []

    @page
    async def slow(request: Request) -> None:
        (await farmsync_session(request))["a"] = 1
        try:
            await request.notifyFinish()
        except ConnectionDone:
            lost.append(Failure())

    connection = farm.connect(slow)
    connection.send()
    connection.lose()
    assert len(lost) == 1
    assert not farm.store.database.rows


def test_a_client_that_goes_away_while_the_session_is_opened_is_the_applications_to_know(farm: Farm) -> None:
    browser = Browser()
    farm.ask(counting, browser)
    elsewhere, ended = farm.elsewhere(), list[str]()

    @page
    async def slow(request: Request) -> None:
        request.notifyFinish().addErrback(lambda _failure: ended.append("gone"))
        await farmsync_session(request)
        ended.append("opened")

    connection = elsewhere.connect(slow)
    elsewhere.threads.held = True
    connection.send(cookie=browser.header())
    connection.lose()
    elsewhere.threads.go()
    assert ended == ["gone", "opened"]


def test_a_producer_is_stopped_when_the_application_gives_up_because_of_the_session(farm: Farm) -> None:
    producer = Pushing()

    @page
    async def giving_up(request: Request) -> None:
        request.registerProducer(producer, True)
        session = await farmsync_session(request)
        session["a"] = 1
        farm.store.away = True
        session.commit()

    assert farm.ask(giving_up).status == 503
    assert producer.told == ["stop"]


@pytest.mark.parametrize("away", [False, True])
def test_a_producer_that_goes_on_after_its_client_has_gone_is_no_error(farm: Farm, away: bool) -> None:
    requests: list[Request] = []
    producer = Pushing()

    @page
    async def slow(request: Request) -> None:
        request.registerProducer(producer, True)
        (await farmsync_session(request))["a"] = 1
        requests.append(request)

    connection = farm.connect(slow)
    connection.send()
    connection.lose()
    farm.store.away = away
    requests[0].write(b"first")
    assert connection.out == b""
    assert len(farm.store.database.rows) == (0 if away else 1)


def test_an_application_that_answers_a_client_that_has_gone_fills_no_log(farm: Farm) -> None:
    browser = Browser()
    farm.ask(counting, browser)
    elsewhere = farm.elsewhere()
    elsewhere.threads.held = True
    connection = elsewhere.connect(counting)
    connection.send(cookie=browser.header())
    connection.lose()
    elsewhere.threads.go()  # opens it; the response is to be stored
    elsewhere.threads.go()
    gc.collect()
    assert connection.out == b""


def test_a_session_that_is_first_asked_for_after_the_response_began_can_be_read(farm: Farm) -> None:
    browser = Browser()
    farm.ask(counting, browser)
    seen: list[int] = []

    @page
    async def late(request: Request) -> None:
        request.write(b"first")
        session = await farmsync_session(request)
        seen.append(session["count"])
        with pytest.raises(SessionClosed):
            session["count"] = 2
        request.finish()

    assert farm.ask(late, browser).body == b"first"
    assert farm.elsewhere().ask(late, browser).body == b"first"
    assert seen == [1, 1]


def test_a_session_that_is_asked_for_again_while_it_is_stored_is_stored(farm: Farm) -> None:
    @page
    async def again(request: Request) -> None:
        (await farmsync_session(request))["a"] = 1
        request.write(b"first ")
        request.write(b"%d" % (await farmsync_session(request))["a"])
        request.finish()

    connection = farm.connect(again)
    farm.threads.held = True
    connection.send()
    farm.threads.go()
    assert (connection.answer().status, connection.answer().body) == (200, b"first 1")
    assert len(farm.store.database.rows) == 1


def test_a_change_inside_a_value_after_the_first_byte_is_said_in_the_log(
    farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    @page
    async def late(request: Request) -> None:
        session = await farmsync_session(request)
        session["cart"] = ["tea"]
        request.write(b"first")
        session["cart"].append("milk")
        request.finish()

    assert farm.ask(late).body == b"first"
    assert "'cart'" in caplog.text


def test_a_request_of_another_site_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match="serve the resource by"):
        farmsync_session(DummyRequest([]))  # type: ignore[arg-type]


def test_a_site_can_have_a_request_of_its_own(farm: Farm) -> None:
    class OwnRequest(SessionRequest):
        pass

    seen: list[bool] = []

    @page
    async def own(request: Request) -> None:
        seen.append(isinstance(request, OwnRequest))
        await counting_of(request)

    connection = farm.connect(own, requestFactory=OwnRequest)
    connection.send()
    assert (seen, connection.answer().body) == ([True], b"1")
