"""Starlette's ``request.session``: what its own sessions promise, kept by ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from farmsyncd.sessions import CookieSettings, Sessions
from farmsyncd.sessions.asgi import SessionMiddleware
from tests.session_farm import QUIET
from tests.sessions_memory import MemoryStore


def view(request: Request) -> JSONResponse:
    """A sync endpoint: Starlette runs it in a thread."""
    return JSONResponse({"session": dict(request.session)})


async def update(request: Request) -> JSONResponse:
    request.session.update(await request.json())
    return JSONResponse({"session": dict(request.session)})


async def clear(request: Request) -> JSONResponse:
    request.session.clear()
    return JSONResponse({"session": dict(request.session)})


async def nothing(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("static")


async def fail(request: Request) -> PlainTextResponse:
    request.session["failed"] = True
    raise ZeroDivisionError


async def stream(request: Request) -> StreamingResponse:
    request.session["streamed"] = request.session.get("streamed", 0) + 1

    async def pieces() -> AsyncIterator[str]:
        for number in range(3):
            yield f"{number} "
            await asyncio.sleep(0)

    return StreamingResponse(pieces())


async def file(request: Request) -> FileResponse:
    request.session["read"] = True
    return FileResponse(Path(__file__))


async def mail(request: Request) -> JSONResponse:
    request.session["order"] = 1
    sent: list[int] = request.app.state.mails
    return JSONResponse({}, background=BackgroundTask(sent.append, 1))


async def socket(websocket: WebSocket) -> None:
    websocket.session["socket"] = True
    await websocket.accept()
    await websocket.send_json(dict(websocket.session))
    await websocket.close()


ROUTES = [
    Route("/view", view),
    Route("/update", update, methods=["POST"]),
    Route("/clear", clear, methods=["POST"]),
    Route("/static", nothing),
    Route("/fail", fail),
    Route("/stream", stream),
    Route("/file", file),
    Route("/mail", mail),
    WebSocketRoute("/socket", socket),
]


class PassingOn(BaseHTTPMiddleware):
    """Starlette's own base of middleware, which runs what it wraps in another task."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def sessions(store: MemoryStore) -> Sessions:
    return Sessions(store, QUIET)


def application(sessions: Sessions, cookies: CookieSettings | None = None, *outside: Middleware) -> Starlette:
    inside = Middleware(SessionMiddleware, sessions=sessions, cookies=cookies)
    app = Starlette(routes=ROUTES, middleware=[*outside, inside])
    app.state.mails = []
    return app


@pytest.fixture
def client(sessions: Sessions) -> Iterator[TestClient]:
    with TestClient(application(sessions), raise_server_exceptions=False) as one:
        yield one


def test_a_session_is_kept_changed_and_cleared(client: TestClient) -> None:
    assert client.get("/view").json() == {"session": {}}
    assert client.post("/update", json={"some": "data"}).json() == {"session": {"some": "data"}}
    assert client.get("/view").json() == {"session": {"some": "data"}}
    assert client.post("/clear").json() == {"session": {}}
    assert client.get("/view").json() == {"session": {}}


def test_a_cookie_is_set_when_the_session_changes_and_not_when_it_is_read(client: TestClient) -> None:
    assert "set-cookie" not in client.get("/view").headers
    assert "set-cookie" in client.post("/update", json={"some": "data"}).headers
    assert "set-cookie" not in client.get("/view").headers
    assert "set-cookie" not in client.get("/static").headers
    assert "set-cookie" in client.post("/update", json={"some": "other data"}).headers


def test_pages_vary_by_cookie_only_if_they_used_the_session(client: TestClient) -> None:
    assert client.get("/view").headers["vary"] == "Cookie"
    assert "vary" not in client.get("/static").headers


def test_over_tls_the_cookie_is_secure(sessions: Sessions) -> None:
    with TestClient(application(sessions), base_url="https://shop.example") as client:
        answer = client.post("/update", json={"some": "data"})
        assert answer.headers["set-cookie"].startswith("__Host-farmsync=")
        assert "; Secure; HttpOnly" in answer.headers["set-cookie"]
        assert client.get("/view").json() == {"session": {"some": "data"}}


def test_a_cookie_that_nobody_has_issued_is_an_empty_session(client: TestClient) -> None:
    for value in (b"invalid", b"A" * 43 + b".1", b"", "é".encode()):
        answer = client.get("/view", headers=[(b"cookie", b"farmsync=" + value)])
        assert answer.json() == {"session": {}}


def test_an_application_below_a_path_has_a_cookie_of_that_path(sessions: Sessions) -> None:
    below = application(sessions, CookieSettings(path="/second"))
    with TestClient(Starlette(routes=[Mount("/second", app=below)])) as client:
        answer = client.post("/second/update", json={"some": "data"})
        assert "; Path=/second" in answer.headers["set-cookie"]
        assert client.get("/second/view").json() == {"session": {"some": "data"}}


def test_an_error_leaves_the_session_as_it_was(client: TestClient) -> None:
    client.post("/update", json={"some": "data"})
    assert client.get("/fail").status_code == 500
    assert client.get("/view").json() == {"session": {"some": "data"}}


def test_streams_and_files_come_with_the_session_stored(client: TestClient) -> None:
    assert client.get("/stream").text == "0 1 2 "
    assert client.get("/file").text == Path(__file__).read_text("utf-8")
    assert client.get("/view").json() == {"session": {"streamed": 1, "read": True}}


def test_a_websocket_has_the_session(client: TestClient) -> None:
    client.post("/update", json={"some": "data"})
    with client.websocket_connect("/socket") as opened:
        assert opened.receive_json() == {"some": "data", "socket": True}


def test_a_websocket_is_refused_while_the_database_is_away(client: TestClient, store: MemoryStore) -> None:
    store.away = True
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
        pass


def test_what_follows_a_response_does_not_follow_one_that_was_replaced(client: TestClient, store: MemoryStore) -> None:
    mails = client.app.state.mails  # type: ignore[attr-defined]
    assert client.get("/mail").status_code == 200
    assert mails == [1]
    store.away = True
    client.cookies.clear()
    answer = client.get("/mail")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert mails == [1]


@pytest.mark.parametrize("path", ["/stream", "/mail"])
def test_the_replaced_response_passes_other_middleware(path: str, sessions: Sessions, store: MemoryStore) -> None:
    store.away = True
    with TestClient(application(sessions, None, Middleware(PassingOn))) as client:
        assert client.get(path).status_code == 503


def test_middleware_inside_and_outside_sees_one_scope(sessions: Sessions) -> None:
    seen: list[object] = []

    class Outside:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await self.app(scope, receive, send)
            seen.append(scope.get("endpoint"))

    with TestClient(application(sessions, None, Middleware(Outside))) as client:
        client.get("/view")
    assert view in seen


def test_requests_in_parallel_on_one_loop_keep_apart_what_is_theirs(sessions: Sessions) -> None:
    async def one(number: int) -> object:
        transport = httpx.ASGITransport(app=application(sessions))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            for _ in range(3):
                await client.post("/update", json={"mine": number})
            return (await client.get("/view")).json()

    async def all_at_once() -> list[object]:
        return await asyncio.gather(*(one(number) for number in range(10)))

    assert asyncio.run(all_at_once()) == [{"session": {"mine": number}} for number in range(10)]
