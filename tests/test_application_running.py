"""One request of a node's application, as PEP 3333 wants it: without threads, without a network."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import attrs
import pytest

from farmsyncd.core.session.faults import SessionConflict, StoreUnavailable
from farmsyncd.node.application.environ import ErrorLines
from farmsyncd.node.application.reply import ClientGoneError, Head
from farmsyncd.node.application.running import Run
from tests.leaks import LoggedErrors

TEXT = [("Content-Type", "text/plain")]


@attrs.define
class Sent:
    """What was sent, instead of a connection; the client goes away after so many pieces."""

    pieces: list[bytes] = attrs.field(factory=list)
    head: Head | None = None
    ended: bool = False
    was_cut: bool = False
    goes_after: int | None = None

    @property
    def gone(self) -> bool:
        return self.goes_after is not None and len(self.pieces) >= self.goes_after

    def send(self, head: Head | None, data: bytes, *, last: bool) -> None:
        """As a Reply does."""
        if self.gone:
            raise ClientGoneError
        assert not self.ended
        assert (head is None) == (self.head is not None), "the head comes first, and once"
        self.head = head or self.head
        self.pieces.append(data)
        self.ended = last

    def cut(self) -> None:
        """As a Reply does."""
        self.was_cut = True

    @property
    def headers(self) -> dict[bytes, bytes]:
        assert self.head is not None
        return dict(self.head.headers)


def run(application: Any, sent: Sent | None = None, method: str = "GET", **adding: str) -> Sent:
    """Run an application to its end."""
    sent = Sent() if sent is None else sent
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    lines: list[str] = []
    environ |= {
        "REQUEST_METHOD": method,
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": ErrorLines(lines.append),
    }
    Run(application, environ, sent, adding.items())()  # type: ignore[arg-type]
    return sent


def test_an_answer_that_is_known_whole_is_sent_at_once_with_its_length() -> None:
    def application(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [*TEXT, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Connection", "close")])
        return [b"whole"]

    sent = run(application, etag="x", set_cookie="y")
    assert (sent.pieces, sent.ended) == ([b"whole"], True)
    assert sent.head == Head(
        200,
        b"OK",
        (
            *((b"Content-Type", b"text/plain"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")),
            *((b"etag", b"x"), (b"set_cookie", b"y"), (b"content-length", b"5")),
        ),
    )


def test_what_the_application_says_itself_is_not_said_for_it() -> None:
    def application(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [*TEXT, ("ETag", "mine"), ("Content-Length", "5")])
        return [b"whole"]

    assert run(application, etag="x").headers == {
        b"Content-Type": b"text/plain", b"ETag": b"mine", b"Content-Length": b"5"
    }  # fmt: skip


def test_pieces_go_out_as_they_come() -> None:
    sent = Sent()

    def application(_environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", TEXT)
        for number in range(3):
            assert len(sent.pieces) == number
            yield b"%d" % number
            yield b""

    run(application, sent)
    assert sent.pieces == [b"0", b"1", b"2", b""]
    assert b"content-length" not in sent.headers


def test_write_and_returned_pieces_are_one_body() -> None:
    def application(_environ: Any, start: Any) -> list[bytes]:
        write = start("200 OK", TEXT)
        write(b"a")
        return [b"b"]

    sent = run(application)
    assert (b"".join(sent.pieces), sent.ended) == (b"ab", True)


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified"), ("GET", "204 No")])
def test_some_answers_have_no_body(method: str, status: str) -> None:
    def application(_environ: Any, start: Any) -> list[bytes]:
        start(status, [("ETag", "x")])
        return [b"never sent"]

    sent = run(application, method=method)
    assert (sent.pieces, sent.ended) == ([b""], True)
    assert b"content-length" not in sent.headers


def test_an_empty_answer_has_the_length_zero() -> None:
    def application(_environ: Any, start: Any) -> list[bytes]:
        start("303 See Other", [("Location", "/")])
        return []

    assert run(application).headers == {b"Location": b"/", b"content-length": b"0"}


def test_an_error_may_replace_a_head_that_has_not_gone_out() -> None:
    def application(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", TEXT)
        try:
            raise ValueError
        except ValueError as error:
            start("400 Bad", TEXT, (ValueError, error, error.__traceback__))
        return [b"bad"]

    sent = run(application)
    assert sent.head is not None
    assert sent.head.code == 400


def closed_when_done(events: list[str], pieces: Callable[[], Iterator[bytes]]) -> Any:
    """An application that notes that its iterator was closed."""

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return pieces()

        def close(self) -> None:
            events.append("closed")

    def application(_environ: Any, start: Any) -> Body:
        start("200 OK", TEXT)
        return Body()

    return application


def test_the_iterator_is_closed_whatever_happens(logged_errors: LoggedErrors) -> None:
    def fails() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("in the middle")

    events: list[str] = []
    assert run(closed_when_done(events, lambda: iter([b"a"]))).ended
    assert events == ["closed"]
    assert run(closed_when_done(events, fails)).was_cut
    assert logged_errors.take(ValueError)
    assert events == ["closed"] * 2
    gone = run(closed_when_done(events, lambda: iter([b"a"] * 10)), Sent(goes_after=2))
    assert events == ["closed"] * 3
    assert gone.pieces == [b"a", b"a"]


def _second_start(_environ: Any, start: Any) -> list[bytes]:
    start("200 OK", TEXT)
    start("200 OK", TEXT)
    return [b"x"]


def _with(status: Any, headers: Any, *body: Any) -> Any:
    def application(_environ: Any, start: Any) -> list[Any]:
        start(status, headers)
        return list(body)

    return application


@pytest.mark.parametrize(
    "application",
    [
        _second_start,
        _with("OK", TEXT, b"x"),
        _with("99 Low", TEXT, b"x"),
        _with("100 Continue", TEXT, b"x"),
        _with("200 OK\r\nX: y", TEXT, b"x"),
        _with("200 OK", [("X", "a\r\nY: b")], b"x"),
        _with("200 OK", [("X Y", "a")], b"x"),
        _with("200 OK", [("X", "\u20ac")], b"x"),
        _with("200 OK", [("Content-Length", "-1")], b"x"),
        _with("200 OK", [("Content-Length", "3")], b"x"),
        _with("200 OK", [("Content-Length", "3")], b"four"),
        _with("200 OK", TEXT, "text"),
        lambda _environ, _start: [b"without a head"],
        lambda _environ, _start: None,
    ],
)
def test_misuse_is_answered_with_500_and_told_in_the_log(application: Any, logged_errors: LoggedErrors) -> None:
    sent = run(application)
    assert logged_errors.take()
    assert sent.head is not None
    assert (sent.head.code, sent.ended) == (500, True)
    assert b"".join(sent.pieces) == b"The application failed; this node's log says why.\n"


def test_too_little_after_the_beginning_is_cut(logged_errors: LoggedErrors) -> None:
    sent = run(_with("200 OK", [("Content-Length", "10")], b"a", b"b"))
    assert logged_errors.take()
    assert sent.was_cut
    assert not sent.ended


@pytest.mark.parametrize(("error", "code"), [(SessionConflict("cart"), 409), (StoreUnavailable("away"), 503)])
def test_errors_of_the_session_have_their_own_answers(error: Exception, code: int) -> None:
    def application(_environ: Any, _start: Any) -> list[bytes]:
        raise error

    sent = run(application)
    assert sent.head is not None
    assert (sent.head.code, sent.ended) == (code, True)


def test_the_server_keeps_to_what_the_standard_librarys_checker_wants() -> None:
    def application(environ: Any, start: Any) -> Iterator[bytes]:
        environ["wsgi.input"].read(1)
        environ["wsgi.errors"].write("said\n")
        environ["wsgi.errors"].flush()
        start("200 OK", TEXT)
        yield b"a"
        yield b"b"

    with contextlib.suppress(StopIteration):
        assert run(validator(application)).pieces == [b"a", b"b", b""]
