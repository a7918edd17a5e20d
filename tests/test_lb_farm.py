from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farmsyncd.core.affinity import Affinity
from farmsyncd.errors import PeerError
from farmsyncd.lb.config import NodeAddress
from farmsyncd.lb.farm import DOWN_AFTER, Farm, NodeState, Seat
from farmsyncd.lb.observer import read_status
from farmsyncd.lb.web import Figures

A, B, C = (NodeAddress(name, "10.0.0.1", port) for port, name in enumerate("abc", 8000))
RETRY = 1000
VERSION = "a" * 40


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def _farm(*fixed: NodeAddress, clock: Clock | None = None) -> Farm:
    return Farm(fixed, Affinity(100, 10**9), clock or Clock(), lambda: 0.0, RETRY)


def _go(farm: Farm, source: bytes, tried: tuple[str, ...] = ()) -> Seat:
    seat = farm.seat(source, tried)
    assert seat is not None
    return seat


def _names(*seats: Seat) -> str:
    return "".join(seat.node.address.name for seat in seats)


def test_new_sources_spread_and_known_ones_come_back() -> None:
    farm = _farm(A, B, C)
    first = [_go(farm, b"%d" % number) for number in range(6)]
    assert sorted(_names(*first)) == list("aabbcc")
    for seat in first[1:]:
        farm.leave(seat)
    again = [_go(farm, b"%d" % number) for number in range(6)]
    assert _names(*again) == _names(*first)


def test_without_a_node_nobody_is_seated() -> None:
    assert _farm().seat(b"s") is None
    farm = _farm(A)
    assert farm.seat(b"s", {"a"}) is None


def test_a_node_that_takes_no_connection_is_left_at_once_and_its_source_stays_where_it_went() -> None:
    clock = Clock()
    farm = _farm(A, B, clock=clock)
    seat = _go(farm, b"s")
    assert _names(seat) == "a"
    farm.refused(seat, "connection refused")
    moved = _go(farm, b"s", ("a",))
    farm.connected(moved)
    assert _names(moved) == "b"
    farm.leave(moved)
    clock.now_ns = 10 * RETRY
    assert _names(_go(farm, b"s")) == "b", "back at the first node, its cache would be old"


def test_a_node_that_failed_once_gets_no_new_sources_for_a_while_and_keeps_its_own() -> None:
    clock = Clock()
    farm = _farm(A, B, clock=clock)
    farm.connected(_go(farm, b"s"))
    farm.refused(_go(farm, b"s"), "connection refused")
    farm.connected(_go(farm, b"s", ("a",)))  # s moves; but t ...
    assert farm.state(farm.nodes["a"]) is NodeState.FAILING
    assert _names(_go(farm, b"t"), _go(farm, b"u")) == "bb"
    clock.now_ns = RETRY
    assert farm.state(farm.nodes["a"]) is NodeState.READY
    assert _names(_go(farm, b"v")) == "a"


def test_a_node_is_down_after_a_few_failures_and_back_after_one_success() -> None:
    clock = Clock()
    farm = _farm(A, B, clock=clock)
    sources = [b"%d" % number for number in range(2 * DOWN_AFTER + 2)]
    home = {source: _names(_go(farm, source)) for source in sources}
    mine = [source for source in sources if home[source] == "a"]
    for source in mine[:DOWN_AFTER]:
        seat = _go(farm, source)
        assert _names(seat) == "a", "its own sources still try it"
        farm.refused(seat, "timed out")
    assert farm.state(farm.nodes["a"]) is NodeState.DOWN
    assert _names(_go(farm, mine[-1])) == "b", "now they do not wait any more"
    clock.now_ns = RETRY
    back = _go(farm, b"new")
    assert _names(back) == "a", "it is tried again after a while"
    farm.connected(back)
    assert farm.state(farm.nodes["a"]) is NodeState.READY
    assert farm.nodes["a"].failures_in_row == 0


def test_the_last_node_is_never_taken_away() -> None:
    farm = _farm(A)
    for _ in range(2 * DOWN_AFTER):
        farm.refused(_go(farm, b"s"), "connection refused")
    assert _names(_go(farm, b"s"), _go(farm, b"t")) == "aa"
    both = _farm(A, B)
    for name in "ab":
        other = {"a": ("b",), "b": ("a",)}[name]
        for _ in range(DOWN_AFTER):
            both.refused(_go(both, b"s", other), "connection refused")
    assert both.seat(b"t") is not None


def test_what_the_data_server_says_becomes_the_farm() -> None:
    farm = _farm(A)
    farm.observe({"b": B, "c": C}, set())
    assert list(farm.nodes) == ["a", "b", "c"]
    seats = [_go(farm, b"%d" % number) for number in range(3)]
    farm.observe({"c": C}, {"b"})
    assert farm.state(farm.nodes["b"]) is NodeState.DRAINING
    mine = next(seat.stay.source for seat in seats if seat.node is farm.nodes["b"])
    assert _names(_go(farm, mine)) == "b", "a node that the data server does not see may well serve"
    assert "b" not in _names(*[_go(farm, b"new-%d" % number) for number in range(4)])
    farm.observe({"b": B, "c": C}, set())
    assert farm.state(farm.nodes["b"]) is NodeState.READY
    farm.observe({"c": C}, set())
    assert list(farm.nodes) == ["a", "c"]
    assert _names(_go(farm, mine)) in {"a", "c"}
    for seat in seats:
        farm.leave(seat)  # also of the node that is no part of the farm any more


