from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farmsyncd.core.eligibility import KEEPS, Order, State
from farmsyncd.lb.config import NodeConfig
from farmsyncd.lb.seating import Seat
from tests.lb_scene import SECOND, Scene, names, sighted


def test_new_sources_spread_and_known_ones_come_back() -> None:
    scene = Scene("abc")
    first = [scene.come(b"%d" % number) for number in range(6)]
    assert sorted(names(*first)) == list("aabbcc")
    for seat in first[1:]:
        scene.dispatcher.leave(seat)
    again = [scene.come(b"%d" % number) for number in range(6)]
    assert names(*again) == names(*first)


def test_without_a_node_nobody_is_seated() -> None:
    assert Scene().seat(b"s") is None
    assert Scene("a").seat(b"s", {"a"}) is None


def test_a_node_that_takes_no_connection_is_left_at_once_and_its_source_stays_where_it_went() -> None:
    scene = Scene("ab")
    seat = scene.seat(b"s")
    assert seat is not None
    assert seat.node.name == "a"
    scene.dispatcher.refused(seat, "connection refused")
    moved = scene.come(b"s", ("a",))
    assert moved.node.name == "b"
    scene.dispatcher.leave(moved)
    scene.wait(60)
    assert scene.visit(b"s") == "b", "back at the first node, its cache would be old"


def test_a_node_that_failed_gets_few_new_sources_for_a_while_and_keeps_its_own() -> None:
    scene = Scene("ab")
    assert scene.visit(b"s") == "a"
    scene.fail("a", 1, others="b")
    assert [scene.visit(b"%d" % number) for number in range(5)] == ["b"] * 5
    assert scene.visit(b"s") == "a"
    scene.wait(60)
    assert scene.visit(b"late") == "a"


def test_a_node_that_resets_before_a_word_counts_as_one_that_takes_no_connections() -> None:
    scene = Scene("ab")
    for number in range(2):
        seat = scene.come(b"%d" % number)
        scene.dispatcher.leave(seat, barren=seat.node.name == "a")
    node = scene.node("a")
    assert (node.connections, node.failures, node.weight) == (0, 1, 0.125)
    assert scene.visit(b"0") == "a", "its source stays: it was there"
    assert scene.visit(b"new") == "b"


def test_a_node_is_down_after_a_few_failures_and_tried_again_after_a_while() -> None:
    scene = Scene("ab", retry_after_ns=10 * SECOND)
    home = {b"%d" % number: names(scene.come(b"%d" % number)) for number in range(6)}
    mine = [source for source, name in home.items() if name == "a"]
    scene.fail("a", 3, others="b")
    assert scene.states()["a"] is State.DOWN
    assert scene.visit(mine[0]) == "b"
    scene.wait(10)
    assert scene.states()["a"] is State.READY
    scene.fail("a", 1, others="b")
    assert scene.states()["a"] is State.DOWN, "it has not recovered: one failure is enough"


def test_when_all_that_were_ready_refuse_the_next_best_are_tried() -> None:
    scene = Scene("abc")
    scene.dispatcher.command("b", Order.DRAIN)
    scene.dispatcher.command("c", Order.MAINT)
    assert names(scene.come(b"s", ("a",))) == "b"
    assert scene.seat(b"s", ("a", "b")) is None, "one in maintenance is never tried"


def test_a_source_that_nobody_takes_belongs_where_it_was() -> None:
    scene = Scene("abc")
    home = scene.visit(b"s")
    assert scene.seat(b"s", ()) is not None
    tried: list[str] = []
    while (seat := scene.seat(b"s", tried)) is not None:
        tried.append(seat.node.name)
        scene.dispatcher.refused(seat, "a bad moment for all")
    assert sorted(tried) == ["a", "b", "c"]
    assert scene.visit(b"s") == home


def test_a_new_source_that_nobody_takes_is_not_remembered() -> None:
    scene = Scene("ab")
    for tried in ((), ("a",)):
        seat = scene.seat(b"s", tried)
        assert seat is not None
        scene.dispatcher.refused(seat, "a bad moment for all")
    assert len(scene.affinity) == 0


