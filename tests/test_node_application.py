"""A node serves a WSGI application beside its data: real daemons, asked over real sockets."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmsyncd.edges.cache.leases import leased
from tests.daemons import Daemon, Daemons
from tests.eventually import LIMIT, eventually
from tests.farm import Farm

LOCAL = "tcp:0:interface=127.0.0.1"
NOWHERE = "tcp:127.0.0.1:1"
VARIOUS = "tests.applications:various"


def node(daemons: Daemons, *arguments: str, wsgi: str = VARIOUS, config: str = "") -> Daemon:
    """A node with an application, and without a data server."""
    directory = daemons_directory(daemons)
    directory.mkdir(exist_ok=True)
    (directory / "node.toml").write_text(f"[node]\n{config}")
    return daemons.start(
        "farmsync-node", "--data", NOWHERE, "--name", "web", "--http", LOCAL, "--wsgi", wsgi,
        "--config", str(directory / "node.toml"), *arguments, name="web",
    )  # fmt: skip


def daemons_directory(daemons: Daemons) -> Path:
    return daemons._directory / "web"


def connection(daemon: Daemon) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(daemon.address("http").removeprefix("http://"), timeout=LIMIT)


def ask(
    daemon: Daemon, method: str, path: str, body: Any = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request on a connection of its own."""
    one = connection(daemon)
    try:
        one.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = one.getresponse()
        return answer, answer.read()
    finally:
        one.close()


def test_all_but_the_nodes_own_pages_and_its_data_is_the_applications(daemons: Daemons) -> None:
    web = node(daemons, "--dataset", "shop")
    eventually(lambda: "shop" in json.loads(ask(web, "GET", "/status")[1])["datasets"])
    for path, code, start in (
        ("/", 200, b"home"),
        ("/status", 200, b"{"),
        ("/ready", 503, b"no active version of shop"),
        ("/metrics", 200, b"# HELP"),
        ("/shop/index.html", 503, b"This node has no version of the dataset yet"),
        ("/shop@" + "a" * 40 + "/x", 404, b"This version is not on this node"),
        ("/shops/index.html", 404, b"nothing here"),
        ("/status/more", 404, b"nothing here"),
        ("/caf%C3%A9", 200, b"coffee"),
    ):
        answer, body = ask(web, "GET", path)
        assert (answer.status, body[: len(start)]) == (code, start), path
    for path in ("/status", "/shop/index.html"):
        assert ask(web, "POST", path, b"x")[0].status == 405
    assert ask(web, "GET", "http://any.example/echo?x")[0].status == 200


def test_requests_with_bodies_reach_the_application_whole(daemons: Daemons) -> None:
    web = node(daemons, config="[node.application]\nbody-limit = '2MiB'\nbody-in-memory = '64KiB'\n")
    large = bytes(range(256)) * 4096
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT"):
        answer, body = ask(web, method, "/echo?a=b%20c", b"" if method == "GET" else large, Content_Type="x/y")
        told = json.loads(body)
        assert answer.status == 200
        assert (told["method"], told["query"], told["node"]) == (method, "a=b%20c", "web")
        if method != "GET":
            assert (told["size"], told["digest"]) == (len(large), hashlib.sha256(large).hexdigest())
            assert (told["length"], told["type"]) == (str(len(large)), "x/y")
    _, body = ask(web, "POST", "/echo", iter([large[:1000], large[1000:]]))  # in chunks, its length not told
    assert json.loads(body)["digest"] == hashlib.sha256(large).hexdigest()
    answer, body = ask(web, "HEAD", "/echo")
    assert (answer.status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0
    # A form stays as it was: nobody has read it on the way.
    _, body = ask(web, "POST", "/echo", b"a=1&b=2", Content_Type="application/x-www-form-urlencoded")
    assert json.loads(body)["size"] == 7


def test_a_body_over_the_limit_is_refused(daemons: Daemons) -> None:
    web = node(daemons, config="[node.application]\nbody-limit = '64KiB'\n")
    answer, body = ask(web, "POST", "/echo", bytes(65_536))
    assert answer.status == 200
    answer, body = ask(web, "POST", "/echo", bytes(65_537))
    assert (answer.status, answer.headers["Connection"]) == (413, "close")
    assert body == b"The request's body is too large: at most 65536 bytes are taken here.\n"
    answer, body = ask(web, "POST", "/echo", iter([bytes(40_000)] * 20))
    assert answer.status == 413
    with socket.create_connection(("127.0.0.1", connection(web).port), LIMIT) as one:  # told before it is sent
        one.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        assert one.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_what_the_application_says_reaches_the_client_as_it_is(daemons: Daemons) -> None:
    web = node(daemons)
    answer, body = ask(web, "GET", "/cookies")
    assert (answer.headers.get_all("Set-Cookie"), body) == (["a=1", "b=2"], b"two")
    assert answer.headers["Content-Length"] == "3"
    answer, body = ask(web, "GET", "/stream?3")
    assert body == b"\0" * 2**20 + b"\1" * 2**20 + b"\2" * 2**20
    answer, body = ask(web, "GET", "/raise")
    assert (answer.status, body) == (500, b"The application failed; this node's log says why.\n")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):  # never an answer that looks whole
        ask(web, "GET", "/break")
    ask(web, "GET", "/complain")
    eventually(lambda: "a complaint of the application" in web.log)
    assert "the application's own fault" in web.log
    assert "in the middle" in web.log
    status = json.loads(ask(web, "GET", "/status")[1])["application"]
    assert (status["requests"], status["failed"], status["refused"], status["sessions"]) == (5, 2, 0, None)


