from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from farmsyncd.cli.lb.asking import ask
from farmsyncd.edges.unixpath import short
from farmsyncd.errors import BadInput, PeerError, Unavailable
from farmsyncd.lb.admin import AdminConnection, AdminDoor, AdminFactory
from farmsyncd.lb.steering import Steering
from farmsyncd.lb.web import Figures
from tests.eventually import eventually_async, turn
from tests.lb_scene import Scene


def _steering(scene: Scene) -> Steering:
    return Steering(scene.mind, Figures(scene.dispatcher, scene.affinity, [], None, lambda: scene.now_ns))


class Talk:
    """An operator's connection in memory."""

    def __init__(self, answer: Any) -> None:
        self.transport = StringTransport()
        connection = AdminFactory(answer).buildProtocol(None)
        connection.makeConnection(self.transport)
        self.connection: AdminConnection = connection

    def say(self, text: str) -> list[Any]:
        """What is answered to these bytes."""
        self.transport.clear()
        self.connection.dataReceived(text.encode())
        return self.heard()

    def heard(self) -> list[Any]:
        """The answers so far."""
        return [json.loads(line) for line in self.transport.value().splitlines()]

    def end(self) -> None:
        """Hang up."""
        self.connection.connectionLost(Failure(ConnectionDone()))


