"""The ASGI middleware: stored before the response starts, and the event loop never waits for the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest

from farmsyncd.core.session.faults import SessionClosed, SessionConflict, StoreUnavailable
from farmsyncd.sessions import Session, Sessions, SessionSettings
from farmsyncd.sessions.asgi import SessionMiddleware
from tests.browser import Browser
from tests.session_farm import QUIET
from tests.sessions_memory import MemoryStore

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
LIMIT_S = 30


@attrs.define
class Answer:
    """What came out of the application."""

    messages: list[Message] = attrs.Factory(list)

    @property
    def status(self) -> int:
        (start,) = [one for one in self.messages if one["type"].endswith("response.start")]
        return int(start["status"])

    @property
    def body(self) -> bytes:
        return b"".join(one["body"] for one in self.messages if one["type"].endswith("response.body"))

    def all(self, name: str) -> list[str]:
        headers = [pair for one in self.messages for pair in one.get("headers", ())]
        assert all(header == header.lower() for header, _ in headers)
        return [value.decode() for header, value in headers if header.decode() == name]


async def ask(
    app: App,
    browser: Browser | None = None,
    *,
    kind: str = "http",
    method: str = "GET",
    secure: bool = False,
    watch: Callable[[Message], object] = bool,
    extensions: dict[str, Any] | None = None,
) -> Answer:
    """One request, or the opening of one WebSocket."""
    header = None if browser is None else browser.header(secure=secure)
    scheme = {"http": "http", "websocket": "ws"}[kind] + ("s" if secure else "")
    cookies = [] if header is None else [(b"cookie", one.encode()) for one in header.split("; ")]  # as HTTP/2 may
    scope: Message = {"type": kind, "asgi": {"version": "3.0", "spec_version": "2.4"}, "scheme": scheme, "path": "/"}
    scope |= {"headers": [(b"host", b"shop.example"), *cookies], "extensions": extensions or {}}
    if kind == "http":
        scope["method"] = method
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        watch(message)
        answer.messages.append(message)

    async with asyncio.timeout(LIMIT_S):
        await app(scope, receive, send)
    if browser is not None:
        browser.receive(answer.all("set-cookie"), secure=secure)
    return answer


def once(app: App, browser: Browser | None = None, **how: Any) -> Answer:
    return asyncio.run(ask(app, browser, **how))


async def respond(send: Send, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


async def counting(scope: Any, _receive: Any, send: Send) -> None:
    session = scope["session"]
    session["count"] = session.get("count", 0) + 1
    await respond(send, b"%d" % session["count"])


async def reading(scope: Any, _receive: Any, send: Send) -> None:
    await respond(send, repr(dict(sorted(scope["farmsync.session"].items()))).encode())


async def static(_scope: Any, _receive: Any, send: Send) -> None:
    await respond(send, b"static")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def sessions(store: MemoryStore) -> Sessions:
    return Sessions(store, QUIET)


def test_cookies_that_come_in_several_headers_are_all_read(sessions: Sessions) -> None:
    browser = Browser()
    browser.receive(["theme=dark; Path=/; HttpOnly; SameSite=Lax"])
    app = SessionMiddleware(counting, sessions)
    assert [once(app, browser).body for _ in range(2)] == [b"1", b"2"]


def test_a_session_is_closed_before_a_thread_begins_to_store_it(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    to_thread = asyncio.to_thread

    async def app(scope: Any, receive: Any, send: Send) -> None:
        async def watched(function: Any, *args: Any) -> Any:
            closed.append(scope["session"].closed)
            return await to_thread(function, *args)

        monkeypatch.setattr(asyncio, "to_thread", watched)
        await counting(scope, receive, send)

    assert once(SessionMiddleware(app, sessions)).body == b"1"
    assert closed == [True], "another task may run before the thread does"


def test_a_browser_finds_its_session_again(sessions: Sessions) -> None:
    app, browser = SessionMiddleware(counting, sessions), Browser()
    assert [once(app, browser).body for _ in range(3)] == [b"1", b"2", b"3"]
    assert once(app, Browser()).body == b"1"
    assert browser.refused == []


def test_both_names_in_the_scope_are_one_session(sessions: Sessions) -> None:
    async def app(scope: Any, _receive: Any, send: Send) -> None:
        assert scope["session"] is scope["farmsync.session"]
        assert isinstance(scope["session"], Session)
        await respond(send, b"one")

    assert once(SessionMiddleware(app, sessions)).body == b"one"


@pytest.mark.parametrize("secure", [False, True])
def test_the_cookie_is_for_the_server_alone(sessions: Sessions, secure: bool) -> None:
    browser = Browser()
    answer = once(SessionMiddleware(counting, sessions), browser, secure=secure)
    (cookie,) = browser.cookies
    assert (cookie.name, cookie.secure) == (("__Host-farmsync", True) if secure else ("farmsync", False))
    assert (cookie.http_only, cookie.same_site) == (True, "Lax")
    assert (answer.all("vary"), answer.all("cache-control")) == (["Cookie"], ['no-cache="Set-Cookie"'])


def test_a_page_without_a_session_says_nothing_of_one(sessions: Sessions) -> None:
    browser = Browser()
    once(SessionMiddleware(counting, sessions), browser)
    answer = once(SessionMiddleware(static, sessions), browser)
    assert [answer.all(name) for name in ("set-cookie", "vary", "cache-control")] == [[], [], []]


def test_the_session_is_stored_before_the_response_starts(store: MemoryStore, sessions: Sessions) -> None:
    rows: list[int] = []
    once(SessionMiddleware(counting, sessions), watch=lambda _message: rows.append(len(store.database.rows)))
    assert rows == [1, 1]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_when_the_session_cannot_be_stored_nothing_of_the_application_is_sent(
    method: str, store: MemoryStore, sessions: Sessions
) -> None:
    store.away = True
    answer = once(SessionMiddleware(counting, sessions), method=method)
    assert (answer.status, answer.all("retry-after"), answer.all("set-cookie")) == (503, ["1"], [])
    assert len(answer.messages) == 2
    assert (answer.body == b"") == (method == "HEAD")


def test_an_application_whose_response_was_replaced_is_told_to_stop(store: MemoryStore, sessions: Sessions) -> None:
    told: list[BaseException] = []

    async def endless(scope: Any, _receive: Any, send: Send) -> None:
        scope["session"]["a"] = 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except OSError as error:
            told.append(error)
        while True:
            await send({"type": "http.response.body", "body": b"more", "more_body": True})

    store.away = True
    answer = once(SessionMiddleware(endless, sessions))
    assert (answer.status, len(answer.messages), len(told)) == (503, 2, 1)


def test_a_conflict_is_answered_by_409(sessions: Sessions) -> None:
    browser = Browser()
    once(SessionMiddleware(counting, sessions), browser)

    async def app(scope: Any, receive: Any, send: Send) -> None:
        scope["session"]["count"] += 1
        await ask(SessionMiddleware(counting, sessions), browser.twin())
        await respond(send, b"never")

    assert once(SessionMiddleware(app, sessions), browser).status == 409
    assert once(SessionMiddleware(reading, sessions), browser).body == b"{'count': 2}"


def test_a_conflict_that_the_application_lets_out_is_answered_like_one_at_the_end(sessions: Sessions) -> None:
    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        raise SessionConflict("cart")

    assert once(SessionMiddleware(app, sessions)).status == 409


def test_many_requests_of_one_session_at_once_lose_nothing(sessions: Sessions) -> None:
    browser, number = Browser(), 12
    once(SessionMiddleware(counting, sessions), browser)

    async def app(scope: Any, _receive: Any, send: Send) -> None:
        scope["session"][scope["key"]] = True
        await asyncio.sleep(0)
        await respond(send, b"kept")

    async def keyed(key: str) -> Answer:
        async def with_key(scope: Any, receive: Any, send: Any) -> None:
            scope["key"] = key
            await SessionMiddleware(app, sessions)(scope, receive, send)

        while (answer := await ask(with_key, browser)).status == 409:  # others were faster five times
            pass
        return answer

    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*(keyed(f"key{one:02}") for one in range(number)))

    assert {answer.status for answer in asyncio.run(all_at_once())} == {200}
    shown = once(SessionMiddleware(reading, Sessions(sessions.store, QUIET)), browser).body.decode()
    assert [f"key{one:02}" in shown for one in range(number)] == [True] * number
    assert browser.refused == []


def test_an_exception_leaves_the_session_as_it_was(sessions: Sessions) -> None:
    browser = Browser()
    once(SessionMiddleware(counting, sessions), browser)

    async def app(scope: Any, _receive: Any, _send: Send) -> None:
        scope["session"]["count"] = 99
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        once(SessionMiddleware(app, sessions), browser)
    assert once(SessionMiddleware(reading, sessions), browser).body == b"{'count': 1}"


def test_an_answer_of_status_500_leaves_the_session_as_it_was(sessions: Sessions) -> None:
    browser = Browser()
    once(SessionMiddleware(counting, sessions), browser)

    async def app(scope: Any, _receive: Any, send: Send) -> None:
        scope["session"]["count"] = 99
        await respond(send, b"sorry", 500)

    answer = once(SessionMiddleware(app, sessions), browser)
    assert (answer.status, answer.body, answer.all("set-cookie")) == (500, b"sorry", [])
    assert once(SessionMiddleware(reading, sessions), browser).body == b"{'count': 1}"


def test_a_body_is_passed_on_piece_by_piece_and_the_session_is_closed_by_then(sessions: Sessions) -> None:
    seen: list[bytes] = []
    raised: list[BaseException] = []

    async def app(scope: Any, _receive: Any, send: Send) -> None:
        scope["session"]["a"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            assert seen[-1] == b"%d" % number
        try:
            scope["session"]["a"] = 2
        except SessionClosed as error:
            raised.append(error)
        await send({"type": "http.response.body", "body": b"%d" % scope["session"]["a"]})

    answer = once(SessionMiddleware(app, sessions), watch=lambda message: seen.append(message.get("body", b"")))
    assert (answer.body, len(raised)) == (b"0121", 1)


def test_a_client_that_goes_away_is_the_applications_to_know(store: MemoryStore, sessions: Sessions) -> None:
    def gone(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        once(SessionMiddleware(counting, sessions), watch=gone)
    assert len(store.database.rows) == 1


def test_a_request_that_is_cancelled_before_its_response_stores_nothing(store: MemoryStore, sessions: Sessions) -> None:
    async def app(scope: Any, _receive: Any, _send: Send) -> None:
        scope["session"]["a"] = 1
        await asyncio.Event().wait()

    async def cancelled() -> None:
        task = asyncio.ensure_future(ask(SessionMiddleware(app, sessions)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert not store.database.rows


class Slow:
    """Holds up each call of a store until it is let go; tells whether the loop's own thread ever came."""

    def __init__(self, store: MemoryStore) -> None:
        self.go = threading.Event()
        self.came = threading.Event()
        self.threads: set[int] = set()
        store.before = self.wait

    def wait(self, _name: str) -> None:
        self.threads.add(threading.get_ident())
        self.came.set()
        assert self.go.wait(LIMIT_S)


