"""The WSGI middleware: the session is stored before the response's first byte, and all else is as PEP 3333 has it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import attrs
import pytest

from farmsyncd.core.session.faults import SessionClosed, SessionConflict
from farmsyncd.sessions import Sessions, SessionSettings
from farmsyncd.sessions.wsgi import SessionMiddleware
from tests.browser import Browser
from tests.session_farm import QUIET
from tests.sessions_memory import MemoryStore

TEXT = [("Content-Type", "text/plain")]
App = Callable[..., Iterable[bytes]]


@attrs.frozen
class Answer:
    """A response as it came out of the server."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name.lower()]


class Server(SimpleHandler):
    """wsgiref's server, whose output can be watched as it leaves."""

    def __init__(self, environ: dict[str, Any], watch: Callable[[bytes], object]) -> None:
        self._out = io.BytesIO()
        super().__init__(io.BytesIO(), self._out, io.StringIO(), environ, multithread=True, multiprocess=False)
        self._watch = watch

    def _write(self, data: bytes) -> None:
        self._watch(data)
        self._out.write(data)

    def answer(self, app: App) -> Answer:
        self.run(app)
        head, _, body = self._out.getvalue().partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        return Answer(int(first.split()[1]), [(name, value) for name, _, value in pairs], body)


def ask(
    app: App,
    browser: Browser | None = None,
    *,
    method: str = "GET",
    secure: bool = False,
    watch: Callable[[bytes], object] = bool,
) -> Answer:
    """One request, as a browser would make it."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    environ["HTTPS"] = "on" if secure else "off"  # by this wsgiref finds the scheme again
    header = None if browser is None else browser.header(secure=secure)
    if header is not None:
        environ["HTTP_COOKIE"] = header
    answer = Server(environ, watch).answer(app)
    if browser is not None:
        browser.receive(answer.all("Set-Cookie"), secure=secure)
    return answer


def both_sides(app: App, sessions: Sessions) -> App:
    """The middleware, with a checker of PEP 3333 between it and its application, and between it and its server."""
    return validator(SessionMiddleware(validator(app), sessions))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def sessions(store: MemoryStore) -> Sessions:
    return Sessions(store, QUIET)


def counting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    session = environ["farmsync.session"]
    session["count"] = session.get("count", 0) + 1
    start_response("200 OK", list(TEXT))
    return [b"%d" % session["count"]]


def reading(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", list(TEXT))
    return [repr(dict(environ["farmsync.session"])).encode()]


def test_a_browser_finds_its_session_again(sessions: Sessions) -> None:
    app, browser = both_sides(counting, sessions), Browser()
    assert [ask(app, browser).body for _ in range(3)] == [b"1", b"2", b"3"]
    assert ask(app, Browser()).body == b"1"
    assert browser.refused == []


@pytest.mark.parametrize("secure", [False, True])
def test_the_cookie_is_for_the_server_alone(sessions: Sessions, secure: bool) -> None:
    browser = Browser()
    answer = ask(both_sides(counting, sessions), browser, secure=secure)
    (cookie,) = browser.cookies
    assert (cookie.name, cookie.secure) == (("__Host-farmsync", True) if secure else ("farmsync", False))
    assert (cookie.http_only, cookie.same_site, cookie.path) == (True, "Lax", "/")
    assert answer.all("Vary") == ["Cookie"]
    assert answer.all("Cache-Control") == ['no-cache="Set-Cookie"']


def test_what_the_application_says_about_caches_is_left_alone(sessions: Sessions) -> None:
    said = [*TEXT, ("Cache-Control", "private"), ("Vary", "Accept, cookie")]

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["farmsync.session"]["a"] = 1
        start_response("200 OK", list(said))
        return [b"done"]

    answer = ask(both_sides(app, sessions))
    assert (answer.all("Cache-Control"), answer.all("Vary")) == (["private"], ["Accept, cookie"])


def test_a_page_without_a_session_costs_nothing_and_says_nothing(store: MemoryStore, sessions: Sessions) -> None:
    browser = Browser()
    ask(both_sides(counting, sessions), browser)

    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))
        return [b"static"]

    elsewhere, before = Sessions(store, QUIET), store.calls.copy()
    answer = ask(both_sides(app, elsewhere), browser)
    assert answer.body == b"static"
    assert store.calls == before
    assert [answer.all(name) for name in ("Set-Cookie", "Vary", "Cache-Control")] == [[], [], []]


def test_a_session_that_is_only_read_sets_no_cookie(store: MemoryStore, sessions: Sessions) -> None:
    answer = ask(both_sides(reading, sessions), Browser())
    assert (answer.body, answer.all("Set-Cookie"), answer.all("Vary")) == (b"{}", [], ["Cookie"])
    assert not store.database.rows


def in_pieces(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    session = environ["farmsync.session"]
    start_response("200 OK", list(TEXT))
    yield b""
    session["a"] = 1
    yield b"first "
    yield b""
    yield b"second"


def by_write(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    environ["farmsync.session"]["a"] = 1
    write = start_response("200 OK", list(TEXT))
    write(b"")
    write(b"first ")
    return [b"second"]


def by_write_while_iterated(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    write = start_response("200 OK", list(TEXT))
    environ["farmsync.session"]["a"] = 1
    write(b"first ")
    yield b""
    yield b"second"


def in_a_list(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    environ["farmsync.session"]["a"] = 1
    start_response("200 OK", list(TEXT))
    return [b"first ", b"second"]


def in_a_file(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    environ["farmsync.session"]["a"] = 1
    start_response("200 OK", list(TEXT))
    return FileWrapper(io.BytesIO(b"first second"), 4)


def begun_late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    environ["farmsync.session"]["a"] = 1
    start_response("200 OK", list(TEXT))
    yield from (b"first ", b"second")


WAYS = [in_pieces, by_write, by_write_while_iterated, in_a_list, in_a_file, begun_late]


@pytest.mark.parametrize("app", WAYS)
def test_the_session_is_stored_before_the_first_byte_leaves(app: App, store: MemoryStore, sessions: Sessions) -> None:
    seen: list[int] = []
    answer = ask(both_sides(app, sessions), watch=lambda _data: seen.append(len(store.database.rows)))
    assert (answer.status, answer.body) == (200, b"first second")
    assert len(answer.all("Set-Cookie")) == 1
    assert set(seen) == {1}


@pytest.mark.parametrize("app", WAYS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_when_the_session_cannot_be_stored_nothing_of_the_application_is_sent(
    app: App, method: str, store: MemoryStore, sessions: Sessions
) -> None:
    store.away = True
    answer = ask(both_sides(app, sessions), method=method)
    assert answer.status == 503
    assert answer.all("Retry-After") == ["1"]
    assert answer.all("Set-Cookie") == []
    assert b"first" not in answer.body
    assert b"second" not in answer.body
    assert (answer.body == b"") == (method == "HEAD")


def test_a_conflict_is_answered_by_409(store: MemoryStore, sessions: Sessions) -> None:
    browser = Browser()
    ask(both_sides(counting, sessions), browser)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        counted = list(counting(environ, start_response))
        ask(both_sides(counting, sessions), browser.twin())
        return counted

    answer = ask(both_sides(app, sessions), browser)
    assert answer.status == 409
    assert b"repeat" in answer.body
    assert ask(both_sides(reading, sessions), browser).body == b"{'count': 2}"


def test_parallel_requests_are_merged_and_a_late_answer_takes_nothing_back(
    store: MemoryStore, sessions: Sessions
) -> None:
    browser, elsewhere, late = Browser(), Sessions(store, QUIET), []
    ask(both_sides(counting, sessions), browser)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["farmsync.session"]["other"] = 1
        late.append(ask(both_sides(counting, elsewhere), browser.twin()))
        start_response("200 OK", list(TEXT))
        return [b"merged"]

    assert ask(both_sides(app, sessions), browser).body == b"merged"
    browser.receive(late[0].all("Set-Cookie"))
    # The other node has a copy of what it wrote itself, which it would trust.
    for node in (sessions, elsewhere):
        assert b"'other': 1" in ask(both_sides(reading, node), browser).body
        assert b"'count': 2" in ask(both_sides(reading, node), browser).body
    assert browser.refused == []


def test_a_file_that_is_not_sent_after_all_is_closed(store: MemoryStore, sessions: Sessions) -> None:
    file = io.BytesIO(b"what nobody gets")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["farmsync.session"]["count"] = 1
        store.away = True
        start_response("200 OK", list(TEXT))
        return FileWrapper(file)

    answer = ask(SessionMiddleware(app, sessions))
    assert (answer.status, file.closed, b"nobody" in answer.body) == (503, True, False)


def test_a_conflict_that_the_application_lets_out_is_answered_like_one_at_the_end(sessions: Sessions) -> None:
    def app(_environ: dict[str, Any], _start_response: Any) -> Iterable[bytes]:
        raise SessionConflict("cart")

    answer = ask(SessionMiddleware(app, sessions))
    assert answer.status == 409
    assert b"repeat" in answer.body


def test_a_database_that_is_away_stops_only_pages_that_need_it(store: MemoryStore, sessions: Sessions) -> None:
    browser = Browser()
    ask(both_sides(counting, sessions), browser)
    store.away = True
    elsewhere = Sessions(store, QUIET)

    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))
        return [b"static"]

    assert ask(both_sides(app, elsewhere), browser).status == 200
    assert ask(SessionMiddleware(reading, elsewhere), browser).status == 503


@pytest.mark.parametrize("when", ["before", "between"])
def test_an_exception_leaves_the_session_as_it_was(when: str, store: MemoryStore, sessions: Sessions) -> None:
    browser = Browser()
    ask(both_sides(counting, sessions), browser)

    def before(environ: dict[str, Any], _start_response: Any) -> Iterable[bytes]:
        environ["farmsync.session"]["count"] = 99
        raise ZeroDivisionError

    def between(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(TEXT))
        environ["farmsync.session"]["count"] = 99
        yield b""
        raise ZeroDivisionError

    app = SessionMiddleware({"before": before, "between": between}[when], sessions)
    assert ask(app, browser).status == 500
    assert ask(both_sides(reading, sessions), browser).body == b"{'count': 1}"


def test_the_session_of_an_application_that_failed_can_no_longer_be_changed(sessions: Sessions) -> None:
    kept = []

    def app(environ: dict[str, Any], _start_response: Any) -> Iterable[bytes]:
        kept.append(environ["farmsync.session"])
        raise ZeroDivisionError

    assert ask(SessionMiddleware(app, sessions)).status == 500
    with pytest.raises(SessionClosed):
        kept[0]["count"] = 1


def test_an_answer_of_status_500_leaves_the_session_as_it_was(sessions: Sessions) -> None:
    browser = Browser()
    ask(both_sides(counting, sessions), browser)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["farmsync.session"]["count"] = 99
        start_response("200 OK", list(TEXT))
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oh no", list(TEXT), sys.exc_info())
        return [b"sorry"]

    answer = ask(both_sides(app, sessions), browser)
    assert (answer.status, answer.body, answer.all("Set-Cookie")) == (500, b"sorry", [])
    assert ask(both_sides(reading, sessions), browser).body == b"{'count': 1}"


def test_an_error_after_the_first_byte_reaches_the_server(sessions: Sessions) -> None:
    raised: list[type[BaseException] | None] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["farmsync.session"]["a"] = 1
        start_response("200 OK", list(TEXT))
        yield b"first"
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            try:
                start_response("500 Oh no", list(TEXT), sys.exc_info())
            except BaseException as error:
                raised.append(type(error))
                raise

    answer = ask(both_sides(app, sessions))
    assert (answer.status, answer.body) == (200, b"first")
    assert raised == [ZeroDivisionError]


def test_a_second_start_without_an_exception_is_refused(sessions: Sessions) -> None:
    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))
        start_response("200 OK", list(TEXT))
        return [b"never"]

    assert ask(SessionMiddleware(app, sessions)).status == 500


def test_an_application_that_never_starts_is_told_so(sessions: Sessions) -> None:
    assert ask(SessionMiddleware(lambda _environ, _start: [b"body"], sessions)).status == 500


def test_an_empty_body_stores_the_session_too(store: MemoryStore, sessions: Sessions) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["farmsync.session"]["a"] = 1
        start_response("304 Not Modified", [])
        yield from ()

    answer = ask(both_sides(app, sessions))
    assert (answer.status, answer.body, len(answer.all("Set-Cookie"))) == (304, b"", 1)
    assert len(store.database.rows) == 1


def test_a_list_is_handed_to_the_server_as_it_is(sessions: Sessions) -> None:
    body = [b"one piece"]

    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))
        return body

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    assert SessionMiddleware(app, sessions)(environ, lambda *_: bool) is body
    assert ask(SessionMiddleware(app, sessions)).all("Content-Length") == ["9"]


def test_pieces_are_passed_on_one_by_one(sessions: Sessions) -> None:
    made: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["farmsync.session"]["a"] = 1
        start_response("200 OK", list(TEXT))
        for number in range(3):
            made.append(number)
            yield b"%d" % number

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    pieces = iter(SessionMiddleware(app, sessions)(environ, lambda *_: bool))
    assert made == []
    assert (next(pieces), made) == (b"0", [0])
    assert (next(pieces), made) == (b"1", [0, 1])


@pytest.mark.parametrize("taken", [0, 1])
def test_a_client_that_goes_away_closes_the_application(taken: int, store: MemoryStore, sessions: Sessions) -> None:
    ended: list[bool] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(TEXT))
        try:
            yield b""
            environ["farmsync.session"]["a"] = 1
            yield from (b"first", b"second")
        finally:
            ended.append(True)

    class Watched:
        def __init__(self, made: Iterator[bytes]) -> None:
            self.made = made

        def __iter__(self) -> Iterator[bytes]:
            return self.made

        def close(self) -> None:
            ended.append(True)

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    middleware = SessionMiddleware(lambda *given: Watched(app(*given)), sessions)
    response: Any = middleware(environ, lambda *_: bool)
    for _ in range(taken):
        next(response)
    response.close()
    assert ended == [True]
    assert len(store.database.rows) == taken


def test_a_change_after_the_first_byte_is_an_error_that_is_seen(sessions: Sessions) -> None:
    raised: list[BaseException] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        session = environ["farmsync.session"]
        start_response("200 OK", list(TEXT))
        yield b"first"
        try:
            session["a"] = 1
        except SessionClosed as error:
            raised.append(error)
        yield repr(dict(session)).encode()

    assert ask(both_sides(app, sessions)).body == b"first{}"
    assert len(raised) == 1


def test_what_cannot_be_stored_is_answered_by_500(sessions: Sessions, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["farmsync.session"]["huge"] = "x" * 5_000
        start_response("200 OK", list(TEXT))
        return [b"all is well"]

    small = Sessions(sessions.store, SessionSettings(limit_bytes=4_096, sweep_every_s=0))
    answer = ask(both_sides(app, small))
    assert answer.status == 500
    assert b"all is well" not in answer.body
    assert "huge" in caplog.text