def test_the_operators_words_are_answered() -> None:
    scene = Scene("ab")
    steering = _steering(scene)
    scene.come("10.0.0.1")
    scene.come("10.0.0.2")
    assert steering.answer(["status"])["reason"] == "2 of 2 nodes take new sources"
    assert [node["name"] for node in steering.answer(["nodes"])["nodes"]] == ["a", "b"]
    sources = steering.answer(["sources", "1"])
    assert (sources["known"], [one["source"] for one in sources["sources"]]) == (2, ["10.0.0.2"])
    assert len(steering.answer(["sources"])["sources"]) == 2
    assert steering.answer(["explain", "10.0.0.1"])["goes_to"] == ["a"]
    assert steering.answer(["explain", "10.0.0.1/32"])["goes_to"] == ["a"]
    assert steering.answer(["drain", "a"]) == {
        "node": "a",
        "order": "drain",
        "before": "ready",
        "state": "draining",
        "reason": "the operator said so",
        "connections": 1,
        "serving": "ready",
    }
    assert steering.answer(["maint", "a"])["before"] == "draining"
    assert steering.answer(["maint", "b"])["serving"] is None
    assert steering.answer(["ready", "a"])["state"] == "ready"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "expected one of: status"),
        (["dance"], "found 'dance'"),
        (["drain"], "found 'drain'"),
        (["drain", "nobody"], "expected a node of this farm, and found 'nobody'; the nodes are: a, b"),
        (["explain", "home"], "expected a source's IP address, and found 'home'"),
        (["sources", "0"], "1 to 100000"),
        (["sources", "many"], "found 'many'"),
        (["sources", "٣"], "how many"),
    ],
)
def test_what_is_no_command_is_told_so(words: Sequence[str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        _steering(Scene("ab")).answer(words)


def test_each_line_has_its_answer_however_the_lines_come() -> None:
    talk = Talk(_steering(Scene("ab")).answer)
    assert talk.say("sta") == []
    first, second = talk.say("tus\ndance\nexpl")
    assert first["ready"] is True
    assert (second["status"], second["error"].partition(":")[0]) == (65, "expected one of")
    assert [answer["goes_to"] for answer in talk.say("ain 1.2.3.4\r\n")] == [["a", "b"]]
    assert len(talk.say("nodes\n" * 5000)) == 5000
    talk.end()


def test_answers_that_take_a_while_come_in_the_order_of_their_commands() -> None:
    asked: list[Deferred[Any]] = []

    def answer(words: Sequence[str]) -> Any:
        if words == ["now"]:
            return {"now": True}
        asked.append(Deferred())
        return asked[-1]

    talk = Talk(answer)
    talk.say("slow\nnow\nslow\nnow\n")
    talk.connection.readConnectionLost()
    assert talk.heard() == []
    assert not talk.transport.disconnecting
    asked[0].callback({"slow": 1})
    assert talk.heard() == [{"slow": 1}, {"now": True}]
    assert not talk.transport.disconnecting
    asked[1].callback({"slow": 2})
    assert talk.heard()[2:] == [{"slow": 2}, {"now": True}]
    assert talk.transport.disconnecting, "all that was asked is answered"
    talk.end()


def test_a_fault_of_the_balancer_is_told_and_logged(logged_errors: Any) -> None:
    def answer(_words: Sequence[str]) -> Any:
        raise RuntimeError("a fault")

    talk = Talk(answer)
    (told,) = talk.say("status\n")
    assert told == {"error": "the balancer failed at 'status'; its log says more", "status": 70}
    assert len(logged_errors.take(RuntimeError)) == 1
    talk.end()


def test_a_line_without_an_end_is_the_end() -> None:
    talk = Talk(_steering(Scene("ab")).answer)
    assert talk.say("x" * 70_000) == []
    assert talk.transport.disconnecting
    talk.end()


@pytest_twisted.ensureDeferred
async def test_only_the_owner_may_open_the_socket_and_a_later_balancer_takes_it_over(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 40) / "admin.sock"  # longer than a socket's address may be
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead, short(path) as name:
        dead.bind(name)  # somebody died here
    old = AdminDoor("farmsync-lb", path, lambda _words: {"I am": "old"}, reactor)
    old.startService()
    assert path.stat().st_mode & 0o777 == 0o600
    assert await deferToThread(ask, path, "status") == {"I am": "old"}
    new = AdminDoor("farmsync-lb", path, lambda _words: {"I am": "new"}, reactor)
    new.startService()
    assert await deferToThread(ask, path, "status") == {"I am": "new"}
    old.stopService()
    old.release(passed_on=False)
    assert await deferToThread(ask, path, "status") == {"I am": "new"}
    new.stopService()
    new.release(passed_on=False)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(Unavailable, match="is it running, with this --admin"):
        ask(path, "status")
    new.stopService()
    new.release(passed_on=False)
    await _all_gone()


@pytest_twisted.ensureDeferred
async def test_while_a_door_is_passed_on_operators_wait_and_are_answered(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    old = AdminDoor("farmsync-lb", path, lambda _words: {"I am": "old"}, reactor)
    old.startService()
    new = AdminDoor("farmsync-lb", path, lambda _words: {"I am": "new"}, reactor)
    assert new.described == old.described
    new.held = [one.dup() for one in old.held]
    old.stopService()
    waiting = deferToThread(ask, path, "status")
    new.startService()
    assert await waiting == {"I am": "new"}
    old.release(passed_on=True)
    assert await deferToThread(ask, path, "status") == {"I am": "new"}
    new.stopService()
    path.unlink()
    new.startService()
    assert await deferToThread(ask, path, "status") == {"I am": "new"}, "a path that somebody took away is made again"
    new.stopService()
    new.release(passed_on=False)
    assert not path.exists()
    await _all_gone()


def test_when_the_door_closes_what_was_asked_is_answered_and_no_more() -> None:
    asked: list[Deferred[Any]] = []

    def answer(_words: Sequence[str]) -> Any:
        asked.append(Deferred())
        return asked[-1]

    talk = Talk(answer)
    talk.say("slow\n")
    talk.connection.finish()
    assert not talk.transport.disconnecting
    talk.say("order\n")
    asked[0].callback({"slow": 1})
    assert (talk.heard(), talk.transport.disconnecting, len(asked)) == ([{"slow": 1}], True, 1)
    talk.end()


def test_one_that_hangs_up_without_a_word_is_asked_again_as_its_successor_answers(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        def serve() -> None:
            for answer in (b"", b"", b"{}\n"):
                client, _ = other.accept()
                with client:
                    if answer:
                        client.recv(100)
                        client.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        assert ask(path, "status") == {}
        serving.join()


async def _all_gone() -> None:
    """Connections whose clients have ended are gone, too."""
    await eventually_async(lambda: not any("AdminConnection" in str(one) for one in _readers()))
    await turn()


def _readers() -> list[Any]:
    loop: Any = reactor
    return list(loop.getReaders())


def test_a_place_where_no_socket_can_be_made_ends_the_daemon_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = AdminDoor("farmsync-lb", tmp_path / "none" / "admin.sock", lambda _words: {}, reactor)
    with pytest.raises(SystemExit):
        admin.startService()
    assert "expected to listen on the Unix socket" in capsys.readouterr().err


def test_an_answer_of_somebody_else_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        with short(path) as name:
            other.bind(name)
        other.listen()

        def serve() -> None:
            client, _ = other.accept()
            with client:
                while client.recv(100):
                    pass
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n")

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(PeerError, match="something else came"):
            ask(path, "status")
        serving.join()
    with pytest.raises(BadInput, match="words without spaces"):
        ask(path, "explain", "1.2.3.4 5")