@pytest.mark.parametrize("app", [counting, reading])
def test_the_loop_goes_on_while_the_database_does_not_answer(app: App, store: MemoryStore, sessions: Sessions) -> None:
    browser = Browser()
    once(SessionMiddleware(counting, sessions), browser)
    slow, elsewhere = Slow(store), Sessions(store, QUIET)

    async def both() -> tuple[Answer, set[int]]:
        waiting = asyncio.ensure_future(ask(SessionMiddleware(app, elsewhere), browser))
        assert await asyncio.to_thread(slow.came.wait, LIMIT_S)
        others = [await ask(SessionMiddleware(static, elsewhere)) for _ in range(3)]
        assert [one.body for one in others] == [b"static"] * 3
        assert not waiting.done()
        slow.go.set()
        return await waiting, {threading.get_ident()}

    answer, loop = asyncio.run(both())
    assert answer.status == 200
    assert slow.threads
    assert not slow.threads & loop


def test_a_task_that_goes_on_while_the_session_is_stored_cannot_change_it(
    store: MemoryStore, sessions: Sessions
) -> None:
    slow, raised = Slow(store), list[BaseException]()

    async def app(scope: Any, _receive: Any, send: Send) -> None:
        async def meanwhile() -> None:
            assert await asyncio.to_thread(slow.came.wait, LIMIT_S)
            try:
                scope["session"]["late"] = 1
            except SessionClosed as error:
                raised.append(error)
            slow.go.set()

        scope["session"]["a"] = 1
        task = asyncio.ensure_future(meanwhile())
        await respond(send, b"done")
        await task

    browser = Browser()
    assert once(SessionMiddleware(app, sessions), browser).body == b"done"
    assert len(raised) == 1
    assert once(SessionMiddleware(reading, sessions), browser).body == b"{'a': 1}"