def test_a_node_that_fails_fast_does_not_swallow_the_farm_while_others_are_slow() -> None:
    scene = Scene("abcd", check="tcp")
    attempts: Counter[str] = Counter()
    for number in range(400):  # connections stay: all but d work on theirs
        source, tried = b"%d" % number, set[str]()
        while (seat := scene.seat(source, tried)) is not None and seat.node.name == "d":
            attempts["d"] += 1
            tried.add("d")
            if number % 2:
                scene.dispatcher.refused(seat, "connection reset")
            else:
                scene.dispatcher.connected(seat)
                scene.dispatcher.leave(seat, barren=True)
        assert seat is not None
        scene.dispatcher.connected(seat)
        scene.wait(0.01)
    assert 1 <= attempts["d"] <= 40
    assert min(scene.node(name).connections for name in "abc") >= 130


def test_one_large_network_does_not_swallow_a_node_and_keeps_its_place_there() -> None:
    scene = Scene("ab", share=0.5, nodes={"a": NodeConfig(max_connections=100)})
    for number in range(60):
        scene.come(b"%d" % number)
    crowd = [scene.come(b"office") for _ in range(90)]
    home, guests = [seat for seat in crowd if seat.stay], [seat for seat in crowd if not seat.stay]
    assert {seat.node.name for seat in home} == {"a"}
    assert len(home) == 50
    assert {seat.node.name for seat in guests} == {"b"}
    assert scene.dispatcher.seating.guests == len(guests)
    for seat in crowd:
        scene.dispatcher.leave(seat)
    assert scene.visit(b"office") == "a", "its share moved nobody for good"


def test_a_share_needs_many_connections_before_it_counts() -> None:
    scene = Scene("ab", share=0.5)
    assert {seat.node.name for seat in [scene.come(b"office") for _ in range(64)]} == {"a"}
    assert scene.come(b"office").node.name == "b"


def test_each_decision_can_be_explained() -> None:
    scene = Scene("abc", nodes={"b": NodeConfig(max_connections=1)})
    explain = scene.mind.explainer.explain
    source = scene.mind.source_of("10.9.8.7")
    unknown = explain(source)
    assert unknown["source"] == "10.9.8.7"
    assert unknown["goes_to"] == ["a", "b", "c"]
    assert unknown["entry"] is None
    assert scene.come("10.9.8.7").node.name == "a"
    scene.wait(5)
    known = explain(source)
    assert known["goes_to"] == ["a"]
    assert known["because"] == "it is at a, which keeps its sources whatever its load"
    assert known["entry"] == {
        "source": "10.9.8.7",
        "node": "a",
        "state": "ready",
        "connections": 1,
        "since_ago_ns": 5 * SECOND,
        "used_ago_ns": 0,
        "former": None,
        "why": "it was new here, and the node had the least connections for its weight",
    }
    scene.come(b"x")
    scene.dispatcher.command("a", Order.MAINT)
    moving = explain(source)
    assert moving["goes_to"] == ["c"]
    assert moving["because"] == "it was at a, and its node was in maintenance: it is moved to the least load"
    verdicts = {node["name"]: node["verdict"] for node in moving["nodes"]}
    assert verdicts == {
        "a": "no new sources: maintenance (the operator said so)",
        "b": "no new sources: it has all the connections that it may have",
        "c": "the least load",
    }
    scene.visit("10.9.8.7")
    entry = explain(source)["entry"]
    assert (entry["node"], entry["former"], entry["why"]) == ("c", "a", "its node was in maintenance")
    assert [one["node"] for one in scene.mind.explainer.sources(1)] == ["c"]
    scene.dispatcher.command("c", Order.MAINT)
    assert explain(source)["because"].endswith(
        "it is moved to the least load, and waits, since all have their connections"
    )


def test_an_explanation_names_the_full_the_penalised_and_the_new() -> None:
    scene = Scene(nodes={"a": NodeConfig(max_connections=1)}, ramp_up_ns=30 * SECOND)
    scene.dispatcher.observe(sighted("ab"))
    explain = scene.mind.explainer.explain
    assert scene.come(b"s").node.name == "a"
    assert "waits for one to end" in explain(b"s")["because"]
    scene.dispatcher.observe(sighted("abc"))
    scene.fail("c", 1, others="ab")
    verdict = next(node["verdict"] for node in explain(b"new")["nodes"] if node["name"] == "c")
    assert "new or back a short while ago and it did not take all its connections lately" in verdict
    assert Scene().mind.explainer.explain(b"s")["because"].endswith("and waits for one")


