"""What a request is for a WSGI application: PEP 3333, and nothing that a client could sneak in."""

from __future__ import annotations

import io
from typing import Any

import pytest
from twisted.web.http import Request
from twisted.web.http_headers import Headers
from twisted.web.test.requesthelper import DummyChannel

from farmsyncd.node.application.environ import ErrorLines, environ_of


def environ(uri: bytes = b"/", size: int = 0, **headers: list[bytes]) -> dict[str, Any]:
    """The environment of a request with these headers; ``_`` in their names is ``-``, ``__`` is ``_``."""
    channel: Any = DummyChannel()
    request = Request(channel, False)
    request.method, request.uri, request.clientproto = b"POST", uri, b"HTTP/1.1"
    spelled = {name.replace("__", "\0").replace("_", "-").replace("\0", "_"): value for name, value in headers.items()}
    request.requestHeaders = Headers({name.encode(): value for name, value in spelled.items()})
    return environ_of(request, io.BytesIO(), ErrorLines(print), size)


@pytest.mark.parametrize(
    ("uri", "path", "query"),
    [
        (b"/a%20b/%C3%A9?q=%20&x", "/a b/\xc3\xa9", "q=%20&x"),
        (b"/", "/", ""),
        (b"*", "*", ""),
        (b"http://shop.example/cart?x=1", "/cart", "x=1"),
        (b"http://shop.example", "/", ""),
        (b"/go?to=http://else.example/", "/go", "to=http://else.example/"),
        (b"/a//b", "/a//b", ""),
    ],
)
def test_the_path_and_the_query_of_a_target(uri: bytes, path: str, query: str) -> None:
    made = environ(uri)
    assert (made["SCRIPT_NAME"], made["PATH_INFO"], made["QUERY_STRING"]) == ("", path, query)
    assert made["REQUEST_URI"] == uri.decode()


def test_headers_are_variables_and_several_of_a_name_are_one() -> None:
    made = environ(X_Two=[b"1", b"2"], Cookie=[b"a=1", b"b=2"], Content_Type=[b"text/plain"], Host=[b"shop.example"])
    assert (made["HTTP_X_TWO"], made["HTTP_COOKIE"], made["HTTP_HOST"]) == ("1,2", "a=1; b=2", "shop.example")
    assert made["CONTENT_TYPE"] == "text/plain"
    assert "HTTP_CONTENT_TYPE" not in made


def test_a_header_cannot_pass_for_another_one_nor_choose_a_proxy() -> None:
    made = environ(X_User=[b"ann"], X__User=[b"boss"], Proxy=[b"http://evil.example/"])
    assert made["HTTP_X_USER"] == "ann"
    assert "HTTP_PROXY" not in made


def test_the_length_is_that_of_the_body_which_was_received() -> None:
    assert "CONTENT_LENGTH" not in environ()
    assert environ(size=7)["CONTENT_LENGTH"] == "7", "also when the client sent it in chunks"
    made = environ(Content_Length=[b"0"])
    assert made["CONTENT_LENGTH"] == "0"
    assert "HTTP_CONTENT_LENGTH" not in made


def test_what_is_written_to_the_errors_becomes_lines() -> None:
    lines: list[str] = []
    errors = ErrorLines(lines.append)
    errors.write("one\ntw")
    errors.writelines(["o\n", "three"])
    assert lines == ["one", "two"]
    errors.flush()
    errors.flush()
    assert lines == ["one", "two", "three"]