def test_a_node_that_moves_is_followed_and_a_fixed_one_is_not() -> None:
    moved = NodeAddress("b", "10.0.0.9", 1)
    farm = _farm(A)
    farm.observe({"b": B}, set())
    farm.observe({"a": NodeAddress("a", "10.0.0.9", 1), "b": moved}, set())
    assert [node.address for node in farm.nodes.values()] == [A, moved]


def test_the_status_of_the_data_server_is_read() -> None:
    rows = [
        ("a", "shop", True, "10.0.0.1:8000", VERSION),
        ("a", "news", True, "10.0.0.1:8000", None),  # it has something to serve
        ("b", "shop", False, "10.0.0.1:8001", VERSION),
        ("c", "shop", True, "10.0.0.1:8002", None),  # it has nothing yet
        ("quiet", "shop", True, None, VERSION),
    ]
    keys = ("name", "dataset", "connected", "serve", "active")
    answer = {"nodes": [dict(zip(keys, row, strict=True)) for row in rows]}
    assert read_status(json.dumps(answer).encode()) == ({"a": A}, {"b", "c"})


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"nodes": [{}]}',
        b'{"nodes": 3}',
        b'{"nodes": [{"name": "a", "connected": true, "active": "v", "serve": "x"}]}',
    ],
)
def test_an_answer_that_is_no_status_is_the_peers_fault(answer: bytes) -> None:
    with pytest.raises(PeerError, match="expected the farm's status"):
        read_status(answer)


def test_the_figures_tell_of_the_farm() -> None:
    farm = _farm(A, B)
    figures = Figures(farm, [], lambda: True)
    farm.connected(_go(farm, b"s"))
    farm.refused(_go(farm, b"t"), "connection refused")
    status = figures.status()
    assert (status["clients"], status["sources"], status["data_server"]) == (0, 2, True)
    assert status["nodes"] == [
        {
            "name": name,
            "address": f"10.0.0.1:{port}",
            "state": state,
            "connections": connections,
            "connections_total": 1,
            "failures_total": failures,
        }
        for name, port, state, connections, failures in [("a", 8000, "ready", 1, 0), ("b", 8001, "failing", 0, 1)]
    ]
    metrics = figures.metrics().splitlines()
    assert 'farmsync_lb_node_ready{node="a"} 1.0' in metrics
    assert 'farmsync_lb_node_ready{node="b"} 0.0' in metrics
    assert 'farmsync_lb_failures_total{node="b"} 1.0' in metrics
    assert figures.ready() == (True, "2 of 2 nodes take connections")
    assert Figures(_farm(), [], None).ready() == (False, "no node is known yet")


class Seating(RuleBasedStateMachine):
    """Whatever happens: seats are counted right, and a source is moved only when its node failed or went."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.farm = _farm(A, clock=self.clock)
        self.farm.observe({"b": B, "c": C}, set())
        self.seats: list[Seat] = []
        self.home: dict[bytes, str] = {}

    @rule(source=st.sampled_from([b"1", b"2", b"3", b"4"]), refusing=st.sets(st.sampled_from("abc"), max_size=2))
    def come(self, source: bytes, refusing: set[str]) -> None:
        tried: set[str] = set()
        before = self.home.get(source)
        was = {name: self.farm.state(node) for name, node in self.farm.nodes.items()}
        while (seat := self.farm.seat(source, tried)) is not None:
            name = seat.node.address.name
            if name not in refusing:
                break
            tried.add(name)
            self.farm.refused(seat, "refused")
        if seat is None:
            self.home.pop(source, None)
            return
        self.farm.connected(seat)
        if before in was and before not in tried and was[before] is not NodeState.DOWN:
            assert name == before
        self.home[source] = name
        self.seats.append(seat)

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.seats))
        self.seats.remove(seat)
        self.farm.leave(seat)

    @rule(present=st.sets(st.sampled_from("bc")), away=st.sets(st.sampled_from("bc")))
    def hear(self, present: set[str], away: set[str]) -> None:
        self.farm.observe({one.name: one for one in (B, C) if one.name in present}, away - present)
        self.home = {source: name for source, name in self.home.items() if name in self.farm.nodes}

    @rule(elapsed=st.integers(1, 2 * RETRY))
    def wait(self, elapsed: int) -> None:
        self.clock.now_ns += elapsed

    @invariant()
    def connections_are_counted(self) -> None:
        assert "a" in self.farm.nodes
        for node in self.farm.nodes.values():
            assert node.connections == sum(seat.node is node for seat in self.seats)


TestSeating = Seating.TestCase