def test_a_client_that_goes_away_ends_the_response_and_frees_the_thread(daemons: Daemons, tmp_path: Path) -> None:
    web = node(daemons, config="[node.application]\nthreads = 1\n")
    closed = tmp_path / "closed"
    with socket.create_connection(("127.0.0.1", connection(web).port), LIMIT) as one:
        one.sendall(b"GET /stream?100000&" + str(closed).encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one.recv(100)
    eventually(closed.exists, what="the application's iterator is closed")
    assert ask(web, "GET", "/")[0].status == 200


def test_a_client_that_takes_nothing_is_cut_off(daemons: Daemons, tmp_path: Path) -> None:
    web = node(daemons, config="[node.application]\nthreads = 1\nclient-timeout = '1s'\n")
    closed = tmp_path / "closed"
    with socket.create_connection(("127.0.0.1", connection(web).port), LIMIT) as one:
        one.sendall(b"GET /stream?1000&" + str(closed).encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(closed.exists, what="the application's iterator is closed")
    assert ask(web, "GET", "/")[0].status == 200


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[list[threading.Thread]]:
    """Threads whose requests end when there is a file ``go``."""
    threads: list[threading.Thread] = []
    yield threads
    (tmp_path / "go").touch()
    for one in threads:
        one.join(LIMIT)
        assert not one.is_alive()


def test_a_full_queue_is_told_at_once(daemons: Daemons, tmp_path: Path, waiting: list[threading.Thread]) -> None:
    web = node(daemons, config="[node.application]\nthreads = 2\nqueue = 1\n")
    web.ready()
    codes: list[int] = []

    def wait(number: int) -> None:
        codes.append(ask(web, "GET", f"/wait?{tmp_path}/here{number}&{tmp_path}/go")[0].status)

    for number in range(3):
        waiting.append(threading.Thread(target=wait, args=(number,)))
        waiting[-1].start()
    eventually(lambda: json.loads(ask(web, "GET", "/status")[1])["application"]["in_work"] == 3)
    answer, body = ask(web, "GET", "/")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert body.startswith(b"This node has as many requests in work as it takes")
    assert ask(web, "GET", "/ready")[0].status == 503  # for want of data: the node's own pages are answered
    (tmp_path / "go").touch()
    eventually(lambda: codes == [200, 200, 200])
    assert json.loads(ask(web, "GET", "/status")[1])["application"]["refused"] == 1


def test_requests_in_work_are_finished_when_the_node_is_stopped(
    daemons: Daemons, tmp_path: Path, waiting: list[threading.Thread]
) -> None:
    web = node(daemons, config="[node.application]\nstop-limit = '5m'\n")
    idle = connection(web)
    idle.request("GET", "/")
    assert idle.getresponse().read() == b"home\n"
    answers: list[bytes] = []
    waiting.append(
        threading.Thread(target=lambda: answers.append(ask(web, "GET", f"/wait?{tmp_path}/here&{tmp_path}/go")[1]))
    )
    waiting[0].start()
    eventually((tmp_path / "here").exists)
    stopped: list[int] = []
    waiting.append(threading.Thread(target=lambda: stopped.append(web.stop())))
    waiting[1].start()
    eventually(lambda: idle.sock.recv(1) == b"", what="an idle connection is closed")
    idle.close()
    assert not stopped
    (tmp_path / "go").touch()
    eventually(lambda: answers == [b"waited\n"])
    eventually(lambda: stopped)


def test_a_request_that_does_not_end_is_cut_off_at_the_limit(
    daemons: Daemons, tmp_path: Path, waiting: list[threading.Thread]
) -> None:
    web = node(daemons, config="[node.application]\nstop-limit = '200ms'\n")
    web.ready()
    faults: list[BaseException] = []

    def wait() -> None:
        try:
            ask(web, "GET", f"/wait?{tmp_path}/here&{tmp_path}/go")
        except (OSError, http.client.HTTPException) as fault:
            faults.append(fault)

    waiting.append(threading.Thread(target=wait))
    waiting[0].start()
    eventually((tmp_path / "here").exists)
    web.stop()
    assert "1 requests did not end in time" in web.log
    eventually(lambda: len(faults) == 1)


@pytest.mark.parametrize(
    ("wsgi", "line"),
    [
        ("nowhere_to_be_found:app", "expected to import the module nowhere_to_be_found"),
        ("broken:app", "it cannot be imported: ValueError: half done"),
        ("tests.applications:absent", "it has no 'absent'"),
        ("tests.applications:not_callable", "expected a WSGI application, which can be called, and found str"),
        ("tests.applications", 'expected the name of a WSGI application, such as "shop:application"'),
    ],
)
def test_an_application_that_cannot_be_had_is_one_line_and_status_78(daemons: Daemons, wsgi: str, line: str) -> None:
    directory = daemons_directory(daemons)
    directory.mkdir()
    (directory / "broken.py").write_text("raise ValueError('half done')\n")
    web = node(daemons, wsgi=wsgi)
    assert web.wait() == 78
    told = [one for one in web.log.splitlines() if line in one]
    assert len(told) == 1, web.log
    assert "Traceback" not in web.log


def test_the_current_directory_is_searched_for_the_application(daemons: Daemons) -> None:
    directory = daemons_directory(daemons)
    directory.mkdir()
    (directory / "mine.py").write_text("from tests.applications import various\n\ndef make():\n    return various\n")
    web = node(daemons, wsgi="mine:make()")
    assert ask(web, "GET", "/")[1] == b"home\n"


def test_a_request_sees_one_version_for_as_long_as_its_answer_lasts(
    daemons: Daemons, tmp_path: Path, waiting: list[threading.Thread]
) -> None:
    farm = Farm(daemons, tmp_path)
    web = farm.node("web", "--wsgi", VARIOUS, "--dataset", "shop")
    old = farm.publish({"page": b"old", "late": b"old too"})
    farm.settled(old)
    one, leaver = connection(web.daemon), connection(web.daemon)
    for each in (one, leaver):
        each.request("GET", f"/version?{tmp_path}/go")
        answer = each.getresponse()
        assert answer.read(3) == b"old"
        assert answer.headers["X-Farmsync-Version"] == old
        if each is leaver:
            answer.close()
            each.close()
        else:
            staying = answer
    new = farm.publish({"page": b"new", "late": b"new too"})
    farm.settled(new)
    assert leased(web.cache / "versions" / old)
    (tmp_path / "go").touch()
    assert staying.read() == f" old old too {old}".encode()
    one.close()
    answer, body = ask(web.daemon, "GET", "/echo")
    assert json.loads(body)["datasets"] == {"shop": new}
    assert answer.headers["X-Farmsync-Version"] == new
    assert web.get("/shop/page").body == b"new"
    eventually(lambda: not leased(web.cache / "versions" / old), what="nobody holds the old version any more")


def test_a_request_has_a_snapshot_of_each_dataset(daemons: Daemons, tmp_path: Path) -> None:
    farm = Farm(daemons, tmp_path)
    web = farm.node("web", "--wsgi", VARIOUS)
    assert json.loads(ask(web.daemon, "GET", "/echo")[1])["datasets"] == {}
    shop = farm.publish({"page": b"shop"})
    prices = json.loads(farm.run("publish", "prices", str(farm.site({"page": b"prices"})), "--now", "--json"))[
        "version"
    ]
    both = {"prices": prices, "shop": shop}
    eventually(lambda: json.loads(ask(web.daemon, "GET", "/echo")[1])["datasets"] == both)
    assert ask(web.daemon, "GET", "/echo")[0].headers["X-Farmsync-Version"] == prices, "the first by name"
    assert web.get("/prices/page").body == b"prices"
