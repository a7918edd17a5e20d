from __future__ import annotations

import json
from typing import Any, cast

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from farmsyncd.core.eligibility import State
from farmsyncd.core.messages import Message
from farmsyncd.core.messages.greeting import No
from farmsyncd.core.messages.operating import Answer, Status
from farmsyncd.edges.link import Link
from farmsyncd.errors import PeerError
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.farm import Sighting
from farmsyncd.lb.observer import PERIOD_S, Observer, me, read_status
from tests.lb_scene import SECOND, address
from tests.lb_scene import Scene as Mind
from tests.wire_pair import DATA

ME = me("lb-1", "1.0")
NOW_NS = 1_000_000 * SECOND


class FakeLink:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.sent += messages


class Scene:
    def __init__(self) -> None:
        self.mind = Mind()
        self.clock, self.farm = self.mind.clock, self.mind.farm
        endpoint = TCP4ClientEndpoint(MemoryReactorClock(), "10.0.0.9", 7420)
        self.observer = Observer(
            endpoint,
            self.mind.dispatcher,
            ME,
            self.clock,
            lambda: 0.0,
            stale_after_ns=10 * SECOND,
            settle_ns=15 * SECOND,
            now_ns=lambda: self.mind.now_ns,
        )

    def greet(self) -> FakeLink:
        link = FakeLink()
        self.observer.greeted(cast("Link", link), DATA)
        return link

    def answer(self, *nodes: dict[str, object], cycle: int = 1, ago_s: int = 100) -> None:
        self.hear(Answer.of("STATUS", _status(*nodes, cycle=cycle, ago_s=ago_s)))

    def hear(self, message: Message) -> None:
        self.observer.received(cast("Link", None), message)


def _status(*nodes: dict[str, object], cycle: int = 1, ago_s: int = 100) -> bytes:
    active = {"cycle": cycle, "version": f"v{cycle}", "activated_at_ns": NOW_NS - ago_s * SECOND}
    datasets = {"shop": {"active": active, "next": None}, "empty": {"active": None, "next": None}}
    return json.dumps({"farm_time_ns": NOW_NS, "datasets": datasets, "nodes": nodes}).encode()


def _node(
    name: str, *, connected: bool = True, cycle: int | None = 1, dataset: str = "shop", seen_ago_s: int = 0
) -> dict[str, object]:
    return {
        "name": name,
        "dataset": dataset,
        "connected": connected,
        "serve": str(address(name)),
        "active": None if cycle is None else f"v{cycle}",
        "active_cycle": cycle,
        "last_seen_ns": NOW_NS - seen_ago_s * SECOND,
    }


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
    scene.answer(_node("a"), _node("b"))
    assert [node.address for node in scene.farm.nodes.values()] == [address("a"), address("b")]
    scene.observer.lost(cast("Link", link), "the peer ended the connection")
    assert not scene.observer.connected
    assert scene.clock.getDelayedCalls() == []
    assert list(scene.farm.nodes) == ["a", "b"]
    again = scene.greet()
    assert scene.observer.connected
    assert again.sent == [Status()]
    scene.answer(_node("a"), _node("b", connected=False))
    assert scene.mind.states()["b"] is State.READY, "it may be on its way back to the data server"
    scene.mind.wait(16)
    scene.answer(_node("a"), _node("b", connected=False))
    assert scene.mind.states()["b"] is State.DRAINING


def test_at_the_first_answer_the_data_server_is_believed() -> None:
    scene = Scene()
    scene.greet()
    scene.answer(_node("a"), _node("b", connected=False))
    assert scene.mind.states() == {"a": State.READY, "b": State.DRAINING}
    scene.observer.lost(cast("Link", None), "gone")


def test_a_data_server_that_comes_back_with_other_nodes_is_followed() -> None:
    scene = Scene()
    scene.greet()
    scene.answer(_node("a"), _node("b"))
    homes = {source: scene.mind.visit(source) for source in (b"1", b"2", b"3", b"4")}
    scene.observer.lost(cast("Link", None), "gone")
    assert {source: scene.mind.visit(source) for source in homes} == homes
    scene.greet()
    scene.answer(_node("b"), _node("c"))
    assert {source: scene.mind.visit(source) for source in homes} == homes, "it has not seen all its nodes yet"
    scene.mind.wait(16)
    scene.answer(_node("b"), _node("c"))
    assert list(scene.farm.nodes) == ["b", "c"]
    for source, home in homes.items():
        assert (scene.mind.visit(source) == home) == (home == "b")
    scene.observer.lost(cast("Link", None), "gone")


def test_a_node_that_missed_an_activation_is_stale_and_nobody_is_while_the_farm_flips() -> None:
    scene = Scene()
    scene.greet()
    scene.answer(_node("a"), _node("b"))
    scene.answer(_node("a", cycle=2), _node("b", cycle=1), cycle=2, ago_s=9)
    assert set(scene.mind.states().values()) == {State.READY}
    scene.answer(_node("a", cycle=2), _node("b", cycle=1, seen_ago_s=12), cycle=2, ago_s=11)
    assert set(scene.mind.states().values()) == {State.READY}, "it has not been heard since"
    scene.answer(_node("a", cycle=2), _node("b", cycle=1), cycle=2, ago_s=11)
    assert scene.mind.states() == {"a": State.READY, "b": State.STALE}
    assert scene.mind.node("b").reason == "it missed cycle 2 of shop and has 1"
    scene.answer(_node("a", cycle=2), _node("b", cycle=2), cycle=2, ago_s=12)
    assert scene.mind.states()["b"] is State.READY
    scene.observer.lost(cast("Link", None), "gone")


def test_the_status_of_the_data_server_is_read() -> None:
    answer = _status(
        _node("a"),
        _node("a", dataset="empty", cycle=None),  # it has something to serve
        _node("b", connected=False),
        _node("c", cycle=None),  # it has nothing yet, and was added long after the activation
        _node("d", connected=False, cycle=0, seen_ago_s=3600),  # gone for good
        {**_node("q"), "serve": None},
    )
    assert read_status(answer, 10 * SECOND) == {
        "a": Sighting(address("a")),
        "b": Sighting(address("b"), seen=False),
        "c": Sighting(address("c"), seen=False, recent=False, missed="it missed cycle 1 of shop"),
        "d": Sighting(address("d"), seen=False, recent=False),
    }


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"nodes": [{}]}',
        b'{"farm_time_ns": 1, "datasets": {}, "nodes": 3}',
        b'{"farm_time_ns": 1, "datasets": {"shop": {}}, "nodes": []}',
        _status({**_node("a"), "serve": "x"}),
        _status({**_node("a"), "last_seen_ns": None}),
    ],
)
def test_an_answer_that_is_no_status_is_the_peers_fault(answer: bytes) -> None:
    with pytest.raises(PeerError, match="expected the farm's status"):
        read_status(answer, SECOND)


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