class Seating(RuleBasedStateMachine):
    """I-8, whatever happens: seats are counted right, and only what befell its own node moves a source."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene("a", max_connections=4, move_rate=10**9, check="tcp", ramp_up_ns=SECOND)
        self.scene.dispatcher.observe(sighted("bc"))
        self.seats: list[Seat] = []
        self.home: dict[bytes, str] = {}

    @rule(source=st.sampled_from([b"1", b"2", b"3", b"4"]), refusing=st.sets(st.sampled_from("abc"), max_size=2))
    def come(self, source: bytes, refusing: set[str]) -> None:
        before, states = self.home.get(source), self.scene.states()
        serving = self.scene.farm.serving
        tried: set[str] = set()
        while (seat := self.scene.seat(source, tried)) is not None and seat.node.name in refusing:
            tried.add(seat.node.name)
            self.scene.dispatcher.refused(seat, "refused")
        keeps = before in states and (states[before] in KEEPS or states[before] is serving)
        if seat is None:
            return  # all that there is was tried, or its node has all its connections: it would wait
        self.scene.dispatcher.connected(seat)
        if keeps and before not in tried:
            assert seat.node.name == before
        elif not tried:
            assert states[seat.node.name] is serving
        self.home[source] = seat.node.name
        self.seats.append(seat)

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.seats))
        self.seats.remove(seat)
        self.scene.dispatcher.leave(seat, barren=data.draw(st.booleans()))

    @rule(
        seen=st.sets(st.sampled_from("bc")),
        unseen=st.sets(st.sampled_from("bc")),
        missed=st.sets(st.sampled_from("abc")),
        settled=st.booleans(),
    )
    def hear(self, seen: set[str], unseen: set[str], missed: set[str], settled: bool) -> None:
        told = {
            name: sighted(name, seen=name in seen, missed="one" if name in missed else "")[name]
            for name in {*seen, *unseen, *missed}
        }
        self.scene.dispatcher.observe(told, settled=settled)

    @rule(name=st.sampled_from("abc"), good=st.booleans())
    def check(self, name: str, good: bool) -> None:
        for _ in range(3):
            self.scene.dispatcher.checked(name, good, "a check")

    @rule(name=st.sampled_from("abc"), order=st.sampled_from(Order))
    def steer(self, name: str, order: Order) -> None:
        self.scene.dispatcher.command(name, order)

    @rule(elapsed_ms=st.integers(1, 2000))
    def wait(self, elapsed_ms: int) -> None:
        self.scene.now_ns += elapsed_ms * 10**6

    @rule()
    def restart(self) -> None:
        """Another balancer takes over the table: nobody is moved by that."""
        records = list(self.scene.affinity.dump(self.scene.now_ns))
        orders = dict(self.scene.farm.orders)
        known = {name: node for name, node in self.scene.farm.nodes.items() if not node.fixed}
        before = {source: node for source, node, _ in records}
        later = Scene("a", max_connections=4, move_rate=10**9, check="tcp", ramp_up_ns=SECOND)
        later.now_ns = self.scene.now_ns
        later.dispatcher.observe(
            {name: sighted(name, seen=node.seen, missed=node.missed)[name] for name, node in known.items()}
        )
        for name, order in orders.items():
            later.dispatcher.command(name, order)
        later.affinity.load(records, later.now_ns)
        assert {source: node for source, node, _ in later.affinity.dump()} == before
        self.scene, self.seats = later, []

    @invariant()
    def connections_are_counted_and_limited(self) -> None:
        assert "a" in self.scene.farm.nodes
        for node in self.scene.farm.nodes.values():
            assert node.connections == sum(seat.node is node for seat in self.seats) <= 4

    @invariant()
    def somebody_serves_unless_all_are_in_maintenance(self) -> None:
        states = self.scene.states().values()
        assert bool(self.scene.farm.takers()) == any(state is not State.MAINTENANCE for state in states)


Seating.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestSeating = Seating.TestCase
