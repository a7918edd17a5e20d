from __future__ import annotations

import json
from typing import Any, cast

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from farmsyncd.core.affinity import Affinity
from farmsyncd.core.messages import Message
from farmsyncd.core.messages.greeting import No
from farmsyncd.core.messages.operating import Answer, Status
from farmsyncd.edges.link import Link
from farmsyncd.lb.config import BalancerConfig, NodeAddress
from farmsyncd.lb.farm import Farm, NodeState
from farmsyncd.lb.observer import PERIOD_S, Observer, me
from tests.wire_pair import DATA

ME = me("lb-1", "1.0")


class FakeLink:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.sent += messages


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.farm = Farm((), Affinity(10, 10**9), lambda: 0, lambda: 0.0, 1000)
        endpoint = TCP4ClientEndpoint(MemoryReactorClock(), "10.0.0.9", 7420)
        self.observer = Observer(endpoint, self.farm, ME, self.clock, lambda: 0.0)

    def greet(self) -> FakeLink:
        link = FakeLink()
        self.observer.greeted(cast("Link", link), DATA)
        return link

    def answer(self, *nodes: dict[str, object]) -> None:
        self.hear(Answer("STATUS", json.dumps({"nodes": nodes}).encode()))

    def hear(self, message: Message) -> None:
        self.observer.received(cast("Link", None), message)


def _node(name: str, port: int, connected: bool = True) -> dict[str, object]:
    return {"name": name, "connected": connected, "serve": f"10.0.0.1:{port}", "active": "a" * 40}


def test_the_data_server_is_asked_every_second_but_not_before_it_has_answered() -> None:
    scene = Scene()
    link = scene.greet()
    assert link.sent == [Status()]
    scene.clock.pump([PERIOD_S] * 3)
    assert link.sent == [Status()]
    scene.answer()
    scene.clock.advance(PERIOD_S)
    assert link.sent == [Status()] * 2
    scene.hear(No("internal", "STATUS", b"a fault"))
    scene.clock.advance(PERIOD_S)
    assert link.sent == [Status()] * 3


def test_the_farm_is_what_the_data_server_says_and_stays_so_while_it_is_away() -> None:
    scene = Scene()
    link = scene.greet()
    scene.answer(_node("a", 8000), _node("b", 8001))
    assert [node.address for node in scene.farm.nodes.values()] == [
        NodeAddress("a", "10.0.0.1", 8000),
        NodeAddress("b", "10.0.0.1", 8001),
    ]
    scene.observer.lost(cast("Link", link), "the peer ended the connection")
    assert not scene.observer.connected
    assert scene.clock.getDelayedCalls() == []
    assert list(scene.farm.nodes) == ["a", "b"]
    again = scene.greet()
    assert scene.observer.connected
    assert again.sent == [Status()]
    scene.answer(_node("a", 8000), _node("b", 8001, connected=False))
    assert scene.farm.state(scene.farm.nodes["b"]) is NodeState.DRAINING


def test_a_question_that_cannot_be_sent_is_asked_again(logged_errors: Any) -> None:
    scene = Scene()
    link = scene.greet()
    scene.answer()
    link.send = _fails  # type: ignore[method-assign]
    scene.clock.advance(PERIOD_S)
    assert len(logged_errors.take(RuntimeError)) == 1
    del link.send
    scene.clock.advance(PERIOD_S)
    assert link.sent == [Status()] * 2


def _fails(*_messages: Message) -> None:
    raise RuntimeError("no")


def test_tls_is_for_the_nodes_to_end() -> None:
    with pytest.raises(ValueError, match="TLS is carried through"):
        BalancerConfig(listen="ssl:443", data="tcp:10.0.0.9:7420")
