"""A daemon's HTTP side, over a connection in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator

import attrs
import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from farmsyncd.edges.httpside import HttpSide
from tests.leaks import LoggedErrors


class Echo(Resource):
    """Stands for what a daemon serves beside its own pages."""

    isLeaf = True  # noqa: N815

    def render_GET(self, request: Request) -> bytes:  # noqa: N802
        return b"others: " + request.uri


@attrs.define
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes


@attrs.define
class Browser:
    site: Site
    clock: Clock

    def ask(self, path: str, method: str = "GET", extra: bytes = b"") -> Answer:
        request = f"{method} {path} HTTP/1.0\r\nHost: x\r\n".encode()
        head, _, body = self.exchange(request + (extra or b"\r\n")).partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return Answer(int(status.split()[1]), {name.lower(): value for name, value in pairs}, body)

    def exchange(self, data: bytes) -> bytes:
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 5))
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(data)
        channel.connectionLost(Failure(ConnectionDone()))
        sent: bytes = transport.value()
        return sent


@attrs.define
class Daemon:
    ready: bool = True
    status: object = attrs.Factory(lambda: {"farm_time_ns": 5})


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def browser(daemon: Daemon) -> Iterator[Browser]:
    clock = Clock()
    side = HttpSide(
        lambda: {"status": daemon.status},
        lambda: "farmsync_nodes 3\n",
        lambda: (daemon.ready, "all is well" if daemon.ready else "no version yet"),
    )
    site = side.site(clock)
    site.doStart()
    yield Browser(site, clock)
    site.doStop()


def test_status_is_json_that_nobody_keeps(browser: Browser) -> None:
    answer = browser.ask("/status")
    assert (answer.code, json.loads(answer.body)) == (200, {"status": {"farm_time_ns": 5}})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-length"] == str(len(answer.body))


def test_metrics_are_prometheus_text(browser: Browser) -> None:
    answer = browser.ask("/metrics")
    assert (answer.code, answer.body) == (200, b"farmsync_nodes 3\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_ready_follows_the_daemon(browser: Browser, daemon: Daemon) -> None:
    assert (browser.ask("/ready").code, browser.ask("/ready").body) == (200, b"all is well\n")
    daemon.ready = False
    assert (browser.ask("/ready").code, browser.ask("/ready").body) == (503, b"no version yet\n")


@pytest.mark.parametrize("path", ["/status", "/ready", "/metrics", "/nothing"])
def test_head_is_get_without_the_body(browser: Browser, path: str) -> None:
    full, head = browser.ask(path), browser.ask(path, "HEAD")
    assert head.body == b""
    assert head.code == full.code
    assert {**head.headers, "date": ""} == {**full.headers, "date": ""}


@pytest.mark.parametrize("path", ["/", "/nothing", "/status/more", "/%2e%2e/etc", "//status"])
def test_any_other_path_is_not_found_in_plain_text(browser: Browser, path: str) -> None:
    answer = browser.ask(path)
    assert answer.code == 404
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert b"<" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
@pytest.mark.parametrize("path", ["/status", "/nothing"])
def test_only_reading_is_allowed(browser: Browser, method: str, path: str) -> None:
    answer = browser.ask(path, method)
    assert (answer.code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.body == b"This side only reads: use GET or HEAD.\n"


def test_a_body_is_taken_and_goes_nowhere(browser: Browser) -> None:
    body = b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000
    assert browser.ask("/status", "POST", body).code == 405
    assert browser.ask("/status", "GET", body).code == 200


@pytest.mark.parametrize("path", ["/status", "/nothing"])
def test_every_answer_says_little_of_the_server_and_forbids_guessing(browser: Browser, path: str) -> None:
    headers = browser.ask(path).headers
    assert headers["server"] == "farmsync"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_other_paths_belong_to_the_daemon(daemon: Daemon) -> None:
    side = HttpSide(lambda: {"status": daemon.status}, lambda: "", lambda: (True, "yes"), Echo())
    browser = Browser(side.site(Clock()), Clock())
    assert browser.ask("/shop/a.html").body == b"others: /shop/a.html"
    assert browser.ask("/status/x").body == b"others: /status/x"
    assert browser.ask("/").body == b"others: /"
    assert json.loads(browser.ask("/status").body) == {"status": {"farm_time_ns": 5}}
    assert browser.ask("/shop/a.html", "POST").code == 405


def test_a_fault_in_a_page_is_500_and_in_the_log(browser: Browser, daemon: Daemon, logged_errors: LoggedErrors) -> None:
    daemon.status = object()
    answer = browser.ask("/status")
    assert answer.code == 500
    assert b"Traceback" not in answer.body
    assert len(logged_errors.take(TypeError)) == 1


@pytest.mark.parametrize("garbage", [b"HELLO 1 node a\n\r\n\r\n", b"\x16\x03\x01\x00", b"GET / HTTP/9.9\r\n\r\n"])
def test_garbage_harms_nobody(browser: Browser, garbage: bytes) -> None:
    browser.exchange(garbage)
    assert browser.ask("/ready").code == 200