def test_a_session_that_is_known_is_answered_without_leaving_the_loop(
    store: MemoryStore, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser()
    once(SessionMiddleware(counting, sessions), browser)
    in_threads: list[Any] = []
    monkeypatch.setattr(asyncio, "to_thread", lambda function, *_: in_threads.append(function))
    before = store.calls.copy()
    assert once(SessionMiddleware(reading, sessions), browser).body == b"{'count': 1}"
    assert once(SessionMiddleware(reading, sessions), Browser()).body == b"{}"
    assert (store.calls, in_threads) == (before, [])


def test_a_database_that_is_away_stops_only_pages_that_need_it(store: MemoryStore, sessions: Sessions) -> None:
    browser = Browser()
    once(SessionMiddleware(counting, sessions), browser)
    elsewhere, store.away = Sessions(store, QUIET), True
    assert once(SessionMiddleware(static, elsewhere), browser).status == 200
    before = store.calls["read"]
    answer = once(SessionMiddleware(counting, elsewhere), browser)
    assert (answer.status, store.calls["read"] - before) == (503, 1)  # the loop did not ask a second time

    async def careful(scope: Any, _receive: Any, send: Send) -> None:
        try:
            body = repr(dict(scope["session"])).encode()
        except StoreUnavailable:
            body = b"no cart at this moment"
        await respond(send, body)

    assert once(SessionMiddleware(careful, elsewhere), browser).body == b"no cart at this moment"


def test_what_cannot_be_stored_is_answered_by_500(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, _receive: Any, send: Send) -> None:
        scope["session"]["huge"] = "x" * 5_000
        await respond(send, b"all is well")

    small = Sessions(store, SessionSettings(limit_bytes=4_096, sweep_every_s=0))
    answer = once(SessionMiddleware(app, small))
    assert answer.status == 500
    assert b"all is well" not in answer.body
    assert "huge" in caplog.text


def test_other_scopes_pass_untouched(sessions: Sessions) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    given: Any = ({"type": "lifespan"}, object(), object())
    asyncio.run(SessionMiddleware(app, sessions)(*given))
    assert seen == [given]
    assert given[0] == {"type": "lifespan"}


async def accepting(scope: Any, _receive: Any, send: Send) -> None:
    scope["session"]["socket"] = True
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": repr(dict(sorted(scope["session"].items())))})
    await send({"type": "websocket.close"})


def test_a_websocket_reads_the_session_and_stores_it_when_it_is_accepted(
    store: MemoryStore, sessions: Sessions
) -> None:
    browser = Browser()
    once(SessionMiddleware(counting, sessions), browser, secure=True)
    answer = once(SessionMiddleware(accepting, sessions), browser, kind="websocket", secure=True)
    assert [one["type"] for one in answer.messages] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert answer.messages[1]["text"] == "{'count': 1, 'socket': True}"
    assert len(answer.all("set-cookie")) == 1
    assert once(SessionMiddleware(reading, sessions), browser, secure=True).body == b"{'count': 1, 'socket': True}"


@pytest.mark.parametrize("denial", [False, True])
def test_a_websocket_whose_session_cannot_be_stored_is_refused(
    denial: bool, store: MemoryStore, sessions: Sessions
) -> None:
    store.away = True
    extensions: dict[str, Any] = {"websocket.http.response": {}} if denial else {}
    answer = once(SessionMiddleware(accepting, sessions), kind="websocket", extensions=extensions)
    if denial:
        assert [one["type"] for one in answer.messages] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert answer.status == 503
    else:
        assert [one["type"] for one in answer.messages] == ["websocket.close"]


def test_a_websocket_that_the_application_refuses_stores_nothing(store: MemoryStore, sessions: Sessions) -> None:
    async def app(scope: Any, _receive: Any, send: Send) -> None:
        scope["session"]["a"] = 1
        await send({"type": "websocket.close"})

    assert [one["type"] for one in once(SessionMiddleware(app, sessions), kind="websocket").messages] == [
        "websocket.close"
    ]
    assert not store.database.rows
